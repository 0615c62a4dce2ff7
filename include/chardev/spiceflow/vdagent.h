/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The SPICE agent's protocol, without any I/O: VDI chunks and agent messages
 * between one guest and its clients.  It cuts what the guest writes into
 * pieces for the clients, says of each client's piece whether and how it goes
 * to the guest, enforces the policy, and keeps several clients out of each
 * other's way.  core/vdagent.c opens with the theory of operation.
 *
 * Used like this, next to a SpiceFlow that moves the bytes:
 *
 *   guest writes      spice_vdagent_feed(), and for each piece that
 *                     spice_vdagent_piece() shows: hand it to the clients that
 *                     spice_vdagent_client_receives(), then
 *                     spice_vdagent_piece_done()
 *   client's piece    spice_vdagent_client_piece(): PASS with the buffer for
 *                     spice_flow_client_write(), DISCARD: give its token back,
 *                     ERROR: remove that client
 *   after each call   what is to be said by the server itself:
 *                     spice_vdagent_take_disconnect() and _take_to_guest() for
 *                     the guest, spice_vdagent_take_to_client() per client
 *   agent's port      opened: tell the clients; closed, or the guest is
 *                     broken: spice_vdagent_reset()
 *
 * No function calls back but SpiceVdagentOps.event, which must not call in.
 * Peers are never trusted; no allocation follows a size that a peer claims.
 */
#ifndef CHARDEV_SPICEFLOW_VDAGENT_H
#define CHARDEV_SPICEFLOW_VDAGENT_H

#include "chardev/spiceflow/flow.h"

typedef struct SpiceVdagent SpiceVdagent;
typedef struct SpiceVdagentClient SpiceVdagentClient;
typedef struct SpiceVdagentSaved SpiceVdagentSaved;

/* Bytes of the largest AGENT_DATA, either way (VD_AGENT_MAX_DATA_SIZE) */
#define SPICE_VDAGENT_PIECE_MAX     2048
/* Bytes of the beginning of a message that are looked at */
#define SPICE_VDAGENT_PREFIX_MAX    92
/* Bytes of the largest notice; see SpiceVdagentNotice */
#define SPICE_VDAGENT_NOTICE_MAX    (8 + SPICE_VDAGENT_PIECE_MAX)
/* Bytes of the largest buffer for the guest: SpiceFlowParams.max_message */
#define SPICE_VDAGENT_BUFFER_MAX    (8 + SPICE_VDAGENT_PREFIX_MAX + 8 + \
                                     SPICE_VDAGENT_PIECE_MAX)
/* Bytes of the largest message that is no clipboard data */
#define SPICE_VDAGENT_OTHER_MAX     (16u * 1024 * 1024)
/* File transfers at once, of one client and of all */
#define SPICE_VDAGENT_CLIENT_XFERS  4096
#define SPICE_VDAGENT_XFERS         16384

/**
 * SpiceVdagentClipboard: which way clipboard contents may go; bits.
 */
typedef enum {
    SPICE_VDAGENT_CLIPBOARD_OFF = 0,
    SPICE_VDAGENT_CLIPBOARD_TO_GUEST = 1,
    SPICE_VDAGENT_CLIPBOARD_TO_CLIENT = 2,
    SPICE_VDAGENT_CLIPBOARD_BOTH = 3,
} SpiceVdagentClipboard;

/**
 * struct SpiceVdagentPolicy: what is allowed.
 * @clipboard: which way clipboard contents may go
 * @max_to_guest: bytes of the largest clipboard contents to the guest,
 *   UINT32_MAX for no limit; larger ones are refused whole
 * @max_to_client: likewise to a client
 * @file_transfer: clients may copy files into the guest
 */
typedef struct SpiceVdagentPolicy {
    SpiceVdagentClipboard clipboard;
    uint32_t max_to_guest;
    uint32_t max_to_client;
    bool file_transfer;
} SpiceVdagentPolicy;

