/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Between a TLS session and its socket.
 *
 * GnuTLS hands out one record at a time, of 16 KiB at most, and asks for five
 * bytes of each before the rest: a message of 64 KiB takes five system calls to
 * send and eight to read.  This channel has two buffers instead.  What GnuTLS
 * writes is kept until the owner flushes it, and what it asks for is taken from
 * what one read has brought.  Both grow with the traffic and are given back
 * when they are empty, but for what small messages need.
 *
 * A record that does not fit the socket waits here, and GnuTLS never learns of
 * it; so no record is ever half written as far as the session knows.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/iov.h"
#include "qemu/module.h"
#include "compat.h"
#include "tls-buffer.h"

/*
 * What an empty buffer may keep, and the first read brings: the record of a
 * message that carries a page.
 */
#define BUFFER_MIN          (4 * KiB + 512)
/*
 * The owner flushes before it writes; what comes on top is the session's own,
 * an answer to each change of keys that the client asks for.
 */
#define WAITING_MAX         (2 * SF_TLS_BUFFER_SIZE)

typedef struct Bytes {
    uint8_t *data;
    size_t size;
    size_t begin, end;          /* what is in it */
} Bytes;

struct SFTlsBuffer {
    QIOChannel parent_obj;

    QIOChannelSocket *socket;
    bool started;
    Bytes in, out;
    size_t read_size;           /* bytes of the next read */
    bool read_full;             /* the last one brought as many */
};

static size_t bytes_len(const Bytes *bytes)
{
    return bytes->end - bytes->begin;
}

/* Make room for @len more. */
static void bytes_reserve(Bytes *bytes, size_t len)
{
    if (bytes->end + len > bytes->size) {
        bytes->size = MAX(bytes->end + len, MAX(2 * bytes->size, BUFFER_MIN));
        bytes->data = g_realloc(bytes->data, bytes->size);
    }
}

static void bytes_free(Bytes *bytes)
{
    g_free(bytes->data);
    *bytes = (Bytes) { 0 };
}

/* @len of them are done with. */
static void bytes_consume(Bytes *bytes, size_t len)
{
    bytes->begin += len;
    if (bytes_len(bytes)) {
        return;
    }
    bytes->begin = bytes->end = 0;
    if (bytes->size > BUFFER_MIN) {
        bytes_free(bytes);
    }
}

SFTlsBuffer *sf_tls_buffer_new(QIOChannelSocket *socket)
{
    SFTlsBuffer *buffer = SF_TLS_BUFFER(object_new(TYPE_SF_TLS_BUFFER));

    buffer->socket = socket;
    buffer->read_size = BUFFER_MIN;
    object_ref(OBJECT(socket));
    if (qio_channel_has_feature(QIO_CHANNEL(socket),
                                QIO_CHANNEL_FEATURE_SHUTDOWN)) {
        qio_channel_set_feature(QIO_CHANNEL(buffer),
                                QIO_CHANNEL_FEATURE_SHUTDOWN);
    }
    return buffer;
}

void sf_tls_buffer_start(SFTlsBuffer *buffer)
{
    buffer->started = true;
}

QIOChannelSocket *sf_tls_buffer_socket(SFTlsBuffer *buffer)
{
    return buffer->socket;
}

bool sf_tls_buffer_has_more(const SFTlsBuffer *buffer)
{
    return bytes_len(&buffer->in) || buffer->read_full;
}

size_t sf_tls_buffer_waiting(const SFTlsBuffer *buffer)
{
    return bytes_len(&buffer->out);
}

int sf_tls_buffer_flush(SFTlsBuffer *buffer, Error **errp)
{
    Bytes *out = &buffer->out;

    while (bytes_len(out)) {
        ssize_t n = qio_channel_write(QIO_CHANNEL(buffer->socket),
                                      (char *)out->data + out->begin,
                                      bytes_len(out), errp);

        if (n == QIO_CHANNEL_ERR_BLOCK) {
            return 0;
        }
        if (n < 0) {
            return -1;
        }
        bytes_consume(out, n);
    }
    return 1;
}

