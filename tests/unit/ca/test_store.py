"""Keys on disk: made once, never replaced, whole after any crash, and nobody else's to read."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from meshd.base.disk import Disk
from meshd.base.errors import InvalidInputError, MeshdError, NotReadyError, SystemRefusedError
from meshd.ca import authority
from meshd.ca.authority import Authority
from meshd.ca.store import Store

_NOW = 1_800_000_000.0
_DAY = 86400.0
_FILES = ("root-key.pem", "root-cert.pem", "ca-key.pem", "ca-cert.pem")


class _Crash(BaseException):
    """The process is gone, at once."""


class _CrashingDisk(Disk):
    """Stops at the n-th step, before or in the middle of it, and then loses what was not synced.

    What is written but not synced is cut to half; a rename may be lost as long as its directory
    was not synced.
    """

    def __init__(self, step: int, *, power_cut: bool, half: bool) -> None:
        self._left = step
        self._power_cut = power_cut
        self._half = half
        self._unsynced: dict[int, Path] = {}
        self._renamed: list[tuple[Path, Path]] = []

    def _step(self, in_the_middle: Callable[[], object] = lambda: None) -> None:
        if self._left == 0:
            if self._half:
                in_the_middle()
            self._cut()
            raise _Crash
        self._left -= 1

    def _cut(self) -> None:
        if not self._power_cut:
            return
        for path in self._unsynced.values():
            if path.exists():
                os.truncate(path, path.stat().st_size // 2)
        for source, target in reversed(self._renamed):
            target.rename(source)

    def create(self, path: Path, mode: int) -> int:
        self._step()
        descriptor = super().create(path, mode)
        self._unsynced[descriptor] = path
        return descriptor

    def write(self, descriptor: int, data: bytes) -> None:
        self._step(lambda: os.write(descriptor, data[: len(data) // 2]))
        super().write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        self._step()
        super().sync(descriptor)
        self._unsynced.pop(descriptor, None)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            self._renamed.clear()

    def rename(self, source: Path, target: Path) -> None:
        self._step()
        assert source not in self._unsynced.values(), "renamed before it was synced"
        super().rename(source, target)
        self._renamed.append((source, target))


def _store(directory: Path, disk: Disk | None = None, lifetime: float = 3650 * _DAY) -> Store:
    return Store(directory / "identity", "cluster.local", lifetime, disk)


def _contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (directory / "identity").iterdir()}


def _lines(error: pytest.ExceptionInfo[MeshdError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert "PRIVATE" not in text
    return text


def test_the_first_start_makes_an_authority_and_later_ones_find_it(tmp_path: Path) -> None:
    first = _store(tmp_path).open(_NOW)
    made = _contents(tmp_path)
    assert sorted(made) == sorted(_FILES)
    assert _store(tmp_path).open(_NOW + 30 * _DAY).roots() == first.roots()
    assert _contents(tmp_path) == made


def test_keys_are_for_their_owner_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        _store(tmp_path).open(_NOW)
    finally:
        os.umask(before)
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "identity").iterdir()}
    assert modes["root-key.pem"] == modes["ca-key.pem"] == 0o600
    assert stat.S_IMODE((tmp_path / "identity").stat().st_mode) == 0o700


@pytest.mark.parametrize("power_cut", [False, True], ids=["killed", "power cut"])
@pytest.mark.parametrize("half", [False, True], ids=["before", "in the middle"])
def test_a_crash_at_any_step_leaves_what_the_next_start_completes(
    tmp_path: Path, power_cut: bool, half: bool
) -> None:
    steps = 0
    while True:
        home = tmp_path / str(steps)
        home.mkdir()
        try:
            _store(home, _CrashingDisk(steps, power_cut=power_cut, half=half)).open(_NOW)
            break
        except _Crash:
            survived = {name: text for name, text in _contents(home).items() if name in _FILES}
        found = _store(home).open(_NOW)
        after = _contents(home)
        assert sorted(after) == sorted(_FILES), "leftovers"
        assert survived.items() <= after.items(), "something that existed was replaced"
        assert authority.is_issued_by(found.issuer, found.root_certificates[0])
        steps += 1
    assert steps == 1 + 4 * 5


def test_a_crash_while_the_intermediate_is_renewed_keeps_a_working_one(tmp_path: Path) -> None:
    for steps in range(5):
        home = tmp_path / str(steps)
        home.mkdir()
        first = _store(home).open(_NOW)
        late = _NOW + 200 * _DAY
        with pytest.raises(_Crash):
            _store(home, _CrashingDisk(steps, power_cut=True, half=True)).open(late)
        found = _store(home).open(late)
        assert found.roots() == first.roots()
        assert found.issuer != first.issuer
        assert authority.is_issued_by(found.issuer, found.root_certificates[0])


class _FullDisk(Disk):
    def write(self, descriptor: int, data: bytes) -> None:
        os.write(descriptor, data[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_one_line_and_the_next_start_works(tmp_path: Path) -> None:
    with pytest.raises(SystemRefusedError, match=r"root-key.pem: .*No space left") as error:
        _store(tmp_path, _FullDisk()).open(_NOW)
    _lines(error)
    assert _contents(tmp_path) == {}
    _store(tmp_path).open(_NOW)


def test_the_intermediate_is_renewed_at_half_its_life_and_the_root_stays(tmp_path: Path) -> None:
    first = _store(tmp_path).open(_NOW)
    assert _store(tmp_path).open(_NOW + 100 * _DAY).issuer == first.issuer
    later = _store(tmp_path).open(_NOW + 1000 * _DAY)  # the host was off for long
    assert later.issuer != first.issuer
    assert later.roots() == first.roots()


def test_an_expired_root_is_refused_with_what_to_do(tmp_path: Path) -> None:
    _store(tmp_path).open(_NOW)
    before = _contents(tmp_path)
    with pytest.raises(InvalidInputError, match=r"root-cert.pem: .*expired on .*move all files"):
        _store(tmp_path).open(_NOW + 4000 * _DAY)
    assert _contents(tmp_path) == before


@pytest.mark.parametrize("name", _FILES)
@pytest.mark.parametrize("damage", ["empty", "cut", "noise"])
def test_a_damaged_file_is_named_and_nothing_is_replaced(
    tmp_path: Path, name: str, damage: str
) -> None:
    _store(tmp_path).open(_NOW)
    path = tmp_path / "identity" / name
    text = path.read_bytes()
    path.write_bytes(
        {"empty": b"", "cut": text[: len(text) // 2], "noise": os.urandom(300)}[damage]
    )
    before = _contents(tmp_path)
    with pytest.raises(InvalidInputError, match=rf"{name}: not a (private key|certificate)") as e:
        _store(tmp_path).open(_NOW)
    _lines(e)
    assert _contents(tmp_path) == before


@pytest.mark.parametrize(
    ("lost", "reason"),
    [
        (("root-key.pem", "ca-cert.pem"), "ca-cert.pem: missing"),
        (("root-key.pem", "root-cert.pem"), "root-cert.pem: missing"),
        (("root-key.pem", "ca-key.pem"), "ca-key.pem: missing"),
        (("root-key.pem", "ca-key.pem", "ca-cert.pem"), "ca-cert.pem: missing"),
        (("root-cert.pem",), "ca-cert.pem: there, but root-cert.pem is not"),
        (("ca-key.pem",), "ca-cert.pem: there, but ca-key.pem is not"),
    ],
)
def test_what_was_lost_is_never_made_anew_over_what_is_there(
    tmp_path: Path, lost: tuple[str, ...], reason: str
) -> None:
    _store(tmp_path).open(_NOW)
    for name in lost:
        (tmp_path / "identity" / name).unlink()
    before = _contents(tmp_path)
    with pytest.raises(InvalidInputError, match=reason) as error:
        _store(tmp_path).open(_NOW)
    _lines(error)
    assert _contents(tmp_path) == before


@pytest.mark.parametrize("name", ["root-key.pem", "ca-key.pem"])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, name: str) -> None:
    _store(tmp_path).open(_NOW)
    path = tmp_path / "identity" / name
    path.chmod(0o640)
    with pytest.raises(InvalidInputError, match=f"chmod 600 {path}"):
        _store(tmp_path).open(_NOW)


def test_a_key_of_another_user_is_refused(tmp_path: Path) -> None:
    _store(tmp_path).open(_NOW)
    path = tmp_path / "identity" / "ca-key.pem"
    os.chown(path, 12345, -1)
    with pytest.raises(InvalidInputError, match=f"chown {os.geteuid()} {path}"):
        _store(tmp_path).open(_NOW)


def test_a_directory_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "identity").mkdir(mode=0o755)
    with pytest.raises(InvalidInputError, match="chmod 700"):
        _store(tmp_path).open(_NOW)


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "identity").write_text("")
    with pytest.raises(SystemRefusedError, match=r"identity: cannot be opened: Not a directory"):
        _store(tmp_path).open(_NOW)


def test_two_processes_do_not_make_two_roots(tmp_path: Path) -> None:
    _store(tmp_path).open(_NOW)
    descriptor = os.open(tmp_path / "identity", os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(NotReadyError, match="another process"):
            _store(tmp_path).open(_NOW)
    finally:
        os.close(descriptor)
    _store(tmp_path).open(_NOW)


# ---- an administrator's own


def _own(directory: Path, *, rsa_key: bool = False, chain: bool = True) -> Path:
    """As for Istio's ``cacerts``: no root key."""
    home = directory / "identity"
    home.mkdir(mode=0o700)
    root_key = authority.new_key()
    key = rsa.generate_private_key(65537, 2048) if rsa_key else authority.new_key()
    root = authority.make_root(root_key, "Acme", _NOW, 3650 * _DAY)
    made = authority.make_intermediate(key, "Acme", (root_key, root), _NOW, 365 * _DAY)
    _put(home / "ca-key.pem", key)
    (home / "ca-cert.pem").write_bytes(authority.pem(made))
    (home / "root-cert.pem").write_bytes(authority.pem(root))
    if chain:
        (home / "cert-chain.pem").write_bytes(authority.pem(made, root))
    return home


