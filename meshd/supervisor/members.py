"""Keeps a pool as its plan wants it: the shell around ``proxy.pool``."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from meshd import journal, wire
from meshd.errors import MeshdError, NotReadyError, SystemRefusedError
from meshd.model.pool import Pool
from meshd.proxy import bootstrap, launch
from meshd.proxy.admin import Admin, Vitals
from meshd.proxy.pool import Member, Running, plan, size
from meshd.settings import Settings
from meshd.supervisor import datagrams
from meshd.supervisor.child import Policy
from meshd.supervisor.home import Home, write_file
from meshd.supervisor.lines import read
from meshd.supervisor.output import File
from meshd.supervisor.privileges import Users, proxy_command
from meshd.supervisor.process import Identity
from meshd.supervisor.record import Entry
from meshd.supervisor.runner import Runner
from meshd.supervisor.service import run_outside, scoped

_log = logging.getLogger(__name__)
_GRACE: Final = {Pool.TRAFFIC: 0.5, Pool.DNS: 1.2}
"""Seconds; a drained Envoy ends at once, but for ten thousands of recent queries' sockets."""
_LOOK_AGAIN: Final = 0.1
"""Seconds between looks at a proxy while something is expected of it."""
_TAKE_OVER: Final = 30.0
"""Seconds for a new member to serve what the old one serves."""
_LONGEST_ANSWER: Final = 5.0
"""Seconds; resolvers give up sooner, and so does the proxy."""
_ATTEMPTS: Final = 3
"""Failed starts of a new member, after which the old one is not replaced."""
Bootstrap = Callable[[Settings, Member], bootstrap.Json]


