/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Flow control of one SPICE character device: its clients, its queues, its
 * tokens.  The machine owns no descriptor, no clock and no thread; bytes,
 * permissions and the time come in through the functions below, bytes and
 * notifications go out through SpiceFlowOps.  core/flow.c opens with the
 * theory of operation.
 */
#ifndef CHARDEV_SPICEFLOW_FLOW_H
#define CHARDEV_SPICEFLOW_FLOW_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct SpiceFlow SpiceFlow;
typedef struct SpiceFlowClient SpiceFlowClient;
typedef struct SpiceFlowMessage SpiceFlowMessage;

/**
 * SpiceFlowFraming: what becomes of the buffer that the guest has begun to
 * receive when its client leaves.
 * @SPICE_FLOW_RAW: a byte stream (usbredir, port): it is dropped
 * @SPICE_FLOW_FRAMED: messages (agent, smart card): it is completed
 */
typedef enum {
    SPICE_FLOW_RAW,
    SPICE_FLOW_FRAMED,
} SpiceFlowFraming;

/**
 * SpiceFlowReason: why the machine wants a client removed.
 * @SPICE_FLOW_TOKEN_VIOLATION: it sent a message without a client token
 * @SPICE_FLOW_STALLED: it took nothing for the stall timeout while other
 *   clients of the device waited for it
 * @SPICE_FLOW_OVERFLOW: its queue is full and other clients go on
 */
typedef enum {
    SPICE_FLOW_TOKEN_VIOLATION,
    SPICE_FLOW_STALLED,
    SPICE_FLOW_OVERFLOW,
} SpiceFlowReason;

/**
 * SpiceFlowEvent: every transition of the machine, as reported to
 * SpiceFlowOps.event.  What @value counts stands behind each.
 */
typedef enum {
    SPICE_FLOW_EV_START,            /* 0 */
    SPICE_FLOW_EV_STOP,             /* 0 */
    SPICE_FLOW_EV_RESET,            /* buffers dropped */
    SPICE_FLOW_EV_CLIENT_ADD,       /* client tokens given */
    SPICE_FLOW_EV_CLIENT_REMOVE,    /* buffers dropped */
    SPICE_FLOW_EV_CLIENT_KICK,      /* SpiceFlowReason */
    SPICE_FLOW_EV_CLIENT_RESUME,    /* messages to be sent again */
    SPICE_FLOW_EV_TOKEN_TAKE,       /* client tokens left */
    SPICE_FLOW_EV_TOKEN_GIVE,       /* client tokens given back to it */
    SPICE_FLOW_EV_SEND_TOKENS,      /* send tokens now */
    SPICE_FLOW_EV_TO_GUEST_QUEUE,   /* bytes */
    SPICE_FLOW_EV_TO_GUEST_DONE,    /* bytes */
    SPICE_FLOW_EV_TO_CLIENT_SEND,   /* bytes */
    SPICE_FLOW_EV_TO_CLIENT_QUEUE,  /* bytes */
    SPICE_FLOW_EV_TO_CLIENT_DONE,   /* bytes */
    SPICE_FLOW_EV_DISCARD,          /* bytes from the guest, no client */
    SPICE_FLOW_EV_GUEST_WAIT,       /* 0: the guest was refused */
    SPICE_FLOW_EV_GUEST_WAKE,       /* 0: it may try again */
    SPICE_FLOW_EV_STALL,            /* 1 a client began to wait, 0 it ended */
    SPICE_FLOW_EV_TURN_LOST,        /* 0 */
    SPICE_FLOW_EV_SELF_TOKEN,       /* self tokens left */
    SPICE_FLOW_EV_RESTORE,          /* buffers restored */
    SPICE_FLOW_EV__MAX
} SpiceFlowEvent;

