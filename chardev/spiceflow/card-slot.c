/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The slot of a smart-card device.
 *
 * Every message to the device passes through here, one by one, and what comes
 * back is reported here, so the slot knows what the device has really got:
 * whether the guest has the reader, which commands have no answer yet, which
 * of the guest's APDUs have none.  Those who own a reader come and go; what
 * was queued for the device and dropped leaves no trace here.
 *
 * Answers.  The device answers commands in order.  Those of an owner that left
 * and the server's own come before those of the next owner, so their number is
 * enough to tell whose an answer is.
 *
 * Removals.  When a card or a reader is removed, usb-ccid forgets which of the
 * guest's APDUs it owes an answer, and all answers that the guest has not
 * fetched yet.  The guest's driver would wait for minutes.  So a removal that
 * comes while the guest uses the card is held back, whoever it is from: the
 * guest's APDUs, those that come meanwhile too, are answered with an error of
 * the card's, until the guest has fetched everything (ccid.c).  Nothing says
 * when that happens, so as long as a removal waits it is looked at again and
 * again.  With another device the removal waits until the guest has not sent
 * an APDU for a while.  What is queued behind the removal, by the next owner
 * too, waits with it.  A guest that does not fetch is given up after a few
 * seconds.
 *
 * Time is the guest's: it stands still while the VM is stopped.  How many APDUs
 * are open is not saved.  After a load one is taken for open, and answered
 * before the removal; the device ignores an answer that it does not wait for.
 */
#include "qemu/osdep.h"
#include "chardev/spiceflow/vsc.h"
#include "card-slot.h"
#include "ccid.h"
#include "trace.h"

/* The guest has fetched its answer, where that can not be seen. */
#define QUIET_MS            500
/* Where it can: to look again. */
#define FETCH_MS            10
/* A removal waits no longer. */
#define SETTLE_MAX_MS       5000
/* As many as usb-ccid keeps account of. */
#define APDUS_MAX           128
/* "No precise diagnosis": ISO 7816-4. */
#define STATUS_WORD         0x6f00

bool sf_card_is_command(uint32_t type)
{
    return type == SPICE_FLOW_VSC_READER_ADD ||
           type == SPICE_FLOW_VSC_READER_REMOVE ||
           type == SPICE_FLOW_VSC_ATR || type == SPICE_FLOW_VSC_CARD_REMOVE;
}

static bool is_removal(uint32_t type)
{
    return type == SPICE_FLOW_VSC_READER_REMOVE ||
           type == SPICE_FLOW_VSC_CARD_REMOVE;
}

static int64_t slot_now(void)
{
    return qemu_clock_get_ms(QEMU_CLOCK_VIRTUAL);
}

static void slot_timeout(void *opaque)
{
    SFCardSlot *slot = opaque;

    spice_flow_guest_ready(slot->device->flow);
}

void sf_card_slot_init(SFCardSlot *slot, SFDevice *device)
{
    slot->device = device;
    slot->timer = timer_new_ms(QEMU_CLOCK_VIRTUAL, slot_timeout, slot);
}

void sf_card_slot_cleanup(SFCardSlot *slot)
{
    timer_free(slot->timer);
}

void sf_card_slot_reset(SFCardSlot *slot)
{
    timer_del(slot->timer);
    *slot = (SFCardSlot) { .device = slot->device, .timer = slot->timer };
}

/*
 * To the device
 */

/* The device gets the last byte of the message. */
static void slot_delivered(SFCardSlot *slot)
{
    slot->left = 0;
    if (sf_card_is_command(slot->type)) {
        slot->commands++;
        slot->foreign -= slot->foreign > 0;
    }
    switch (slot->type) {
    case SPICE_FLOW_VSC_APDU:
    case SPICE_FLOW_VSC_ERROR:
        if (slot->apdus) {
            slot->apdus--;
            slot->quiet_at = slot_now() + QUIET_MS;
        }
        return;
    case SPICE_FLOW_VSC_READER_ADD:
        slot->has_reader = true;
        break;
    case SPICE_FLOW_VSC_READER_REMOVE:
        slot->has_reader = false;
        break;
    case SPICE_FLOW_VSC_ATR:
    case SPICE_FLOW_VSC_CARD_REMOVE:
        break;
    default:
        return;
    }
    slot->apdus = 0;
    slot->settling = false;
}

/* Between two messages. */
static void slot_answer_apdus(SFCardSlot *slot, int64_t now)
{
    SFFrontend *frontend = &slot->device->frontend;
    uint8_t answer[SPICE_FLOW_VSC_HEADER_SIZE + sizeof(uint16_t)];

    spice_flow_vsc_put_header(answer, SPICE_FLOW_VSC_DEVICE,
                              SPICE_FLOW_VSC_APDU, 0, sizeof(uint16_t));
    stw_be_p(answer + SPICE_FLOW_VSC_HEADER_SIZE, STATUS_WORD);
    while (slot->apdus && sf_frontend_room(frontend) >= sizeof(answer)) {
        slot->apdus--;
        slot->quiet_at = now + QUIET_MS;
        sf_frontend_write(frontend, answer, sizeof(answer));
    }
}

/* When a removal costs the guest no answer, as far as it is known now. */
static int64_t slot_quiet_at(SFCardSlot *slot, int64_t now)
{
    int unfetched;

    if (slot->apdus) {
        return INT64_MAX;
    }
    unfetched = sf_ccid_unfetched(slot->device->label);
    if (unfetched < 0) {
        return slot->quiet_at;
    }
    return unfetched ? now + FETCH_MS : now;
}

