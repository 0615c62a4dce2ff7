/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * bench-relay: a connection that takes its time
 *
 * Theory of operation
 *
 *   bench-relay --connect unix:PATH|tcp:HOST:PORT --round-trip MS
 *
 * It listens on a TCP port of 127.0.0.1 that the kernel chooses, says on
 * standard output which one, as one line of JSON, and passes on what comes, in
 * both directions, half a round trip later.  It ends when standard input does.
 *
 * Only time is added: a delayed line with unlimited bandwidth.  What is read is
 * kept as a block with the time at which it is due; each direction has a queue
 * of blocks.  Reading stops at QUEUE_MAX bytes, far more than what is measured
 * ever has under way, so that a receiver who stops reading is still felt by the
 * sender.  The end of a stream is delayed like its bytes.
 *
 * One thread, one ppoll() with nanoseconds, a timer slack of nothing: a byte is
 * late by what it takes to wake a process, some tens of microseconds.
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define BLOCK       (64 * 1024)
#define QUEUE_MAX   (64 * 1024 * 1024)
#define PAIRS_MAX   64
#define NEVER       INT64_MAX

typedef struct Block {
    struct Block *next;
    int64_t due;                /* ns */
    size_t pos;
    size_t len;                 /* 0: the end of the stream */
    uint8_t data[];
} Block;

/* One direction of one connection */
typedef struct Pipe {
    int from;
    int to;
    Block *head;
    Block **tail;
    size_t queued;
    bool ended;                 /* the end was read */
    bool done;                  /* and passed on */
    bool full;                  /* the receiver takes nothing now */
} Pipe;

typedef struct Pair {
    Pipe pipe[2];
} Pair;

typedef struct Relay {
    const char *target;
    int64_t delay;              /* ns, one way */
    int listener;
    Pair *pair[PAIRS_MAX];
    unsigned pairs;
} Relay;

static void __attribute__((noreturn, format(printf, 1, 2)))
fail(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fputs("bench-relay: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

static int64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/*
 * Sockets
 */

static int connect_unix(const char *path)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (strlen(path) >= sizeof(addr.sun_path)) {
        fail("--connect: the path is too long");
    }
    strcpy(addr.sun_path, path);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&addr, sizeof(addr))) {
        close(fd);
        fd = -1;
    }
    return fd;
}

static int connect_tcp(const char *where)
{
    const char *colon = strrchr(where, ':');
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *found;
    char host[256];
    int fd;

    if (!colon || (size_t)(colon - where) >= sizeof(host)) {
        fail("--connect: expected tcp:HOST:PORT");
    }
    memcpy(host, where, colon - where);
    host[colon - where] = '\0';
    if (getaddrinfo(host, colon + 1, &hints, &found)) {
        fail("--connect: there is no %s", where);
    }
    fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, found->ai_addr, found->ai_addrlen)) {
        close(fd);
        fd = -1;
    }
    freeaddrinfo(found);
    return fd;
}

static int connect_target(const char *target)
{
    if (!strncmp(target, "unix:", 5)) {
        return connect_unix(target + 5);
    }
    if (!strncmp(target, "tcp:", 4)) {
        return connect_tcp(target + 4);
    }
    fail("--connect: expected unix:PATH or tcp:HOST:PORT");
}

static void prepare(int fd)
{
    int one = 1;

    /* fails on a UNIX socket, which has no such delay */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

static int listen_somewhere(void)
{
    struct sockaddr_in addr = {
        .sin_family = AF_INET,
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    socklen_t len = sizeof(addr);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&addr, len) ||
        listen(fd, PAIRS_MAX) ||
        getsockname(fd, (struct sockaddr *)&addr, &len)) {
        fail("cannot listen: %s", strerror(errno));
    }
    printf("{\"event\": \"listening\", \"port\": %u}\n",
           ntohs(addr.sin_port));
    fflush(stdout);
    return fd;
}

/*
 * Pipes
 */

static void pipe_init(Pipe *pipe, int from, int to)
{
    *pipe = (Pipe) { .from = from, .to = to };
    pipe->tail = &pipe->head;
}

static void pipe_push(Pipe *pipe, Block *block, int64_t due)
{
    block->next = NULL;
    block->due = due;
    *pipe->tail = block;
    pipe->tail = &block->next;
    pipe->queued += block->len;
}

static void pipe_pop(Pipe *pipe)
{
    Block *block = pipe->head;

    pipe->head = block->next;
    if (!pipe->head) {
        pipe->tail = &pipe->head;
    }
    free(block);
}

static bool pipe_reads(const Pipe *pipe)
{
    return !pipe->ended && pipe->queued < QUEUE_MAX;
}

/* Returns false when the connection is broken. */
static bool pipe_read(Pipe *pipe, int64_t delay)
{
    Block *block = malloc(sizeof(*block) + BLOCK);
    ssize_t n;

    if (!block) {
        fail("out of memory");
    }
    n = read(pipe->from, block->data, BLOCK);
    if (n < 0) {
        free(block);
        return errno == EAGAIN || errno == EINTR;
    }
    block->pos = 0;
    block->len = n;
    pipe->ended = n == 0;
    if (n < BLOCK) {
        Block *less = realloc(block, sizeof(*block) + n);

        block = less ? less : block;
    }
    pipe_push(pipe, block, now_ns() + delay);
    return true;
}