/**
 * struct SpiceFlowOps: what the machine asks of its owner.  Each may call
 * back into the machine, remove clients, stop it or drop the last reference.
 * @write: give the guest up to @len bytes; returns how many it took.  0 or
 *   less means none now: spice_flow_guest_ready() is called when that may
 *   have changed.  More than @len counts as @len.
 * @wake: what the guest offered and was refused may be offered again.
 *   Optional.
 * @self_token_free: spice_flow_server_write() would succeed again.  Optional.
 * @clock: @runs: some client keeps others waiting and the stall clock is to
 *   run: call spice_flow_tick() now.  !@runs: no client does any more.
 *   Optional.
 * @event: every transition, for traces; @client is 0 where none is meant.
 *   Must not call back.  Optional.
 * @send: hand @msg to the client.  Returns true when all of it is on its way
 *   already; false when the owner keeps it (spice_flow_message_keep()) and
 *   will call spice_flow_client_sent() once it is out.  While it keeps one,
 *   it must keep what follows too, and report in order.
 * @give_tokens: tell the client it may send @n more messages.  Only called
 *   for clients with flow control.
 * @room: spice_flow_client_room() has become worth asking again after a
 *   small answer.  Optional.
 * @turn_lost: the client paused in the middle of a message to the guest for
 *   longer than the stall timeout, while others waited: the rest of that
 *   message will never be wanted.  As after spice_flow_client_remove()
 *   returned true, spice_flow_server_write_unpaid() must follow.  Optional.
 * @remove: the client is to be removed: nothing of it is sent, received or
 *   counted from here on.  The owner still owes spice_flow_client_remove(),
 *   at once or later.
 */
typedef struct SpiceFlowOps {
    ssize_t (*write)(void *opaque, const uint8_t *data, size_t len);
    void (*wake)(void *opaque);
    void (*self_token_free)(void *opaque);
    void (*clock)(void *opaque, bool runs);
    void (*event)(void *opaque, SpiceFlowEvent event, uint32_t client,
                  uint64_t value);

    bool (*send)(void *client_opaque, SpiceFlowMessage *msg);
    void (*give_tokens)(void *client_opaque, uint32_t n);
    void (*room)(void *client_opaque);
    void (*turn_lost)(void *client_opaque);
    void (*remove)(void *client_opaque, SpiceFlowReason reason);
} SpiceFlowOps;

/**
 * struct SpiceFlowParams: the fixed properties of a device.
 * @framing: see SpiceFlowFraming
 * @self_tokens: buffers of the server's own that may wait for the guest
 * @max_message: bytes of the largest buffer to the guest and of the largest
 *   message to a client
 * @stall_timeout: ms after which a client that keeps others waiting goes
 */
typedef struct SpiceFlowParams {
    SpiceFlowFraming framing;
    uint32_t self_tokens;
    size_t max_message;
    uint32_t stall_timeout;
} SpiceFlowParams;

/**
 * struct SpiceFlowClientParams: the fixed properties of one client.
 * @id: its identity, unique on the device, not 0; survives a migration
 * @flow_control: tokens in both directions; without it the budgets alone
 *   bound what is queued
 * @window: client tokens at the start.  Only with @flow_control
 * @interval: consumed messages gathered before their tokens are given back,
 *   at least 1.  Only with @flow_control
 * @send_tokens: send tokens at the start.  Only with @flow_control
 * @to_guest_bytes: budget of bytes it may have waiting for the guest; with
 *   @flow_control the window is the bound
 * @to_guest_messages: likewise, in buffers
 * @to_client_bytes: budget of bytes that may wait for it, at least
 *   max_message
 * @to_client_messages: likewise, in messages
 */
typedef struct SpiceFlowClientParams {
    uint32_t id;
    bool flow_control;
    uint32_t window;
    uint32_t interval;
    uint32_t send_tokens;
    size_t to_guest_bytes;
    uint32_t to_guest_messages;
    size_t to_client_bytes;
    uint32_t to_client_messages;
} SpiceFlowClientParams;

/**
 * struct SpiceFlowBuffer: bytes for the guest, as handed in.
 * @head: bytes that go in front of @data, or NULL
 * @head_len: bytes in @head
 * @data: the bytes; borrowed for the duration of the call
 * @len: bytes in @data
 * @more: the same client's message goes on in its next buffer, and no other
 *   client's may come between
 */
typedef struct SpiceFlowBuffer {
    const void *head;
    size_t head_len;
    const void *data;
    size_t len;
    bool more;
} SpiceFlowBuffer;

/**
 * spice_flow_new: a device, stopped, without clients.
 * @ops: borrowed; must outlive the machine
 * @opaque: handed to the ops without a client
 * @params: copied
 *
 * Returns: a machine with one reference.
 */
SpiceFlow *spice_flow_new(const SpiceFlowOps *ops, void *opaque,
                          const SpiceFlowParams *params);

