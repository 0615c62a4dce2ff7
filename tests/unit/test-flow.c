/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The flow-control machine, script by script, and what scripts do not reach.
 */
#include "flow-play.h"
#include "flow-scripts.h"
#include "../../chardev/spiceflow/core/flow-priv.h"

#include <string.h>

static void test_script(gconstpointer data)
{
    const FlowScript *script = data;
    FlowPlay *play = flow_play_new();
    const char *error = flow_play_script(play, script->text);

    if (error) {
        g_test_message("%s", error);
        g_test_fail();
    }
    flow_play_free(play);
}

/* What is printed of a step is the step, and so are its bytes. */
static void test_language(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(flow_scripts); i++) {
        g_auto(GStrv) lines = g_strsplit(flow_scripts[i].text, "\n", -1);

        for (guint j = 0; lines[j]; j++) {
            g_autoptr(GByteArray) bytes = g_byte_array_new();
            g_autofree char *line = NULL;
            FlowStep step, again;

            if (!flow_step_parse(&step, lines[j])) {
                continue;
            }
            line = flow_step_print(&step);
            g_assert_true(flow_step_parse(&again, line));
            g_assert_cmpmem(&step, sizeof(step), &again, sizeof(again));
            flow_step_encode(bytes, &step);
            g_assert_cmpuint(flow_step_decode(&again, bytes->data, bytes->len),
                             ==, bytes->len);
            g_assert_cmpuint(again.op, ==, step.op);
            g_assert_cmpuint(again.in, ==, step.in);
            g_assert_cmpuint(again.who, ==, MAX(step.who, 1));
        }
    }
}

/*
 * What scripts do not reach
 */

static const SpiceFlowParams plain_params = {
    .framing = SPICE_FLOW_FRAMED,
    .self_tokens = 2,
    .max_message = 64 * 1024,
    .stall_timeout = 100,
};

static const SpiceFlowClientParams plain_client = {
    .id = 7,
    .flow_control = true,
    .window = 8,
    .interval = 4,
    .send_tokens = 8,
    .to_client_bytes = 256 * 1024,
    .to_client_messages = 64,
};

static ssize_t write_all(void *opaque, const uint8_t *data, size_t len)
{
    (void)data;
    *(size_t *)opaque += len;
    return len;
}

static ssize_t write_none(void *opaque, const uint8_t *data, size_t len)
{
    (void)opaque;
    (void)data;
    (void)len;
    return 0;
}

static bool send_all(void *opaque, SpiceFlowMessage *msg)
{
    (void)opaque;
    (void)msg;
    return true;
}

static bool send_keeps(void *opaque, SpiceFlowMessage *msg)
{
    g_queue_push_tail(opaque, spice_flow_message_keep(msg));
    return false;
}

