/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Smart-card (VSC) messages: taken out of a byte stream and put into one.
 *
 * A message is a header of three 32-bit words (type, reader id, length of
 * what follows) and a payload.  A SPICE client speaks them little-endian, the
 * ccid-card-passthru device big-endian; payloads are the same on both sides,
 * an error's code is big-endian on both (see spice_flow_vsc_put_error()).
 * The parser owns no descriptor and no clock; core/vsc.c opens with how it
 * works.
 */
#ifndef CHARDEV_SPICEFLOW_VSC_H
#define CHARDEV_SPICEFLOW_VSC_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct SpiceFlowVsc SpiceFlowVsc;

/* Bytes of a message's header */
#define SPICE_FLOW_VSC_HEADER_SIZE  12

/*
 * The largest message, header included: the input buffer of
 * ccid-card-passthru.  One byte more and the device never answers again.
 */
#define SPICE_FLOW_VSC_MAX_SIZE     65536

/* Bytes of an error message, header included */
#define SPICE_FLOW_VSC_ERROR_SIZE   16

/* The reader id of messages that mean no reader */
#define SPICE_FLOW_VSC_NO_READER    0xffffffffu

/**
 * SpiceFlowVscOrder: the byte order of headers.
 * @SPICE_FLOW_VSC_WIRE: little-endian, as a SPICE client speaks
 * @SPICE_FLOW_VSC_DEVICE: big-endian, as the device speaks
 */
typedef enum {
    SPICE_FLOW_VSC_WIRE,
    SPICE_FLOW_VSC_DEVICE,
} SpiceFlowVscOrder;

/**
 * SpiceFlowVscType: what a message is about.  Others may come and are parsed
 * all the same.
 * @SPICE_FLOW_VSC_INIT: both ways, on connection.  Must not be passed to the
 *   device: ccid-card-passthru byte-swaps "length minus 12" bytes of
 *   capabilities, which for a shorter payload is nearly all of memory.
 * @SPICE_FLOW_VSC_ERROR: both ways, the answer to a command; 0 is success
 * @SPICE_FLOW_VSC_READER_ADD: from the client, with the reader's name
 * @SPICE_FLOW_VSC_READER_REMOVE: from the client
 * @SPICE_FLOW_VSC_ATR: from the client, a card was inserted or reset
 * @SPICE_FLOW_VSC_CARD_REMOVE: from the client
 * @SPICE_FLOW_VSC_APDU: both ways
 * @SPICE_FLOW_VSC_FLUSH: to the client
 * @SPICE_FLOW_VSC_FLUSH_COMPLETE: from the client
 */
typedef enum {
    SPICE_FLOW_VSC_INIT = 1,
    SPICE_FLOW_VSC_ERROR = 2,
    SPICE_FLOW_VSC_READER_ADD = 3,
    SPICE_FLOW_VSC_READER_REMOVE = 4,
    SPICE_FLOW_VSC_ATR = 5,
    SPICE_FLOW_VSC_CARD_REMOVE = 6,
    SPICE_FLOW_VSC_APDU = 7,
    SPICE_FLOW_VSC_FLUSH = 8,
    SPICE_FLOW_VSC_FLUSH_COMPLETE = 9,
} SpiceFlowVscType;

/**
 * SpiceFlowVscCode: the code of an error message.
 */
typedef enum {
    SPICE_FLOW_VSC_SUCCESS = 0,
    SPICE_FLOW_VSC_GENERAL_ERROR = 1,
    SPICE_FLOW_VSC_NO_MORE_READERS = 2,
    SPICE_FLOW_VSC_CARD_ALREADY_INSERTED = 3,
} SpiceFlowVscCode;

/**
 * struct SpiceFlowVscMessage: one message, in the host's byte order.
 * @type: SpiceFlowVscType, or a number that is none
 * @reader_id: the reader, or SPICE_FLOW_VSC_NO_READER
 * @length: bytes of @payload
 * @payload: borrowed, from the bytes fed or from the parser: valid until
 *   those go or the parser is called again
 */
typedef struct SpiceFlowVscMessage {
    uint32_t type;
    uint32_t reader_id;
    uint32_t length;
    const uint8_t *payload;
} SpiceFlowVscMessage;

/**
 * SpiceFlowVscResult: what spice_flow_vsc_feed() came to.
 * @SPICE_FLOW_VSC_MORE: all bytes are used and no message is complete
 * @SPICE_FLOW_VSC_MESSAGE: a message; feed the bytes behind it next
 * @SPICE_FLOW_VSC_TOO_LONG: the header of a message that would exceed
 *   SPICE_FLOW_VSC_MAX_SIZE.  Type, reader and length are told, the payload is
 *   not: it is skipped as it comes, and what follows it is parsed again.  The
 *   answer to a client is an error with SPICE_FLOW_VSC_GENERAL_ERROR for that
 *   reader.
 */
typedef enum {
    SPICE_FLOW_VSC_MORE,
    SPICE_FLOW_VSC_MESSAGE,
    SPICE_FLOW_VSC_TOO_LONG,
} SpiceFlowVscResult;

/**
 * struct SpiceFlowVscSaved: what a parser holds between two calls.
 * @skip: bytes of a refused message that are still to come
 * @size: bytes of @data, less than SPICE_FLOW_VSC_MAX_SIZE
 * @data: the beginning of a message, header first, as it came
 */
typedef struct SpiceFlowVscSaved {
    uint32_t skip;
    uint32_t size;
    uint8_t *data;
} SpiceFlowVscSaved;