/**
 * spice_flow_close: end of the device: every client is forgotten, every queue
 * dropped, no op is called any more.
 * @flow: the machine; the caller's reference is dropped.  NULL is allowed
 */
void spice_flow_close(SpiceFlow *flow);

/**
 * spice_flow_start: device I/O is allowed from here on; what waits goes.
 * @flow: the machine
 * @now: ms, on the clock of spice_flow_tick()
 */
void spice_flow_start(SpiceFlow *flow, int64_t now);

/**
 * spice_flow_stop: no byte goes to or is taken from the device until
 * spice_flow_start().  Stall clocks stand still meanwhile.
 * @flow: the machine
 * @now: ms
 */
void spice_flow_stop(SpiceFlow *flow, int64_t now);

/**
 * spice_flow_running: whether device I/O is allowed.
 * @flow: the machine
 *
 * Returns: true between start and stop.
 */
bool spice_flow_running(const SpiceFlow *flow);

/**
 * spice_flow_reset: the guest's end of the device is gone.  Everything queued
 * to the guest, and what waits for tokens to a client, is dropped.  Every
 * client has its full window again and is told nothing: the owner's next
 * announcement of the device tells it.  A message that a client is in the
 * middle of belongs to the time before: spice_flow_client_write() swallows
 * it.
 * @flow: the machine
 */
void spice_flow_reset(SpiceFlow *flow);

/**
 * spice_flow_tick: let the stall clocks see the time.
 * @flow: the machine
 * @now: ms, monotonic
 *
 * Nothing grows older while the device is stopped.
 *
 * Returns: when it wants to be called again (ms), or -1: not before the clock
 * op says so.
 */
int64_t spice_flow_tick(SpiceFlow *flow, int64_t now);

/**
 * spice_flow_set_stall_timeout: change SpiceFlowParams.stall_timeout, also for
 * those who are timed already.
 * @flow: the machine
 * @stall_timeout: ms
 * @now: ms
 *
 * Returns: as spice_flow_tick(), which is called.
 */
int64_t spice_flow_set_stall_timeout(SpiceFlow *flow, uint32_t stall_timeout,
                                     int64_t now);

/*
 * Clients
 */

/**
 * spice_flow_client_add: attach a client.
 * @flow: the machine
 * @params: copied
 * @opaque: handed to the client ops
 *
 * Returns: the client, owned by the machine until spice_flow_client_remove(),
 * or NULL when the id is 0 or taken.
 */
SpiceFlowClient *spice_flow_client_add(SpiceFlow *flow,
                                       const SpiceFlowClientParams *params,
                                       void *opaque);

/**
 * spice_flow_client_remove: detach a client; @client is not valid afterwards.
 * What it had queued is dropped; with framed devices a message that the guest
 * has begun to receive is completed as far as the client sent it.
 * @client: the client
 *
 * Returns: true when the guest is left in the middle of a message that can
 * not be completed.  Then no other client's buffer goes before the owner has
 * made the guest forget the rest, with spice_flow_server_write_unpaid().
 */
bool spice_flow_client_remove(SpiceFlowClient *client);

/**
 * spice_flow_client_find: the client with an id.
 * @flow: the machine
 * @id: the id
 *
 * Returns: the client, or NULL.
 */
SpiceFlowClient *spice_flow_client_find(SpiceFlow *flow, uint32_t id);

/**
 * spice_flow_client_resume: a client that came with spice_flow_restore() is
 * connected again.  Until this call it neither sends nor receives.
 * @client: the client
 * @opaque: handed to the client ops from now on
 * @delivered: how many of the messages that were on their way to it when the
 *   state was saved have reached it since
 *
 * Returns: false when it was not away or @delivered is more than there were.
 */
bool spice_flow_client_resume(SpiceFlowClient *client, void *opaque,
                              uint32_t delivered);

/*
 * To guest
 */

/**
 * spice_flow_client_room: bytes that a client without flow control may hand
 * over now.
 * @client: the client
 *
 * Returns: bytes, 0 when its budget of bytes or buffers is used up.  After an
 * answer smaller than its budget the room op tells when to ask again.
 */
size_t spice_flow_client_room(SpiceFlowClient *client);

/**
 * spice_flow_client_begin: the header of a client's message has come; takes a
 * client token.
 * @client: a client with flow control, not in the middle of a message
 *
 * Returns: false for a token violation: the remove op was called.
 */