/* All but write and send can be left out. */
static void test_ops_left_out(void)
{
    static const SpiceFlowOps ops = { .write = write_all, .send = send_all };
    SpiceFlowClientParams params = plain_client;
    SpiceFlowBuffer part = { .data = "part", .len = 4, .more = true };
    SpiceFlowBuffer end = { .data = "end", .len = 3 };
    SpiceFlowClient *a, *b, *raw;
    size_t bytes = 0;
    SpiceFlow *flow = spice_flow_new(&ops, &bytes, &plain_params);

    params.interval = 1;
    g_assert_false(spice_flow_may_send(flow, 1));
    spice_flow_start(flow, 0);
    a = spice_flow_client_add(flow, &params, NULL);
    params.id = 8;
    params.send_tokens = 0;
    b = spice_flow_client_add(flow, &params, NULL);
    g_assert_true(spice_flow_client_find(flow, 8) == b);
    g_assert_null(spice_flow_client_find(flow, 9));
    params.id = 0;
    g_assert_null(spice_flow_client_add(flow, &params, NULL));
    params.id = 9;
    params.flow_control = false;
    params.to_guest_bytes = params.to_guest_messages = 1;
    raw = spice_flow_client_add(flow, &params, NULL);
    spice_flow_stop(flow, 0);
    g_assert_true(spice_flow_client_write(raw, &(SpiceFlowBuffer) {
        .data = "x", .len = 1 }));
    g_assert_cmpuint(spice_flow_client_room(raw), ==, 0);
    spice_flow_start(flow, 0);
    g_assert_cmpuint(spice_flow_client_room(raw), ==, 1);

    g_assert_true(spice_flow_client_begin(a));
    g_assert_true(spice_flow_client_write(a, &part));
    g_assert_true(spice_flow_client_begin(b));
    g_assert_true(spice_flow_client_write(b, &end));
    spice_flow_tick(flow, 1);
    spice_flow_tick(flow, 200);                 /* a loses its turn */
    g_assert_true(spice_flow_server_may_write(flow));
    g_assert_true(spice_flow_server_write(flow, &end));
    g_assert_cmpuint(bytes, ==, 8);             /* b still has to wait */
    spice_flow_server_write_unpaid(flow, &(SpiceFlowBuffer) {
        .data = "!", .len = 1 });
    g_assert_true(spice_flow_send(flow, "x", 1));
    spice_flow_tick(flow, 300);
    spice_flow_tick(flow, 500);                 /* b takes nothing */
    g_assert_false(spice_flow_client_begin(b));
    g_assert_cmpuint(bytes, ==, 12);
    g_assert_null(spice_flow_check(flow));
    spice_flow_client_remove(b);
    spice_flow_close(flow);
    spice_flow_close(NULL);
}

static void count_client(SpiceFlowClient *client, void *data)
{
    SpiceFlowClientInfo info;

    spice_flow_client_info(client, &info);
    *(unsigned *)data = *(unsigned *)data * 16 + info.id;
}

static void test_foreach(void)
{
    static const SpiceFlowOps ops = { .write = write_all, .send = send_all };
    SpiceFlowClientParams params = plain_client;
    SpiceFlow *flow = spice_flow_new(&ops, NULL, &plain_params);
    SpiceFlowClient *two;
    unsigned ids = 0;

    params.id = 1;
    spice_flow_client_add(flow, &params, NULL);
    params.id = 2;
    two = spice_flow_client_add(flow, &params, NULL);
    params.id = 3;
    spice_flow_client_add(flow, &params, NULL);
    spice_flow_client_foreach(flow, count_client, &ids);
    g_assert_cmphex(ids, ==, 0x321);
    spice_flow_client_remove(two);
    ids = 0;
    spice_flow_client_foreach(flow, count_client, &ids);
    g_assert_cmphex(ids, ==, 0x31);
    spice_flow_close(flow);
}

typedef struct Gone {
    SpiceFlow *flow;
    SpiceFlowClient *client;
    unsigned ids;
} Gone;

static void wake_removes(void *opaque)
{
    Gone *gone = opaque;

    if (gone->client) {
        spice_flow_client_remove(gone->client);
        gone->client = NULL;
    }
    spice_flow_client_foreach(gone->flow, count_client, &gone->ids);
    spice_flow_client_foreach(gone->flow, count_client, &gone->ids);
}

/* A client that is removed while a call is in progress is not seen again. */
static void test_foreach_inside(void)
{
    static const SpiceFlowOps ops = {
        .write = write_all, .send = send_all, .wake = wake_removes,
    };
    SpiceFlowClientParams params = plain_client;
    Gone gone = { NULL, NULL, 0 };
    SpiceFlow *flow = spice_flow_new(&ops, &gone, &plain_params);

    gone.flow = flow;
    gone.client = spice_flow_client_add(flow, &params, NULL);
    params.id = 5;
    spice_flow_client_add(flow, &params, NULL);
    spice_flow_start(flow, 0);
    g_assert_cmphex(gone.ids, ==, 0x55);
    spice_flow_close(flow);
}

