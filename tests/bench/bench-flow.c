/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the flow-control machine costs by itself
 *
 * A message of 2 KiB is taken through the machine on every way there is, and
 * compared with the least that any queue has to do: copy the bytes, push and
 * pop them on a GQueue.  Both are timed in turn, in many short batches, by the
 * CPU time of this thread; the ratio shown is the median of the batches'.
 *
 * Promised are, and the exit status says whether they hold:
 *
 *   - one message to one client costs at most 3 times that least, each further
 *     client at most once more;
 *   - no allocation, system call or look at the clock per message in steady
 *     state.  Allocations and clock reads are counted by standing in front of
 *     the C library's functions; a system call would kill the child process
 *     that runs every way under seccomp's strict mode;
 *   - an idle client costs less than 512 bytes.
 *
 * With two arguments, a way's number and a count of clients, it only takes
 * messages that way, for a profiler to look at:
 *
 *   valgrind --tool=callgrind --toggle-collect='messages_pass*' \
 *       bench-flow 7 1
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "chardev/spiceflow/flow.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MESSAGE         2048
#define BATCH           4000
#define ROUNDS          41
#define MANY            8               /* further clients */
#define LUMP            5               /* tokens given at a time */
#define WARM_UP         1000
#define IDLE_CLIENTS    1000

#define ONE_LIMIT       3.0
#define FURTHER_LIMIT   1.0
#define IDLE_LIMIT      512

/*
 * Standing in front of the C library
 */

static bool counting;
static unsigned long allocations;
static unsigned long clock_reads;

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t size);

void *malloc(size_t size)
{
    allocations += counting;
    return __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    allocations += counting;
    return __libc_calloc(n, size);
}

void *realloc(void *p, size_t size)
{
    allocations += counting;
    return __libc_realloc(p, size);
}

int clock_gettime(clockid_t clock, struct timespec *ts)
{
    clock_reads += counting;
    return syscall(SYS_clock_gettime, clock, ts);
}

static uint64_t cpu_ns(void)
{
    struct timespec ts;

    syscall(SYS_clock_gettime, CLOCK_THREAD_CPUTIME_ID, &ts);
    return ts.tv_sec * UINT64_C(1000000000) + ts.tv_nsec;
}

/*
 * A device and its clients
 */

typedef struct Bench Bench;

typedef struct BenchClient {
    Bench *bench;
    SpiceFlowClient *client;
    SpiceFlowMessage *kept;
} BenchClient;

struct Bench {
    SpiceFlow *flow;
    BenchClient client[1 + MANY];
    unsigned num_clients;
    bool keep;                          /* the socket is full */
    bool guest_full;
    unsigned lump;                      /* messages since tokens came */
    GQueue queue;                       /* of the comparison */
    _Alignas(64) uint8_t source[MESSAGE];
    _Alignas(64) uint8_t copy[MESSAGE];
};

static void touch(const void *p)
{
    /* The compiler has to believe that the bytes are looked at */
    __asm__ volatile("" : : "r"(p) : "memory");
}

static ssize_t op_write(void *opaque, const uint8_t *data, size_t len)
{
    Bench *b = opaque;

    touch(data);
    return b->guest_full ? 0 : (ssize_t)len;
}

static bool op_send(void *client_opaque, SpiceFlowMessage *msg)
{
    BenchClient *c = client_opaque;
    size_t len;

    touch(spice_flow_message_data(msg, &len));
    if (c->bench->keep) {
        c->kept = spice_flow_message_keep(msg);
        return false;
    }
    return true;
}

static void op_give_tokens(void *client_opaque, uint32_t n)
{
    touch(client_opaque);
    touch(&n);
}

static void op_remove(void *client_opaque, SpiceFlowReason reason)
{
    BenchClient *c = client_opaque;

    fprintf(stderr, "bench-flow: client %td was removed: %s\n",
            c - c->bench->client, spice_flow_reason_name(reason));
    abort();
}

