/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest that takes and gives one byte at a time: an emulated UART.
 *
 * Without its FIFO the UART has room for one received byte, so every write to
 * the guest is a partial one, and what it sends comes in writes of one byte.
 * The test plays the guest's driver by port I/O, so each step can be looked
 * at in the port's flow numbers.
 */
#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "machine.h"

#define UART            0x3f8
#define REG_DATA        (UART + 0)
#define REG_FIFO        (UART + 2)
#define REG_LSR         (UART + 5)
#define LSR_DATA        0x01
#define LSR_BREAK       0x10
#define LSR_EMPTY       0x20

typedef struct Serial {
    SpiceTestServer server;
    QTestState *qts;
    SpiceTestChannel *main;
    SpiceTestChannel *port;
} Serial;

static void serial_start(Serial *s)
{
    g_autoptr(GByteArray) init = NULL;
    uint32_t session;

    spice_test_server(&s->server, 64 * 1024);
    s->qts = qtest_initf("-machine pc %s-serial chardev:p1", s->server.args);
    s->main = spice_test_main(s->server.path, &session);
    s->port = spice_test_open(s->server.path, SPICE_TEST_PORT, 0, session);
    init = spice_test_expect(s->port, SPICE_TEST_PORT_INIT);
    g_assert_cmpuint(init->data[8], ==, 1);     /* a UART is always open */
}

static void serial_end(Serial *s)
{
    spice_test_close(s->port);
    spice_test_close(s->main);
    qtest_quit(s->qts);
    spice_test_server_clear(&s->server);
}

static uint8_t serial_wait(Serial *s, uint8_t flag)
{
    uint8_t lsr = 0;

    for (unsigned i = 0; i < 5000 && !(lsr & flag); i++) {
        if (i) {
            g_usleep(1000);
        }
        lsr = qtest_inb(s->qts, REG_LSR);
    }
    g_assert_cmphex(lsr & flag, !=, 0);
    return lsr;
}

static void test_to_guest(void)
{
    Serial s;
    uint8_t data[600];

    serial_start(&s);
    spice_test_pattern(data, 0, sizeof(data));
    spice_test_send(s.port, SPICE_TEST_DATA, data, 1);
    spice_test_send(s.port, SPICE_TEST_DATA, data + 1, sizeof(data) - 1);
    for (unsigned i = 0; i < sizeof(data); i++) {
        serial_wait(&s, LSR_DATA);
        g_assert_cmphex(qtest_inb(s.qts, REG_DATA), ==, data[i]);
    }
    g_assert_false(qtest_inb(s.qts, REG_LSR) & LSR_DATA);
    serial_end(&s);
}

/* With its FIFO on it takes up to 16 bytes. */
static void test_to_guest_fifo(void)
{
    Serial s;
    uint8_t data[600];

    serial_start(&s);
    qtest_outb(s.qts, REG_FIFO, 0x01);
    spice_test_pattern(data, 0, sizeof(data));
    spice_test_send(s.port, SPICE_TEST_DATA, data, sizeof(data));
    for (unsigned i = 0; i < sizeof(data); i++) {
        serial_wait(&s, LSR_DATA);
        g_assert_cmphex(qtest_inb(s.qts, REG_DATA), ==, data[i]);
    }
    serial_end(&s);
}

static void test_to_client(void)
{
    Serial s;
    uint8_t data[600], got[600];

    serial_start(&s);
    spice_test_pattern(data, 0, sizeof(data));
    for (unsigned i = 0; i < sizeof(data); i++) {
        serial_wait(&s, LSR_EMPTY);
        qtest_outb(s.qts, REG_DATA, data[i]);
        spice_test_receive_data(s.port, got + i, 1);
    }
    g_assert_cmpmem(got, sizeof(got), data, sizeof(data));
    g_assert_true(spice_test_silent(s.port, 50));
    serial_end(&s);
}

/*
 * A client that does not read: the UART keeps its byte, gets no other one, and
 * goes on when the client reads.
 */
static void test_to_client_stalled(void)
{
    Serial s;
    uint8_t data[5000], got[5000];
    unsigned sent = 0;

    serial_start(&s);
    spice_test_pattern(data, 0, sizeof(data));
    while (sent < sizeof(data) &&
           qtest_inb(s.qts, REG_LSR) & LSR_EMPTY) {
        qtest_outb(s.qts, REG_DATA, data[sent++]);
    }
    g_assert_cmpuint(sent, >, 10);
    g_assert_cmpuint(sent, <, sizeof(data));
    spice_test_receive_data(s.port, got, sent);
    serial_wait(&s, LSR_EMPTY);
    for (; sent < sizeof(data); sent++) {
        serial_wait(&s, LSR_EMPTY);
        qtest_outb(s.qts, REG_DATA, data[sent]);
        spice_test_receive_data(s.port, got + sent, 1);
    }
    g_assert_cmpmem(got, sizeof(got), data, sizeof(data));
    serial_end(&s);
}