static void test_names(void)
{
    for (int i = 0; i < SPICE_FLOW_EV__MAX; i++) {
        const char *name = spice_flow_event_name(i);

        g_assert_nonnull(name);
        g_assert_cmpstr(name, !=, "?");
        for (int j = 0; j < i; j++) {
            g_assert_cmpstr(name, !=, spice_flow_event_name(j));
        }
    }
    g_assert_cmpstr(spice_flow_event_name(SPICE_FLOW_EV__MAX), ==, "?");
    g_assert_cmpstr(spice_flow_reason_name(SPICE_FLOW_TOKEN_VIOLATION), ==,
                    "token violation");
    g_assert_cmpstr(spice_flow_reason_name(SPICE_FLOW_STALLED), ==, "stalled");
    g_assert_cmpstr(spice_flow_reason_name(SPICE_FLOW_OVERFLOW), ==,
                    "queue full");
    g_assert_cmpstr(spice_flow_reason_name(99), ==, "?");
}

static void write_size(SpiceFlowClient *client, size_t size)
{
    g_autofree uint8_t *bytes = g_malloc0(size);
    SpiceFlowBuffer buffer = { .data = bytes, .len = size };

    g_assert_true(spice_flow_client_begin(client));
    g_assert_true(spice_flow_client_write(client, &buffer));
}

/* Buffers are recycled, within a cap that shrinks when idle. */
static void test_pool(void)
{
    static SpiceFlowOps ops;
    SpiceFlowClientParams params = plain_client;
    SpiceFlowParams device = plain_params;
    SpiceFlowClient *client;
    SpiceFlowInfo info;
    size_t bytes = 0, before;
    SpiceFlow *flow;

    device.max_message = 1024 * 1024;
    params.window = 200;
    params.interval = 1;
    ops = (SpiceFlowOps) { .write = write_none, .send = send_all };
    flow = spice_flow_new(&ops, &bytes, &device);
    client = spice_flow_client_add(flow, &params, NULL);
    spice_flow_start(flow, 0);
    for (size_t size = 1; size <= 96 * 1024; size += 1 + size / 2) {
        write_size(client, size);
    }
    ops.write = write_all;
    spice_flow_guest_ready(flow);
    spice_flow_info(flow, &info);
    before = info.pool_bytes;
    g_assert_cmpuint(before, >, 100 * 1024);
    g_assert_cmpuint(before, <=, 2 * bytes + 4096);
    /* small traffic from here on: what is kept shrinks to that */
    for (int i = 0; i < 100; i++) {
        write_size(client, 100);
    }
    spice_flow_info(flow, &info);
    g_assert_cmpuint(info.pool_bytes, <, 1024);

    /* never above the cap, whatever the traffic */
    ops.write = write_none;
    for (int i = 0; i < 100; i++) {
        write_size(client, 64 * 1024);
    }
    ops.write = write_all;
    spice_flow_guest_ready(flow);
    spice_flow_info(flow, &info);
    g_assert_cmpuint(info.pool_bytes, <=, 4 * 1024 * 1024);
    g_assert_cmpuint(info.pool_bytes, >, 3 * 1024 * 1024);
    spice_flow_close(flow);
}

/* A ring grows as far as its budget and does not stay large. */
static void test_ring(void)
{
    static const SpiceFlowOps ops = { .write = write_all, .send = send_keeps };
    SpiceFlowClientParams params = plain_client;
    GQueue kept = G_QUEUE_INIT;
    SpiceFlowClient *client;
    SpiceFlow *flow = spice_flow_new(&ops, NULL, &plain_params);
    uint32_t sent = 0, got = 0;

    params.flow_control = false;
    client = spice_flow_client_add(flow, &params, &kept);
    spice_flow_start(flow, 0);
    for (int round = 1; round < 70; round++) {
        for (int i = 0; i < round && i < 60; i++) {
            g_assert_true(spice_flow_send(flow, &sent, sizeof(sent)));
            sent++;
        }
        for (int i = 0; i < round && i < 60; i++) {
            SpiceFlowMessage *msg = g_queue_pop_head(&kept);
            size_t len;
            const uint8_t *data = spice_flow_message_data(msg, &len);

            g_assert_cmpuint(len, ==, sizeof(got));
            g_assert_cmpint(memcmp(data, &got, len), ==, 0);
            got++;
            spice_flow_client_sent(client);
            spice_flow_message_unref(msg);
        }
        spice_flow_client_sent(client);         /* one too many: nothing */
    }
    spice_flow_close(flow);
}