/**
 * SpiceVdagentEvent: what became of a message, as reported to
 * SpiceVdagentOps.event when its first bytes were seen.
 * @SPICE_VDAGENT_EV_TO_GUEST: of @client, goes to the guest
 * @SPICE_VDAGENT_EV_TO_CLIENT: of the guest, goes to @client, 0 for all
 * @SPICE_VDAGENT_EV_ABSORBED: of @client; the server speaks for all clients
 * @SPICE_VDAGENT_EV_REFUSED_POLICY: clipboard or file transfer is off.
 *   @client is the sender's, 0 for the guest, from here on
 * @SPICE_VDAGENT_EV_REFUSED_SIZE: larger than allowed
 * @SPICE_VDAGENT_EV_DROPPED: nobody wants it: sent before the agent started,
 *   an answer to a client that left, a transfer that has ended, no client
 */
typedef enum {
    SPICE_VDAGENT_EV_TO_GUEST,
    SPICE_VDAGENT_EV_TO_CLIENT,
    SPICE_VDAGENT_EV_ABSORBED,
    SPICE_VDAGENT_EV_REFUSED_POLICY,
    SPICE_VDAGENT_EV_REFUSED_SIZE,
    SPICE_VDAGENT_EV_DROPPED,
    SPICE_VDAGENT_EV__MAX
} SpiceVdagentEvent;

/**
 * SpiceVdagentOutcome: what became of a transfer.
 * @SPICE_VDAGENT_PASSED: clipboard contents go on; a file has arrived
 * @SPICE_VDAGENT_REFUSED_POLICY: clipboard or file transfer is off
 * @SPICE_VDAGENT_REFUSED_SIZE: larger than allowed
 * @SPICE_VDAGENT_REFUSED_NUMBER: too many files at once
 * @SPICE_VDAGENT_CANCELLED: of a file: it ended before it had arrived
 */
typedef enum {
    SPICE_VDAGENT_PASSED,
    SPICE_VDAGENT_REFUSED_POLICY,
    SPICE_VDAGENT_REFUSED_SIZE,
    SPICE_VDAGENT_REFUSED_NUMBER,
    SPICE_VDAGENT_CANCELLED,
    SPICE_VDAGENT_OUTCOME__MAX
} SpiceVdagentOutcome;

/**
 * struct SpiceVdagentTransfer: contents that went, or were to go, to the other
 * side.
 * @file: a file, else what is in a clipboard
 * @to_guest: from a client to the guest, else the other way
 * @outcome: what became of it
 * @client: id of the client, 0 when it is for none in particular
 * @has_bytes: whether it is known how many bytes it has
 * @bytes: of a file those that have passed
 */
typedef struct SpiceVdagentTransfer {
    bool file;
    bool to_guest;
    SpiceVdagentOutcome outcome;
    uint32_t client;
    bool has_bytes;
    uint64_t bytes;
} SpiceVdagentTransfer;

/**
 * struct SpiceVdagentOps: what the owner is told.
 * @event: a message was judged: its type, and the bytes of its payload.  Must
 *   not call back.  Optional.
 * @transfer: one of contents: clipboards when they begin, files when they have
 *   ended, what is refused at once.  Must not call back.  Optional.
 * @queued: asks how many buffers of a client (SPICE_VDAGENT_PASS) the guest has
 *   not begun to get: what they say is not forgotten when the guest forgets.
 *   Must not call back.  Optional.
 */
typedef struct SpiceVdagentOps {
    void (*event)(void *opaque, SpiceVdagentEvent event, uint32_t client,
                  uint32_t type, uint32_t size);
    void (*transfer)(void *opaque, const SpiceVdagentTransfer *transfer);
    uint32_t (*queued)(void *opaque, uint32_t client);
} SpiceVdagentOps;

/**
 * spice_vdagent_new: an agent's protocol, without clients.
 * @policy: copied
 * @ops: borrowed, or NULL
 * @opaque: handed to the ops
 *
 * Returns: freed with spice_vdagent_free().
 */
SpiceVdagent *spice_vdagent_new(const SpiceVdagentPolicy *policy,
                                const SpiceVdagentOps *ops, void *opaque);

/**
 * spice_vdagent_free: forget everything, the clients included.
 * @agent: the agent, or NULL
 */
void spice_vdagent_free(SpiceVdagent *agent);