bool spice_flow_client_begin(SpiceFlowClient *client);

/**
 * spice_flow_client_cancel: the message begun is not for the guest; its token
 * is due to the client.
 * @client: a client with flow control
 */
void spice_flow_client_cancel(SpiceFlowClient *client);

/**
 * spice_flow_client_write: bytes of a client for the guest.  With flow control
 * they complete the message begun.  Written straight from the caller's memory
 * when nothing is before them; what the guest does not take now is copied.
 * @client: the client
 * @buffer: the bytes
 *
 * Returns: false when they were refused: the client is being removed, the
 * message was not begun, is larger than the device's max_message, or over the
 * budget.
 */
bool spice_flow_client_write(SpiceFlowClient *client,
                             const SpiceFlowBuffer *buffer);

/**
 * spice_flow_settle: the caller has handed in all that it received for now;
 * tokens due to clients with nothing left in the queue are given back.
 * @flow: the machine
 */
void spice_flow_settle(SpiceFlow *flow);

/**
 * spice_flow_server_write: a buffer of the server's own for the guest, paid
 * with a self token.
 * @flow: the machine
 * @buffer: the bytes; more must be false
 *
 * Returns: false when there is no self token: the self_token_free op tells
 * when there is.
 */
bool spice_flow_server_write(SpiceFlow *flow, const SpiceFlowBuffer *buffer);

/**
 * spice_flow_server_may_write: whether there is a self token.
 * @flow: the machine
 *
 * Returns: true when spice_flow_server_write() would take a buffer.
 */
bool spice_flow_server_may_write(const SpiceFlow *flow);

/**
 * spice_flow_server_write_unpaid: likewise without a token, for the rare
 * message that must not be refused.  One that is queued already without a token
 * is not queued again, so that clients who come and go while the guest sleeps
 * add nothing.
 * @flow: the machine
 * @buffer: the bytes; more must be false
 */
void spice_flow_server_write_unpaid(SpiceFlow *flow,
                                    const SpiceFlowBuffer *buffer);

/**
 * spice_flow_guest_ready: the guest may take bytes again.
 * @flow: the machine
 */
void spice_flow_guest_ready(SpiceFlow *flow);

/*
 * To client
 */

/**
 * spice_flow_may_send: whether a message of the guest's can be placed now.
 * @flow: the machine
 * @len: its bytes
 *
 * Returns: true when the device runs and some client can take it (then those
 * who can not have it queued), or there is none (then it is discarded).
 * After false the wake op tells when to ask again.
 */
bool spice_flow_may_send(SpiceFlow *flow, size_t len);

/**
 * spice_flow_guest_waits: whether the guest was refused and not woken since.
 * @flow: the machine
 */
bool spice_flow_guest_waits(const SpiceFlow *flow);

/**
 * spice_flow_send: a message of the guest's for every client.
 * @flow: the machine
 * @data: borrowed for the duration of the call
 * @len: bytes, at least 1
 *
 * Returns: false when spice_flow_may_send() says no.
 */
bool spice_flow_send(SpiceFlow *flow, const void *data, size_t len);

/**
 * spice_flow_may_send_to: whether a message of the guest's for one client
 * alone can be placed now.  It may wait for send tokens: a client that keeps
 * the others waiting like this is timed.
 * @client: the client
 * @len: the message's bytes
 *
 * Returns: true when the device runs and the client's budget allows it, or the
 * client is on its way out (then it is discarded).  After false the wake op
 * tells when to ask again.
 */
bool spice_flow_may_send_to(SpiceFlowClient *client, size_t len);

/**
 * spice_flow_send_to: a message of the guest's for one client alone.  Queued
 * when that one can not take it now; over its budget it is removed.
 * @client: the client
 * @data: borrowed for the duration of the call
 * @len: bytes, at least 1
 */
void spice_flow_send_to(SpiceFlowClient *client, const void *data, size_t len);

/**
 * spice_flow_send_stream: bytes of a raw device for its clients, cut into
 * messages.
 * @flow: the machine
 * @data: borrowed for the duration of the call
 * @len: bytes
 *
 * Returns: bytes taken; with less than @len the wake op tells when to go on.
 */
size_t spice_flow_send_stream(SpiceFlow *flow, const void *data, size_t len);

/**
 * spice_flow_client_sent: the oldest message that the send op kept is out.
 * @client: the client
 */