/* Messages that are kept outlive the device. */
static void test_keep_beyond_close(void)
{
    static const SpiceFlowOps ops = { .write = write_all, .send = send_keeps };
    GQueue kept = G_QUEUE_INIT;
    SpiceFlow *flow = spice_flow_new(&ops, NULL, &plain_params);
    SpiceFlowMessage *msg;
    size_t len;

    spice_flow_client_add(flow, &plain_client, &kept);
    spice_flow_start(flow, 0);
    g_assert_true(spice_flow_send(flow, "one", 3));
    g_assert_true(spice_flow_send(flow, "three", 5));
    spice_flow_close(flow);
    msg = g_queue_pop_head(&kept);
    g_assert_cmpint(memcmp(spice_flow_message_data(msg, &len), "one", 3), ==,
                    0);
    spice_flow_message_unref(msg);
    msg = g_queue_pop_head(&kept);
    g_assert_cmpint(memcmp(spice_flow_message_data(msg, &len), "three", 5), ==,
                    0);
    g_assert_cmpuint(len, ==, 5);
    spice_flow_message_unref(msg);
}

/*
 * States that can not be: each is refused with the name of its field
 */

static SpiceFlow *restore_device(void)
{
    static const SpiceFlowOps ops = { .write = write_none, .send = send_keeps };

    return spice_flow_new(&ops, NULL, &plain_params);
}

/*
 * 7: flow control, window 8: two to the guest, one under way to it; 8: a
 * stream, one each way; and two of the server's own, one of them paid
 */
static void good_state(SpiceFlowSaved *saved)
{
    static SpiceFlowSavedClient clients[2];
    static SpiceFlowSavedBuffer buffers[7];
    static uint8_t data[70];

    memset(buffers, 0, sizeof(buffers));
    for (int i = 0; i < 7; i++) {
        buffers[i].size = 10;
    }
    buffers[0].place = SPICE_FLOW_AT_CURRENT;
    buffers[0].client = 7;
    buffers[0].price = 1;
    buffers[0].offset = 9;
    buffers[1].place = SPICE_FLOW_AT_SERVER;
    buffers[1].paid = 1;
    buffers[2].place = SPICE_FLOW_AT_SERVER;
    buffers[3].place = SPICE_FLOW_AT_CLIENT;
    buffers[3].client = 7;
    buffers[3].price = 1;
    buffers[4].place = SPICE_FLOW_AT_CLIENT;
    buffers[4].client = 8;
    buffers[5].place = SPICE_FLOW_AT_TO_CLIENT;
    buffers[5].client = 7;
    buffers[6].place = SPICE_FLOW_AT_TO_CLIENT;
    buffers[6].client = 8;
    clients[0] = (SpiceFlowSavedClient) {
        .params = plain_client, .tokens = 4, .due = 1, .send_tokens = 3,
        .in_flight = 1, .waited = 20, .receiving = 1,
    };
    clients[1] = (SpiceFlowSavedClient) {
        .params = { .id = 8, .to_guest_bytes = 10, .to_guest_messages = 1,
                    .to_client_bytes = 10, .to_client_messages = 1 },
        .waited = -1,
    };
    *saved = (SpiceFlowSaved) {
        .self_tokens = 1, .turn_waited = -1,
        .num_clients = 2, .clients = clients,
        .num_buffers = 7, .buffers = buffers,
        .data_size = sizeof(data), .data = data,
    };
}