def _put(
    path: Path,
    key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | authority.AuthorityKey,
    passphrase: bytes = b"",
) -> None:
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(passphrase)
            if passphrase
            else serialization.NoEncryption(),
        )
    )


@pytest.mark.parametrize("rsa_key", [False, True], ids=["ecdsa", "rsa"])
@pytest.mark.parametrize("chain", [False, True], ids=["no chain", "chain with root"])
def test_an_intermediate_of_ones_own_is_used_without_its_root_key(
    tmp_path: Path, rsa_key: bool, chain: bool
) -> None:
    home = _own(tmp_path, rsa_key=rsa_key, chain=chain)
    before = _contents(tmp_path)
    found: Authority = _store(tmp_path).open(_NOW + 300 * _DAY)
    assert found.roots() == (home / "root-cert.pem").read_bytes()
    assert found.chain == tuple(
        x509.load_pem_x509_certificates((home / "ca-cert.pem").read_bytes())
    )
    assert _contents(tmp_path) == before


def test_half_a_key_that_a_crash_has_left_does_not_stay(tmp_path: Path) -> None:
    home = _own(tmp_path)
    (home / ".root-key.pem.new").write_text("half a key")
    _store(tmp_path).open(_NOW)
    assert not (home / ".root-key.pem.new").exists()


