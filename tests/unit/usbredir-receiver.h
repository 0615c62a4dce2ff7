/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libusbredirparser as the receiver of a stream, to compare the guard with:
 * it is given bytes and says whether it had to complain.
 */
#ifndef TESTS_UNIT_USBREDIR_RECEIVER_H
#define TESTS_UNIT_USBREDIR_RECEIVER_H

#include <glib.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <usbredirparser.h>
#include <usbredirfilter.h>

typedef struct Receiver {
    struct usbredirparser *parser;
    const uint8_t *data;
    size_t len;
    GByteArray *sent;
} Receiver;

static inline void receiver_log(void *priv, int level, const char *msg)
{
    (void)priv;
    (void)level;
    (void)msg;
}

static inline int receiver_read_func(void *priv, uint8_t *data, int count)
{
    Receiver *receiver = priv;
    size_t n = MIN((size_t)count, receiver->len);

    if (n) {
        memcpy(data, receiver->data, n);
        receiver->data += n;
        receiver->len -= n;
    }
    return n;
}

static inline int receiver_write_func(void *priv, uint8_t *data, int count)
{
    Receiver *receiver = priv;

    g_byte_array_append(receiver->sent, data, count);
    return count;
}

static inline void receiver_plain(void *priv)
{
    (void)priv;
}

static inline void receiver_id(void *priv, uint64_t id)
{
    (void)priv;
    (void)id;
}

static inline void receiver_filter(void *priv,
                                   struct usbredirfilter_rule *rules,
                                   int count)
{
    (void)priv;
    (void)count;
    free(rules);
}

/* Functions that only differ in the type of the header they are given */
#define RECEIVER_HEADER(name)                                               \
    static inline void receiver_##name(void *priv,                          \
                                       struct usb_redir_##name##_header *h) \
    {                                                                       \
        (void)priv;                                                         \
        (void)h;                                                            \
    }

#define RECEIVER_ID_HEADER(name)                                            \
    static inline void receiver_##name(void *priv, uint64_t id,             \
                                       struct usb_redir_##name##_header *h) \
    {                                                                       \
        (void)priv;                                                         \
        (void)id;                                                           \
        (void)h;                                                            \
    }

#define RECEIVER_DATA(name)                                                 \
    static inline void receiver_##name(void *priv, uint64_t id,             \
                                       struct usb_redir_##name##_header *h, \
                                       uint8_t *data, int data_len)         \
    {                                                                       \
        (void)priv;                                                         \
        (void)id;                                                           \
        (void)h;                                                            \
        (void)data_len;                                                     \
        free(data);                                                         \
    }

RECEIVER_HEADER(hello)
RECEIVER_HEADER(device_connect)
RECEIVER_HEADER(interface_info)
RECEIVER_HEADER(ep_info)
RECEIVER_ID_HEADER(set_configuration)
RECEIVER_ID_HEADER(configuration_status)
RECEIVER_ID_HEADER(set_alt_setting)
RECEIVER_ID_HEADER(get_alt_setting)
RECEIVER_ID_HEADER(alt_setting_status)
RECEIVER_ID_HEADER(start_iso_stream)
RECEIVER_ID_HEADER(stop_iso_stream)
RECEIVER_ID_HEADER(iso_stream_status)
RECEIVER_ID_HEADER(start_interrupt_receiving)
RECEIVER_ID_HEADER(stop_interrupt_receiving)
RECEIVER_ID_HEADER(interrupt_receiving_status)
RECEIVER_ID_HEADER(alloc_bulk_streams)
RECEIVER_ID_HEADER(free_bulk_streams)
RECEIVER_ID_HEADER(bulk_streams_status)
RECEIVER_ID_HEADER(start_bulk_receiving)
RECEIVER_ID_HEADER(stop_bulk_receiving)
RECEIVER_ID_HEADER(bulk_receiving_status)
RECEIVER_DATA(control_packet)
RECEIVER_DATA(bulk_packet)
RECEIVER_DATA(iso_packet)
RECEIVER_DATA(interrupt_packet)
RECEIVER_DATA(buffered_bulk_packet)

