/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The agent's device on virtio-serial, with both ends scripted.
 *
 * spice-gtk grants all the tokens there are, once, so it shows nothing of the
 * pacing.  The client here grants what a case wants, and says when the guest
 * takes what: every buffer of either ring is the test's.
 */
#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "virtio-guest.h"

#include <spice/enums.h>
#include <spice/vd_agent.h>

#define QUEUE_SIZE      (64 * 1024)
#define HEADER          20
#define CHUNK_HEADER    8
#define STALL           300     /* ms */
#define UNLIMITED       UINT32_MAX

typedef struct Agent {
    VirtioGuest g;
    uint64_t addr;              /* what the guest writes from */
} Agent;

static void agent_boot(Agent *a, const char *options)
{
    *a = (Agent) { };
    virtio_guest_boot(&a->g, options, "vdagent", QUEUE_SIZE);
    virtio_guest_open(&a->g, true);
    a->addr = guest_alloc(&a->g.qs->alloc, QUEUE_SIZE);
}

static void agent_end(Agent *a)
{
    guest_free(&a->g.qs->alloc, a->addr);
    virtio_guest_end(&a->g);
}

/* A message of a type that all may see, with @size bytes of @fill. */
static size_t message_put(uint8_t *data, uint32_t size, uint8_t fill)
{
    stl_le_p(data, VD_AGENT_PROTOCOL);
    stl_le_p(data + 4, VD_AGENT_AUDIO_VOLUME_SYNC);
    stq_le_p(data + 8, 0);
    stl_le_p(data + 16, size);
    memset(data + HEADER, fill, size);
    return HEADER + size;
}

/*
 * The guest
 */

static void guest_say(Agent *a, uint8_t fill)
{
    uint8_t data[CHUNK_HEADER + HEADER + 100];
    size_t len = message_put(data + CHUNK_HEADER, 100, fill);

    stl_le_p(data, VDP_CLIENT_PORT);
    stl_le_p(data + 4, len);
    qtest_memwrite(a->g.qs->qts, a->addr + 256 * fill, data, sizeof(data));
    virtio_guest_post(&a->g, OUT, a->addr + 256 * fill, sizeof(data));
}

/* How many of the buffers that the guest has written were taken by now. */
static unsigned guest_said(Agent *a)
{
    unsigned n = 0;
    uint32_t head, len;

    while (qvirtqueue_get_buf(a->g.qs->qts, a->g.vq[OUT], &head, &len)) {
        n++;
    }
    return n;
}

static uint32_t guest_take_chunk(Agent *a, uint8_t *data, uint32_t port)
{
    static const uint32_t sizes[] = { 3, 2048 };
    uint8_t header[CHUNK_HEADER];
    uint32_t len;

    virtio_guest_take(&a->g, header, sizeof(header), sizes,
                      G_N_ELEMENTS(sizes));
    g_assert_cmpuint(ldl_le_p(header), ==, port);
    len = ldl_le_p(header + 4);
    g_assert_cmpuint(len, <=, 2048);
    virtio_guest_take(&a->g, data, len, sizes + 1, 1);
    return len;
}

static void guest_expect(Agent *a, uint8_t fill)
{
    uint8_t data[2048], want[2048];
    size_t len = message_put(want, 100, fill);

    g_assert_cmpuint(guest_take_chunk(a, data, VDP_CLIENT_PORT), ==, len);
    g_assert_cmpmem(data, len, want, len);
}

/*
 * Clients
 */

static void client_say_u32(SpiceTestChannel *client, uint16_t type,
                           uint32_t value)
{
    uint8_t body[4];

    stl_le_p(body, value);
    spice_test_send(client, type, body, sizeof(body));
}

static SpiceTestChannel *client_come(Agent *a, uint32_t tokens)
{
    uint32_t session;
    SpiceTestChannel *client = spice_test_main(a->g.server.path, &session);

    client_say_u32(client, SPICE_MSGC_MAIN_AGENT_START, tokens);
    return client;
}

static void client_say(SpiceTestChannel *client, uint8_t fill)
{
    uint8_t data[2048];

    spice_test_send(client, SPICE_MSGC_MAIN_AGENT_DATA, data,
                    message_put(data, 100, fill));
}

static void client_expect(SpiceTestChannel *client, uint8_t fill)
{
    g_autoptr(GByteArray) body =
        spice_test_expect(client, SPICE_MSG_MAIN_AGENT_DATA);
    uint8_t want[2048];
    size_t len = message_put(want, 100, fill);

    g_assert_cmpmem(body->data, body->len, want, len);
}

static void client_expect_tokens(SpiceTestChannel *client, uint32_t n)
{
    g_autoptr(GByteArray) body =
        spice_test_expect(client, SPICE_MSG_MAIN_AGENT_TOKEN);

    g_assert_cmpuint(body->len, ==, 4);
    g_assert_cmpuint(ldl_le_p(body->data), ==, n);
}

/*
 * Cases
 */

/* One message at a time; a second one is one too many. */
static void test_window_of_one(void)
{
    SpiceTestChannel *client;
    Agent a;

    agent_boot(&a, ",agent-window=1");
    client = client_come(&a, UNLIMITED);
    for (unsigned i = 0; i < 20; i++) {
        client_say(client, i);
        spice_test_flow_wait(a.g.qs->qts, "client/client-tokens", 0);
        g_assert_true(i || spice_test_silent(client, 100));
        guest_expect(&a, i);
        client_expect_tokens(client, 1);
    }
    client_say(client, 1);
    client_say(client, 2);
    g_byte_array_unref(spice_test_expect(client, SPICE_MSG_NOTIFY));
    spice_test_hung_up(client);
    g_assert_cmpint(spice_test_flow(a.g.qs->qts, "token-violations"), ==, 1);
    spice_test_close(client);
    agent_end(&a);
}