static void refused(const SpiceFlowSaved *saved, const char *field)
{
    SpiceFlow *flow = restore_device();
    char *error = NULL;
    SpiceFlowInfo info;

    spice_flow_client_add(flow, &plain_client, NULL);
    if (spice_flow_restore(flow, saved, 1000, &error)) {
        g_test_message("%s was not refused", field);
        g_test_fail();
    } else if (!strstr(error, field)) {
        g_test_message("'%s' does not name %s", error, field);
        g_test_fail();
    }
    spice_flow_info(flow, &info);
    g_assert_cmpuint(info.clients, ==, 1);
    g_assert_cmpuint(info.to_guest_messages, ==, 0);
    g_free(error);
    spice_flow_close(flow);
}

static void test_restore_good(void)
{
    SpiceFlow *flow = restore_device();
    SpiceFlowSaved saved;
    SpiceFlowInfo info;
    char *error = NULL;

    good_state(&saved);
    spice_flow_client_add(flow, &plain_client, NULL);
    g_assert_true(spice_flow_restore(flow, &saved, 1000, &error));
    g_assert_null(error);
    g_assert_null(spice_flow_check(flow));
    spice_flow_info(flow, &info);
    g_assert_cmpuint(info.clients, ==, 2);
    g_assert_cmpuint(info.to_guest_messages, ==, 5);
    g_assert_cmpuint(info.to_guest_bytes, ==, 41);
    g_assert_cmpuint(info.to_guest_peak, ==, 41);
    g_assert_cmpuint(info.self_tokens, ==, 1);
    spice_flow_start(flow, 1000);
    g_assert_false(spice_flow_restore(flow, &saved, 1000, &error));
    g_assert_cmpstr(error, ==, "running");
    g_free(error);
    spice_flow_close(flow);
}

static void test_restore_bad(void)
{
    SpiceFlowSaved s;

#define BAD(field, change) \
    do { \
        good_state(&s); \
        change; \
        refused(&s, field); \
    } while (0)

    BAD("buffers[0].place", s.buffers[0].place = SPICE_FLOW_AT__MAX);
    BAD("buffers[3].place", s.buffers[3].place = SPICE_FLOW_AT_CURRENT);
    BAD("buffers[1].size", s.buffers[1].size = 0);
    BAD("buffers[1].size", s.buffers[1].size = 64 * 1024 + 1);
    BAD("buffers[0].offset", s.buffers[0].offset = 10);
    BAD("buffers[1].offset", s.buffers[1].offset = 1);
    BAD("buffers[3].client", s.buffers[3].client = 9);
    BAD("buffers[3].client", s.buffers[3].client = 0);
    BAD("buffers[6].client", s.buffers[6].client = 0);
    BAD("buffers[1].client", s.buffers[1].client = 7);
    BAD("buffers[1].client", (s.buffers[1].client = 7,
                              s.buffers[1].place = SPICE_FLOW_AT_ORPHAN));
    BAD("buffers[3].price", s.buffers[3].price = 0);
    BAD("buffers[3].price", s.buffers[3].price = 2);
    BAD("buffers[4].price", s.buffers[4].price = 1);
    BAD("buffers[5].price", s.buffers[5].price = 1);
    BAD("buffers[1].price", s.buffers[1].price = 1);
    BAD("buffers[3].paid", s.buffers[3].paid = 1);
    BAD("buffers[1].paid", s.buffers[1].paid = 2);
    BAD("buffers[0].paid", s.buffers[0].paid = 1);
    BAD("buffers[1].more", s.buffers[1].more = 1);
    BAD("buffers[5].more", s.buffers[5].more = 1);
    BAD("buffers[3].more", s.buffers[3].more = 2);
    BAD("data_size", s.data_size = 69);
    /* all buffers are the first client's, so that only the id is wrong */
    BAD("clients[1].id", (s.buffers[4].client = s.buffers[6].client = 7,
                          s.buffers[4].price = 1, s.clients[0].tokens = 3,
                          s.clients[1].params.id = 7));
    BAD("clients[1].id", (s.buffers[4].client = s.buffers[6].client = 7,
                          s.buffers[4].price = 1, s.clients[0].tokens = 3,
                          s.clients[1].params.id = 0));
    BAD("clients[0].interval", s.clients[0].params.interval = 0);
    BAD("clients[0].receiving", s.clients[0].receiving = 3);
    BAD("clients[1].receiving", s.clients[1].receiving = 1);
    BAD("clients[0].tokens", s.clients[0].tokens = 3);
    BAD("clients[0].tokens", s.clients[0].due = UINT32_MAX);
    BAD("clients[0].tokens", s.clients[0].receiving = 0);
    BAD("clients[1].tokens", s.clients[1].tokens = 1);
    BAD("clients[1].tokens", s.clients[1].due = 1);
    BAD("clients[1].to_guest_bytes", s.clients[1].params.to_guest_bytes = 9);
    BAD("clients[1].to_guest_bytes", s.clients[1].params.to_guest_messages = 0);
    BAD("clients[1].to_client_bytes",
        s.clients[1].params.to_client_messages = 0);
    BAD("clients[1].to_client_bytes",
        (s.clients[1].params.to_client_messages = 2,
         s.buffers[5].client = 8, s.clients[0].in_flight = 0));
    BAD("clients[0].in_flight", s.clients[0].in_flight = 2);
    BAD("self_tokens", s.self_tokens = 2);
    BAD("self_tokens", s.buffers[1].paid = 0);
    BAD("turn", s.turn = 9);
    BAD("turn", (s.turn = 7, s.buffers[2].place = SPICE_FLOW_AT_ORPHAN));
    BAD("torn", s.torn = 2);
    BAD("torn", (s.torn = 1, s.turn = 7));
#undef BAD
}

