/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A channel whose client moves to another server.
 *
 * Source.  From the moment when the device's state is saved, nothing that the
 * client sends may reach the device: the channel is frozen, that is, not read.
 * What was to be sent by then still is, so all that the saved state calls on
 * its way has reached the client before MIGRATE does.  When the migration has
 * succeeded, MIGRATE is sent and the channel is mute.  What the client sent
 * meanwhile, and sends until its FLUSH_MARK, is gathered as it comes, behind
 * what the channel had of a message received in part.  These bytes are the
 * body of MIGRATE_DATA, which the client takes along.  When the migration has
 * failed, the channel is read again, and nothing has happened.
 *
 * A message that was received in part is put together again as the client
 * might have sent it: its header, what was gathered of its body, or, where the
 * body was handed on as it came, the header of a shorter message.
 *
 * Target.  The first message on the channel must be MIGRATE_DATA.  What is in
 * it is held, and parsed as room allows as if it had been read from the socket,
 * before all that follows it there.  It comes from the client, so it is trusted
 * no more than that.
 */
#include "qemu/osdep.h"
#include "channel-priv.h"
#include "trace.h"

bool channel_moves(const SFChannel *channel)
{
    return channel->move != MOVE_NONE;
}

/*
 * Source
 */

void sf_channel_freeze(SFChannel *channel)
{
    /* A watch that still fires is removed then. */
    channel->move = MOVE_FROZEN;
}

void sf_channel_thaw(SFChannel *channel)
{
    if (channel->move == MOVE_FROZEN) {
        channel->move = MOVE_NONE;
        if (!sf_channel_closed(channel) && !channel->paused) {
            channel_watch_input(channel);
            channel_schedule(channel);
        }
    }
}

static void gather_header(SFChannel *channel, uint32_t size)
{
    uint8_t header[SPICE_FLOW_HEADER_MAX];
    size_t len = spice_flow_header_encode(header, channel->mini, 0,
                                          channel->type, size);

    g_byte_array_append(channel->gathered, header, len);
}

/* What has come of the message that the channel is in. */
static void gather_partial(SFChannel *channel)
{
    uint32_t begun = channel->body ? channel->body->len : 0;

    /* Of a header alone the rest is still to come. */
    if (channel->header_len < spice_flow_header_size(channel->mini)) {
        return;
    }
    gather_header(channel, begun + channel->left);
    if (begun) {
        g_byte_array_append(channel->gathered, channel->body->data, begun);
        g_clear_pointer(&channel->body, g_byte_array_unref);
    }
}

static void send_gathered(SFChannel *channel)
{
    g_autoptr(GByteArray) stream = g_steal_pointer(&channel->gathered);
    GByteArray *body;

    if (stream->len > SPICE_FLOW_MIGRATE_STREAM_MAX) {
        sf_channel_close(channel, SF_REASON_PROTOCOL_ERROR,
                         "it has sent too much to be taken along");
        return;
    }
    body = g_byte_array_new();
    trace_spiceflow_channel_hand_over(channel->info.mess.channel_type,
                                      channel->info.mess.channel_id,
                                      stream->len);
    spice_flow_migrate_data_encode(body, channel->mini, stream->data,
                                   stream->len);
    channel->move = MOVE_DONE;
    channel_send_control(channel, SPICE_MSG_MIGRATE_DATA, body);
}

/* A header is complete.  Returns false for the mark. */
static bool gather_message(SFChannel *channel)
{
    spice_flow_header_decode(channel->header, channel->mini, &channel->type,
                             &channel->left);
    if (channel->type == SPICE_MSGC_MIGRATE_FLUSH_MARK) {
        send_gathered(channel);
        return false;
    }
    gather_header(channel, channel->left);
    if (channel->left == 0) {
        channel->header_len = 0;
    }
    return true;
}

void channel_gather(SFChannel *channel, const uint8_t *data, size_t len)
{
    size_t header_size = spice_flow_header_size(channel->mini);

    while (len && channel->move == MOVE_FLUSHING) {
        size_t n;

        if (channel->header_len < header_size) {
            n = MIN(len, header_size - channel->header_len);
            memcpy(channel->header + channel->header_len, data, n);
            channel->header_len += n;
            if (channel->header_len == header_size &&
                !gather_message(channel)) {
                return;
            }
        } else {
            n = MIN(len, channel->left);
            g_byte_array_append(channel->gathered, data, n);
            channel->left -= n;
            if (channel->left == 0) {
                channel->header_len = 0;
            }
        }
        data += n;
        len -= n;
    }
    if (channel->gathered &&
        channel->gathered->len > SPICE_FLOW_MIGRATE_STREAM_MAX) {
        sf_channel_close(channel, SF_REASON_PROTOCOL_ERROR,
                         "it does not stop to send");
    }
}

void sf_channel_hand_over(SFChannel *channel)
{
    g_autoptr(GByteArray) held = g_steal_pointer(&channel->held);
    GByteArray *body;

    if (sf_channel_closed(channel) || channel->move != MOVE_FROZEN) {
        return;
    }
    channel->gathered = g_byte_array_new();
    gather_partial(channel);
    channel->move = MOVE_FLUSHING;
    if (held) {
        channel_gather(channel, held->data + channel->held_at,
                       held->len - channel->held_at);
        channel->held_at = 0;
    }
    body = g_byte_array_new();
    spice_flow_wire_u32(body, SPICE_MIGRATE_NEED_FLUSH |
                              SPICE_MIGRATE_NEED_DATA_TRANSFER);
    channel_send_control(channel, SPICE_MSG_MIGRATE, body);
    channel->paused = false;
    channel_watch_input(channel);
    channel_schedule(channel);
}

/*
 * Target
 */

void sf_channel_await(SFChannel *channel, bool wait)
{
    channel->move = wait ? MOVE_AWAITING : MOVE_NONE;
}

bool sf_channel_awaits(const SFChannel *channel)
{
    return channel->move == MOVE_AWAITING;
}

SFBody channel_arrival_header(SFChannel *channel)
{
    return channel->type == SPICE_MSGC_MIGRATE_DATA &&
           channel->left >= SPICE_FLOW_MIGRATE_DATA_SIZE &&
           channel->left - SPICE_FLOW_MIGRATE_DATA_SIZE <=
           SPICE_FLOW_MIGRATE_STREAM_MAX ? SF_BODY_COLLECT : SF_BODY_REFUSE;
}

void channel_arrive(SFChannel *channel, const uint8_t *data, size_t len)
{
    SpiceFlowMigrateData migrate;
    const char *wrong = spice_flow_migrate_data_decode(data, len, &migrate);

    if (!wrong && migrate.mini != channel->mini) {
        wrong = "header kind";
    }
    if (wrong) {
        g_autofree char *why = g_strdup_printf("MIGRATE_DATA: bad %s", wrong);

        sf_channel_close(channel, SF_REASON_PROTOCOL_ERROR, why);
        return;
    }
    trace_spiceflow_channel_arrive(channel->info.mess.channel_type,
                                   channel->info.mess.channel_id,
                                   migrate.size);
    channel->move = MOVE_NONE;
    channel_hold(channel, migrate.stream, migrate.size);
}