/* Each byte that the guest takes shows in the numbers. */
static void test_flow_numbers(void)
{
    Serial s;
    uint8_t data[100];

    serial_start(&s);
    g_assert_cmpint(spice_test_flow(s.qts, "total-to-guest-bytes"), ==, 0);
    g_assert_cmpint(spice_test_flow(s.qts, "to-guest-bytes"), ==, 0);
    spice_test_pattern(data, 0, sizeof(data));
    spice_test_send(s.port, SPICE_TEST_DATA, data, sizeof(data));
    for (unsigned i = 0; i < sizeof(data); i++) {
        serial_wait(&s, LSR_DATA);
        /* this byte is with the UART, the others wait */
        spice_test_flow_wait(s.qts, "to-guest-bytes", sizeof(data) - i - 1);
        g_assert_cmpint(spice_test_flow(s.qts, "client/to-guest-bytes"), ==,
                        sizeof(data) - i - 1);
        g_assert_cmpint(spice_test_flow(s.qts, "to-guest-messages"), ==,
                        i + 1 < sizeof(data));
        g_assert_cmphex(qtest_inb(s.qts, REG_DATA), ==, data[i]);
    }
    g_assert_cmpint(spice_test_flow(s.qts, "total-to-guest-bytes"), ==,
                    sizeof(data));
    g_assert_cmpint(spice_test_flow(s.qts, "to-guest-peak"), >=,
                    sizeof(data) - 1);
    for (unsigned i = 0; i < 5; i++) {
        serial_wait(&s, LSR_EMPTY);
        qtest_outb(s.qts, REG_DATA, data[i]);
        spice_test_flow_wait(s.qts, "total-from-guest-bytes", i + 1);
        g_assert_cmpint(spice_test_flow(s.qts, "total-from-guest-messages"),
                        ==, i + 1);
    }
    serial_end(&s);
}

/*
 * A guest that takes nothing for long: the client is held back within the
 * queue, and everything arrives in the end, one byte at a time.
 */
static void test_back_pressure(void)
{
    const size_t len = 1024 * 1024;
    g_autofree uint8_t *data = g_malloc(len + 6);
    size_t pushed;
    Serial s;

    serial_start(&s);
    stw_le_p(data, SPICE_TEST_DATA);
    stl_le_p(data + 2, len);
    spice_test_pattern(data + 6, 0, len);
    pushed = spice_test_push(s.port, data, len + 6);
    g_assert_cmpuint(pushed, <, len);
    g_assert_cmpint(spice_test_flow(s.qts, "to-guest-bytes"), <=, 64 * 1024);
    g_assert_cmpint(spice_test_flow(s.qts, "to-guest-bytes"), >, 0);
    for (size_t i = 0; i < 20000; i++) {
        serial_wait(&s, LSR_DATA);
        g_assert_cmphex(qtest_inb(s.qts, REG_DATA), ==, data[6 + i]);
    }
    /* room was made, so more could be sent */
    pushed += spice_test_push(s.port, data + pushed, len + 6 - pushed);
    g_assert_cmpuint(pushed, <, len);
    serial_end(&s);
}

static void test_break(void)
{
    Serial s;
    uint8_t event = SPICE_TEST_BREAK;

    serial_start(&s);
    g_assert_false(qtest_inb(s.qts, REG_LSR) & LSR_BREAK);
    spice_test_send(s.port, SPICE_TEST_DATA, "a", 1);
    serial_wait(&s, LSR_DATA);
    g_assert_cmphex(qtest_inb(s.qts, REG_DATA), ==, 'a');
    spice_test_send(s.port, SPICE_TEST_SEND_EVENT, &event, 1);
    g_assert_true(serial_wait(&s, LSR_BREAK) & LSR_BREAK);
    serial_end(&s);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func("/spiceflow/serial/to-guest", test_to_guest);
    qtest_add_func("/spiceflow/serial/to-guest-fifo", test_to_guest_fifo);
    qtest_add_func("/spiceflow/serial/to-client", test_to_client);
    qtest_add_func("/spiceflow/serial/to-client-stalled",
                   test_to_client_stalled);
    qtest_add_func("/spiceflow/serial/flow-numbers", test_flow_numbers);
    qtest_add_func("/spiceflow/serial/back-pressure", test_back_pressure);
    qtest_add_func("/spiceflow/serial/break", test_break);
    return g_test_run();
}
