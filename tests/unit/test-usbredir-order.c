/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guard over usbredir packet headers: what usb-redir waits for, and the
 * guard's saved state.
 *
 * Each test of the order is done twice: straight on, and with the guard saved
 * and restored before each packet, which must make no difference.
 */
#include "usbredir-play.h"

static bool reloading;

/* Gives one packet; the result, and all of it or nothing has passed. */
static SpiceFlowUsbredirResult give_hex(SpiceFlowUsbredir *guard,
                                        SpiceFlowUsbredirDirection direction,
                                        const char *hex)
{
    g_autoptr(GByteArray) packet = bytes_of(hex);
    SpiceFlowUsbredirSpans spans;
    SpiceFlowUsbredirResult result;

    if (reloading) {
        reload(guard);
    }
    result = spice_flow_usbredir_check(guard, direction, packet->data,
                                       packet->len, &spans);
    g_assert_cmpuint(spans.pass, ==, result == SPICE_FLOW_USBREDIR_PASS ?
                                     packet->len : 0);
    g_assert_cmpuint(spans.used, ==, spans.pass);
    return result;
}

#define GIVES(guard, direction, hex, result) \
    g_assert_cmpint(give_hex(guard, direction, hex), ==, \
                    SPICE_FLOW_USBREDIR_##result)

/* Bulk packets without data, ids and streams as they lie in the packet */
#define BULK(id, ep, stream) \
    "65000000 08000000" id ep "000000" stream
#define CANCEL(id)          "15000000 00000000" id
#define RECEIVE(ep)         P("19", "0a000000") "00000000 00020000" ep "05"
#define RECEIVE_NOT(ep)     P("1a", "05000000") "00000000" ep
#define ID(n)               n "000000"
#define STREAM_0            "00000000"

/*
 * Two bulk endpoints of interface 1, 02 and 82, and one of interface 2, 83;
 * then interfaces: number, class.
 */
#define SOME_EPS(type_83, if_83, size_82) \
    P("05", "a0000000") \
    "00ffff" "ff" R4("ff") R4("ff") R4("ff") \
    "00ff02" type_83 R4("ff") R4("ff") R4("ff") \
    R32("00") \
    "0000" "0000" R4("00") R4("00") R4("00") \
    "000001" if_83 R4("00") R4("00") R4("00") \
    R32("00") "0000 0000" size_82 "0002" R16("00") R4("00") R4("00")
#define SOME_INTERFACES(count, second, class_1) \
    P("04", "84000000") count "000000" \
    "01" second "0000" R4("00") R4("00") R4("00") R4("00") R4("00") R4("00") \
    R4("00") \
    class_1 "ff0000" R4("00") R4("00") R4("00") R4("00") R4("00") R4("00") \
    R4("00") \
    R64("00")

/* The USB core asserts that answers come in the order of the requests. */
static void test_answers_in_order(void)
{
    g_autoptr(SpiceFlowUsbredir) guard = greeted_guard(EP_MAX, EP_MAX);

    GIVES(guard, TO_CLIENT, BULK(ID("01"), "82", STREAM_0), PASS);
    GIVES(guard, TO_CLIENT, BULK(ID("02"), "82", STREAM_0), PASS);
    GIVES(guard, TO_CLIENT, BULK(ID("03"), "83", STREAM_0), PASS);
    GIVES(guard, TO_CLIENT, BULK(ID("04"), "82", STREAM_0), PASS);
    /* another endpoint is another row */
    GIVES(guard, TO_GUEST, BULK(ID("03"), "83", STREAM_0), PASS);
    GIVES(guard, TO_GUEST, BULK(ID("01"), "82", STREAM_0), PASS);
    /* one taken back is out of the row, and may be answered or not */
    GIVES(guard, TO_CLIENT, CANCEL(ID("02")), PASS);
    GIVES(guard, TO_CLIENT, CANCEL(ID("02")), PASS);
    GIVES(guard, TO_GUEST, BULK(ID("02"), "82", STREAM_0), PASS);
    GIVES(guard, TO_GUEST, BULK(ID("04"), "82", STREAM_0), PASS);
    /* never asked: nothing in usb-redir is found with it */
    GIVES(guard, TO_GUEST, BULK(ID("09"), "82", STREAM_0), PASS);
    /* nor is one with the number of another endpoint's request */
    GIVES(guard, TO_CLIENT, BULK(ID("05"), "82", STREAM_0), PASS);
    GIVES(guard, TO_CLIENT, BULK(ID("06"), "82", STREAM_0), PASS);
    GIVES(guard, TO_GUEST, BULK(ID("06"), "83", STREAM_0), PASS);
    GIVES(guard, TO_GUEST, BULK(ID("06"), "82", STREAM_0), BAD);
    g_assert_nonnull(strstr(spice_flow_usbredir_error(guard),
                            "endpoint 82: an earlier request has no answer"));
}

static void test_answers_of_streams(void)
{
    g_autoptr(SpiceFlowUsbredir) guard = greeted_guard(EP_MAX, EP_MAX);

    GIVES(guard, TO_CLIENT, BULK(ID("01"), "02", ID("01")), PASS);
    GIVES(guard, TO_CLIENT, BULK(ID("02"), "02", ID("02")), PASS);
    GIVES(guard, TO_GUEST, BULK(ID("02"), "02", ID("02")), PASS);
    GIVES(guard, TO_GUEST, BULK(ID("01"), "02", ID("01")), PASS);
}

/* With the device go its requests; bits that usb-redir ignores do not count. */
static void test_answers_after_disconnect(void)
{
    g_autoptr(SpiceFlowUsbredir) guard = greeted_guard(EP_MAX, EP_MAX);

    GIVES(guard, TO_CLIENT, BULK(ID("01"), "82", STREAM_0), PASS);
    GIVES(guard, TO_GUEST, P("02", "00000000"), PASS);
    GIVES(guard, TO_CLIENT, BULK(ID("02"), "82", STREAM_0), PASS);
    GIVES(guard, TO_CLIENT, BULK(ID("03"), "82", STREAM_0), PASS);
    GIVES(guard, TO_GUEST, BULK(ID("02"), "f2", STREAM_0), PASS);
    GIVES(guard, TO_GUEST, BULK(ID("03"), "82", STREAM_0), PASS);
}

/* The table of requests has an end. */
static void test_requests_limit(void)
{
    g_autoptr(SpiceFlowUsbredir) guard = greeted_guard(EP_MAX, EP_MAX);

    for (unsigned i = 0; i < 4096; i++) {
        GIVES(guard, TO_CLIENT, BULK(ID("01"), "82", STREAM_0), PASS);
    }
    GIVES(guard, TO_CLIENT, BULK(ID("01"), "82", STREAM_0), BAD);
    g_assert_nonnull(strstr(spice_flow_usbredir_error(guard),
                            "4096 requests are without an answer already"));
}

/* While usb-redir holds what nobody saw, some packets can not be judged. */
static void test_behind(void)
{
    g_autoptr(SpiceFlowUsbredir) guard = greeted_guard(EP_MAX, EP_MAX);
    g_autoptr(GByteArray) answer = bytes_of(BULK(ID("02"), "82", STREAM_0));
    SpiceFlowUsbredirSpans spans;

    GIVES(guard, TO_CLIENT, BULK(ID("01"), "82", STREAM_0), PASS);
    spice_flow_usbredir_set_behind(guard, true);
    GIVES(guard, TO_GUEST, BULK(ID("01"), "82", STREAM_0), PASS);
    GIVES(guard, TO_GUEST, SOME_INTERFACES("02", "02", "08"), WAIT);
    GIVES(guard, TO_GUEST, SOME_EPS("02", "02", "0002"), WAIT);
    GIVES(guard, TO_GUEST, P("64", "0a000000") "00090000 0100 0000 0000",
          PASS);
    GIVES(guard, TO_GUEST, BULK(ID("02"), "82", STREAM_0), WAIT);
    /* held in part, then completed: the rest is asked for again */
    g_assert_cmpint(spice_flow_usbredir_check(guard, TO_GUEST, answer->data, 9,
                                              &spans), ==,
                    SPICE_FLOW_USBREDIR_PASS);
    g_assert_cmpuint(spans.used, ==, 9);
    g_assert_cmpint(spice_flow_usbredir_check(guard, TO_GUEST,
                                              answer->data + 9,
                                              answer->len - 9, &spans), ==,
                    SPICE_FLOW_USBREDIR_WAIT);
    g_assert_cmpuint(spans.used, ==, 0);
    GIVES(guard, TO_CLIENT, BULK(ID("02"), "82", STREAM_0), PASS);
    spice_flow_usbredir_set_behind(guard, false);
    g_assert_cmpint(spice_flow_usbredir_check(guard, TO_GUEST,
                                              answer->data + 9,
                                              answer->len - 9, &spans), ==,
                    SPICE_FLOW_USBREDIR_PASS);
    g_assert_cmpuint(spans.held_len, ==, 9);
    g_assert_cmpuint(spans.pass, ==, answer->len - 9);
}

/* What has a request open must stay what it is. */
static void test_open_stays(void)
{
    static const struct {
        const char *change;
        const char *error;
    } changes[] = {
        { SOME_EPS("02", "02", "0002"), NULL },
        { SOME_INTERFACES("02", "02", "08"), NULL },
        /* the other interface may change, and end */
        { SOME_EPS("03", "02", "0002"), NULL },
        { SOME_EPS("ff", "00", "0002"), NULL },
        { SOME_INTERFACES("01", "00", "08"), NULL },
        { SOME_EPS("02", "02", "0001"), "endpoint 82 changes" },
        { SOME_EPS("02", "01", "0002"), "endpoint 83 changes" },
        { SOME_INTERFACES("02", "02", "ff"), "interface 1 changes" },
        { SOME_INTERFACES("00", "02", "08"), "interface 1 changes" },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(changes) * 2; i++) {
        g_autoptr(SpiceFlowUsbredir) guard =
            greeted_guard(EP_MAX | RECEIVING, EP_MAX | RECEIVING);
        const char *error = changes[i / 2].error;

        GIVES(guard, TO_GUEST, SOME_INTERFACES("02", "02", "08"), PASS);
        GIVES(guard, TO_GUEST, SOME_EPS("02", "02", "0002"), PASS);
        if (i % 2) {
            GIVES(guard, TO_CLIENT, BULK(ID("01"), "82", STREAM_0), PASS);
        } else {
            GIVES(guard, TO_CLIENT, RECEIVE("82"), PASS);
        }
        g_assert_cmpint(give_hex(guard, TO_GUEST, changes[i / 2].change), ==,
                        error ? SPICE_FLOW_USBREDIR_BAD
                              : SPICE_FLOW_USBREDIR_PASS);
        g_assert_true(!error || strstr(spice_flow_usbredir_error(guard),
                                       error));
    }
}

/* Once nothing is open, everything may change. */
static void test_closed_changes(void)
{
    g_autoptr(SpiceFlowUsbredir) guard =
        greeted_guard(EP_MAX | RECEIVING, EP_MAX | RECEIVING);

    GIVES(guard, TO_GUEST, SOME_INTERFACES("02", "02", "08"), PASS);
    GIVES(guard, TO_GUEST, SOME_EPS("02", "02", "0002"), PASS);
    GIVES(guard, TO_CLIENT, RECEIVE("82"), PASS);
    GIVES(guard, TO_CLIENT, BULK(ID("01"), "82", STREAM_0), PASS);
    GIVES(guard, TO_CLIENT, CANCEL(ID("01")), PASS);
    GIVES(guard, TO_CLIENT, RECEIVE_NOT("82"), PASS);
    GIVES(guard, TO_GUEST, SOME_INTERFACES("02", "02", "ff"), PASS);
    GIVES(guard, TO_GUEST, SOME_EPS("ff", "00", "0001"), PASS);
}

/* What a saved state can not be: one field set to something else. */
typedef struct SavedCase {
    const char *error;
    SpiceFlowUsbredirSaved saved;
} SavedCase;

#define GREETED(flags)  { .hello = 1, .caps = (flags) }

static SpiceFlowUsbredirRequest many_requests[SPICE_FLOW_USBREDIR_REQUESTS];
static SpiceFlowUsbredirRequest some_requests[] = {
    { .id = 1ull << 40, .stream = 3, .endpoint = 31 },
    { .id = 1 },
    { .endpoint = 32 },
};

static const SavedCase saved_cases[] = {
    { NULL, { .refused = 0 } },
    { NULL, { .refused = 1 } },
    { NULL, { .stream = { GREETED(ALL_CAPS), GREETED(ALL_CAPS) } } },
    { NULL, { .stream = { GREETED(ALL_CAPS), { .hello = 0 } } } },
    { NULL, { .stream = { { .hello = 1, .type = 101, .left = 1 },
                          GREETED(0) } } },
    { NULL, { .stream = { { .hello = 1, .type = 101, .left = 134218752 },
                          GREETED(0) } } },
    { NULL, { .stream = { { .hello = 1, .type = 0, .left = 3 },
                          { .hello = 0 } } } },
    { NULL, { .stream = { { .held_size = 11 }, { .held_size = 1 } } } },
    { NULL, { .stream = { { .held_size = 79, .held = { [4] = 68 } } } } },
    { NULL, { .stream = { { .hello = 1, .held_size = 12,
                            .held = { 101, [4] = 8 } }, GREETED(0) } } },
    /* refused: what else there is does not matter any more */
    { NULL, { .refused = 1,
              .stream = { { .held_size = 12, .held = { 9 } } } } },

    { NULL, { .stream = { GREETED(0), GREETED(0) },
              .order = { .behind = true, .receiving = 0xffffffff,
                         .device = { .has_interfaces = true,
                                     .num_interfaces = 32,
                                     .has_endpoints = true } } } },
    { NULL, { .stream = { GREETED(0), GREETED(0) },
              .order = { .num_requests = 2, .requests = some_requests } } },
    { NULL, { .stream = { GREETED(0), GREETED(0) },
              .order = { .num_requests = SPICE_FLOW_USBREDIR_REQUESTS,
                         .requests = many_requests } } },

    { "order.num_requests",
      { .order = { .num_requests = SPICE_FLOW_USBREDIR_REQUESTS + 1,
                   .requests = many_requests } } },
    { "order.num_requests", { .order = { .num_requests = 0xffffffff } } },
    { "order.requests.endpoint",
      { .order = { .num_requests = 3, .requests = some_requests } } },
    { "order.device.num_interfaces",
      { .order = { .device = { .has_interfaces = true,
                               .num_interfaces = 33 } } } },
    { "order.device.num_interfaces",
      { .order = { .device = { .num_interfaces = 1 } } } },
    { "refused", { .refused = 2 } },
    { "stream[0].hello", { .stream = { { .hello = 2 } } } },
    { "stream[1].hello", { .stream = { GREETED(0), { .hello = 255 } } } },
    { "stream[0].caps", { .stream = { { .caps = 1 } } } },
    { "stream[1].caps", { .stream = { GREETED(0), GREETED(STREAMS) } } },
    { "stream[0].left", { .stream = { { .type = 101, .left = 1 } } } },
    { "stream[0].left", { .stream = { { .hello = 1, .type = 101,
                                        .left = 134218753 } } } },
    { "stream[0].left", { .stream = { { .hello = 1, .type = 101,
                                        .left = 0xffffffff } } } },
    { "stream[0].type", { .stream = { { .hello = 1, .type = 101 } } } },
    { "stream[0].type", { .stream = { { .hello = 1, .type = 5,
                                        .left = 1 } } } },
    { "stream[0].type", { .stream = { { .hello = 1, .type = 77,
                                        .left = 1 } } } },
    { "stream[0].held_size", { .stream = { { .held_size = 304 } } } },
    { "stream[0].held_size", { .stream = { { .held_size = 0xffffffff } } } },
    { "stream[0].held_size", { .stream = { { .hello = 1, .type = 101,
                                             .left = 1, .held_size = 1 },
                                           GREETED(0) } } },
    /* a whole header, a bad one, one that could not have been judged */
    { "stream[0].held", { .stream = { { .held_size = 80,
                                        .held = { [4] = 68 } } } } },
    { "stream[0].held", { .stream = { { .held_size = 12,
                                        .held = { 9 } } } } },
    { "stream[0].held", { .stream = { { .hello = 1, .held_size = 1 } } } },
    { "stream[1].held", { .stream = { GREETED(0),
                                      { .hello = 1, .held_size = 12,
                                        .held = { 3 } } } } },
};

static void test_restore(void)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(saved_cases); i++) {
        g_autoptr(SpiceFlowUsbredir) guard = greeted_guard(VERSION, FILTER);
        SpiceFlowUsbredirSaved before, after;
        g_autofree char *error = NULL;
        bool good;

        GIVES(guard, TO_CLIENT, BULK(ID("01"), "82", STREAM_0), PASS);
        spice_flow_usbredir_save(guard, &before);
        good = spice_flow_usbredir_restore(guard, &saved_cases[i].saved,
                                           &error);
        g_assert_cmpstr(error, ==, saved_cases[i].error);
        g_assert_cmpint(good, ==, !saved_cases[i].error);
        spice_flow_usbredir_save(guard, &after);
        if (!good) {
            saved_same(&before, &after);
        } else {
            saved_same(&saved_cases[i].saved, &after);
            g_assert_cmpint(spice_flow_usbredir_error(guard) != NULL, ==,
                            after.refused);
        }
        spice_flow_usbredir_saved_clear(&before);
        spice_flow_usbredir_saved_clear(&after);
    }
}

