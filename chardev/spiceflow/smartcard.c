/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Smart cards.
 *
 * All smart-card devices of a server share one channel, and a reader id on it
 * is the place of a device in a table.  A client adds a reader: the first
 * device that is free is its own from then on, until it removes the reader or
 * leaves.  Another client finds the next one, or none.
 *
 * To guest: each VSC message becomes one buffer with its header turned to
 * big-endian, and is never torn: the frontend can not use a part of one, and a
 * message that it has begun is completed whoever leaves.
 *
 * To client: the frontend writes with "all or spin", so whatever it writes is
 * taken, also while the VM is stopped.  Without a client it is forgotten; a
 * client whose queue is full of it is removed.
 *
 * The device answers each command (ReaderAdd, ReaderRemove, ATR, CardRemove)
 * with an Error message, in order.  Clients count on that order, so answers to
 * the server's own commands, and to those of a client that left, are kept from
 * the next one: card-slot.c, which also knows when a reader may be removed.
 *
 * The QEMU device may be unplugged from its chardev, and another be plugged
 * in: a reader that has an owner is added again then, with its card.  When the
 * chardev goes too the reader is no more.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "chardev/spiceflow/vsc.h"
#include "card-slot.h"
#include "device.h"
#include "events.h"
#include "handover.h"
#include "migrate.h"
#include "trace.h"

/* Readers of one server, as spice-server has them. */
#define MAX_READERS         10
/* A SPICE message holds one VSC message; what comes behind it is ignored. */
#define MESSAGE_MAX         (SPICE_FLOW_VSC_MAX_SIZE + 4096)
/* The longest that the device takes. */
#define ATR_MAX             40

typedef struct SFCardClient SFCardClient;

/* One device.  SFDevice.priv. */
typedef struct SFReader {
    struct SFCards *cards;
    SFDevice *device;
    uint32_t id;                /* place in SFCards.reader */
    SpiceFlowOps flow_ops;
    SpiceFlowVsc *from_device;
    SFCardSlot slot;
    SFCardClient *owner;
    SpiceFlowClient *flow_client;
    bool added;                 /* as the owner sees it, or the guest has it */
    bool removing;              /* the owner asked for its removal */
    uint32_t commands;          /* of the owner, without an answer */
    uint32_t awaited;           /* the owner is on its way here: its id */
    bool unplugged;             /* the device is, under the owner's hands */
    uint32_t atr_len;           /* of the owner's card, 0 for none */
    uint8_t atr[ATR_MAX];
} SFReader;

/* One client's channel. */
struct SFCardClient {
    struct SFCards *cards;
    SFClient *client;
    SFChannel *channel;
    QSIMPLEQ_HEAD(, SFCardSent) sent;
    QTAILQ_ENTRY(SFCardClient) next;
};

/* Whose message is next to be reported as sent. */
typedef struct SFCardSent {
    SFReader *reader;           /* NULL: of a reader that was let go */
    QSIMPLEQ_ENTRY(SFCardSent) next;
} SFCardSent;

/* What the devices of a server share.  SFServer.cards. */
typedef struct SFCards {
    SFServer *server;
    SFEndpoint endpoint;
    SFReader *reader[MAX_READERS];
    unsigned num_readers;
    QTAILQ_HEAD(, SFCardClient) clients;
} SFCards;

/*
 * Answers of the server's own
 */

static void card_refuse(SFCardClient *card, uint32_t reader_id, uint32_t code,
                        uint32_t command, const char *why)
{
    GByteArray *body = g_byte_array_new();

    trace_spiceflow_card_refuse(card->client->id, reader_id,
                                spice_flow_vsc_type_name(command), why);
    g_byte_array_set_size(body, SPICE_FLOW_VSC_ERROR_SIZE);
    spice_flow_vsc_put_error(body->data, SPICE_FLOW_VSC_WIRE, reader_id, code);
    sf_channel_send(card->channel, SPICE_MSG_SMARTCARD_DATA, body);
}

/*
 * A reader's owner
 */

