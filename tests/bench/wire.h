/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The peer's end of a connection to a chardev: a bare socket or SPICE
 *
 * A Wire carries one stream of bytes in each direction.  On a bare socket
 * these are the socket's own; with SPICE they are the DATA messages of a port
 * or usbredir channel, and opening the wire makes a complete client: main
 * channel, ticket, list of channels, that channel.  Everything blocks, and a
 * failure ends the program with a message, as it would end the measurement
 * anyway.
 */

#ifndef SPICEFLOW_BENCH_WIRE_H
#define SPICEFLOW_BENCH_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct Wire Wire;
typedef struct WireSession WireSession;

/* Channels of a session that are looked at */
#define WIRE_PORTS_MAX 256

/**
 * struct WireAddress: where to connect to, and as what
 * @address: unix:PATH or tcp:HOST:PORT; listen:PATH to be connected to
 * @spice: speak SPICE
 * @tls: encrypt it
 * @password: for SPICE, "" if none is needed
 * @usb: for SPICE, take a usbredir channel, not a port channel
 * @channel: for SPICE, the number of that channel
 */
typedef struct WireAddress {
    const char *address;
    bool spice;
    bool tls;
    const char *password;
    bool usb;
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
 * wire_session_open:
 * @where: what to connect to, a SPICE server; copied
 *
 * Connect the main channel and fetch the list of channels.
 *
 * Returns: the client.
 */
WireSession *wire_session_open(const WireAddress *where);

/**
 * wire_session_serve:
 * @s: a client
 *
 * Let a thread answer what the server asks on the main channel.
 */
void wire_session_serve(WireSession *s);

/**
 * wire_session_port:
 * @s: a client
 * @number: which port or usbredir channel
 *
 * Returns: the connected wire, to be closed before the client.
 */
Wire *wire_session_port(WireSession *s, unsigned number);

/**
 * wire_session_close:
 * @s: a client, which is freed
 */
void wire_session_close(WireSession *s);

/**
 * wire_open_agent:
 * @where: what to connect to, a SPICE server
 *
 * Returns: a client's main channel whose payload is what the guest's agent
 * sends, header and all.
 */
Wire *wire_open_agent(const WireAddress *where);

/**
 * wire_wait_open:
 * @w: a wire
 *
 * Wait until the far end says that the guest has opened its port, or that its
 * agent is there.  A bare
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
 * wire_fd:
 * @w: a wire
 *
 * Returns: its descriptor, to wait for several with poll().
 */
int wire_fd(const Wire *w);

/**
 * wire_buffered:
 * @w: a wire
 *
 * Returns: whether bytes are here that wire_read() has not looked at.
 */
bool wire_buffered(const Wire *w);

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