/* Whether a removal may go to the device now. */
static bool slot_settled(SFCardSlot *slot)
{
    int64_t now = slot_now();
    int64_t next;

    if (!slot->settling) {
        if (slot_quiet_at(slot, now) <= now) {
            return true;
        }
        slot->settling = true;
        slot->deadline = now + SETTLE_MAX_MS;
        trace_spiceflow_card_settle(slot->device->label, slot->apdus);
    }
    slot_answer_apdus(slot, now);
    next = slot_quiet_at(slot, now);
    next = MIN(next, slot->deadline);
    if (next <= now) {
        trace_spiceflow_card_settled(slot->device->label,
                                     now < slot->deadline);
        return true;
    }
    timer_mod(slot->timer, next);
    return false;
}

size_t sf_card_slot_write(SFCardSlot *slot, const uint8_t *data, size_t len)
{
    SFCardSlot before;
    size_t n;

    if (slot->left == 0) {
        slot->left = len;
        slot->type = ldl_be_p(data);
        slot->begun = false;
    }
    if (!slot->begun && is_removal(slot->type) && !slot_settled(slot)) {
        return 0;
    }
    /* The device may answer before the write returns. */
    before = *slot;
    slot_delivered(slot);
    n = sf_frontend_write(&slot->device->frontend, data, len);
    if (n < len) {
        *slot = before;
        slot->left = len - n;
        slot->begun = slot->begun || n > 0;
    }
    return n;
}

void sf_card_slot_command(SFCardSlot *slot, uint32_t type, uint32_t reader_id,
                          const uint8_t *payload, size_t len)
{
    uint8_t header[SPICE_FLOW_VSC_HEADER_SIZE];
    SpiceFlowBuffer buffer = {
        .head = header,
        .head_len = sizeof(header),
        .data = payload,
        .len = len,
    };

    spice_flow_vsc_put_header(header, SPICE_FLOW_VSC_DEVICE, type, reader_id,
                              len);
    slot->foreign++;
    slot->stale++;
    slot->coming = type != SPICE_FLOW_VSC_READER_REMOVE;
    spice_flow_server_write_unpaid(slot->device->flow, &buffer);
}

bool sf_card_slot_part(SFCardSlot *slot)
{
    bool has_reader = slot->has_reader;

    if (slot->foreign) {
        /* Nothing of the owner's has come this far. */
        has_reader = slot->coming;
    } else if (slot->left && sf_card_is_command(slot->type)) {
        /* The flow machine completes it. */
        slot->foreign = 1;
        slot->coming = false;
        has_reader = slot->type != SPICE_FLOW_VSC_READER_REMOVE;
    }
    slot->stale = slot->commands + slot->foreign;
    return has_reader;
}

/*
 * From the device
 */

bool sf_card_slot_answer(SFCardSlot *slot)
{
    slot->commands -= slot->commands > 0;
    if (slot->stale) {
        slot->stale--;
        return false;
    }
    return true;
}

bool sf_card_slot_apdu(SFCardSlot *slot)
{
    if (!slot->has_reader) {
        return true;
    }
    slot->apdus = MIN(slot->apdus + 1, APDUS_MAX);
    slot->quiet_at = slot_now() + QUIET_MS;
    if (slot->settling) {
        timer_mod(slot->timer, slot_now());
        return false;
    }
    return true;
}

/*
 * State
 */

void sf_card_slot_restore(SFCardSlot *slot, const SFSaved *saved)
{
    const uint8_t *data = saved->flow.data;
    uint32_t queued = 0;
    bool add = false, remove = false, remove_first = false;

    sf_card_slot_reset(slot);
    for (uint32_t i = 0; i < saved->flow.num_buffers; i++) {
        const SpiceFlowSavedBuffer *buffer = &saved->flow.buffers[i];
        uint32_t type = 0;

        if (buffer->place != SPICE_FLOW_AT_TO_CLIENT &&
            buffer->size >= SPICE_FLOW_VSC_HEADER_SIZE) {
            type = ldl_be_p(data);
        }
        if (buffer->place == SPICE_FLOW_AT_CURRENT) {
            slot->type = type;
            slot->left = buffer->size - buffer->offset;
            slot->begun = buffer->offset > 0;
        }
        add |= type == SPICE_FLOW_VSC_READER_ADD;
        if (buffer->place == SPICE_FLOW_AT_CLIENT) {
            remove |= type == SPICE_FLOW_VSC_READER_REMOVE;
        } else {
            remove_first |= type == SPICE_FLOW_VSC_READER_REMOVE;
        }
        if (!sf_card_is_command(type)) {
            /* It is not answered. */
        } else if (buffer->client) {
            queued++;
        } else {
            slot->foreign++;
            slot->coming = type != SPICE_FLOW_VSC_READER_REMOVE;
        }
        data += buffer->size;
    }
    slot->has_reader = remove_first ||
                       (!add && (saved->card.added || remove));
    slot->apdus = slot->has_reader;
    slot->stale = saved->card.stale_answers;
    slot->commands = MIN((uint64_t)slot->stale + saved->card.commands,
                         UINT32_MAX);
    slot->commands -= MIN(slot->commands, queued + slot->foreign);
}
