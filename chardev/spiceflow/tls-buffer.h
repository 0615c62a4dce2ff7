/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What lies between a TLS session and its socket, and makes few system calls of
 * many: the records of a write leave together, and what the socket has is read
 * at once, not a header and a body at a time as GnuTLS asks for it.
 */
#ifndef CHARDEV_SPICEFLOW_TLS_BUFFER_H
#define CHARDEV_SPICEFLOW_TLS_BUFFER_H

#include "qemu/units.h"
#include "io/channel-socket.h"

#define TYPE_SF_TLS_BUFFER "spiceflow-tls-buffer"
OBJECT_DECLARE_SIMPLE_TYPE(SFTlsBuffer, SF_TLS_BUFFER)

/* Bytes of the largest TLS record (RFC 8446, section 5.1), decrypted. */
#define SF_TLS_RECORD_MAX       (16 * KiB)
/* Four of them, encrypted (section 5.2): as much as is sent or read at once. */
#define SF_TLS_BUFFER_SIZE      (4 * (SF_TLS_RECORD_MAX + 256 + 5))

/**
 * sf_tls_buffer_new: the channel that a TLS session is to be made on.  It
 * passes everything on until sf_tls_buffer_start().
 * @socket: not blocking; a reference is taken
 *
 * Returns: (transfer full): the channel.
 */
SFTlsBuffer *sf_tls_buffer_new(QIOChannelSocket *socket);

/**
 * sf_tls_buffer_start: gather and read ahead from here on.  Whoever reads from
 * the session has to look at sf_tls_buffer_has_more() before waiting for the
 * socket, and to call sf_tls_buffer_flush() after reading and writing.
 * @buffer: the channel
 */
void sf_tls_buffer_start(SFTlsBuffer *buffer);

/**
 * sf_tls_buffer_socket: the socket below.
 * @buffer: the channel
 */
QIOChannelSocket *sf_tls_buffer_socket(SFTlsBuffer *buffer);

/**
 * sf_tls_buffer_has_more: whether the session is to be read from again before
 * the socket is waited for.
 * @buffer: the channel
 */
bool sf_tls_buffer_has_more(const SFTlsBuffer *buffer);

/**
 * sf_tls_buffer_waiting: bytes of records that wait for the socket.
 * @buffer: the channel
 */
size_t sf_tls_buffer_waiting(const SFTlsBuffer *buffer);

/**
 * sf_tls_buffer_flush: send what waits.
 * @buffer: the channel
 * @errp: where an error goes
 *
 * Returns: 1 when all is out, 0 when the socket takes no more now, -1 after an
 * error.
 */
int sf_tls_buffer_flush(SFTlsBuffer *buffer, Error **errp);

#endif
