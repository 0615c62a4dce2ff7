/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The state of an agent's protocol as plain structs, for those who write it
 * into a stream and read it back.  The machine itself works on the same
 * structs, so nothing can be forgotten; spice_vdagent_restore() checks every
 * field.
 */
#ifndef CHARDEV_SPICEFLOW_VDAGENT_STATE_H
#define CHARDEV_SPICEFLOW_VDAGENT_STATE_H

#include "chardev/spiceflow/vdagent.h"

/* Words of capabilities that are remembered */
#define SPICE_VDAGENT_CAPS_WORDS    4
/* Clipboard selections (VD_AGENT_CLIPBOARD_SELECTION_*) */
#define SPICE_VDAGENT_SELECTIONS    3
/* Types of a grab that are remembered */
#define SPICE_VDAGENT_GRAB_TYPES    16
/* Questions that wait for an answer, per selection or kind */
#define SPICE_VDAGENT_QUESTIONS     16

/**
 * struct SpiceVdagentCaps: capabilities somebody announced.
 * @known: they were announced
 * @num: words of them
 * @word: zero beyond @num
 */
typedef struct SpiceVdagentCaps {
    bool known;
    uint8_t num;
    uint32_t word[SPICE_VDAGENT_CAPS_WORDS];
} SpiceVdagentCaps;

/**
 * struct SpiceVdagentQuestions: questions without an answer so far, oldest
 * first; the oldest makes room when there are too many.
 * @num: how many
 * @client: who asked, maybe gone since; 0 for the guest
 * @type: what for: VD_AGENT_CLIPBOARD_*
 * @passed: which of that client's pieces it was, as counted in
 *   SpiceVdagentClientState.passed.  Need not be saved: 0 is long ago
 */
typedef struct SpiceVdagentQuestions {
    uint8_t num;
    uint64_t passed[SPICE_VDAGENT_QUESTIONS];
    uint32_t client[SPICE_VDAGENT_QUESTIONS];
    uint32_t type[SPICE_VDAGENT_QUESTIONS];
} SpiceVdagentQuestions;

/**
 * struct SpiceVdagentSelection: one clipboard selection of the guest.
 * @guest_owns: the contents are the guest's
 * @owner: the client whose they are, or 0
 * @num_types: entries in @types
 * @types: what the owner grabbed it with
 * @last_asker: the client that asked the guest last, or 0
 * @asked: questions of the clients to the guest
 * @refused: questions of the guest that the server has to answer
 * @release_due: the guest is to be told that the owner is gone
 * @grab_due: the guest is to be told again that @owner has it
 */
typedef struct SpiceVdagentSelection {
    bool guest_owns;
    uint32_t owner;
    uint8_t num_types;
    uint32_t types[SPICE_VDAGENT_GRAB_TYPES];
    uint32_t last_asker;
    SpiceVdagentQuestions asked;
    SpiceVdagentQuestions refused;
    bool release_due;
    bool grab_due;
} SpiceVdagentSelection;

/**
 * struct SpiceVdagentState: what there is once.
 * @error: SpiceVdagentGuestError
 * @chunk_header_len: bytes of @chunk_header that have come
 * @chunk_header: of the chunk that the guest is in, as it came
 * @chunk_left: bytes of that chunk still to come
 * @judged: the beginning of the guest's message was judged
 * @passing: and is for somebody
 * @first: @piece holds the beginning of the message
 * @type: of the message, once its header is there
 * @size: likewise
 * @opaque: likewise
 * @message_left: bytes of the message not in @piece yet.  Only when @judged
 * @fill: bytes in @piece
 * @piece: what clients get next
 * @guest: the capabilities of the guest
 * @guest_told: those of the clients, as the guest was told
 * @announce_due: the guest is to be told again
 * @announce_request: and asked for its own
 * @disconnect_due: the guest is to be told that its client is gone
 * @max_told: the clipboard limit was told to the guest
 * @max_due: and is to be told again, changed or not
 * @max_value: what it was told, UINT32_MAX for none
 * @no_serial: grabs can not be counted any more in this session
 * @selection: the clipboards
 * @replies: who waits for a VD_AGENT_REPLY to MONITORS_CONFIG, and to
 *   DISPLAY_CONFIG; their @type is 0
 * @mend_left: bytes that a message lacks whose client did not end it
 * @mend_release: 1 and the selection that is to be released before that, or 0
 * @next_xfer: guest's id of the next file transfer that can not keep its own
 */
