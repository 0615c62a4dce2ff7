/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The slot of a smart-card device: what the device and the guest behind it
 * know, as far as it can be told from the messages that passed.
 */
#ifndef CHARDEV_SPICEFLOW_CARD_SLOT_H
#define CHARDEV_SPICEFLOW_CARD_SLOT_H

#include "device.h"

/**
 * struct SFCardSlot: of one device.
 * @device: the device
 * @timer: on the guest's clock, runs while a removal waits
 * @type: of the message that the flow machine gives to the guest
 * @left: bytes of that message, 0 between two
 * @begun: the guest has some of them
 * @has_reader: the guest has the reader
 * @settling: a removal waits for the guest to be quiet
 * @apdus: of the guest, without an answer
 * @commands: given to the device, without an answer
 * @foreign: commands still to be given to it that are not the owner's; they
 *   are before those of the owner
 * @coming: the last of these leaves the guest with a reader
 * @stale: answers to come, before those to the owner, that are for nobody
 * @quiet_at: ms, when the guest has been quiet for long enough; for devices
 *   that do not show what the guest has fetched
 * @deadline: ms, when a removal does not wait any more
 */
typedef struct SFCardSlot {
    SFDevice *device;
    QEMUTimer *timer;
    uint32_t type;
    size_t left;
    bool begun;
    bool has_reader;
    bool settling;
    uint32_t apdus;
    uint32_t commands;
    uint32_t foreign;
    bool coming;
    uint32_t stale;
    int64_t quiet_at;
    int64_t deadline;
} SFCardSlot;

/**
 * sf_card_is_command: whether the device answers a message with an error
 * message.
 * @type: SpiceFlowVscType
 */
bool sf_card_is_command(uint32_t type);

/**
 * sf_card_slot_init: a slot without a reader.
 * @slot: zeroed
 * @device: the device
 */
void sf_card_slot_init(SFCardSlot *slot, SFDevice *device);
void sf_card_slot_cleanup(SFCardSlot *slot);

/**
 * sf_card_slot_reset: the device knows nothing any more, and nothing is queued
 * for it.
 * @slot: the slot
 */
void sf_card_slot_reset(SFCardSlot *slot);

/**
 * sf_card_slot_write: the flow machine's write op.
 * @slot: the slot
 * @data: the rest of a message, beginning with its header unless a part was
 *   taken before
 * @len: all of that rest
 *
 * Returns: bytes taken.
 */
size_t sf_card_slot_write(SFCardSlot *slot, const uint8_t *data, size_t len);

/**
 * sf_card_slot_command: queue a command of the server's own.
 * @slot: the slot
 * @type: ReaderAdd, ReaderRemove or ATR
 * @reader_id: for its header
 * @payload: behind its header, or NULL
 * @len: bytes of @payload
 */
void sf_card_slot_command(SFCardSlot *slot, uint32_t type, uint32_t reader_id,
                          const uint8_t *payload, size_t len);

/**
 * sf_card_slot_part: the owner is gone, and what it had queued too.
 * @slot: the slot
 *
 * Returns: whether the guest has its reader, or is about to get it, and no
 * removal is on its way.
 */
bool sf_card_slot_part(SFCardSlot *slot);

/**
 * sf_card_slot_answer: the device has answered a command.
 * @slot: the slot
 *
 * Returns: whether it was one of the owner's.
 */
bool sf_card_slot_answer(SFCardSlot *slot);

/**
 * sf_card_slot_apdu: the guest has sent an APDU.
 * @slot: the slot
 *
 * Returns: whether it is for the owner; no one else will answer it then.
 */
bool sf_card_slot_apdu(SFCardSlot *slot);

/**
 * sf_card_slot_restore: a saved device, its owner still there.
 * @slot: the slot
 * @saved: the state, checked by the flow machine
 */
void sf_card_slot_restore(SFCardSlot *slot, const SFSaved *saved);

#endif