static SFReader *free_reader(SFCards *cards)
{
    for (unsigned i = 0; i < MAX_READERS; i++) {
        SFReader *reader = cards->reader[i];

        if (reader && !reader->owner && !reader->awaited) {
            return reader;
        }
    }
    return NULL;
}

static void reader_attach(SFReader *reader, SFCardClient *card)
{
    SpiceFlowClientParams params =
        sf_device_client_params(reader->device, card->client->id);

    reader->owner = card;
    reader->commands = 0;
    reader->unplugged = false;
    reader->atr_len = 0;
    reader->flow_client = spice_flow_client_add(reader->device->flow, &params,
                                                reader);
    trace_spiceflow_card_attach(reader->device->label, reader->id,
                                card->client->id);
    sf_event_device_claimed(reader->device, card->client);
}

/* The owner is gone, also from the flow machine. */
static void reader_leave(SFReader *reader, bool guest_has_it)
{
    reader->commands = 0;
    reader->removing = false;
    reader->added = false;
    if (guest_has_it) {
        sf_card_slot_command(&reader->slot, SPICE_FLOW_VSC_READER_REMOVE,
                             reader->id, NULL, 0);
    }
}

static void reader_detach(SFReader *reader, SFReason reason, const char *why)
{
    SFCardClient *card = g_steal_pointer(&reader->owner);
    SFCardSent *sent;

    if (!card) {
        return;
    }
    QSIMPLEQ_FOREACH(sent, &card->sent, next) {
        if (sent->reader == reader) {
            sent->reader = NULL;
        }
    }
    spice_flow_client_remove(g_steal_pointer(&reader->flow_client));
    reader_leave(reader, sf_card_slot_part(&reader->slot));
    trace_spiceflow_card_detach(reader->device->label, reader->id,
                                card->client->id);
    sf_event_device_released(reader->device, card->client, reason, why);
}

static void card_disconnect(SFCardClient *card, SFReason reason,
                            const char *why)
{
    SFChannel *channel = g_steal_pointer(&card->channel);
    SFCards *cards = card->cards;

    /* Closing the channel comes back here. */
    if (!channel) {
        return;
    }
    if (sf_channel_closed(channel)) {
        reason = sf_channel_reason(channel);
        why = sf_channel_why(channel);
    }
    for (unsigned i = 0; i < MAX_READERS; i++) {
        if (cards->reader[i] && cards->reader[i]->owner == card) {
            reader_detach(cards->reader[i], reason, why);
        }
    }
    while (!QSIMPLEQ_EMPTY(&card->sent)) {
        SFCardSent *sent = QSIMPLEQ_FIRST(&card->sent);

        QSIMPLEQ_REMOVE_HEAD(&card->sent, next);
        g_free(sent);
    }
    QTAILQ_REMOVE(&cards->clients, card, next);
    sf_channel_close(channel, reason, why);
    sf_event_channel_closed(card->client, channel);
    sf_channel_unref(channel);
    g_free(card);
}

/*
 * From the client
 */

/* Returns whether the device will get it. */
static bool reader_write(SFReader *reader, const SpiceFlowVscMessage *message,
                         uint32_t length)
{
    uint8_t header[SPICE_FLOW_VSC_HEADER_SIZE];
    SpiceFlowBuffer buffer = {
        .head = header,
        .head_len = sizeof(header),
        .data = message->payload,
        .len = length,
    };

    spice_flow_vsc_put_header(header, SPICE_FLOW_VSC_DEVICE, message->type,
                              reader->id, length);
    /* The device may answer before the write returns. */
    reader->commands += sf_card_is_command(message->type);
    if (!spice_flow_client_write(reader->flow_client, &buffer)) {
        reader->commands -= sf_card_is_command(message->type);
        return false;
    }
    return true;
}

static void card_reader_add(SFCardClient *card,
                            const SpiceFlowVscMessage *message)
{
    SFReader *reader = free_reader(card->cards);

    if (!reader) {
        card_refuse(card, SPICE_FLOW_VSC_NO_READER,
                    SPICE_FLOW_VSC_NO_MORE_READERS, message->type,
                    "there is no free smart-card device");
        return;
    }
    reader_attach(reader, card);
    reader->added = true;
    /* Its name is not for the device. */
    reader_write(reader, message, 0);
}