static const SpiceFlowOps bench_ops = {
    .write = op_write,
    .send = op_send,
    .give_tokens = op_give_tokens,
    .remove = op_remove,
};

static void bench_add_client(Bench *b, BenchClient *c, uint32_t id,
                             bool flow_control, uint32_t send_tokens)
{
    const SpiceFlowClientParams params = {
        .id = id,
        .flow_control = flow_control,
        .window = 10,
        .interval = 5,
        .send_tokens = send_tokens,
        .to_guest_bytes = 1024 * 1024,
        .to_guest_messages = 1024,
        .to_client_bytes = 1024 * 1024,
        .to_client_messages = 1024,
    };

    c->bench = b;
    c->client = spice_flow_client_add(b->flow, &params, c);
    if (!c->client) {
        fprintf(stderr, "bench-flow: client %u was not added\n", id);
        abort();
    }
}

static void bench_open(Bench *b, SpiceFlowFraming framing)
{
    const SpiceFlowParams params = {
        .framing = framing,
        .self_tokens = 1,
        .max_message = 64 * 1024,
        .stall_timeout = 30000,
    };

    memset(b, 0, sizeof(*b));
    memset(b->source, 0x5a, sizeof(b->source));
    b->flow = spice_flow_new(&bench_ops, b, &params);
    spice_flow_start(b->flow, 0);
}

static void bench_close(Bench *b)
{
    spice_flow_close(b->flow);
    g_queue_clear(&b->queue);
}

static void must(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "bench-flow: %s was refused\n", what);
        abort();
    }
}

/*
 * The ways through.  Each takes one message from one end to the other.
 */

/* The machine can not know the size beforehand either */
static volatile size_t message_size = MESSAGE;

static void way_least(Bench *b)
{
    memcpy(b->copy, b->source, message_size);
    touch(b->copy);
    g_queue_push_tail(&b->queue, b->copy);
    touch(g_queue_pop_head(&b->queue));
}

static void way_straight(Bench *b)
{
    must(spice_flow_send(b->flow, b->source, MESSAGE), "a message");
}

/* The sockets are full: each client's owner keeps the message for a while */
static void way_kept(Bench *b)
{
    unsigned i;

    b->keep = true;
    must(spice_flow_send(b->flow, b->source, MESSAGE), "a message");
    for (i = 0; i < b->num_clients; i++) {
        BenchClient *c = &b->client[i];

        spice_flow_message_unref(c->kept);
        spice_flow_client_sent(c->client);
    }
}

/* The first client can take it at once, the others have to wait for tokens */
static void way_queued(Bench *b)
{
    unsigned i;

    must(spice_flow_send(b->flow, b->source, MESSAGE), "a message");
    if (++b->lump < LUMP) {
        return;
    }
    b->lump = 0;
    for (i = 1; i < b->num_clients; i++) {
        spice_flow_client_tokens_add(b->client[i].client, LUMP);
    }
}

static void to_guest(Bench *b)
{
    const SpiceFlowBuffer buffer = { .data = b->source, .len = MESSAGE };
    unsigned i;

    for (i = 0; i < b->num_clients; i++) {
        SpiceFlowClient *client = b->client[i].client;

        must(spice_flow_client_begin(client), "a message's begin");
        must(spice_flow_client_write(client, &buffer), "a client's message");
    }
}

static void way_guest_straight(Bench *b)
{
    to_guest(b);
    spice_flow_settle(b->flow);
}

static void way_guest_queued(Bench *b)
{
    b->guest_full = true;
    to_guest(b);
    b->guest_full = false;
    spice_flow_guest_ready(b->flow);
}

/* The agent's: a chunk header goes in front, which needs a copy */
static void way_guest_headed(Bench *b)
{
    static const uint8_t head[8];
    const SpiceFlowBuffer buffer = {
        .head = head, .head_len = sizeof(head),
        .data = b->source, .len = MESSAGE,
    };
    unsigned i;

    for (i = 0; i < b->num_clients; i++) {
        SpiceFlowClient *client = b->client[i].client;

        must(spice_flow_client_begin(client), "a message's begin");
        must(spice_flow_client_write(client, &buffer), "a client's message");
    }
    spice_flow_settle(b->flow);
}