def test_files_that_do_not_belong_together_are_named(tmp_path: Path) -> None:
    home = _own(tmp_path)
    _put(home / "ca-key.pem", authority.new_key())
    with pytest.raises(InvalidInputError, match=r"ca-cert.pem: is for another key than ca-key.pem"):
        _store(tmp_path).open(_NOW)


def test_a_root_that_did_not_issue_the_intermediate_is_refused(tmp_path: Path) -> None:
    home = _own(tmp_path, chain=False)
    stranger = authority.make_root(authority.new_key(), "Acme", _NOW, 10 * _DAY)
    (home / "root-cert.pem").write_bytes(authority.pem(stranger))
    with pytest.raises(InvalidInputError, match=r"complete root-cert.pem or cert-chain.pem"):
        _store(tmp_path).open(_NOW)


def test_a_key_with_a_passphrase_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    home = _own(tmp_path)
    _put(home / "ca-key.pem", authority.new_key(), b"secret")
    with pytest.raises(InvalidInputError, match="has a passphrase"):
        _store(tmp_path).open(_NOW)
    _put(home / "ca-key.pem", ed25519.Ed25519PrivateKey.generate())
    with pytest.raises(InvalidInputError, match="neither an ECDSA nor an RSA key"):
        _store(tmp_path).open(_NOW)