/* What may stand where it does not usually. */
static void test_restore_possible(void)
{
    SpiceFlow *flow = restore_device();
    SpiceFlowSaved saved;
    char *error = NULL;

    good_state(&saved);
    saved.buffers[0].client = 0;        /* current: of one who left, paid */
    saved.buffers[0].price = 0;
    saved.buffers[0].more = 1;
    saved.buffers[1].paid = 0;
    saved.buffers[0].paid = 1;
    saved.buffers[2].place = SPICE_FLOW_AT_ORPHAN;
    saved.clients[0].tokens = 5;
    saved.torn = 1;
    g_assert_true(spice_flow_restore(flow, &saved, 1000, &error));
    spice_flow_close(flow);
}

/*
 * spice_flow_check() sees what it is there to see: numbers are changed behind
 * the machine's back.
 */
static void test_check(void)
{
    static const SpiceFlowOps ops = { .write = write_none, .send = send_keeps };
    SpiceFlowClientParams params = plain_client;
    SpiceFlowBuffer buffer = { .data = "bytes", .len = 5 };
    GQueue kept = G_QUEUE_INIT;
    SpiceFlow *flow = spice_flow_new(&ops, NULL, &plain_params);
    SpiceFlowClient *a, *b;

    g_assert_false(spice_flow_running(flow));
    spice_flow_start(flow, 0);
    g_assert_true(spice_flow_running(flow));
    params.send_tokens = 1;
    a = spice_flow_client_add(flow, &params, &kept);
    params = (SpiceFlowClientParams) {
        .id = 8, .to_guest_bytes = 20, .to_guest_messages = 4,
        .to_client_bytes = 100, .to_client_messages = 4,
    };
    b = spice_flow_client_add(flow, &params, &kept);
    for (int i = 0; i < 3; i++) {
        g_assert_true(spice_flow_client_begin(a));
        g_assert_true(spice_flow_client_write(a, &buffer));
        g_assert_true(spice_flow_client_write(b, &buffer));
        g_assert_true(spice_flow_send(flow, "bytes", 5));
    }
    g_assert_null(spice_flow_check(flow));

#define WRONG(says, field, value) \
    do { \
        __typeof__(field) was = field; \
        field = value; \
        g_assert_cmpstr(spice_flow_check(flow), ==, says); \
        field = was; \
        g_assert_null(spice_flow_check(flow)); \
    } while (0)

    WRONG("client tokens are conserved", a->tokens, a->tokens + 1);
    WRONG("client tokens are conserved", a->due, 1);
    WRONG("client tokens are conserved", a->receiving, RECEIVING);
    WRONG("client tokens are conserved", a->to_guest_messages, 4);
    WRONG("bytes to the guest are within the budget",
          b->params.to_guest_bytes, 14);
    WRONG("bytes to the guest are within the budget",
          b->params.to_guest_messages, 2);
    WRONG("bytes to a client are within the budget",
          b->params.to_client_bytes, 14);
    WRONG("bytes to a client are within the budget",
          b->params.to_client_messages, 2);
    WRONG("what is in flight is undelivered", b->in_flight, 4);
    WRONG("nothing waits that may be sent", a->send_tokens, 1);
    WRONG("nothing waits that may be sent", b->in_flight, 2);
    WRONG("a client with a queue is ready or has the turn", a->ready, false);
    WRONG("what clients have queued is queued", flow->count.to_guest_bytes, 29);
    WRONG("what clients have queued is queued",
          flow->count.to_guest_messages, 5);
    WRONG("self tokens are conserved", flow->self_tokens, 3);
    a->away = true;                     /* nothing goes to one who is away */
    WRONG(NULL, a->send_tokens, 1);
    a->away = false;
    a->dead = true;                     /* one told to go is not looked at */
    WRONG(NULL, a->tokens, 99);
    a->dead = false;
    flow->torn = true;
    WRONG("a torn message has no turn", flow->turn, a);
    flow->torn = false;
#undef WRONG

    spice_flow_close(flow);
    for (SpiceFlowMessage *msg; (msg = g_queue_pop_head(&kept));) {
        spice_flow_message_unref(msg);
    }
}