/*
 * @shared: one message to all clients; otherwise one message from each, and
 * there is no "further client" to speak of
 */
typedef struct Way {
    const char *name;
    void (*run)(Bench *b);
    SpiceFlowFraming framing;
    bool flow_control;
    bool no_tokens;                     /* all but the first client */
    bool shared;
} Way;

static const Way ways[] = {
    { "to client, sent at once", way_straight, SPICE_FLOW_RAW,
      false, false, true },
    { "to client, the socket is full", way_kept, SPICE_FLOW_RAW,
      false, false, true },
    { "to client, paid with send tokens", way_straight, SPICE_FLOW_FRAMED,
      true, false, true },
    { "to client, others wait for tokens", way_queued, SPICE_FLOW_FRAMED,
      true, true, true },
    { "to guest, taken at once", way_guest_straight, SPICE_FLOW_FRAMED,
      true, false, false },
    { "to guest, with a header in front", way_guest_headed, SPICE_FLOW_FRAMED,
      true, false, false },
    { "to guest, taken later", way_guest_queued, SPICE_FLOW_FRAMED,
      true, false, false },
};

static void way_open(Bench *b, const Way *way, unsigned num_clients)
{
    unsigned i;

    bench_open(b, way->framing);
    b->num_clients = num_clients;
    for (i = 0; i < num_clients; i++) {
        bench_add_client(b, &b->client[i], i + 1, way->flow_control,
                         i > 0 && way->no_tokens ? 0 : UINT32_MAX);
    }
    for (i = 0; i < WARM_UP; i++) {
        way->run(b);
    }
}

static double batch_ns(Bench *b, void (*run)(Bench *b))
{
    uint64_t before = cpu_ns();
    int i;

    for (i = 0; i < BATCH; i++) {
        run(b);
    }
    return (double)(cpu_ns() - before) / BATCH;
}

static int compare_double(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *values)
{
    qsort(values, ROUNDS, sizeof(values[0]), compare_double);
    return values[ROUNDS / 2];
}

static bool verdict(double value, double limit)
{
    printf("  <= %.2f %s", limit, value <= limit ? "met" : "NOT MET");
    return value <= limit;
}

static bool time_way(const Way *way)
{
    static double least[ROUNDS], one[ROUNDS], ratio[ROUNDS], further[ROUNDS];
    static Bench single, crowd;
    bool ok;
    int i;

    way_open(&single, way, 1);
    way_open(&crowd, way, 1 + MANY);
    for (i = 0; i < ROUNDS; i++) {
        double many;

        least[i] = batch_ns(&single, way_least);
        one[i] = batch_ns(&single, way->run);
        many = batch_ns(&crowd, way->run);
        ratio[i] = one[i] / least[i];
        further[i] = (many - one[i]) / MANY / least[i];
    }
    printf("%-36s %6.1f %6.1f  %5.2f", way->name, median(least), median(one),
           median(ratio));
    ok = verdict(median(ratio), ONE_LIMIT);
    if (way->shared) {
        printf("  %5.2f", median(further));
        ok &= verdict(median(further), FURTHER_LIMIT);
    }
    putchar('\n');
    bench_close(&single);
    bench_close(&crowd);
    return ok;
}

static void run_counted(const Way *way, unsigned num_clients)
{
    static Bench b;
    int i;

    way_open(&b, way, num_clients);
    counting = true;
    for (i = 0; i < BATCH; i++) {
        way->run(&b);
    }
    counting = false;
    bench_close(&b);
}

static bool count_allocations(void)
{
    size_t i;

    allocations = 0;
    clock_reads = 0;
    for (i = 0; i < G_N_ELEMENTS(ways); i++) {
        run_counted(&ways[i], 1);
        run_counted(&ways[i], 1 + MANY);
    }
    printf("%lu allocations, %lu clock reads in %zu messages: %s\n",
           allocations, clock_reads, 2 * BATCH * G_N_ELEMENTS(ways),
           allocations || clock_reads ? "NOT MET" : "met");
    return !allocations && !clock_reads;
}