/**
 * spice_vdagent_set_policy: change what is allowed, from the next message on.
 * What it takes away is told to both sides: capabilities again, clipboards
 * released, transfers cancelled.
 * @agent: the agent
 * @policy: copied
 */
void spice_vdagent_set_policy(SpiceVdagent *agent,
                              const SpiceVdagentPolicy *policy);

/**
 * spice_vdagent_reset: the guest's end is gone (port closed, guest reset, or
 * its stream is broken).  Everything known of it is forgotten; the rest of a
 * message that a client is in the middle of is swallowed when it comes; every
 * client has to start again.
 * @agent: the agent
 */
void spice_vdagent_reset(SpiceVdagent *agent);

/*
 * Clients
 */

/**
 * spice_vdagent_client_add: a client is there.  What it sends is discarded
 * until it has started.
 * @agent: the agent
 * @id: not 0, unique; as in SpiceFlowClientParams
 *
 * Returns: the client, owned by @agent, or NULL when @id is 0 or taken.
 */
SpiceVdagentClient *spice_vdagent_client_add(SpiceVdagent *agent, uint32_t id);

/**
 * spice_vdagent_client_start: the client knows of this agent (AGENT_START).
 * The messages that it begins from here on, and those that the guest begins,
 * are for it.  Starting twice changes nothing.
 * @client: the client
 */
void spice_vdagent_client_start(SpiceVdagentClient *client);

/**
 * spice_vdagent_client_remove: the client is gone; @client is not valid
 * afterwards.  The guest is told: as CLIENT_DISCONNECTED when it was the last
 * that had started, else its clipboards are released and its transfers
 * cancelled.
 * @client: the client
 * @torn: what spice_flow_client_remove() returned: the guest was left in the
 *   middle of a message.  See spice_vdagent_client_turn_lost()
 */
void spice_vdagent_client_remove(SpiceVdagentClient *client, bool torn);

/**
 * spice_vdagent_client_stop: the client does not know of this agent after all:
 * what it said was meant for an earlier one.  It is as before
 * spice_vdagent_client_start(), the rest of a message that it is in the middle
 * of is swallowed, and the guest is told as if it had left.
 * @client: the client
 * @torn: as for spice_vdagent_client_remove()
 */
void spice_vdagent_client_stop(SpiceVdagentClient *client, bool torn);

/**
 * spice_vdagent_client_left: where a client is in its message.
 * @client: the client
 *
 * Returns: bytes still to come, 0 between messages.
 */
uint64_t spice_vdagent_client_left(const SpiceVdagentClient *client);

/**
 * spice_vdagent_client_skip: a new client is in the middle of a message, which
 * was meant for nobody here.
 * @client: the client, as spice_vdagent_client_add() returned it
 * @left: bytes still to come, which are swallowed
 */
void spice_vdagent_client_skip(SpiceVdagentClient *client, uint64_t left);

/**
 * spice_vdagent_left_after: the same without an agent, to follow what a client
 * sends while there is none.
 * @left: bytes that were still to come of its message
 * @data: its AGENT_DATA
 * @len: bytes of that
 *
 * Returns: bytes still to come.
 */
uint64_t spice_vdagent_left_after(uint64_t left, const uint8_t *data,
                                  size_t len);

/**
 * spice_vdagent_client_turn_lost: the rest of the message to the guest that
 * the client is in the middle of is not wanted any more (SpiceFlowOps.
 * turn_lost).  Where nothing comes of what the guest has, that is filled up
 * (core/vdagent-mend.c).  Else the only message that makes a guest drop a part
 * of one is CLIENT_DISCONNECTED, so it is due, and after it what the guest
 * forgot with it: capabilities, and the clipboards of the clients.  Transfers
 * that it has heard of end.
 * @client: the client
 */
void spice_vdagent_client_turn_lost(SpiceVdagentClient *client);

/**
 * spice_vdagent_client_find: the client with an id.
 * @agent: the agent
 * @id: the id
 *
 * Returns: the client, or NULL.
 */
SpiceVdagentClient *spice_vdagent_client_find(SpiceVdagent *agent,
                                              uint32_t id);

/*
 * From the guest
 */