void spice_flow_client_sent(SpiceFlowClient *client);

/**
 * spice_flow_client_tokens_add: a client allows @n more messages.
 * @client: the client
 * @n: send tokens; the sum stays at UINT32_MAX when it would pass it
 */
void spice_flow_client_tokens_add(SpiceFlowClient *client, uint32_t n);

/**
 * spice_flow_client_tokens_set: a client allows @n messages from now on.
 * @client: the client
 * @n: send tokens
 */
void spice_flow_client_tokens_set(SpiceFlowClient *client, uint32_t n);

/**
 * spice_flow_message_data: the bytes of a message.
 * @msg: the message
 * @len: set to their number
 *
 * Returns: the bytes, valid during the send op, or as long as it is kept.
 */
const uint8_t *spice_flow_message_data(const SpiceFlowMessage *msg,
                                       size_t *len);

/**
 * spice_flow_message_keep: the message is needed beyond the send op.  Its
 * bytes are copied once, however many keep it.
 * @msg: the message
 *
 * Returns: @msg with a reference of the caller's.
 */
SpiceFlowMessage *spice_flow_message_keep(SpiceFlowMessage *msg);

/**
 * spice_flow_message_unref: drop a reference of spice_flow_message_keep().
 * @msg: the message
 */
void spice_flow_message_unref(SpiceFlowMessage *msg);

/*
 * State
 */

/**
 * struct SpiceFlowInfo: a device in numbers.
 * Counters count since spice_flow_new(); the rest is now.
 */
typedef struct SpiceFlowInfo {
    bool running;
    bool guest_waits;
    uint32_t clients;
    uint32_t self_tokens;
    uint32_t to_guest_messages;
    size_t to_guest_bytes;
    size_t to_guest_peak;
    size_t pool_bytes;
    uint64_t guest_messages, guest_bytes;       /* written to the guest */
    uint64_t client_messages, client_bytes;     /* taken from the guest */
    uint64_t discarded_messages, discarded_bytes;
    uint64_t dropped_messages, dropped_bytes;   /* queued, then dropped */
    uint64_t stalls;
    uint64_t violations;
} SpiceFlowInfo;

/**
 * struct SpiceFlowClientInfo: a client in numbers.
 */
typedef struct SpiceFlowClientInfo {
    uint32_t id;
    bool flow_control;
    bool away;
    bool dead;
    bool receiving;
    bool waits;                   /* it keeps others waiting */
    uint32_t window;
    uint32_t client_tokens;
    uint32_t due_tokens;
    uint32_t send_tokens;
    uint32_t to_guest_messages;
    size_t to_guest_bytes;
    uint32_t to_client_messages;  /* waiting or on their way */
    uint32_t to_client_in_flight; /* on their way */
    size_t to_client_bytes;
} SpiceFlowClientInfo;

/**
 * spice_flow_info: a device in numbers.
 * @flow: the machine
 * @info: filled
 */
void spice_flow_info(const SpiceFlow *flow, SpiceFlowInfo *info);

/**
 * spice_flow_client_info: a client in numbers.
 * @client: the client
 * @info: filled
 */
void spice_flow_client_info(const SpiceFlowClient *client,
                            SpiceFlowClientInfo *info);

/**
 * spice_flow_client_foreach: call @fn for every client, newest first.
 * @flow: the machine
 * @fn: must not call back into the machine
 * @data: handed to @fn
 */
void spice_flow_client_foreach(SpiceFlow *flow,
                               void (*fn)(SpiceFlowClient *, void *),
                               void *data);

/**
 * spice_flow_saved_max: bytes that the state of a device can grow to.
 * @flow: the machine
 * @client: properties of its clients
 * @num_clients: as many of them
 *
 * Returns: an upper bound of SpiceFlowSaved in bytes, tables included.
 */
size_t spice_flow_saved_max(const SpiceFlow *flow,
                            const SpiceFlowClientParams *client,
                            uint32_t num_clients);

/**
 * SpiceFlowSavedPlace: the queue that a saved buffer stood in.
 */
typedef enum {
    SPICE_FLOW_AT_CURRENT,      /* to guest, partly written */
    SPICE_FLOW_AT_ORPHAN,       /* to guest, its client left */
    SPICE_FLOW_AT_SERVER,       /* to guest, the server's own */
    SPICE_FLOW_AT_CLIENT,       /* to guest, of a client */
    SPICE_FLOW_AT_TO_CLIENT,    /* to a client */
    SPICE_FLOW_AT__MAX
} SpiceFlowSavedPlace;

