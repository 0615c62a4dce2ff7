/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tests of the buffer below a TLS session, by itself: the test stands for the
 * session above it and for the client at the other end of the socket.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/module.h"
#include "tls-buffer.h"

#include <sys/ioctl.h>

/* Far more than the sockets hold. */
#define STREAM_SIZE     (2 * MiB)

typedef struct Fixture {
    SFTlsBuffer *buffer;
    QIOChannel *session;        /* the same, as a session sees it */
    int server, client;         /* the two ends of the socket */
} Fixture;

static uint8_t stream[STREAM_SIZE];

static void setup(Fixture *f, const void *data)
{
    g_autoptr(QIOChannelSocket) socket = NULL;
    int fds[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), ==, 0);
    g_assert_true(g_unix_set_fd_nonblocking(fds[0], true, NULL));
    g_assert_true(g_unix_set_fd_nonblocking(fds[1], true, NULL));
    f->server = fds[0];
    f->client = fds[1];
    socket = qio_channel_socket_new_fd(f->server, &error_abort);
    f->buffer = sf_tls_buffer_new(socket);
    f->session = QIO_CHANNEL(f->buffer);
    for (size_t i = 0; i < STREAM_SIZE; i++) {
        stream[i] = i * 7 + i / 251;
    }
}

static void setup_started(Fixture *f, const void *data)
{
    setup(f, data);
    sf_tls_buffer_start(f->buffer);
}

static void teardown(Fixture *f, const void *data)
{
    object_unref(OBJECT(f->buffer));
    close(f->client);
}

/* What the client gets now, up to @room bytes; 0 for nothing. */
static size_t client_read(Fixture *f, uint8_t *to, size_t room)
{
    size_t done = 0;
    ssize_t n;

    while (done < room &&
           (n = recv(f->client, to + done, room - done, 0)) > 0) {
        done += n;
    }
    return done;
}

static void session_write(Fixture *f, const void *data, size_t len)
{
    g_assert_cmpint(qio_channel_write(f->session, data, len, &error_abort),
                    ==, len);
}

/* Before it is started, whatever is written goes out, and no byte is kept. */
static void test_passes_on(Fixture *f, const void *data)
{
    uint8_t got[8];

    session_write(f, "hello", 5);
    g_assert_cmpuint(sf_tls_buffer_waiting(f->buffer), ==, 0);
    g_assert_cmpuint(client_read(f, got, sizeof(got)), ==, 5);
    g_assert_cmpint(send(f->client, "0123456789", 10, 0), ==, 10);
    g_assert_cmpint(qio_channel_read(f->session, (char *)got, 4, &error_abort),
                    ==, 4);
    g_assert_false(sf_tls_buffer_has_more(f->buffer));
    sf_tls_buffer_start(f->buffer);
    g_assert_cmpint(qio_channel_read(f->session, (char *)got, 8, &error_abort),
                    ==, 6);
    g_assert_cmpmem(got, 6, "456789", 6);
}

/* Records leave together, when they are flushed. */
static void test_gathers(Fixture *f, const void *data)
{
    uint8_t got[8];

    session_write(f, "ab", 2);
    session_write(f, "cde", 3);
    g_assert_cmpuint(sf_tls_buffer_waiting(f->buffer), ==, 5);
    g_assert_cmpuint(client_read(f, got, sizeof(got)), ==, 0);
    g_assert_cmpint(sf_tls_buffer_flush(f->buffer, &error_abort), ==, 1);
    g_assert_cmpuint(sf_tls_buffer_waiting(f->buffer), ==, 0);
    g_assert_cmpuint(client_read(f, got, sizeof(got)), ==, 5);
    g_assert_cmpmem(got, 5, "abcde", 5);
    g_assert_cmpint(sf_tls_buffer_flush(f->buffer, &error_abort), ==, 1);
}

/* A socket that is full: no byte is lost, repeated, or out of order. */
static void test_full_socket(Fixture *f, const void *data)
{
    g_autofree uint8_t *got = g_malloc(STREAM_SIZE);
    size_t written = 0, done = 0;
    bool was_full = false;

    while (done < STREAM_SIZE) {
        int ret = 1;

        while (written < STREAM_SIZE && ret == 1) {
            size_t n = MIN(STREAM_SIZE - written, SF_TLS_RECORD_MAX + 22);

            session_write(f, stream + written, n);
            written += n;
            ret = sf_tls_buffer_flush(f->buffer, &error_abort);
        }
        was_full = was_full || ret == 0;
        done += client_read(f, got + done, MIN(STREAM_SIZE - done, 100003));
        sf_tls_buffer_flush(f->buffer, &error_abort);
    }
    g_assert_true(was_full);
    g_assert_cmpuint(sf_tls_buffer_waiting(f->buffer), ==, 0);
    g_assert_cmpmem(got, done, stream, STREAM_SIZE);
}