static void forgets(void *opaque, SpiceFlowReason reason)
{
    (void)opaque;
    (void)reason;
}

/* Whatever an owner does for a client that was told to go has no effect. */
static void test_told_to_go(void)
{
    static const SpiceFlowOps ops = {
        .write = write_all, .send = send_all, .remove = forgets,
    };
    SpiceFlow *flow = spice_flow_new(&ops, NULL, &plain_params);
    SpiceFlowBuffer buffer = { .data = "bytes", .len = 5 };
    SpiceFlowClientParams params = plain_client;
    SpiceFlowClientInfo before, after;
    SpiceFlowClient *client;

    params.window = 1;
    client = spice_flow_client_add(flow, &params, NULL);
    g_assert_true(spice_flow_client_begin(client));
    g_assert_true(spice_flow_client_write(client, &buffer));
    g_assert_false(spice_flow_client_begin(client));
    spice_flow_client_info(client, &before);
    g_assert_true(before.dead);
    g_assert_false(spice_flow_client_begin(client));
    g_assert_false(spice_flow_client_write(client, &buffer));
    spice_flow_client_cancel(client);
    spice_flow_client_sent(client);
    spice_flow_client_tokens_add(client, 5);
    spice_flow_client_tokens_set(client, 5);
    g_assert_cmpuint(spice_flow_client_room(client), ==, 0);
    g_assert_false(spice_flow_client_resume(client, NULL, 0));
    spice_flow_settle(flow);
    spice_flow_client_info(client, &after);
    g_assert_cmpuint(after.client_tokens, ==, before.client_tokens);
    g_assert_cmpuint(after.due_tokens, ==, before.due_tokens);
    g_assert_cmpuint(after.send_tokens, ==, before.send_tokens);
    g_assert_cmpuint(after.to_client_messages, ==, 0);
    g_assert_false(spice_flow_client_remove(client));
    spice_flow_close(flow);
}

/*
 * Notices are the same when their bytes are, however they are cut.  A paid
 * buffer is none: it does not end a torn message.
 */