/* What is due goes.  Returns false when the connection is broken. */
static bool pipe_write(Pipe *pipe)
{
    pipe->full = false;
    while (pipe->head && pipe->head->due <= now_ns()) {
        Block *block = pipe->head;
        ssize_t n;

        if (!block->len) {
            shutdown(pipe->to, SHUT_WR);
            pipe->done = true;
            pipe_pop(pipe);
            return true;
        }
        n = send(pipe->to, block->data + block->pos, block->len - block->pos,
                 MSG_NOSIGNAL);
        if (n < 0) {
            pipe->full = errno == EAGAIN;
            return pipe->full || errno == EINTR;
        }
        block->pos += n;
        pipe->queued -= n;
        if (block->pos == block->len) {
            pipe_pop(pipe);
        }
    }
    return true;
}

static int64_t pipe_due(const Pipe *pipe)
{
    return pipe->head && !pipe->full ? pipe->head->due : NEVER;
}

/*
 * Connections
 */

static void relay_accept(Relay *relay)
{
    int near = accept(relay->listener, NULL, NULL), far;
    Pair *pair;

    if (near < 0) {
        return;
    }
    far = relay->pairs < PAIRS_MAX ? connect_target(relay->target) : -1;
    if (far < 0) {
        close(near);
        return;
    }
    prepare(near);
    prepare(far);
    pair = calloc(1, sizeof(*pair));
    if (!pair) {
        fail("out of memory");
    }
    pipe_init(&pair->pipe[0], near, far);
    pipe_init(&pair->pipe[1], far, near);
    relay->pair[relay->pairs++] = pair;
}

static void pair_free(Pair *pair)
{
    for (unsigned i = 0; i < 2; i++) {
        while (pair->pipe[i].head) {
            pipe_pop(&pair->pipe[i]);
        }
    }
    close(pair->pipe[0].from);
    close(pair->pipe[0].to);
    free(pair);
}

static short pair_events(const Pair *pair, unsigned side)
{
    const Pipe *in = &pair->pipe[side], *out = &pair->pipe[!side];

    return (pipe_reads(in) ? POLLIN : 0) | (out->full ? POLLOUT : 0);
}

/* Returns whether it goes on. */
static bool pair_run(Pair *pair, const struct pollfd *fds, int64_t delay)
{
    for (unsigned i = 0; i < 2; i++) {
        Pipe *pipe = &pair->pipe[i];

        if (fds[i].revents && pipe_reads(pipe) && !pipe_read(pipe, delay)) {
            return false;
        }
    }
    for (unsigned i = 0; i < 2; i++) {
        if (!pipe_write(&pair->pipe[i])) {
            return false;
        }
    }
    return !pair->pipe[0].done || !pair->pipe[1].done;
}

/* Until something is due or can be read. */
static void relay_wait(const Relay *relay, struct pollfd *fds, nfds_t n)
{
    struct timespec timeout;
    int64_t due = NEVER, left;

    for (unsigned i = 0; i < relay->pairs; i++) {
        for (unsigned k = 0; k < 2; k++) {
            int64_t next = pipe_due(&relay->pair[i]->pipe[k]);

            due = next < due ? next : due;
        }
    }
    left = due - now_ns();
    left = left < 0 ? 0 : left;
    timeout.tv_sec = left / 1000000000;
    timeout.tv_nsec = left % 1000000000;
    if (ppoll(fds, n, due == NEVER ? NULL : &timeout, NULL) < 0 &&
        errno != EINTR) {
        fail("ppoll: %s", strerror(errno));
    }
}

/* Returns false at the end of standard input. */
static bool relay_run(Relay *relay)
{
    struct pollfd fds[2 + 2 * PAIRS_MAX];
    unsigned pairs = relay->pairs, kept = 0;
    char ignored[256];

    fds[0] = (struct pollfd) { .fd = 0, .events = POLLIN };
    fds[1] = (struct pollfd) { .fd = relay->listener, .events = POLLIN };
    for (unsigned i = 0; i < 2 * pairs; i++) {
        const Pair *pair = relay->pair[i / 2];
        short events = pair_events(pair, i % 2);

        /* a broken one that nothing is wanted of would be reported for ever */
        fds[2 + i] = (struct pollfd) {
            .fd = events ? pair->pipe[i % 2].from : -1,
            .events = events,
        };
    }
    relay_wait(relay, fds, 2 + 2 * pairs);
    for (unsigned i = 0; i < pairs; i++) {
        Pair *pair = relay->pair[i];

        if (pair_run(pair, &fds[2 + 2 * i], relay->delay)) {
            relay->pair[kept++] = pair;
        } else {
            pair_free(pair);
        }
    }
    relay->pairs = kept;
    if (fds[1].revents) {
        relay_accept(relay);
    }
    return !fds[0].revents || read(0, ignored, sizeof(ignored)) > 0;
}

int main(int argc, char **argv)
{
    Relay relay = { .delay = -1 };

    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--connect")) {
            relay.target = argv[i + 1];
        } else if (!strcmp(argv[i], "--round-trip")) {
            relay.delay = strtod(argv[i + 1], NULL) * 1e6 / 2;
        } else {
            fail("there is no option %s", argv[i]);
        }
    }
    if (!relay.target || relay.delay < 0 || argc % 2 == 0) {
        fail("usage: bench-relay --connect unix:PATH|tcp:HOST:PORT "
             "--round-trip MS");
    }
    prctl(PR_SET_TIMERSLACK, 1);
    relay.listener = listen_somewhere();
    while (relay_run(&relay)) {
        /* one thing after another */
    }
    while (relay.pairs) {
        pair_free(relay.pair[--relay.pairs]);
    }
    close(relay.listener);
    return 0;
}