static SFReader *card_reader(SFCardClient *card, uint32_t id)
{
    SFReader *reader = id < MAX_READERS ? card->cards->reader[id] : NULL;

    return reader && reader->owner == card ? reader : NULL;
}

static void card_reader_message(SFCardClient *card,
                                const SpiceFlowVscMessage *message)
{
    SFReader *reader = card_reader(card, message->reader_id);

    if (!reader || !reader->added || reader->removing) {
        if (sf_card_is_command(message->type)) {
            card_refuse(card, message->reader_id, SPICE_FLOW_VSC_GENERAL_ERROR,
                        message->type, "the client has no such reader");
        } else if (message->reader_id >= MAX_READERS) {
            sf_channel_fail(card->channel, SF_REASON_PROTOCOL_ERROR,
                            "no such reader");
        }
        return;
    }
    switch (message->type) {
    case SPICE_FLOW_VSC_READER_REMOVE:
        reader->removing = true;
        reader->added = false;
        break;
    case SPICE_FLOW_VSC_ATR:
        reader->atr_len = message->length <= ATR_MAX ? message->length : 0;
        if (reader->atr_len) {
            memcpy(reader->atr, message->payload, reader->atr_len);
        }
        break;
    case SPICE_FLOW_VSC_CARD_REMOVE:
        reader->atr_len = 0;
        break;
    }
    if (!reader_write(reader, message, message->length)) {
        card_refuse(card, message->reader_id, SPICE_FLOW_VSC_GENERAL_ERROR,
                    message->type, "too much waits for the reader");
    }
}

static void card_vsc_message(SFCardClient *card,
                             const SpiceFlowVscMessage *message)
{
    uint32_t code;

    switch (message->type) {
    case SPICE_FLOW_VSC_READER_ADD:
        card_reader_add(card, message);
        break;
    case SPICE_FLOW_VSC_ERROR:
        if (!spice_flow_vsc_get_error(message, &code)) {
            sf_channel_fail(card->channel, SF_REASON_PROTOCOL_ERROR,
                            "an error without a code");
            break;
        }
        /* fall through */
    case SPICE_FLOW_VSC_READER_REMOVE:
    case SPICE_FLOW_VSC_ATR:
    case SPICE_FLOW_VSC_CARD_REMOVE:
    case SPICE_FLOW_VSC_APDU:
        card_reader_message(card, message);
        break;
    default:
        /*
         * Init says nothing the device needs, and it would write behind its
         * buffer.  Others it does not know; it would answer them with an
         * error, which no command of the client has asked for.
         */
        trace_spiceflow_card_ignore(card->client->id, message->type,
                                    message->length);
        break;
    }
}

static SFBody card_header(void *opaque, uint16_t type, uint32_t size)
{
    if (type != SPICE_MSGC_SMARTCARD_DATA ||
        size < SPICE_FLOW_VSC_HEADER_SIZE || size > MESSAGE_MAX) {
        return SF_BODY_REFUSE;
    }
    return SF_BODY_COLLECT;
}

static void card_message(void *opaque, uint16_t type, uint8_t *data,
                         size_t len)
{
    g_autoptr(SpiceFlowVsc) parser = spice_flow_vsc_new(SPICE_FLOW_VSC_WIRE);
    SFCardClient *card = opaque;
    SpiceFlowVscMessage message;
    size_t used;

    switch (spice_flow_vsc_feed(parser, data, len, &used, &message)) {
    case SPICE_FLOW_VSC_MESSAGE:
        card_vsc_message(card, &message);
        break;
    case SPICE_FLOW_VSC_TOO_LONG:
        card_refuse(card, message.reader_id, SPICE_FLOW_VSC_GENERAL_ERROR,
                    message.type, "the message is larger than 64 KiB");
        break;
    case SPICE_FLOW_VSC_MORE:
        sf_channel_fail(card->channel, SF_REASON_PROTOCOL_ERROR,
                        "a message shorter than it says");
        break;
    }
}