static ssize_t tls_buffer_writev(QIOChannel *ioc, const struct iovec *iov,
                                 size_t niov, int *fds, size_t nfds, int flags,
                                 Error **errp)
{
    SFTlsBuffer *buffer = SF_TLS_BUFFER(ioc);
    Bytes *out = &buffer->out;
    size_t len = iov_size(iov, niov);

    if (!buffer->started) {
        return qio_channel_writev(QIO_CHANNEL(buffer->socket), iov, niov,
                                  errp);
    }
    if (bytes_len(out) > WAITING_MAX) {
        return QIO_CHANNEL_ERR_BLOCK;
    }
    bytes_reserve(out, len);
    iov_to_buf(iov, niov, 0, out->data + out->end, len);
    out->end += len;
    return len;
}

/* Read from the socket into the empty buffer. */
static ssize_t tls_buffer_fill(SFTlsBuffer *buffer, Error **errp)
{
    Bytes *in = &buffer->in;
    size_t size = buffer->read_size;
    ssize_t n;

    bytes_reserve(in, size);
    n = qio_channel_read(QIO_CHANNEL(buffer->socket), (char *)in->data, size,
                         errp);
    in->end = MAX(n, 0);
    buffer->read_full = n == (ssize_t)size;
    if (buffer->read_full) {
        buffer->read_size = MIN(2 * size, SF_TLS_BUFFER_SIZE);
    } else if (n < (ssize_t)size / 4) {
        buffer->read_size = MAX(size / 2, BUFFER_MIN);
    }
    return n;
}

static ssize_t tls_buffer_readv(QIOChannel *ioc, const struct iovec *iov,
                                size_t niov, int **fds, size_t *nfds,
                                int flags, Error **errp)
{
    SFTlsBuffer *buffer = SF_TLS_BUFFER(ioc);
    Bytes *in = &buffer->in;
    size_t len;

    if (!buffer->started) {
        return qio_channel_readv(QIO_CHANNEL(buffer->socket), iov, niov, errp);
    }
    if (!bytes_len(in)) {
        ssize_t n = tls_buffer_fill(buffer, errp);

        if (n <= 0) {
            bytes_consume(in, 0);
            return n;
        }
    }
    len = iov_from_buf(iov, niov, 0, in->data + in->begin, bytes_len(in));
    bytes_consume(in, len);
    return len;
}

static int tls_buffer_set_blocking(QIOChannel *ioc, bool enabled, Error **errp)
{
    return sf_compat_set_blocking(QIO_CHANNEL(SF_TLS_BUFFER(ioc)->socket),
                                  enabled, errp);
}

static int tls_buffer_shutdown(QIOChannel *ioc, QIOChannelShutdown how,
                               Error **errp)
{
    return qio_channel_shutdown(QIO_CHANNEL(SF_TLS_BUFFER(ioc)->socket), how,
                                errp);
}

static int tls_buffer_close(QIOChannel *ioc, Error **errp)
{
    return qio_channel_close(QIO_CHANNEL(SF_TLS_BUFFER(ioc)->socket), errp);
}

static GSource *tls_buffer_create_watch(QIOChannel *ioc,
                                        GIOCondition condition)
{
    return qio_channel_create_watch(QIO_CHANNEL(SF_TLS_BUFFER(ioc)->socket),
                                    condition);
}

static void tls_buffer_finalize(Object *obj)
{
    SFTlsBuffer *buffer = SF_TLS_BUFFER(obj);

    bytes_free(&buffer->in);
    bytes_free(&buffer->out);
    object_unref(OBJECT(buffer->socket));
}

static void tls_buffer_class_init(ObjectClass *klass, SFClassData *data)
{
    QIOChannelClass *ioc_klass = QIO_CHANNEL_CLASS(klass);

    ioc_klass->io_writev = tls_buffer_writev;
    ioc_klass->io_readv = tls_buffer_readv;
    ioc_klass->io_set_blocking = tls_buffer_set_blocking;
    ioc_klass->io_shutdown = tls_buffer_shutdown;
    ioc_klass->io_close = tls_buffer_close;
    ioc_klass->io_create_watch = tls_buffer_create_watch;
}

static const TypeInfo tls_buffer_info = {
    .name = TYPE_SF_TLS_BUFFER,
    .parent = TYPE_QIO_CHANNEL,
    .instance_size = sizeof(SFTlsBuffer),
    .instance_finalize = tls_buffer_finalize,
    .class_init = tls_buffer_class_init,
};

static void tls_buffer_register_types(void)
{
    type_register_static(&tls_buffer_info);
}

type_init(tls_buffer_register_types);