/* A state without an order: what was open then is not judged. */
static void test_restore_without_order(void)
{
    g_autoptr(SpiceFlowUsbredir) guard = greeted_guard(EP_MAX, EP_MAX);
    SpiceFlowUsbredirSaved saved;
    char *error = NULL;

    spice_flow_usbredir_save(guard, &saved);
    g_assert_false(spice_flow_usbredir_saved_order(&saved));
    GIVES(guard, TO_GUEST, SOME_INTERFACES("02", "02", "08"), PASS);
    GIVES(guard, TO_GUEST, SOME_EPS("02", "02", "0002"), PASS);
    GIVES(guard, TO_CLIENT, BULK(ID("01"), "82", STREAM_0), PASS);
    GIVES(guard, TO_CLIENT, BULK(ID("02"), "82", STREAM_0), PASS);
    spice_flow_usbredir_save(guard, &saved);
    g_assert_true(spice_flow_usbredir_saved_order(&saved));
    g_assert_cmpuint(saved.order.num_requests, ==, 2);
    g_free(saved.order.requests);
    saved.order = (SpiceFlowUsbredirSavedOrder) { .behind = false };
    g_assert_true(spice_flow_usbredir_restore(guard, &saved, &error));
    spice_flow_usbredir_saved_clear(&saved);

    GIVES(guard, TO_GUEST, BULK(ID("02"), "82", STREAM_0), PASS);
    GIVES(guard, TO_GUEST, SOME_EPS("ff", "00", "0001"), PASS);
    GIVES(guard, TO_CLIENT, BULK(ID("03"), "82", STREAM_0), PASS);
    GIVES(guard, TO_CLIENT, BULK(ID("04"), "82", STREAM_0), PASS);
    GIVES(guard, TO_GUEST, BULK(ID("04"), "82", STREAM_0), BAD);
}