static void card_sent(void *opaque)
{
    SFCardClient *card = opaque;
    SFCardSent *sent = QSIMPLEQ_FIRST(&card->sent);
    SFReader *reader = sent->reader;

    QSIMPLEQ_REMOVE_HEAD(&card->sent, next);
    g_free(sent);
    if (reader) {
        spice_flow_client_sent(reader->flow_client);
    }
}

/*
 * What waits for the devices bounds what is read from the client.  A message
 * can not be given back, so the largest one must have room behind all that is
 * read.
 */
static size_t card_room(void *opaque)
{
    SFCardClient *card = opaque;
    size_t room = SIZE_MAX;

    for (unsigned i = 0; i < MAX_READERS; i++) {
        SFReader *reader = card->cards->reader[i];

        if (reader && reader->owner == card) {
            size_t r = spice_flow_client_room(reader->flow_client);

            room = MIN(room, r);
        }
    }
    return room > SPICE_FLOW_VSC_MAX_SIZE ? room - SPICE_FLOW_VSC_MAX_SIZE : 0;
}

static void card_closed(void *opaque)
{
    SFCardClient *card = opaque;

    if (card->channel) {
        card_disconnect(card, sf_channel_reason(card->channel), NULL);
    }
}

static const SFChannelOps card_channel_ops = {
    .header = card_header,
    .message = card_message,
    .room = card_room,
    .sent = card_sent,
    .closed = card_closed,
};

/*
 * From the device
 */

static bool card_flow_send(void *opaque, SpiceFlowMessage *msg)
{
    SFReader *reader = opaque;
    SFCardSent *sent;

    if (sf_channel_send_message(reader->owner->channel,
                                SPICE_MSG_SMARTCARD_DATA, msg)) {
        return true;
    }
    sent = g_new0(SFCardSent, 1);
    sent->reader = reader;
    QSIMPLEQ_INSERT_TAIL(&reader->owner->sent, sent, next);
    return false;
}

static void card_flow_room(void *opaque)
{
    SFReader *reader = opaque;

    sf_channel_room(reader->owner->channel);
}

static void card_flow_remove(void *opaque, SpiceFlowReason reason)
{
    SFReader *reader = opaque;

    sf_channel_fail(reader->owner->channel, sf_reason_of_flow(reason), NULL);
}

static ssize_t card_flow_write(void *opaque, const uint8_t *data, size_t len)
{
    SFDevice *device = opaque;
    SFReader *reader = device->priv;

    return sf_card_slot_write(&reader->slot, data, len);
}

/* Whether what the device says is for the owner. */
static bool reader_is_asked(SFReader *reader, uint32_t type)
{
    switch (type) {
    case SPICE_FLOW_VSC_INIT:
        return false;
    case SPICE_FLOW_VSC_ERROR:
        if (!sf_card_slot_answer(&reader->slot)) {
            return false;
        }
        reader->commands -= reader->commands > 0;
        return reader->owner;
    case SPICE_FLOW_VSC_APDU:
        return sf_card_slot_apdu(&reader->slot) && reader->owner;
    default:
        return reader->owner;
    }
}

static void reader_message(SFReader *reader,
                           const SpiceFlowVscMessage *message)
{
    g_autofree uint8_t *out = NULL;
    size_t size = SPICE_FLOW_VSC_HEADER_SIZE + message->length;

    if (!reader_is_asked(reader, message->type)) {
        return;
    }
    out = g_malloc(size);
    spice_flow_vsc_put_header(out, SPICE_FLOW_VSC_WIRE, message->type,
                              reader->id, message->length);
    if (message->length) {
        memcpy(out + SPICE_FLOW_VSC_HEADER_SIZE, message->payload,
               message->length);
    }
    spice_flow_send_to(reader->flow_client, out, size);
    if (message->type == SPICE_FLOW_VSC_ERROR && reader->removing &&
        reader->commands == 0) {
        reader_detach(reader, SF_REASON_LEFT, "the reader was removed");
    }
}