/* What is granted comes, and no more; the guest's buffers stay with it. */
static void test_pacing(void)
{
    const unsigned count = 100;
    SpiceTestChannel *client;
    unsigned said, got = 0;
    Agent a;

    agent_boot(&a, "");
    client = client_come(&a, 3);
    spice_test_flow_wait(a.g.qs->qts, "client/send-tokens", 3);
    for (unsigned i = 0; i < count; i++) {
        guest_say(&a, i);
    }
    while (got < 3) {
        client_expect(client, got++);
    }
    g_assert_true(spice_test_silent(client, 200));
    said = guest_said(&a);
    g_assert_cmpuint(said, >=, 3);
    g_assert_cmpuint(said, <, 10);
    g_assert_cmpint(spice_test_flow(a.g.qs->qts, "client/to-client-messages"),
                    ==, 0);

    for (unsigned n = 1; n < 5; n++) {
        client_say_u32(client, SPICE_MSGC_MAIN_AGENT_TOKEN, n);
        for (unsigned i = 0; i < n; i++) {
            client_expect(client, got++);
        }
        g_assert_true(spice_test_silent(client, 50));
    }
    client_say_u32(client, SPICE_MSGC_MAIN_AGENT_TOKEN, UNLIMITED);
    while (got < count) {
        client_expect(client, got++);
    }
    while (said < count) {
        said += guest_said(&a);
    }
    spice_test_close(client);
    agent_end(&a);
}

/* One grants, then no more: another one makes that count, but not a stop. */
static void test_stops_granting(void)
{
    g_autofree char *options =
        g_strdup_printf(",max-clients=2,stall-timeout=%d", STALL);
    SpiceTestChannel *slow, *quick;
    Agent a;

    agent_boot(&a, options);
    slow = client_come(&a, 1);
    spice_test_flow_wait(a.g.qs->qts, "client/send-tokens", 1);
    for (unsigned i = 0; i < 3; i++) {
        guest_say(&a, i);
    }
    client_expect(slow, 0);
    /* alone it makes the guest wait, as long as it likes */
    g_assert_true(spice_test_silent(slow, 3 * STALL));

    quick = client_come(&a, UNLIMITED);
    for (unsigned i = 0; i < 3; i++) {
        guest_say(&a, 10 + i);
    }
    for (unsigned i = 0; i < 3; i++) {
        g_autoptr(GByteArray) body =
            spice_test_expect(quick, SPICE_MSG_MAIN_AGENT_DATA);

        /* it came in the middle of what waited for the slow one */
        while (i == 0 && body->data[HEADER] < 10) {
            g_byte_array_unref(body);
            body = spice_test_expect(quick, SPICE_MSG_MAIN_AGENT_DATA);
        }
        g_assert_cmpuint(body->data[HEADER], ==, 10 + i);
    }
    qtest_qmp_assert_success(a.g.qs->qts, "{ 'execute': 'stop' }");
    g_assert_true(spice_test_silent(slow, 3 * STALL));
    qtest_qmp_assert_success(a.g.qs->qts, "{ 'execute': 'cont' }");
    g_byte_array_unref(spice_test_expect(slow, SPICE_MSG_NOTIFY));
    spice_test_hung_up(slow);
    g_assert_cmpint(spice_test_flow(a.g.qs->qts, "stalls"), ==, 1);
    spice_test_close(slow);
    spice_test_close(quick);
    agent_end(&a);
}

/* One pauses in the middle of its message: it loses its turn, and stays. */
static void test_loses_its_turn(void)
{
    g_autofree char *options =
        g_strdup_printf(",max-clients=2,stall-timeout=%d", STALL);
    uint8_t message[HEADER + 3000], data[2048];
    SpiceTestChannel *slow, *quick;
    gint64 since;
    Agent a;

    agent_boot(&a, options);
    slow = client_come(&a, UNLIMITED);
    quick = client_come(&a, UNLIMITED);
    message_put(message, 3000, 1);
    spice_test_send(slow, SPICE_MSGC_MAIN_AGENT_DATA, message, 2048);
    g_assert_cmpuint(guest_take_chunk(&a, data, VDP_CLIENT_PORT), ==, 2048);
    client_expect_tokens(slow, 1);
    client_say(quick, 2);
    since = g_get_monotonic_time();
    g_assert_cmpuint(guest_take_chunk(&a, data, VDP_SERVER_PORT), ==, HEADER);
    g_assert_cmpuint(ldl_le_p(data + 4), ==, VD_AGENT_CLIENT_DISCONNECTED);
    g_assert_cmpint(g_get_monotonic_time() - since, >=, STALL * 900);
    guest_expect(&a, 2);
    client_expect_tokens(quick, 1);

    spice_test_send(slow, SPICE_MSGC_MAIN_AGENT_DATA, message + 2048,
                    sizeof(message) - 2048);
    client_expect_tokens(slow, 1);
    client_say(slow, 3);
    guest_expect(&a, 3);
    spice_test_close(slow);
    spice_test_close(quick);
    agent_end(&a);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func("/spiceflow/agent/window-of-one", test_window_of_one);
    qtest_add_func("/spiceflow/agent/pacing", test_pacing);
    qtest_add_func("/spiceflow/agent/stops-granting", test_stops_granting);
    qtest_add_func("/spiceflow/agent/loses-its-turn", test_loses_its_turn);
    return g_test_run();
}