static void test_unpaid(void)
{
    static const SpiceFlowOps ops = { .write = write_none, .send = send_all };
    SpiceFlow *flow = spice_flow_new(&ops, NULL, &plain_params);
    const SpiceFlowBuffer notices[] = {
        { .data = "notice", .len = 6 },
        { .head = "not", .head_len = 3, .data = "ice", .len = 3 },
        { .head = "notice", .head_len = 6 },
        { .head = "Not", .head_len = 3, .data = "ice", .len = 3 },
        { .head = "not", .head_len = 3, .data = "ICE", .len = 3 },
        { .head = "notices", .head_len = 7 },
    };
    const unsigned queued[] = { 2, 2, 2, 3, 4, 5 };
    SpiceFlowInfo info;

    g_assert_true(spice_flow_server_write(flow, &notices[0]));
    for (size_t i = 0; i < G_N_ELEMENTS(notices); i++) {
        spice_flow_server_write_unpaid(flow, &notices[i]);
        spice_flow_info(flow, &info);
        g_assert_cmpuint(info.to_guest_messages, ==, queued[i]);
    }
    spice_flow_close(flow);
}

/* The bound of what there is to save, known before there is a client. */
static void test_saved_max(void)
{
    SpiceFlow *flow = restore_device();
    SpiceFlowClientParams params = plain_client;
    size_t fc, raw;

    fc = spice_flow_saved_max(flow, &params, 2);
    g_assert_cmpuint(fc, >=, 3 * (8 * 64 * 1024 + 256 * 1024));
    params.flow_control = false;
    params.to_guest_bytes = 1000;
    params.to_guest_messages = 4;
    raw = spice_flow_saved_max(flow, &params, 2);
    g_assert_cmpuint(fc - raw, >=, 3 * (8 * 64 * 1024 - 1000));
    spice_flow_close(flow);
}

/* test-flow --corpus FOLDER: the scripts as bytes, for the fuzzer. */
static int write_corpus(const char *folder)
{
    for (size_t i = 0; i < G_N_ELEMENTS(flow_scripts); i++) {
        g_auto(GStrv) lines = g_strsplit(flow_scripts[i].text, "\n", -1);
        g_autoptr(GByteArray) bytes = g_byte_array_new();
        g_autofree char *name = g_strdelimit(g_strdup(flow_scripts[i].name),
                                             "/", '-');
        g_autofree char *path = g_build_filename(folder, name, NULL);
        g_autoptr(GError) err = NULL;

        for (guint j = 0; lines[j]; j++) {
            FlowStep step;

            if (flow_step_parse(&step, lines[j])) {
                flow_step_encode(bytes, &step);
            }
        }
        if (!g_file_set_contents(path, (char *)bytes->data, bytes->len, &err)) {
            g_printerr("%s\n", err->message);
            return 1;
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "--corpus")) {
        return write_corpus(argv[2]);
    }
    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(flow_scripts); i++) {
        g_autofree char *path = g_strconcat("/flow/", flow_scripts[i].name,
                                            NULL);

        g_test_add_data_func(path, &flow_scripts[i], test_script);
    }
    g_test_add_func("/flow/language", test_language);
    g_test_add_func("/flow/ops-left-out", test_ops_left_out);
    g_test_add_func("/flow/foreach", test_foreach);
    g_test_add_func("/flow/foreach-inside", test_foreach_inside);
    g_test_add_func("/flow/names", test_names);
    g_test_add_func("/flow/pool", test_pool);
    g_test_add_func("/flow/ring", test_ring);
    g_test_add_func("/flow/keep-beyond-close", test_keep_beyond_close);
    g_test_add_func("/flow/restore/good", test_restore_good);
    g_test_add_func("/flow/restore/bad", test_restore_bad);
    g_test_add_func("/flow/restore/possible", test_restore_possible);
    g_test_add_func("/flow/saved-max", test_saved_max);
    g_test_add_func("/flow/check", test_check);
    g_test_add_func("/flow/told-to-go", test_told_to_go);
    g_test_add_func("/flow/unpaid", test_unpaid);
    return g_test_run();
}