/* Each part by itself makes an order that has to be saved. */
static void test_saved_order(void)
{
    static const SpiceFlowUsbredirSavedOrder orders[] = {
        { .behind = true },
        { .receiving = 1u << 31 },
        { .device.has_interfaces = true },
        { .device.has_endpoints = true },
        { .num_requests = 1 },
    };
    SpiceFlowUsbredirSaved saved = { .refused = 1 };

    g_assert_false(spice_flow_usbredir_saved_order(&saved));
    for (unsigned i = 0; i < G_N_ELEMENTS(orders); i++) {
        saved.order = orders[i];
        g_assert_true(spice_flow_usbredir_saved_order(&saved));
    }
}

static void run_test(gconstpointer data)
{
    void (*const *test)(void) = data;

    reloading = false;
    (*test)();
    reloading = true;
    (*test)();
    reloading = false;
}

static const struct {
    const char *name;
    void (*test)(void);
} order_tests[] = {
    { "/usbredir/order/answers", test_answers_in_order },
    { "/usbredir/order/streams", test_answers_of_streams },
    { "/usbredir/order/disconnect", test_answers_after_disconnect },
    { "/usbredir/order/limit", test_requests_limit },
    { "/usbredir/order/behind", test_behind },
    { "/usbredir/order/open-stays", test_open_stays },
    { "/usbredir/order/closed-changes", test_closed_changes },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(order_tests); i++) {
        g_test_add_data_func(order_tests[i].name, &order_tests[i].test,
                             run_test);
    }
    g_test_add_func("/usbredir/restore", test_restore);
    g_test_add_func("/usbredir/restore-without-order",
                    test_restore_without_order);
    g_test_add_func("/usbredir/saved-order", test_saved_order);
    return g_test_run();
}
