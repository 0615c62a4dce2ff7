/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The far end of a measured chardev
 *
 * scripts/bench runs one of these beside each QEMU.  It connects to the
 * chardev under test, over a bare socket or as a SPICE client, and does what
 * the pump inside QEMU needs a partner for:
 *
 *   drain  reads `total` bytes                   (the pump is a source)
 *   feed   writes `total` bytes in units of      (the pump is a sink)
 *          `size`, waits for the byte by which
 *          the pump says that it has them all
 *   echo   writes back what it reads             (the pump pings)
 *   ping   writes `size` bytes and waits for     (the pump echoes)
 *          as many, `count` times
 *   crowd  reads `total` bytes from each of      (as many pumps are sources)
 *          `clients` port channels
 *   agents reads `total` bytes of the guest's    (the pump plays the agent)
 *          agent on each of `clients` clients
 *   link   connects and asks for the list of
 *          channels, `count` times
 *   idle   connects `clients` clients and does
 *          nothing more
 *   stall  connects and reads nothing            (the pump is a source)
 *
 * It talks to the script in lines: it prints {"event": "connected"}, for feed,
 * ping and agents then {"event": "ready"} once the guest's side is open, and
 * waits for a line on its standard input before it goes on; at the end it
 * prints {"event": "done"} with the results, and closes the connection only
 * when its standard input ends, so that nothing is lost by leaving early.
 * All times are nanoseconds of the monotonic clock, which the pump uses too.
 */

#include "wire.h"
#include "../qemu/pump/pattern.h"

#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#define CLIENTS_MAX 256

typedef struct Peer {
    WireAddress where;
    Wire *wire;
    WireSession *session[CLIENTS_MAX];
    Wire *wires[CLIENTS_MAX];
    uint64_t clients;
    uint64_t total;
    uint64_t size;
    uint64_t count;
    bool verify;
    uint8_t *pattern;

    uint64_t sent;
    uint64_t received;
    uint64_t started_ns;
    uint64_t first_ns;
    uint64_t finished_ns;
    uint32_t *samples;
    uint64_t samples_n;
} Peer;

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec ts;

    clock_gettime(clock, &ts);
    return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

static uint64_t now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

static void say(const char *event)
{
    printf("{\"event\": \"%s\", \"ns\": %" PRIu64 "}\n", event, now_ns());
    fflush(stdout);
}

static void wait_for_go(void)
{
    char line[16];

    if (!fgets(line, sizeof(line), stdin)) {
        exit(1);            /* the script is gone */
    }
}

static size_t peer_read(Peer *p, const uint8_t **data)
{
    size_t len = wire_read(p->wire, data);
    size_t good;

    if (!p->first_ns) {
        p->first_ns = now_ns();
    }
    if (p->verify) {
        good = pump_pattern_mismatch(p->pattern, p->received, *data, len);
        if (good < len) {
            die("wrong byte at %" PRIu64, p->received + good);
        }
    }
    p->received += len;
    return len;
}

static void peer_write(Peer *p, size_t len)
{
    const uint8_t *data = p->verify ? pump_pattern_at(p->pattern, p->sent)
                                    : p->pattern;

    wire_write(p->wire, data, len);
    p->sent += len;
}

static void drain(Peer *p)
{
    const uint8_t *data;

    p->started_ns = now_ns();
    while (p->received < p->total) {
        peer_read(p, &data);
    }
    p->finished_ns = now_ns();
    if (p->received > p->total) {
        die("%" PRIu64 " bytes came, %" PRIu64 " were expected",
            p->received, p->total);
    }
}

static void feed(Peer *p)
{
    const uint8_t *data;

    p->started_ns = now_ns();
    while (p->sent < p->total) {
        uint64_t left = p->total - p->sent;

        peer_write(p, left < p->size ? left : p->size);
    }
    p->verify = false;      /* that byte is no data */
    peer_read(p, &data);
    p->finished_ns = now_ns();
}

static void echo(Peer *p)
{
    const uint8_t *data;

    p->started_ns = now_ns();
    while (p->received < p->total) {
        size_t len = peer_read(p, &data);

        wire_write(p->wire, data, len);
        p->sent += len;
    }
    p->finished_ns = now_ns();
}

static void ping(Peer *p)
{
    const uint8_t *data;
    uint64_t before, after;

    p->samples = calloc(p->count, sizeof(p->samples[0]));
    if (!p->samples) {
        die("out of memory");
    }
    p->started_ns = before = now_ns();
    while (p->samples_n < p->count) {
        peer_write(p, p->size);
        while (p->received < p->sent) {
            peer_read(p, &data);
        }
        after = now_ns();
        p->samples[p->samples_n++] =
            after - before < UINT32_MAX ? after - before : UINT32_MAX;
        before = after;
    }
    p->finished_ns = before;
}

