/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The peer's end of a connection to a chardev: a bare socket or SPICE
 *
 * A Wire carries one stream of bytes in each direction.  On a bare socket
 * these are the socket's own; with SPICE they are the DATA messages of a port
 * channel, and opening the wire makes a complete client: main channel, ticket,
 * list of channels, port channel.  Everything blocks, and a failure ends the
 * program with a message, as it would end the measurement anyway.
 */

#ifndef SPICEFLOW_BENCH_WIRE_H
#define SPICEFLOW_BENCH_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct Wire Wire;

/**
 * struct WireAddress: where to connect to, and as what
 * @address: unix:PATH or tcp:HOST:PORT
 * @spice: speak SPICE
 * @password: for SPICE, "" if none is needed
 * @channel: for SPICE, which port channel of the list to take, from 0
 */
typedef struct WireAddress {
    const char *address;
    bool spice;
    const char *password;
    unsigned channel;
} WireAddress;

/**
 * wire_open:
 * @where: what to connect to
 *
 * Returns: the connected wire.
 */
Wire *wire_open(const WireAddress *where);

/**
 * wire_wait_open:
 * @w: a wire
 *
 * Wait until the far end says that the guest has opened its port.  A bare
 * socket has no word for that and does not wait.
 */
void wire_wait_open(Wire *w);

/**
 * wire_read:
 * @w: a wire
 * @data: set to the bytes, which stay valid until the next call
 *
 * Wait for bytes and take all that can be had without copying them.
 *
 * Returns: how many, never 0.
 */
size_t wire_read(Wire *w, const uint8_t **data);

/**
 * wire_write:
 * @w: a wire
 * @data: what to send
 * @len: how much; with SPICE this becomes one message
 */
void wire_write(Wire *w, const uint8_t *data, size_t len);

/**
 * wire_reads:
 * @w: a wire
 *
 * Returns: how often the kernel was asked for bytes so far.
 */
uint64_t wire_reads(const Wire *w);

/**
 * wire_messages:
 * @w: a wire
 *
 * Returns: how many messages with data came so far; 0 on a bare socket.
 */
uint64_t wire_messages(const Wire *w);

/**
 * wire_close:
 * @w: a wire, which is freed
 */
void wire_close(Wire *w);

/**
 * die:
 * @fmt: what went wrong, for the user
 *
 * Print the message and end the program.
 */
void die(const char *fmt, ...)
    __attribute__((noreturn, format(printf, 1, 2)));

#endif /* SPICEFLOW_BENCH_WIRE_H */