/**
 * spice_flow_vsc_new: a parser for one direction of one stream.
 * @order: the byte order of its headers
 *
 * Returns: a parser at a message's border; freed with spice_flow_vsc_free().
 */
SpiceFlowVsc *spice_flow_vsc_new(SpiceFlowVscOrder order);

/**
 * spice_flow_vsc_free: free a parser.
 * @vsc: the parser, or NULL
 */
void spice_flow_vsc_free(SpiceFlowVsc *vsc);

/**
 * spice_flow_vsc_reset: forget the unfinished message; the next byte begins
 * a new one.
 * @vsc: the parser
 */
void spice_flow_vsc_reset(SpiceFlowVsc *vsc);

/**
 * spice_flow_vsc_feed: take bytes up to the end of one message.  The loop is
 * "feed, advance by @used, handle what came" until SPICE_FLOW_VSC_MORE.
 * A payload that lies in @data whole is not copied.
 * @vsc: the parser
 * @data: the bytes that came
 * @len: how many
 * @used: set to how many of them are done with
 * @message: filled for SPICE_FLOW_VSC_MESSAGE and, without the payload, for
 *   SPICE_FLOW_VSC_TOO_LONG
 *
 * Returns: what the bytes used came to.
 */
SpiceFlowVscResult spice_flow_vsc_feed(SpiceFlowVsc *vsc,
                                       const uint8_t *data, size_t len,
                                       size_t *used,
                                       SpiceFlowVscMessage *message);

/**
 * spice_flow_vsc_partial: whether the stream stands inside a message.
 * @vsc: the parser
 */
bool spice_flow_vsc_partial(const SpiceFlowVsc *vsc);

/**
 * spice_flow_vsc_memory: bytes allocated for payloads.  Follows the bytes that
 * really came, never a length that a header claims.
 * @vsc: the parser
 */
size_t spice_flow_vsc_memory(const SpiceFlowVsc *vsc);

/**
 * spice_flow_vsc_save: copy what the parser holds; nothing changes.
 * @vsc: the parser
 * @saved: filled; freed with spice_flow_vsc_saved_clear()
 */
void spice_flow_vsc_save(const SpiceFlowVsc *vsc, SpiceFlowVscSaved *saved);

/**
 * spice_flow_vsc_restore: put the parser where another one was saved.
 * @vsc: the parser, of the same byte order
 * @saved: the state; borrowed
 * @error: set to what does not add up, naming the field; freed with g_free()
 *
 * Returns: false when @saved is not a possible state; then nothing changed.
 */
bool spice_flow_vsc_restore(SpiceFlowVsc *vsc, const SpiceFlowVscSaved *saved,
                            char **error);

/**
 * spice_flow_vsc_saved_clear: free what spice_flow_vsc_save() filled.
 * @saved: the state; zeroed
 */
void spice_flow_vsc_saved_clear(SpiceFlowVscSaved *saved);

/**
 * spice_flow_vsc_put_header: write a header.
 * @out: SPICE_FLOW_VSC_HEADER_SIZE bytes
 * @order: for whom
 * @type: SpiceFlowVscType
 * @reader_id: the reader
 * @length: bytes of the payload that the caller sends behind it
 */
void spice_flow_vsc_put_header(uint8_t *out, SpiceFlowVscOrder order,
                               uint32_t type, uint32_t reader_id,
                               uint32_t length);

/**
 * spice_flow_vsc_put_error: write a whole error message.  Its code is
 * big-endian for the client too: that is what ccid-card-passthru writes and
 * what has always been passed on to clients unchanged, so a client sees one
 * order whoever answers.  (spice-server's own errors have the host's.)
 * @out: SPICE_FLOW_VSC_ERROR_SIZE bytes
 * @order: of the header
 * @reader_id: the reader it is about
 * @code: SpiceFlowVscCode
 */
void spice_flow_vsc_put_error(uint8_t *out, SpiceFlowVscOrder order,
                              uint32_t reader_id, uint32_t code);

/**
 * spice_flow_vsc_get_error: read the code of an error message.
 * @message: a message of type SPICE_FLOW_VSC_ERROR
 * @code: set
 *
 * Returns: false when the payload is too short for a code.
 */
bool spice_flow_vsc_get_error(const SpiceFlowVscMessage *message,
                              uint32_t *code);

/**
 * spice_flow_vsc_put_reader_add: write a whole ReaderAdd, without a name: the
 * device has no use for it.
 * @out: SPICE_FLOW_VSC_HEADER_SIZE bytes
 * @order: of the header
 * @reader_id: the reader
 */
void spice_flow_vsc_put_reader_add(uint8_t *out, SpiceFlowVscOrder order,
                                   uint32_t reader_id);

/**
 * spice_flow_vsc_put_reader_remove: write a whole ReaderRemove.
 * @out: SPICE_FLOW_VSC_HEADER_SIZE bytes
 * @order: of the header
 * @reader_id: the reader
 */
void spice_flow_vsc_put_reader_remove(uint8_t *out, SpiceFlowVscOrder order,
                                      uint32_t reader_id);

/**
 * spice_flow_vsc_type_name: a message's type in words, for traces and errors.
 * @type: the type
 *
 * Returns: a constant string, "unknown" for a type that is none.
 */
const char *spice_flow_vsc_type_name(uint32_t type);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(SpiceFlowVsc, spice_flow_vsc_free)

#endif
