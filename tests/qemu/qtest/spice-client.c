/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * As much of a SPICE client as the qtests need; see spice-client.h.
 *
 * A server without a password ignores what the ticket holds, so no
 * encryption is needed here.
 */
#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/sockets.h"
#include "spice-client.h"

#include <poll.h>

#define TIMEOUT         10000   /* ms */
#define HEADER          6
#define LINK_HEADER     16
#define LINK_MESS       26      /* with one word of each capability */
#define TICKET          (4 + 128)

struct SpiceTestChannel {
    int fd;
    uint8_t *left;              /* of data, received and not asked for yet */
    size_t left_len;
};

static void wait_for(int fd, int events)
{
    struct pollfd poll_fd = { .fd = fd, .events = events };

    g_assert_cmpint(poll(&poll_fd, 1, TIMEOUT), ==, 1);
}

static void send_all(int fd, const void *data, size_t len)
{
    while (len) {
        ssize_t n;

        wait_for(fd, POLLOUT);
        n = send(fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN) {
            continue;
        }
        g_assert_cmpint(n, >, 0);
        data = (const uint8_t *)data + n;
        len -= n;
    }
}

static void receive_all(int fd, void *data, size_t len)
{
    while (len) {
        ssize_t n;

        wait_for(fd, POLLIN);
        n = recv(fd, data, len, 0);
        g_assert_cmpint(n, >, 0);
        data = (uint8_t *)data + n;
        len -= n;
    }
}

static int connect_to(const char *path)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    int fd = qemu_socket(AF_UNIX, SOCK_STREAM, 0);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpuint(strlen(path), <, sizeof(un.sun_path));
    memcpy(un.sun_path, path, strlen(path));
    g_assert_cmpint(connect(fd, (struct sockaddr *)&un, sizeof(un)), ==, 0);
    return fd;
}

SpiceTestChannel *spice_test_open(const char *path, uint8_t type, uint8_t id,
                                  uint32_t session)
{
    SpiceTestChannel *channel = g_new0(SpiceTestChannel, 1);
    uint8_t out[LINK_HEADER + LINK_MESS] = "REDQ";
    uint8_t ticket[TICKET] = { 1 };     /* mechanism: a ticket */
    uint8_t header[LINK_HEADER], reply[4096];
    uint32_t size;

    channel->fd = connect_to(path);
    stl_le_p(out + 4, 2);
    stl_le_p(out + 8, 2);
    stl_le_p(out + 12, LINK_MESS);
    stl_le_p(out + 16, session);
    out[20] = type;
    out[21] = id;
    stl_le_p(out + 22, 1);
    stl_le_p(out + 26, 1);
    stl_le_p(out + 30, 18);
    stl_le_p(out + 34, 0x09);           /* choice of mechanism, mini header */
    send_all(channel->fd, out, sizeof(out));

    receive_all(channel->fd, header, sizeof(header));
    size = ldl_le_p(header + 12);
    g_assert_cmpuint(size, <=, sizeof(reply));
    receive_all(channel->fd, reply, size);
    g_assert_cmpuint(ldl_le_p(reply), ==, 0);

    send_all(channel->fd, ticket, sizeof(ticket));
    receive_all(channel->fd, reply, 4);
    g_assert_cmpuint(ldl_le_p(reply), ==, 0);
    return channel;
}

SpiceTestChannel *spice_test_main(const char *path, uint32_t *session)
{
    SpiceTestChannel *channel = spice_test_open(path, SPICE_TEST_MAIN, 0, 0);
    g_autoptr(GByteArray) init = spice_test_expect(channel, 103);

    g_assert_cmpuint(init->len, ==, 32);
    *session = ldl_le_p(init->data);
    return channel;
}

void spice_test_close(SpiceTestChannel *channel)
{
    close(channel->fd);
    g_free(channel->left);
    g_free(channel);
}

void spice_test_send(SpiceTestChannel *channel, uint16_t type,
                     const void *body, size_t len)
{
    uint8_t header[HEADER];

    stw_le_p(header, type);
    stl_le_p(header + 2, len);
    send_all(channel->fd, header, sizeof(header));
    send_all(channel->fd, body, len);
}

size_t spice_test_push(SpiceTestChannel *channel, const uint8_t *data,
                       size_t len)
{
    size_t done = 0;

    while (done < len) {
        struct pollfd poll_fd = { .fd = channel->fd, .events = POLLOUT };
        ssize_t n;

        if (poll(&poll_fd, 1, 300) == 0) {
            break;
        }
        n = send(channel->fd, data + done, len - done,
                 MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN) {
            continue;
        }
        g_assert_cmpint(n, >, 0);
        done += n;
    }
    return done;
}

GByteArray *spice_test_receive(SpiceTestChannel *channel, uint16_t *type)
{
    GByteArray *body = g_byte_array_new();
    uint8_t header[HEADER];
    uint32_t size;

    receive_all(channel->fd, header, sizeof(header));
    *type = lduw_le_p(header);
    size = ldl_le_p(header + 2);
    g_assert_cmpuint(size, <, 16 * 1024 * 1024);
    g_byte_array_set_size(body, size);
    receive_all(channel->fd, body->data, size);
    return body;
}

GByteArray *spice_test_expect(SpiceTestChannel *channel, uint16_t type)
{
    uint16_t got;
    GByteArray *body = spice_test_receive(channel, &got);

    g_assert_cmpuint(got, ==, type);
    return body;
}

void spice_test_receive_data(SpiceTestChannel *channel, uint8_t *data,
                             size_t len)
{
    while (len) {
        g_autoptr(GByteArray) body = NULL;
        size_t n = MIN(len, channel->left_len);

        memcpy(data, channel->left, n);
        channel->left_len -= n;
        memmove(channel->left, channel->left + n, channel->left_len);
        data += n;
        len -= n;
        if (len == 0) {
            break;
        }
        body = spice_test_expect(channel, SPICE_TEST_DATA);
        channel->left = g_realloc(channel->left, body->len);
        memcpy(channel->left, body->data, body->len);
        channel->left_len = body->len;
    }
}

bool spice_test_silent(SpiceTestChannel *channel, int ms)
{
    struct pollfd poll_fd = { .fd = channel->fd, .events = POLLIN };

    return channel->left_len == 0 && poll(&poll_fd, 1, ms) == 0;
}

void spice_test_hung_up(SpiceTestChannel *channel)
{
    uint8_t data[4096];
    ssize_t n;

    do {
        wait_for(channel->fd, POLLIN);
        n = recv(channel->fd, data, sizeof(data), 0);
        g_assert_true(n >= 0 || errno == ECONNRESET);
    } while (n > 0);
}

void spice_test_pattern(uint8_t *data, size_t offset, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        uint32_t word = (offset + i) / 4 * 2654435761u;

        data[i] = word >> ((offset + i) % 4 * 8);
    }
}