/* Take `total` bytes from each of the wires, whichever has some */
static void drain_all(Peer *p)
{
    struct pollfd fds[CLIENTS_MAX];
    uint64_t got[CLIENTS_MAX] = { 0 };
    uint64_t left = p->clients, i;

    for (i = 0; i < p->clients; i++) {
        fds[i] = (struct pollfd) { wire_fd(p->wires[i]), POLLIN, 0 };
    }
    p->started_ns = now_ns();
    while (left) {
        if (poll(fds, p->clients, -1) < 0) {
            die("poll failed");
        }
        for (i = 0; i < p->clients; i++) {
            const uint8_t *data;

            if (!fds[i].revents) {
                continue;
            }
            /* Until the wire's buffer is empty: poll() knows nothing of it */
            do {
                if (!p->first_ns) {
                    p->first_ns = now_ns();
                }
                got[i] += wire_read(p->wires[i], &data);
            } while (wire_buffered(p->wires[i]));
            if (got[i] >= p->total) {
                p->received += got[i];
                fds[i].fd = -1;
                left--;
            }
        }
    }
    p->finished_ns = now_ns();
    if (p->received > p->total * p->clients) {
        die("%" PRIu64 " bytes came, %" PRIu64 " were expected",
            p->received, p->total * p->clients);
    }
}

/* How long it takes from nothing to the list of channels */
static void link_up(Peer *p)
{
    p->samples = calloc(p->count, sizeof(p->samples[0]));
    if (!p->samples) {
        die("out of memory");
    }
    p->started_ns = now_ns();
    while (p->samples_n < p->count) {
        uint64_t before = now_ns();
        WireSession *s = wire_session_open(&p->where);

        p->samples[p->samples_n++] = now_ns() - before;
        wire_session_close(s);
    }
    p->finished_ns = now_ns();
}

static void nothing(Peer *p)
{
    p->started_ns = p->finished_ns = now_ns();
}

/* Connecting */

static void open_one(Peer *p)
{
    p->wire = wire_open(&p->where);
}

static void open_crowd(Peer *p)
{
    uint64_t i;

    p->session[0] = wire_session_open(&p->where);
    wire_session_serve(p->session[0]);
    for (i = 0; i < p->clients; i++) {
        p->wires[i] = wire_session_port(p->session[0], i);
    }
}

static void open_agents(Peer *p)
{
    uint64_t i;

    for (i = 0; i < p->clients; i++) {
        p->wires[i] = wire_open_agent(&p->where);
    }
}

static void open_clients(Peer *p)
{
    uint64_t i;

    for (i = 0; i < p->clients; i++) {
        p->session[i] = wire_session_open(&p->where);
    }
}

static void close_all(Peer *p)
{
    uint64_t i;

    for (i = 0; i < CLIENTS_MAX; i++) {
        if (p->wires[i]) {
            wire_close(p->wires[i]);
        }
    }
    for (i = 0; i < CLIENTS_MAX; i++) {
        if (p->session[i]) {
            wire_session_close(p->session[i]);
        }
    }
    if (p->wire) {
        wire_close(p->wire);
    }
}

/* Waiting for the guest's side */

static void wait_one(Peer *p)
{
    wire_wait_open(p->wire);
}

static void wait_all(Peer *p)
{
    uint64_t i;

    for (i = 0; i < p->clients; i++) {
        wire_wait_open(p->wires[i]);
    }
}

/*
 * @open: connect; @wait: it is to wait for the guest's side, then for the word
 * to go
 */
static const struct {
    const char *name;
    void (*open)(Peer *p);
    void (*wait)(Peer *p);
    void (*run)(Peer *p);
} modes[] = {
    { "drain", open_one, NULL, drain },
    { "feed", open_one, wait_one, feed },
    { "echo", open_one, NULL, echo },
    { "ping", open_one, wait_one, ping },
    { "crowd", open_crowd, NULL, drain_all },
    { "agents", open_agents, wait_all, drain_all },
    { "link", NULL, NULL, link_up },
    { "idle", open_clients, NULL, nothing },
    { "stall", open_one, NULL, nothing },
};

