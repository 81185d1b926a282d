/* Sends requests of HTTP/1.1 at a fixed rate, whether those before have been answered or not:
 *
 *   generator rate ADDRESS PORT HOST RATE SECONDS CONNECTIONS keep|new
 *   generator hold ADDRESS PORT HOST CONNECTIONS
 *
 * rate: each request is due at its own time, and its latency counts from then, so that a stall makes
 * all requests late that were due in it (no coordinated omission). "new" opens a connection for each.
 * hold: opens connections, sends one request over each, and keeps them until standard input ends.
 *
 * It prints one JSON object; latencies are in microseconds. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE 5000000000LL /* nanoseconds for what is under way at the end */
#define ROOM 2048             /* bytes of an answer's headers, and of a small body */

struct connection {
    int fd, busy, length, got;
    long long due;
    char answer[ROOM + 1];
};

static struct sockaddr_in target;
static char request[512];
static int request_length, keep, poller;
static long long *latencies, answered, failed;

static void stop(const char *what) {
    fprintf(stderr, "generator: %s: %s\n", what, strerror(errno));
    exit(1);
}

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void hang_up(struct connection *c) {
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
}

static void end(struct connection *c, int well) {
    if (!c->busy)
        return hang_up(c);
    if (well)
        latencies[answered++] = (now() - c->due) / 1000;
    else
        failed++;
    c->busy = 0;
    if (!well || !keep)
        hang_up(c);
}

static int dial(struct connection *c) {
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        return -1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event) < 0)
        return -1;
    if (connect(c->fd, (struct sockaddr *)&target, sizeof target) < 0 && errno != EINPROGRESS)
        return -1;
    return 0;
}

/* The request is short, so the kernel takes all of it or, while it connects, nothing. */
static void send_on(struct connection *c) {
    if (!c->busy || c->length != 0)
        return;
    ssize_t sent = send(c->fd, request, request_length, MSG_NOSIGNAL);
    if (sent == request_length)
        c->length = -1;
    else if (sent >= 0 || (errno != EAGAIN && errno != ENOTCONN && errno != EINPROGRESS))
        end(c, 0);
}

static void begin(struct connection *c, long long due) {
    c->busy = 1, c->length = 0, c->got = 0, c->due = due;
    if (c->fd < 0 && dial(c) < 0)
        return end(c, 0);
    send_on(c);
}

static void receive(struct connection *c) {
    for (;;) {
        ssize_t got = recv(c->fd, c->answer + c->got, ROOM - c->got, 0);
        if (got < 0 && (errno == EAGAIN || errno == ENOTCONN))
            return;
        if (got <= 0)
            return end(c, 0);
        c->got += got;
        c->answer[c->got] = 0;
        char *body = strstr(c->answer, "\r\n\r\n");
        if (body && c->length < 0) {
            char *said = strcasestr(c->answer, "\r\ncontent-length:");
            if (!said || said > body || strncmp(c->answer, "HTTP/1.1 200", 12))
                return end(c, 0);
            c->length = body + 4 - c->answer + atoi(said + 17);
        }
        if (c->length > 0 && c->got >= c->length)
            return end(c, 1);
    }
}

static void look(int milliseconds) {
    struct epoll_event events[256];
    int count = epoll_wait(poller, events, 256, milliseconds);
    for (int i = 0; i < count; i++) {
        struct connection *c = events[i].data.ptr;
        if (!c) /* the timer */
            continue;
        if (c->fd >= 0 && events[i].events & EPOLLOUT)
            send_on(c);
        if (c->fd >= 0 && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
            receive(c);
    }
}

static struct connection *connections_of(int count) {
    struct connection *made = calloc(count, sizeof *made);
    if (!made)
        stop("memory");
    for (int i = 0; i < count; i++)
        made[i].fd = -1;
    return made;
}

static int compare(const void *a, const void *b) {
    long long x = *(const long long *)a, y = *(const long long *)b;
    return (x > y) - (x < y);
}

static long long quantile(double part) {
    return answered ? latencies[(long long)(part * (answered - 1))] : 0;
}

static void at_rate(double rate, double seconds, int count) {
    long long total = rate * seconds, next = 0, start = now() + 10000000;
    struct connection *all = connections_of(count);
    latencies = calloc(total + 1, sizeof *latencies);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK), turn = 0;
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.ptr = NULL};
    if (!latencies || timer < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, timer, &event) < 0)
        stop("timer");
    long long last = start + seconds * 1e9 + PATIENCE;
    while (answered + failed < total && now() < last) {
        long long due = start + next * (1e9 / rate);
        int idle = count;
        while (next < total && due <= now() && idle > 0) {
            struct connection *c = &all[turn++ % count];
            idle--;
            if (c->busy)
                continue;
            begin(c, due);
            due = start + ++next * (1e9 / rate);
            idle = count;
        }
        if (next < total && idle > 0) {
            struct itimerspec at = {.it_value = {due / 1000000000, due % 1000000000}};
            timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
        }
        look(100);
    }
    qsort(latencies, answered, sizeof *latencies, compare);
    printf("{\"due\": %lld, \"answered\": %lld, \"failed\": %lld, \"p50\": %lld, \"p99\": %lld, "
           "\"p999\": %lld, \"max\": %lld}\n",
           total, answered, total - answered, quantile(0.5), quantile(0.99), quantile(0.999),
           quantile(1));
}

static void hold(int count) {
    struct connection *all = connections_of(count);
    latencies = calloc(count, sizeof *latencies);
    long long last = now() + 12 * PATIENCE;
    int begun = 0;
    keep = 1;
    while (answered + failed < count && now() < last) {
        while (begun < count && begun - answered - failed < 64)
            begin(&all[begun++], now());
        look(100);
    }
    int open = 0;
    for (int i = 0; i < count; i++)
        open += all[i].fd >= 0 && !all[i].busy;
    printf("{\"open\": %d}\n", open);
    fflush(stdout);
    char byte;
    while (read(0, &byte, 1) > 0)
        ;
}

int main(int argc, char **argv) {
    int at_a_rate = argc == 9 && !strcmp(argv[1], "rate");
    if (!at_a_rate && !(argc == 6 && !strcmp(argv[1], "hold"))) {
        fprintf(stderr, "usage: generator rate ADDRESS PORT HOST RATE SECONDS CONNECTIONS keep|new\n"
                        "       generator hold ADDRESS PORT HOST CONNECTIONS\n");
        return 2;
    }
    keep = !at_a_rate || !strcmp(argv[8], "keep");
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    target.sin_family = AF_INET;
    target.sin_port = htons(atoi(argv[3]));
    if (inet_pton(AF_INET, argv[2], &target.sin_addr) != 1)
        stop(argv[2]);
    request_length = snprintf(request, sizeof request, "GET / HTTP/1.1\r\nHost: %s\r\n%s\r\n",
                              argv[4], keep ? "" : "Connection: close\r\n");
    if ((poller = epoll_create1(EPOLL_CLOEXEC)) < 0)
        stop("epoll");
    if (at_a_rate)
        at_rate(atof(argv[5]), atof(argv[6]), atoi(argv[7]));
    else
        hold(atoi(argv[5]));
    return 0;
}