static size_t card_write(SFDevice *device, const uint8_t *buf, size_t len)
{
    SFReader *reader = device->priv;
    SpiceFlowVscMessage message;
    SpiceFlowVscResult result;
    size_t done = 0, used;

    while (done < len) {
        result = spice_flow_vsc_feed(reader->from_device, buf + done,
                                     len - done, &used, &message);
        done += used;
        if (result == SPICE_FLOW_VSC_MESSAGE) {
            reader_message(reader, &message);
        }
    }
    return len;
}

/* Commands it has not answered will not be answered any more. */
static void reader_unplug(SFReader *reader)
{
    SFCardClient *card = reader->owner;

    spice_flow_reset(reader->device->flow);
    spice_flow_vsc_reset(reader->from_device);
    sf_card_slot_reset(&reader->slot);
    if (!card) {
        return;
    }
    for (; reader->commands; reader->commands--) {
        card_refuse(card, reader->id, SPICE_FLOW_VSC_GENERAL_ERROR, 0,
                    "the device was unplugged");
    }
    if (reader->removing) {
        reader_detach(reader, SF_REASON_LEFT, "the reader was removed");
    } else {
        reader->unplugged = true;
    }
}

static void reader_plug(SFReader *reader)
{
    if (reader->unplugged) {
        reader->unplugged = false;
        sf_card_slot_command(&reader->slot, SPICE_FLOW_VSC_READER_ADD,
                             reader->id, NULL, 0);
        if (reader->atr_len) {
            sf_card_slot_command(&reader->slot, SPICE_FLOW_VSC_ATR,
                                 reader->id, reader->atr, reader->atr_len);
        }
    }
}

static void card_set_fe_open(SFDevice *device, bool open)
{
    SFReader *reader = device->priv;

    /* The guest being replaced is no matter of plugs. */
    if (open) {
        reader_plug(reader);
    } else if (!device->rewound) {
        reader_unplug(reader);
    }
}

/*
 * The channel
 */

static SFCards *endpoint_cards(SFEndpoint *endpoint)
{
    return container_of(endpoint, SFCards, endpoint);
}

static SFCardClient *cards_find(SFCards *cards, SFClient *client)
{
    SFCardClient *card;

    QTAILQ_FOREACH(card, &cards->clients, next) {
        if (card->client == client) {
            return card;
        }
    }
    return NULL;
}

static uint32_t cards_channel_caps(SFEndpoint *endpoint,
                                   const SFChannelInfo *info)
{
    return 0;
}

static uint32_t cards_may_open(SFEndpoint *endpoint, SFClient *client)
{
    return cards_find(endpoint_cards(endpoint), client) ?
           SPICE_LINK_ERR_CHANNEL_NOT_AVAILABLE : SPICE_LINK_ERR_OK;
}

static SFCardClient *cards_add(SFCards *cards, SFClient *client,
                               SFChannel *channel)
{
    SFCardClient *card = g_new0(SFCardClient, 1);

    card->cards = cards;
    card->client = client;
    card->channel = sf_channel_ref(channel);
    QSIMPLEQ_INIT(&card->sent);
    QTAILQ_INSERT_TAIL(&cards->clients, card, next);
    sf_channel_set_ops(channel, &card_channel_ops, card);
    return card;
}

static void cards_open(SFEndpoint *endpoint, SFClient *client,
                       SFChannel *channel)
{
    cards_add(endpoint_cards(endpoint), client, channel);
}