/**
 * struct SpiceVdagentPiece: an AGENT_DATA for clients.
 * @data: the bytes, valid until spice_vdagent_piece_done() or _reset()
 * @len: 1 to SPICE_VDAGENT_PIECE_MAX
 * @type: of its message
 * @size: bytes of its message's payload
 * @opaque: of its message
 * @first: it begins the message, and has the whole header
 * @last: it ends the message
 * @everyone: every client that has started receives it
 */
typedef struct SpiceVdagentPiece {
    const uint8_t *data;
    size_t len;
    uint32_t type;
    uint32_t size;
    uint64_t opaque;
    bool first;
    bool last;
    bool everyone;
} SpiceVdagentPiece;

/**
 * spice_vdagent_feed: bytes that the guest wrote, split anyhow.
 * @agent: the agent
 * @data: the bytes
 * @len: their number
 *
 * Returns: how many were taken: less than @len when a piece waits to be handed
 * out, or when the guest broke the protocol: see spice_vdagent_guest_error().
 */
size_t spice_vdagent_feed(SpiceVdagent *agent, const uint8_t *data,
                          size_t len);

/**
 * spice_vdagent_piece: the piece that waits.  Once every client that was to
 * receive it has left it is gone.
 * @agent: the agent
 * @piece: filled
 *
 * Returns: false when there is none.
 */
bool spice_vdagent_piece(SpiceVdagent *agent, SpiceVdagentPiece *piece);

/**
 * spice_vdagent_client_receives: whether the message of the piece that waits
 * is for a client.
 * @client: the client
 *
 * Returns: true when it is.
 */
bool spice_vdagent_client_receives(const SpiceVdagentClient *client);

/**
 * spice_vdagent_piece_done: the piece was handed out.
 * @agent: the agent; spice_vdagent_piece() returned true
 */
void spice_vdagent_piece_done(SpiceVdagent *agent);

/**
 * spice_vdagent_guest_error: how the guest broke the protocol.  Nothing of it
 * is taken any more until spice_vdagent_reset().
 * @agent: the agent
 *
 * Returns: a constant string, or NULL when it did not.
 */
const char *spice_vdagent_guest_error(const SpiceVdagent *agent);

/*
 * From a client
 */

/**
 * SpiceVdagentVerdict: what becomes of a client's piece.
 * @SPICE_VDAGENT_PASS: it goes to the guest
 * @SPICE_VDAGENT_DISCARD: it does not, or its bytes are kept until the next
 *   piece; its token is due to the client
 * @SPICE_VDAGENT_ERROR: the client broke the protocol and is to be removed
 */
typedef enum {
    SPICE_VDAGENT_PASS,
    SPICE_VDAGENT_DISCARD,
    SPICE_VDAGENT_ERROR,
} SpiceVdagentVerdict;

/**
 * spice_vdagent_client_piece: a client sent an AGENT_DATA.
 * @client: the client
 * @data: its bytes; capabilities, limits and transfer ids are rewritten here
 * @len: their number
 * @buffer: for SPICE_VDAGENT_PASS what spice_flow_client_write() is to be
 *   given, valid until the next call with @client and as long as @data
 *
 * Returns: see SpiceVdagentVerdict.
 */
SpiceVdagentVerdict spice_vdagent_client_piece(SpiceVdagentClient *client,
                                               uint8_t *data, size_t len,
                                               SpiceFlowBuffer *buffer);

/**
 * spice_vdagent_client_error: how the client broke the protocol.
 * @client: the client
 *
 * Returns: a constant string, or NULL when it did not.
 */
const char *spice_vdagent_client_error(const SpiceVdagentClient *client);

/*
 * From the server itself
 */

/**
 * struct SpiceVdagentNotice: a message of the server's own, or what a client's
 * message to the guest is filled up with.
 * @data: to the guest a chunk, to a client an AGENT_DATA; complete
 * @len: its bytes
 * @ends_torn: to the guest: from here on it waits for no end of a message any
 *   more: spice_flow_server_write_unpaid(), which must not be refused
 */
typedef struct SpiceVdagentNotice {
    uint8_t data[SPICE_VDAGENT_NOTICE_MAX];
    size_t len;
    bool ends_torn;
} SpiceVdagentNotice;