class Members:
    """A pool's proxies that run. ``make_bootstrap`` says what each is started with."""

    def __init__(
        self,
        pool: Pool,
        *,
        home: Home,
        users: Users,
        settings: Settings,
        environment: Mapping[str, str],
        changed: Callable[[], None],
        make_bootstrap: Bootstrap | None = None,
        slice_name: str = "",
    ) -> None:
        self._pool = pool
        self._settings = settings
        self._slice = slice_name
        self._home = home
        self._users = users
        self._environment = environment
        self._tell = changed
        self._bootstrap = make_bootstrap or self._usual_bootstrap
        self._runners: dict[Member, Runner] = {}
        self._vitals: dict[Member, tuple[Identity, Vitals]] = {}
        self._outdated: set[Member] = set()
        self._mixed: set[Member] = set()
        self._bell = asyncio.Event()
        self._progress = asyncio.Condition()
        self._replacing = asyncio.Lock()

    # ---- what is so

    @property
    def entries(self) -> tuple[Entry, ...]:
        return tuple(
            Entry(runner.name, runner.identity, runner.since, True, not runner.child.wanted)
            for runner in self._runners.values()
            if runner.identity.pid
        )

    @property
    def states(self) -> tuple[wire.RoleStatus, ...]:
        return tuple(self._state(member) for member in sorted(self._runners))

    @property
    def size(self) -> int:
        """How many there are to be."""
        return size(self._pool, self._settings.proxy.count)

    @property
    def live(self) -> int:
        return sum(1 for member in self._runners if self._is_live(member))

    def _state(self, member: Member) -> wire.RoleStatus:
        runner = self._runners[member]
        told = runner.status
        if told.state != "running" or self._is_live(member):
            return told
        return wire.RoleStatus(
            told.name, told.pid, "starting", told.restarts, told.since, told.problem
        )

    def _is_live(self, member: Member) -> bool:
        seen = self._vitals.get(member)
        return bool(seen and seen[1].live and seen[0] == self._runners[member].identity)

    def _running(self, member: Member) -> Running:
        leaving = not self._runners[member].child.wanted
        if not self._is_live(member):
            return Running(member, leaving=leaving)
        vitals = self._vitals[member][1]
        listeners = 0 if vitals.warming else vitals.listeners
        if member in self._mixed:  # nobody knows how many of them are this pool's
            listeners = min(listeners, 1)
        return Running(member, True, listeners, leaving)

    # ---- what is to be

    def adopt(self, entries: Iterable[Entry]) -> None:
        """Go on with those that an earlier supervisor left; of two in a slot the newer one."""
        newest: dict[int, Member] = {}
        for entry in sorted(entries, key=lambda entry: entry.since):
            member = Member.parse(entry.name)
            if member is None or member.pool is not self._pool:
                continue
            runner = self._make(member)
            if not runner.adopt(entry.identity, entry.since):
                continue
            self._runners[member] = runner
            if self._serves_more(member):
                self._mixed.add(member)
            if entry.leaving:
                runner.stop()
            elif before := newest.get(member.slot):
                self._outdated.add(before)
            if not entry.leaving:
                newest[member.slot] = member

    def _serves_more(self, member: Member) -> bool:
        """It is of a version that had one pool for everything."""
        try:
            made = self._home.bootstrap(member.name).read_text()
        except OSError:
            return False
        return bootstrap.serves(made) != (self._pool,)

    def resize(self, settings: Settings) -> None:
        """The rest of the settings holds for members that are started from now on."""
        self._settings = settings
        self._bell.set()

    async def replace(self) -> None:
        """Each by a new one. Raises NotReadyError when one does not come up; the old ones stay."""
        async with self._replacing:
            self._outdated |= {
                member for member, runner in self._runners.items() if runner.child.wanted
            }
            while self._outdated:
                before = len(self._outdated)
                self._bell.set()
                patience = _TAKE_OVER + float(self._settings.proxy.drain_time)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(patience):
                        await self._until(
                            lambda: len(self._outdated) < before or self._is_hopeless()  # noqa: B023
                        )
                if len(self._outdated) == before:
                    raise NotReadyError(self._give_up())
            await self._until(lambda: all(runner.child.wanted for runner in self._runners.values()))

    async def _until(self, so: Callable[[], bool]) -> None:
        async with self._progress:
            await self._progress.wait_for(so)

    def _newcomers(self) -> list[Runner]:
        """Those that are to take over."""
        slots = {member.slot for member in self._outdated}
        return [
            runner
            for member, runner in self._runners.items()
            if member.slot in slots and member not in self._outdated and runner.child.wanted
        ]

    def _is_hopeless(self) -> bool:
        return any(runner.restarts >= _ATTEMPTS for runner in self._newcomers())

    def _give_up(self) -> str:
        reasons: list[str] = []
        for runner in self._newcomers():
            why = runner.problem or "it does not serve what the old one serves"
            reasons.append(f"{runner.name}: {why}")
            runner.stop()
        self._outdated.clear()
        told = "; ".join(reasons) or "no new member was started"
        return f"the {self._pool} pool was not replaced, and goes on as it was: {told}"

    async def keep(self) -> None:
        """Until cancelled."""
        while True:
            self._bell.clear()
            await self._look()
            self._follow_plan()
            async with self._progress:
                self._progress.notify_all()
            waits = bool(self._outdated) or any(
                runner.child.wanted and not self._is_live(member)
                for member, runner in self._runners.items()
            )
            try:
                async with asyncio.timeout(_LOOK_AGAIN if waits else None):
                    await self._bell.wait()
            except TimeoutError:
                continue

    async def stop(self, limit: float) -> None:
        """``limit``: seconds for draining."""
        for runner in self._runners.values():
            runner.stop(limit)
        await asyncio.gather(*(runner.stopped() for runner in self._runners.values()))
        self._forget()

    def _follow_plan(self) -> None:
        self._forget()
        running = [self._running(member) for member in self._runners]
        following = plan(self._pool, self.size, running, self._outdated)
        for member in following.start:
            self._runners[member] = self._make(member)
            self._runners[member].start()
        for member in following.stop:
            self._outdated.discard(member)
            self._runners[member].stop()

    def _forget(self) -> None:
        for member, runner in list(self._runners.items()):
            if runner.child.state == "stopped":
                del self._runners[member]
                self._vitals.pop(member, None)
                self._outdated.discard(member)
                self._mixed.discard(member)
                for path in (self._home.bootstrap, self._home.log, self._home.admin):
                    path(member.name).unlink(missing_ok=True)
                self._tell()

    async def _look(self) -> None:
        """At those of whom something is expected; who is live stays so until it ends."""
        unsure = [
            member
            for member, runner in self._runners.items()
            if runner.identity.pid and (self._outdated or not self._is_live(member))
        ]
        if not unsure:
            return
        before = self.live
        await asyncio.gather(*(self._look_at(member) for member in unsure))
        if self.live != before:
            self._tell()

    async def _look_at(self, member: Member) -> None:
        identity = self._runners[member].identity
        try:
            vitals = await Admin(self._home.admin(member.name), timeout=1.0).vitals()
        except MeshdError:
            return
        if vitals.live and not self._is_live(member):
            journal.event(_log, logging.INFO, "live", "%s is live", member.name)
        self._vitals[member] = identity, vitals

    # ---- one member

    def _make(self, member: Member) -> Runner:
        name = member.name

        def changed() -> None:
            self._bell.set()
            self._tell()

        return Runner(
            name,
            command=lambda: self._command(member),
            environment=self._environment,
            output=File(self._home.log(name), lambda line: self._pass_on(member, line)),
            policy=Policy(drain=float(self._settings.proxy.drain_time), grace=_GRACE[self._pool]),
            changed=changed,
            drain=(
                (lambda: self._drain(name))
                if self._pool is Pool.TRAFFIC
                else (lambda: self._turn_away(member))
            ),
        )

    def _command(self, member: Member) -> Sequence[str]:
        """Raises MeshdError."""
        path = self._home.bootstrap(member.name)
        text = json.dumps(self._bootstrap(self._settings, member))
        try:
            write_file(path, text, self._users.proxy.gid)
        except OSError as error:
            raise SystemRefusedError(f"{path}: cannot be written: {error.strerror}") from None
        proxy = self._settings.proxy
        arguments = bootstrap.arguments(proxy, member.pool, path)
        command = proxy_command(self._users, launch.command(sys.executable, proxy, arguments))
        return scoped(self._slice, member.name, command) if self._slice else command

    def _usual_bootstrap(self, settings: Settings, member: Member) -> bootstrap.Json:
        return bootstrap.bootstrap(settings, self._home.paths, member)

    async def _drain(self, name: str) -> None:
        """Until no client is connected any more."""
        admin = Admin(self._home.admin(name), timeout=1.0)
        await admin.fail_health_check()
        await admin.drain_listeners()
        # Twice: workers stop listening a moment after the answer, and may have taken in one more.
        free = 0
        while free < 2:
            await asyncio.sleep(_LOOK_AGAIN)
            free = 0 if (await admin.vitals()).connections else free + 1

    async def _turn_away(self, member: Member) -> None:
        """Until each query that it has taken is answered, or nobody waits for that any more."""
        if problem := await self._why_not_turned_away(self._runners[member].identity.pid):
            text = "%s: queries under way may be lost: %s"
            journal.event(_log, logging.WARNING, "drain", text, member.name, problem)
            return
        await asyncio.sleep(_LONGEST_ANSWER)

    async def _why_not_turned_away(self, pid: int) -> str:
        if self._slice:
            return await run_outside(datagrams.command(pid), datagrams.CAPABILITIES)
        try:
            datagrams.turn_away(pid)
        except OSError as error:
            return error.strerror or str(error)
        return ""

    def _pass_on(self, member: Member, line: str) -> None:
        """Into our own log, at the level that the proxy gave it."""
        found = read(line)
        level = found.level
        runner = self._runners.get(member)
        if level == logging.WARNING and runner and not runner.child.wanted:
            level = logging.DEBUG  # it comments on its own end, which was asked for
        if not _log.isEnabledFor(level) or not journal.admits(
            member.name, found.workload, found.text, found.kind
        ):
            return
        extra = {
            "MESHD_ROLE": member.name,
            "MESHD_WORKLOAD": found.workload,
            "MESHD_EVENT": found.event,
            journal.ADMITTED: "yes",
        }
        known = {key: value for key, value in extra.items() if value}
        _log.log(level, "%s", found.text, extra=known)