static bool cards_resume(SFEndpoint *endpoint, SFClient *client,
                         SFChannel *channel)
{
    SFCards *cards = endpoint_cards(endpoint);
    SFCardClient *card = cards_add(cards, client, channel);

    for (unsigned i = 0; i < MAX_READERS; i++) {
        SFReader *reader = cards->reader[i];

        if (reader && reader->awaited == client->id) {
            reader->awaited = 0;
            reader->unplugged = false;
            reader->atr_len = 0;
            reader->owner = card;
            reader->flow_client = spice_flow_client_find(reader->device->flow,
                                                         client->id);
            trace_spiceflow_card_attach(reader->device->label, reader->id,
                                        client->id);
            sf_event_device_claimed(reader->device, client);
            if (!sf_migrate_flow_resume(reader->flow_client, reader)) {
                sf_channel_fail(channel, SF_REASON_MIGRATION, NULL);
            }
        }
    }
    return true;
}

static void cards_client_gone(SFEndpoint *endpoint, SFClient *client)
{
    SFCardClient *card = cards_find(endpoint_cards(endpoint), client);

    if (card) {
        card_disconnect(card, client->reason, client->why);
    }
}

static const SFEndpointOps cards_endpoint_ops = {
    .channel_caps = cards_channel_caps,
    .may_open = cards_may_open,
    .open = cards_open,
    .resume = cards_resume,
    .client_gone = cards_client_gone,
};

static SFCards *cards_new(SFServer *server, Error **errp)
{
    SFCards *cards = g_new0(SFCards, 1);

    cards->server = server;
    cards->endpoint.ops = &cards_endpoint_ops;
    cards->endpoint.type = SPICE_CHANNEL_SMARTCARD;
    QTAILQ_INIT(&cards->clients);
    if (!sf_server_add_endpoint(server, &cards->endpoint, errp)) {
        g_free(cards);
        return NULL;
    }
    return cards;
}

static void cards_free(SFCards *cards)
{
    while (!QTAILQ_EMPTY(&cards->clients)) {
        card_disconnect(QTAILQ_FIRST(&cards->clients),
                        SF_REASON_DEVICE_DELETED, NULL);
    }
    sf_server_remove_endpoint(cards->server, &cards->endpoint);
    g_free(cards);
}

/*
 * The device
 */

static bool cards_place(SFCards *cards, SFReader *reader)
{
    for (unsigned i = 0; i < MAX_READERS; i++) {
        if (!cards->reader[i]) {
            cards->reader[i] = reader;
            cards->num_readers++;
            reader->id = i;
            return true;
        }
    }
    return false;
}

static bool card_init(SFDevice *device, Error **errp)
{
    SFServer *server = device->server;
    SpiceFlowParams params = {
        .framing = SPICE_FLOW_FRAMED,
        .max_message = SPICE_FLOW_VSC_MAX_SIZE,
        .stall_timeout = server->stall_timeout,
    };
    SFReader *reader = g_new0(SFReader, 1);

    device->priv = reader;
    reader->device = device;
    reader->from_device = spice_flow_vsc_new(SPICE_FLOW_VSC_DEVICE);
    reader->flow_ops.send = card_flow_send;
    reader->flow_ops.room = card_flow_room;
    reader->flow_ops.remove = card_flow_remove;
    sf_card_slot_init(&reader->slot, device);
    sf_device_flow_new(device, &reader->flow_ops, &params);
    reader->flow_ops.write = card_flow_write;
    if (!server->cards) {
        server->cards = cards_new(server, errp);
    }
    if (!server->cards) {
        return false;
    }
    if (!cards_place(server->cards, reader)) {
        error_setg(errp, "chardev '%s': the server has %d smart-card devices "
                   "already", device->label, MAX_READERS);
        return false;
    }
    reader->cards = server->cards;
    /*
     * Always, so that a ReaderRemove gets there when the client has gone; the
     * frontend does not look at it.
     */
    sf_frontend_set_open(&device->frontend, true);
    return true;
}

static void card_cleanup(SFDevice *device)
{
    SFReader *reader = device->priv;
    SFCards *cards;

    if (!reader) {
        return;
    }
    cards = reader->cards;
    /* Nobody is there to be told. */
    sf_card_slot_reset(&reader->slot);
    reader_detach(reader, SF_REASON_DEVICE_DELETED, NULL);
    if (cards) {
        cards->reader[reader->id] = NULL;
        if (--cards->num_readers == 0) {
            device->server->cards = NULL;
            cards_free(cards);
        }
    }
    sf_card_slot_cleanup(&reader->slot);
    spice_flow_vsc_free(reader->from_device);
    g_free(reader);
}