/* Whoever does not flush is told to wait, before much is kept. */
static void test_not_flushed(Fixture *f, const void *data)
{
    ssize_t n;
    size_t done = 0;

    while ((n = qio_channel_write(f->session, (char *)stream,
                                  SF_TLS_RECORD_MAX, &error_abort)) > 0) {
        done += n;
        g_assert_cmpuint(done, <, STREAM_SIZE);
    }
    g_assert_cmpint(n, ==, QIO_CHANNEL_ERR_BLOCK);
    g_assert_cmpuint(sf_tls_buffer_waiting(f->buffer), ==, done);
    g_assert_cmpuint(done, >=, SF_TLS_BUFFER_SIZE);
    g_assert_cmpuint(done, <=, 3 * SF_TLS_BUFFER_SIZE);
}

/* What has come is read at once, and asked for without the socket. */
static void test_reads_ahead(Fixture *f, const void *data)
{
    char got[8];
    int unread;

    g_assert_cmpint(qio_channel_read(f->session, got, 5, &error_abort), ==,
                    QIO_CHANNEL_ERR_BLOCK);
    g_assert_false(sf_tls_buffer_has_more(f->buffer));
    g_assert_cmpint(send(f->client, "0123456789", 10, 0), ==, 10);
    g_assert_cmpint(qio_channel_read(f->session, got, 5, &error_abort), ==, 5);
    g_assert_cmpmem(got, 5, "01234", 5);
    g_assert_cmpint(ioctl(f->server, FIONREAD, &unread), ==, 0);
    g_assert_cmpint(unread, ==, 0);
    g_assert_true(sf_tls_buffer_has_more(f->buffer));
    g_assert_cmpint(qio_channel_read(f->session, got, 8, &error_abort), ==, 5);
    g_assert_cmpmem(got, 5, "56789", 5);
    g_assert_false(sf_tls_buffer_has_more(f->buffer));
    g_assert_cmpint(qio_channel_read(f->session, got, 5, &error_abort), ==,
                    QIO_CHANNEL_ERR_BLOCK);
}

/* A stream in reads of every size, with the end behind it. */
static void test_read_stream(Fixture *f, const void *data)
{
    g_autofree uint8_t *got = g_malloc(STREAM_SIZE);
    size_t sent = 0, done = 0, size = 1;
    ssize_t n;

    while (done < STREAM_SIZE) {
        n = send(f->client, stream + sent, STREAM_SIZE - sent, 0);
        sent += MAX(n, 0);
        do {
            size = size % SF_TLS_RECORD_MAX + 1237;
            n = qio_channel_read(f->session, (char *)got + done,
                                 MIN(size, STREAM_SIZE - done), &error_abort);
            done += MAX(n, 0);
        } while (n > 0 && sf_tls_buffer_has_more(f->buffer));
    }
    g_assert_cmpmem(got, done, stream, STREAM_SIZE);
    shutdown(f->client, SHUT_WR);
    g_assert_cmpint(qio_channel_read(f->session, (char *)got, 5, &error_abort),
                    ==, 0);
    g_assert_false(sf_tls_buffer_has_more(f->buffer));
}

/* The client is gone: an error, not a wait. */
static void test_broken(Fixture *f, const void *data)
{
    g_autoptr(Error) err = NULL;

    close(f->client);
    f->client = -1;
    session_write(f, "ab", 2);
    g_assert_cmpint(sf_tls_buffer_flush(f->buffer, &err), ==, -1);
    g_assert_nonnull(err);
}

static void add(const char *name, void (*test)(Fixture *, const void *))
{
    g_autofree char *path = g_strdup_printf("/spiceflow/tls-buffer/%s", name);

    g_test_add(path, Fixture, NULL,
               test == test_passes_on ? setup : setup_started, test, teardown);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    module_call_init(MODULE_INIT_QOM);
    signal(SIGPIPE, SIG_IGN);
    add("passes-on", test_passes_on);
    add("gathers", test_gathers);
    add("full-socket", test_full_socket);
    add("not-flushed", test_not_flushed);
    add("reads-ahead", test_reads_ahead);
    add("read-stream", test_read_stream);
    add("broken", test_broken);
    return g_test_run();
}