/**
 * spice_vdagent_take_disconnect: CLIENT_DISCONNECTED for the guest, when it is
 * due.  It ends a torn message.
 * @agent: the agent
 * @notice: filled
 *
 * Returns: false when it is not due.
 */
bool spice_vdagent_take_disconnect(SpiceVdagent *agent,
                                   SpiceVdagentNotice *notice);

/**
 * spice_vdagent_take_to_guest: the next notice for the guest.  To be called
 * when spice_flow_server_write() would succeed, until nothing is due; what is
 * due does not grow meanwhile.
 * @agent: the agent
 * @notice: filled
 *
 * Returns: false when nothing is due, or CLIENT_DISCONNECTED has to go first.
 */
bool spice_vdagent_take_to_guest(SpiceVdagent *agent,
                                 SpiceVdagentNotice *notice);

/**
 * spice_vdagent_take_to_client: the next notice for a client, for
 * spice_flow_send_to().
 * @client: the client
 * @notice: filled
 *
 * Returns: false when nothing is due, or it is in the middle of a message of
 * the guest's.
 */
bool spice_vdagent_take_to_client(SpiceVdagentClient *client,
                                  SpiceVdagentNotice *notice);

/**
 * spice_vdagent_build_chunk: a server message for the guest, as one chunk.
 * @notice: filled
 * @type: VD_AGENT_*
 * @payload: the bytes after the message's header, or NULL
 * @len: their number
 *
 * Returns: false when it would be larger than a notice.
 */
bool spice_vdagent_build_chunk(SpiceVdagentNotice *notice, uint32_t type,
                               const void *payload, size_t len);

/*
 * State
 */

/**
 * struct SpiceVdagentInfo: an agent in numbers.
 * @guest_caps: the first word of the guest's capabilities, 0 before it
 *   announced any
 * @started: clients that have started
 * @transfers: file transfers that run
 * @clipboard_owner: who owns each selection's contents: id of a client,
 *   UINT32_MAX for the guest, 0 for nobody
 * @messages: messages judged, by SpiceVdagentEvent
 */
typedef struct SpiceVdagentInfo {
    uint32_t guest_caps;
    uint32_t started;
    uint32_t transfers;
    uint32_t clipboard_owner[3];
    uint64_t messages[SPICE_VDAGENT_EV__MAX];
} SpiceVdagentInfo;

/**
 * spice_vdagent_info: an agent in numbers.
 * @agent: the agent
 * @info: filled
 */
void spice_vdagent_info(const SpiceVdagent *agent, SpiceVdagentInfo *info);

/**
 * spice_vdagent_event_name: an event in words, for traces.
 * @event: the event
 *
 * Returns: a constant string.
 */
const char *spice_vdagent_event_name(SpiceVdagentEvent event);

/**
 * spice_vdagent_save: copy the state (vdagent-state.h); nothing changes.
 * @agent: the agent
 * @saved: filled; freed with spice_vdagent_saved_clear()
 */
void spice_vdagent_save(const SpiceVdagent *agent, SpiceVdagentSaved *saved);

/**
 * spice_vdagent_restore: replace the state, clients included: they are there
 * under their ids afterwards, and removed like others.  The policy stays that
 * of @agent; where it differs from the saved one both sides are told.
 * @agent: the agent
 * @saved: the state; borrowed
 * @error: set to what does not add up, naming the field; freed with g_free()
 *
 * Returns: false when @saved is not a possible state; then nothing changed.
 */
bool spice_vdagent_restore(SpiceVdagent *agent, const SpiceVdagentSaved *saved,
                           char **error);

/**
 * spice_vdagent_saved_clear: free what spice_vdagent_save() filled.
 * @saved: the state; zeroed
 */
void spice_vdagent_saved_clear(SpiceVdagentSaved *saved);

/**
 * spice_vdagent_saved_max: bytes that the state can grow to.
 * @max_clients: clients there can be at once
 *
 * Returns: an upper bound of SpiceVdagentSaved in bytes, tables included.
 */
size_t spice_vdagent_saved_max(uint32_t max_clients);

#endif