/**
 * struct SpiceFlowSavedBuffer: one saved buffer.  Its bytes follow those of
 * the buffers before it in SpiceFlowSaved.data.
 * @place: SpiceFlowSavedPlace
 * @price: client tokens that it stands for, 0 or 1
 * @paid: 1 when a self token comes back with it
 * @more: see SpiceFlowBuffer
 * @client: id of its client, 0 for none
 * @size: its bytes
 * @offset: how many of them the guest has; only at SPICE_FLOW_AT_CURRENT
 */
typedef struct SpiceFlowSavedBuffer {
    uint8_t place;
    uint8_t price;
    uint8_t paid;
    uint8_t more;
    uint32_t client;
    uint32_t size;
    uint32_t offset;
} SpiceFlowSavedBuffer;

/**
 * struct SpiceFlowSavedClient: one saved client.
 * @params: of its spice_flow_client_add()
 * @tokens: client tokens held
 * @due: client tokens due to it
 * @send_tokens: send tokens held
 * @in_flight: how many of its messages were on their way
 * @waited: ms that it kept others waiting, -1 when it did not
 * @receiving: 0, 1 in the middle of a message, 2 likewise but the message
 *   belongs to the time before a reset
 */
typedef struct SpiceFlowSavedClient {
    SpiceFlowClientParams params;
    uint32_t tokens;
    uint32_t due;
    uint32_t send_tokens;
    uint32_t in_flight;
    int64_t waited;
    uint8_t receiving;
} SpiceFlowSavedClient;

/**
 * struct SpiceFlowSaved: the complete state of a device, flat.
 * @self_tokens: self tokens held
 * @turn: id of the client in the middle of a message to the guest, or 0
 * @turn_waited: ms that it has paused there, -1 when no one waits for it
 * @torn: 1 when the guest is in the middle of a message that ends there
 * @clients: newest first
 * @buffers: queue by queue, each in order
 * @data: the bytes of all buffers
 */
typedef struct SpiceFlowSaved {
    uint32_t self_tokens;
    uint32_t turn;
    int64_t turn_waited;
    uint8_t torn;
    uint32_t num_clients;
    SpiceFlowSavedClient *clients;
    uint32_t num_buffers;
    SpiceFlowSavedBuffer *buffers;
    uint32_t data_size;
    uint8_t *data;
} SpiceFlowSaved;

/**
 * spice_flow_save: copy the state; nothing changes.  Clients that were told to
 * go are left out: nothing of theirs is queued any more.
 * @flow: the machine
 * @saved: filled; freed with spice_flow_saved_clear()
 * @now: ms
 */
void spice_flow_save(const SpiceFlow *flow, SpiceFlowSaved *saved,
                     int64_t now);

/**
 * spice_flow_restore: replace the state.  The machine must be stopped; the
 * clients there are are forgotten without an op call, the restored ones are
 * away until spice_flow_client_resume().
 * @flow: the machine
 * @saved: the state; borrowed
 * @now: ms
 * @error: set to what does not add up, naming the field; freed with g_free()
 *
 * Returns: false when @saved is not a possible state; then nothing changed.
 */
bool spice_flow_restore(SpiceFlow *flow, const SpiceFlowSaved *saved,
                        int64_t now, char **error);

/**
 * spice_flow_saved_clear: free what spice_flow_save() filled.
 * @saved: the state; zeroed
 */
void spice_flow_saved_clear(SpiceFlowSaved *saved);

/**
 * spice_flow_event_name: an event in words, for traces.
 * @event: the event
 *
 * Returns: a constant string.
 */
const char *spice_flow_event_name(SpiceFlowEvent event);

/**
 * spice_flow_reason_name: a reason in words.
 * @reason: the reason
 *
 * Returns: a constant string.
 */
const char *spice_flow_reason_name(SpiceFlowReason reason);

/**
 * spice_flow_check: the invariants of docs/design, as far as they can be seen
 * between two calls.
 * @flow: the machine
 *
 * Returns: NULL, or a constant string that names the one that does not hold.
 */
const char *spice_flow_check(const SpiceFlow *flow);

#endif