/*
 * State
 */

static bool card_carries(SFDevice *device)
{
    SFReader *reader = device->priv;

    return reader->added || reader->slot.stale ||
           spice_flow_vsc_partial(reader->from_device);
}

static void card_save(SFDevice *device, SFSaved *saved)
{
    SFReader *reader = device->priv;

    saved->card.added = reader->added;
    saved->card.removing = reader->removing;
    saved->card.stale_answers = reader->slot.stale;
    saved->card.commands = reader->commands;
    spice_flow_vsc_save(reader->from_device, &saved->card.parser);
}

static void card_rewind(SFDevice *device)
{
    SFReader *reader = device->priv;

    /* Its reader and card are gone, and no message says so. */
    if (reader->owner) {
        SFClient *client = reader->owner->client;

        sf_channel_close(reader->owner->channel, SF_REASON_GUEST_REPLACED,
                         NULL);
        sf_main_channel_add(client, (SpiceFlowChannelId) {
            reader->cards->endpoint.type, reader->cards->endpoint.id
        });
    }
    spice_flow_reset(device->flow);
    spice_flow_vsc_reset(reader->from_device);
    sf_card_slot_reset(&reader->slot);
}

static bool card_restore(SFDevice *device, const SFSaved *saved, Error **errp)
{
    SFReader *reader = device->priv;
    g_autofree char *wrong = NULL;

    if (saved->flow.num_clients > 1) {
        error_setg(errp, "bad flow state: num_clients");
        return false;
    }
    if (!sf_migrate_flow_restore(device, saved, errp)) {
        return false;
    }
    if (!spice_flow_vsc_restore(reader->from_device, &saved->card.parser,
                                &wrong)) {
        sf_migrate_flow_lose(device);
        spice_flow_reset(device->flow);
        error_setg(errp, "bad card parser: %s", wrong);
        return false;
    }
    sf_card_slot_restore(&reader->slot, saved);
    reader->added = saved->card.added;
    reader->commands = saved->card.commands;
    device->fe_open = saved->guest_open;
    reader->awaited = 0;
    if (saved->flow.num_clients &&
        sf_handover_awaited(device, saved->flow.clients[0].params.id)) {
        reader->removing = saved->card.removing;
        reader->awaited = saved->flow.clients[0].params.id;
        return true;
    }
    sf_migrate_flow_lose(device);
    reader_leave(reader, sf_card_slot_part(&reader->slot));
    return true;
}

/* Room for what one read may still bring: see card_room(). */
static void card_client_params(const SFDevice *device,
                               SpiceFlowClientParams *params)
{
    params->to_guest_bytes += 2 * SPICE_FLOW_VSC_MAX_SIZE;
    params->to_guest_messages +=
        SF_CHANNEL_READ_MAX / SPICE_FLOW_VSC_HEADER_SIZE;
}

/* What the device has said of a message. */
static size_t card_saved_max(const SFDevice *device, uint32_t num_clients)
{
    return SPICE_FLOW_VSC_MAX_SIZE;
}

static void card_lose(SFDevice *device)
{
    SFReader *reader = device->priv;

    if (reader->awaited) {
        reader->awaited = 0;
        sf_migrate_flow_lose_away(device);
        reader_leave(reader, sf_card_slot_part(&reader->slot));
    }
}

static uint32_t card_place(const SFDevice *device)
{
    SFReader *reader = device->priv;

    return reader->id;
}

const SFKind sf_card_kind = {
    .init = card_init,
    .cleanup = card_cleanup,
    .write = card_write,
    .set_fe_open = card_set_fe_open,
    .carries = card_carries,
    .save = card_save,
    .rewind = card_rewind,
    .restore = card_restore,
    .lose = card_lose,
    .place = card_place,
    .client_params = card_client_params,
    .saved_max = card_saved_max,
};