static int compare_samples(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static void report(Peer *p)
{
    static const struct {
        const char *name;
        unsigned permille;
    } quantiles[] = {
        { "min-ns", 0 }, { "p50-ns", 500 }, { "p90-ns", 900 },
        { "p99-ns", 990 }, { "max-ns", 1000 },
    };
    size_t i;

    printf("{\"event\": \"done\", \"sent\": %" PRIu64 ", \"received\": %" PRIu64
           ", \"started-ns\": %" PRIu64 ", \"first-ns\": %" PRIu64
           ", \"finished-ns\": %" PRIu64 ", \"reads\": %" PRIu64
           ", \"messages\": %" PRIu64 ", \"cpu-ns\": %" PRIu64
           ", \"round-trips\": %" PRIu64,
           p->sent, p->received, p->started_ns, p->first_ns, p->finished_ns,
           p->wire ? wire_reads(p->wire) : 0,
           p->wire ? wire_messages(p->wire) : 0,
           clock_ns(CLOCK_PROCESS_CPUTIME_ID), p->samples_n);
    if (p->samples_n) {
        qsort(p->samples, p->samples_n, sizeof(p->samples[0]),
              compare_samples);
        for (i = 0; i < sizeof(quantiles) / sizeof(quantiles[0]); i++) {
            printf(", \"%s\": %" PRIu32, quantiles[i].name,
                   p->samples[(p->samples_n - 1) * quantiles[i].permille /
                              1000]);
        }
    }
    puts("}");
    fflush(stdout);
}

static uint64_t parse_number(const char *name, const char *text, uint64_t min,
                             uint64_t max)
{
    uint64_t n = 0;
    int used = 0;

    if (text[0] < '0' || text[0] > '9' ||
        sscanf(text, "%" SCNu64 "%n", &n, &used) != 1 ||
        text[used] || n < min || n > max) {
        die("--%s must be from %" PRIu64 " to %" PRIu64 ", not %s",
            name, min, max, text);
    }
    return n;
}

static void usage(void)
{
    puts("usage: peer --connect unix:PATH|tcp:HOST:PORT "
         "[--wire raw|spice] [--tls]\n"
         "            --mode drain|feed|echo|ping|crowd|agents|link|idle|stall\n"
         "            [--password TEXT] [--channel N] [--clients N] [--verify]\n"
         "            [--total BYTES] [--size BYTES] [--count N]");
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "connect", required_argument, NULL, 'c' },
        { "wire", required_argument, NULL, 'w' },
        { "mode", required_argument, NULL, 'm' },
        { "password", required_argument, NULL, 'p' },
        { "channel", required_argument, NULL, 'n' },
        { "total", required_argument, NULL, 't' },
        { "size", required_argument, NULL, 's' },
        { "count", required_argument, NULL, 'k' },
        { "clients", required_argument, NULL, 'l' },
        { "tls", no_argument, NULL, 'e' },
        { "verify", no_argument, NULL, 'v' },
        { "help", no_argument, NULL, 'h' },
        { NULL, 0, NULL, 0 },
    };
    static Peer p = {
        .where = { .password = "" },
        .clients = 1, .total = 256 << 20, .size = 65536, .count = 10000,
    };
    size_t mode = sizeof(modes) / sizeof(modes[0]), i;
    int opt;

    /* Never outlive the script that started this */
    prctl(PR_SET_PDEATHSIG, SIGKILL);

    while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (opt) {
        case 'c':
            p.where.address = optarg;
            break;
        case 'w':
            if (strcmp(optarg, "raw") && strcmp(optarg, "spice")) {
                die("--wire must be raw or spice, not %s", optarg);
            }
            p.where.spice = !strcmp(optarg, "spice");
            break;
        case 'm':
            for (i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
                if (!strcmp(optarg, modes[i].name)) {
                    mode = i;
                }
            }
            break;
        case 'p':
            p.where.password = optarg;
            break;
        case 'n':
            p.where.channel = parse_number("channel", optarg, 0, 255);
            break;
        case 't':
            p.total = parse_number("total", optarg, 1, INT64_MAX);
            break;
        case 's':
            p.size = parse_number("size", optarg, 1, PUMP_PATTERN_MAX);
            break;
        case 'k':
            p.count = parse_number("count", optarg, 1, 10000000);
            break;
        case 'l':
            p.clients = parse_number("clients", optarg, 1, CLIENTS_MAX);
            break;
        case 'e':
            p.where.tls = true;
            break;
        case 'v':
            p.verify = true;
            break;
        default:
            usage();
            return opt == 'h' ? 0 : 2;
        }
    }
    if (!p.where.address || mode == sizeof(modes) / sizeof(modes[0]) ||
        optind != argc) {
        usage();
        return 2;
    }

    p.pattern = malloc(PUMP_PATTERN_SIZE);
    if (!p.pattern) {
        die("out of memory");
    }
    pump_pattern_fill(p.pattern);
    if (modes[mode].open) {
        modes[mode].open(&p);
    }
    say("connected");
    if (modes[mode].wait) {
        modes[mode].wait(&p);
        say("ready");
        wait_for_go();
    }
    modes[mode].run(&p);
    report(&p);

    while (getchar() != EOF) {
        continue;
    }
    close_all(&p);
    free(p.samples);
    free(p.pattern);
    return 0;
}