/* Every way, with nothing allowed but to end */
static void run_locked_up(void)
{
    static Bench bench[G_N_ELEMENTS(ways)];
    size_t i;
    int n;

    for (i = 0; i < G_N_ELEMENTS(ways); i++) {
        way_open(&bench[i], &ways[i], 1 + MANY);
    }
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT)) {
        _exit(errno);
    }
    for (i = 0; i < G_N_ELEMENTS(ways); i++) {
        for (n = 0; n < BATCH; n++) {
            ways[i].run(&bench[i]);
        }
    }
    /* exit_group, which _exit() calls, is forbidden too */
    syscall(SYS_exit, 0);
}

static bool count_syscalls(void)
{
    int status = 0;
    pid_t pid;

    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        run_locked_up();
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid) {
        printf("system calls: can not fork: %s: NOT MET\n", strerror(errno));
        return false;
    }
    if (WIFEXITED(status) && WEXITSTATUS(status)) {
        printf("system calls: no seccomp here: %s: NOT MET\n",
               strerror(WEXITSTATUS(status)));
        return false;
    }
    printf("system calls while messages pass: %s\n",
           WIFEXITED(status) ? "none: met" : "some: NOT MET");
    return WIFEXITED(status);
}

static bool weigh_idle_client(void)
{
    static Bench b;
    static BenchClient clients[IDLE_CLIENTS];
    size_t before, each;
    int i, n;

    bench_open(&b, SPICE_FLOW_RAW);
    bench_add_client(&b, &clients[0], 1, false, 0);
    spice_flow_send(b.flow, b.source, MESSAGE);

    before = mallinfo2().uordblks;
    for (i = 1; i < IDLE_CLIENTS; i++) {
        bench_add_client(&b, &clients[i], i + 1, false, 0);
    }
    /* They have seen better days: many messages, long delivered */
    for (n = 0; n < 100; n++) {
        spice_flow_send(b.flow, b.source, MESSAGE);
    }
    each = (mallinfo2().uordblks - before) / (IDLE_CLIENTS - 1);
    printf("an idle client costs %zu bytes  < %d %s\n", each, IDLE_LIMIT,
           each < IDLE_LIMIT ? "met" : "NOT MET");
    bench_close(&b);
    return each < IDLE_LIMIT;
}

/* Not inlined: profilers are told to look at what is under this name */
__attribute__((noinline))
static void messages_pass(const Way *way, Bench *b)
{
    int i;

    for (i = 0; i < BATCH; i++) {
        way->run(b);
    }
}

static int profile_way(unsigned long way, unsigned long num_clients)
{
    static Bench b;

    if (way < 1 || way > G_N_ELEMENTS(ways) ||
        num_clients < 1 || num_clients > 1 + MANY) {
        fprintf(stderr, "bench-flow: there are ways 1 to %zu and 1 to %d "
                "clients\n", G_N_ELEMENTS(ways), 1 + MANY);
        return 2;
    }
    way_open(&b, &ways[way - 1], num_clients);
    messages_pass(&ways[way - 1], &b);
    bench_close(&b);
    return 0;
}

int main(int argc, char **argv)
{
    bool ok = true;
    size_t i;

    if (argc == 3) {
        return profile_way(g_ascii_strtoull(argv[1], NULL, 10),
                           g_ascii_strtoull(argv[2], NULL, 10));
    }

    printf("a message of %d bytes, ns of CPU time; ratios to copy, push and "
           "pop\n%-36s %6s %6s  %5s %16s  %s\n", MESSAGE, "", "least", "one",
           "ratio", "", "further client");
    for (i = 0; i < G_N_ELEMENTS(ways); i++) {
        ok &= time_way(&ways[i]);
    }
    ok &= count_allocations();
    ok &= count_syscalls();
    ok &= weigh_idle_client();
    return ok ? 0 : 1;
}