/*
 * A usb-host (the client) or a usb-guest (usb-redir) with these capabilities;
 * its hello stands in receiver->sent.
 */
static inline Receiver *receiver_new(bool host, uint32_t caps)
{
    Receiver *receiver = g_new0(Receiver, 1);
    struct usbredirparser *parser = usbredirparser_create();

    receiver->parser = parser;
    receiver->sent = g_byte_array_new();
    parser->priv = receiver;
    parser->log_func = receiver_log;
    parser->read_func = receiver_read_func;
    parser->write_func = receiver_write_func;
    parser->hello_func = receiver_hello;
    parser->device_connect_func = receiver_device_connect;
    parser->device_disconnect_func = receiver_plain;
    parser->reset_func = receiver_plain;
    parser->interface_info_func = receiver_interface_info;
    parser->ep_info_func = receiver_ep_info;
    parser->set_configuration_func = receiver_set_configuration;
    parser->get_configuration_func = receiver_id;
    parser->configuration_status_func = receiver_configuration_status;
    parser->set_alt_setting_func = receiver_set_alt_setting;
    parser->get_alt_setting_func = receiver_get_alt_setting;
    parser->alt_setting_status_func = receiver_alt_setting_status;
    parser->start_iso_stream_func = receiver_start_iso_stream;
    parser->stop_iso_stream_func = receiver_stop_iso_stream;
    parser->iso_stream_status_func = receiver_iso_stream_status;
    parser->start_interrupt_receiving_func =
        receiver_start_interrupt_receiving;
    parser->stop_interrupt_receiving_func = receiver_stop_interrupt_receiving;
    parser->interrupt_receiving_status_func =
        receiver_interrupt_receiving_status;
    parser->alloc_bulk_streams_func = receiver_alloc_bulk_streams;
    parser->free_bulk_streams_func = receiver_free_bulk_streams;
    parser->bulk_streams_status_func = receiver_bulk_streams_status;
    parser->cancel_data_packet_func = receiver_id;
    parser->filter_reject_func = receiver_plain;
    parser->filter_filter_func = receiver_filter;
    parser->device_disconnect_ack_func = receiver_plain;
    parser->start_bulk_receiving_func = receiver_start_bulk_receiving;
    parser->stop_bulk_receiving_func = receiver_stop_bulk_receiving;
    parser->bulk_receiving_status_func = receiver_bulk_receiving_status;
    parser->control_packet_func = receiver_control_packet;
    parser->bulk_packet_func = receiver_bulk_packet;
    parser->iso_packet_func = receiver_iso_packet;
    parser->interrupt_packet_func = receiver_interrupt_packet;
    parser->buffered_bulk_packet_func = receiver_buffered_bulk_packet;

    usbredirparser_init(parser, "test", &caps, USB_REDIR_CAPS_SIZE,
                        host ? usbredirparser_fl_usb_host : 0);
    usbredirparser_do_write(parser);
    return receiver;
}

static inline void receiver_free(Receiver *receiver)
{
    usbredirparser_destroy(receiver->parser);
    g_byte_array_unref(receiver->sent);
    g_free(receiver);
}

/* Returns false when the parser met a packet that it refuses. */
static inline bool receiver_read(Receiver *receiver, const uint8_t *data,
                                 size_t len)
{
    receiver->data = data;
    receiver->len = len;
    return usbredirparser_do_read(receiver->parser) !=
           usbredirparser_read_parse_error;
}

/* What the receiver wrote since the last call. */
static inline GByteArray *receiver_take_sent(Receiver *receiver)
{
    GByteArray *sent;

    usbredirparser_do_write(receiver->parser);
    sent = receiver->sent;
    receiver->sent = g_byte_array_new();
    return sent;
}

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Receiver, receiver_free)

#endif