typedef struct SpiceVdagentState {
    uint8_t error;
    uint8_t chunk_header_len;
    uint8_t chunk_header[8];
    uint32_t chunk_left;
    bool judged;
    bool passing;
    bool first;
    uint32_t type;
    uint32_t size;
    uint64_t opaque;
    uint64_t message_left;
    uint32_t fill;
    uint8_t piece[SPICE_VDAGENT_PIECE_MAX];
    SpiceVdagentCaps guest;
    SpiceVdagentCaps guest_told;
    bool announce_due;
    bool announce_request;
    bool disconnect_due;
    bool max_told;
    bool max_due;
    uint32_t max_value;
    bool no_serial;
    SpiceVdagentSelection selection[SPICE_VDAGENT_SELECTIONS];
    SpiceVdagentQuestions replies[2];
    uint32_t mend_left;
    uint8_t mend_release;
    uint32_t next_xfer;
} SpiceVdagentState;

/**
 * struct SpiceVdagentClientState: what there is per client.
 * @id: of spice_vdagent_client_add()
 * @started: it knows of this agent
 * @receiving: the guest's message of now is for it
 * @error: SpiceVdagentClientError
 * @wanted: its message to the guest was begun after it started
 * @judged: the beginning of that message was judged
 * @passing: and goes to the guest
 * @message_left: bytes of that message still to come
 * @passed: pieces that went to the guest so far.  Need not be saved
 * @prefix_len: bytes of its beginning that are kept.  Only before @judged
 * @prefix: those bytes; once it is @passing, the beginning as the guest gets it
 * @caps: its capabilities
 * @told: those of the guest, as it was told
 * @announce_due: it asked for them and the server answers
 * @max_clipboard: largest contents that it takes, UINT32_MAX for no limit
 * @empty_due: per selection, questions that the server has to answer
 * @release_due: per selection, it is to be told that the guest's are gone
 * @grab_due: per selection, it is to be told that the guest has some
 */
typedef struct SpiceVdagentClientState {
    uint32_t id;
    bool started;
    bool receiving;
    uint8_t error;
    bool wanted;
    bool judged;
    bool passing;
    uint64_t message_left;
    uint64_t passed;
    uint32_t prefix_len;
    uint8_t prefix[SPICE_VDAGENT_PREFIX_MAX];
    SpiceVdagentCaps caps;
    SpiceVdagentCaps told;
    bool announce_due;
    uint32_t max_clipboard;
    uint32_t empty_due[SPICE_VDAGENT_SELECTIONS];
    bool release_due[SPICE_VDAGENT_SELECTIONS];
    bool grab_due[SPICE_VDAGENT_SELECTIONS];
} SpiceVdagentClientState;

/**
 * struct SpiceVdagentXferState: one file transfer.
 * @client: whose it is; 0: that one is gone, and the guest is to be told
 * @id: the client's number for it
 * @guest_id: the guest's
 * @beginner: who began it, also when @client is 0.  Need not be saved
 * @passed: with which of its pieces.  Need not be saved
 * @bytes: of the file that went to the guest
 */
typedef struct SpiceVdagentXferState {
    uint32_t client;
    uint32_t id;
    uint32_t guest_id;
    uint32_t beginner;
    uint64_t passed;
    uint64_t bytes;
} SpiceVdagentXferState;

/**
 * struct SpiceVdagentStatusState: the end of a transfer that a client is to be
 * told.
 * @client: which
 * @id: its number for it
 * @result: VD_AGENT_FILE_XFER_STATUS_*
 */
typedef struct SpiceVdagentStatusState {
    uint32_t client;
    uint32_t id;
    uint32_t result;
} SpiceVdagentStatusState;

/**
 * struct SpiceVdagentSaved: the complete state, flat.
 * @agent: what there is once
 * @clipboard: of the policy that it was saved under
 * @clients: in the order they were added
 * @xfers: in the order they were started
 * @statuses: per client in order
 */
struct SpiceVdagentSaved {
    SpiceVdagentState agent;
    uint8_t clipboard;
    uint32_t num_clients;
    SpiceVdagentClientState *clients;
    uint32_t num_xfers;
    SpiceVdagentXferState *xfers;
    uint32_t num_statuses;
    SpiceVdagentStatusState *statuses;
};

/* SpiceVdagentState.error; 0 is none */
typedef enum {
    SPICE_VDAGENT_GUEST_PORT = 1,
    SPICE_VDAGENT_GUEST_PROTOCOL,
    SPICE_VDAGENT_GUEST_ERROR__MAX
} SpiceVdagentGuestError;

/* SpiceVdagentClientState.error; 0 is none */
typedef enum {
    SPICE_VDAGENT_CLIENT_LONG_PIECE = 1,
    SPICE_VDAGENT_CLIENT_SHORT_HEADER,
    SPICE_VDAGENT_CLIENT_PROTOCOL,
    SPICE_VDAGENT_CLIENT_PAST_END,
    SPICE_VDAGENT_CLIENT_ERROR__MAX
} SpiceVdagentClientError;

#endif
