/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The link phase: from an accepted connection to a channel.
 *
 *   SECURE    with TLS: wait for the first byte, then shake hands.  A client
 *             that begins in the clear is told to come back with TLS.
 *   HEADER    16 bytes
 *   MESS      as many as the header says, at most SPICE_FLOW_LINK_MESS_MAX
 *   MECHANISM 4 bytes, if the client has that capability: only tickets here
 *   TICKET    128 bytes; they always come, with or without a password
 *   CLOSING   an error reply is on its way out
 *
 * Never more is read than the state needs, so nothing of the channel's data is
 * taken along.  A deadline covers all of it, and when there are too many links
 * the oldest one gives way: who connects and says nothing can not keep others
 * out.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/sockets.h"
#include "qemu/timer.h"
#include "crypto/random.h"
#include "io/channel-socket.h"
#include "io/channel-tls.h"
#include "io/task.h"
#include "device.h"
#include "events.h"
#include "handover.h"
#include "tls-buffer.h"
#include "trace.h"

#define MECHANISM_SIZE      4

typedef enum {
    LINK_SECURE,
    LINK_HEADER,
    LINK_MESS,
    LINK_MECHANISM,
    LINK_TICKET,
    LINK_CLOSING,
} SFLinkState;

struct SFLink {
    unsigned refs;
    SFServer *server;
    QIOChannelSocket *socket;
    QIOChannel *ioc;            /* the socket, or TLS on it */
    char *peer;
    bool local;
    bool tls;
    bool plain_refused;         /* it must come back with TLS */
    bool freed;
    SFLinkState state;
    QEMUTimer *deadline;
    guint in_tag;
    guint out_tag;
    SpiceFlowLinkMess mess;
    uint32_t need;
    uint32_t have;
    uint8_t in[SPICE_FLOW_LINK_MESS_MAX];
    GByteArray *out;
    QTAILQ_ENTRY(SFLink) next;
};

static void link_watch_input(SFLink *link);
static bool link_flush(SFLink *link);

static void link_unref(SFLink *link)
{
    if (--link->refs) {
        return;
    }
    object_unref(OBJECT(link->ioc));
    object_unref(OBJECT(link->socket));
    g_byte_array_unref(link->out);
    g_free(link->peer);
    g_free(link);
}

static void link_detach(SFLink *link)
{
    link->freed = true;
    QTAILQ_REMOVE(&link->server->links, link, next);
    link->server->num_links--;
    g_clear_handle_id(&link->in_tag, g_source_remove);
    g_clear_handle_id(&link->out_tag, g_source_remove);
    timer_free(link->deadline);
    link_unref(link);
}

void sf_link_free(SFLink *link)
{
    if (!link->freed) {
        qio_channel_close(link->ioc, NULL);
        link_detach(link);
    }
}

static void link_failed(SFLink *link, SFRefusal refusal, const char *why)
{
    /* One that is being refused has been counted. */
    if (link->state != LINK_CLOSING) {
        link->server->links_failed++;
        sf_event_link_refused(link->server, link->peer, refusal, why);
    }
}

static void link_drop(SFLink *link, SFRefusal refusal, const char *why)
{
    trace_spiceflow_link_drop(link->peer, why);
    link_failed(link, refusal, why);
    sf_link_free(link);
}

static void link_expired(void *opaque)
{
    link_drop(opaque, SF_REFUSAL_TIMEOUT, "the deadline has passed");
}

static void link_expect(SFLink *link, SFLinkState state, uint32_t bytes)
{
    link->state = state;
    link->need = bytes;
    link->have = 0;
}

/* Answer with an error and close once that is out. */
static void link_refuse(SFLink *link, uint32_t error, SFRefusal refusal,
                        const char *why)
{
    trace_spiceflow_link_refuse(link->peer, error, why);
    link_failed(link, refusal, why);
    link->state = LINK_CLOSING;
    g_clear_handle_id(&link->in_tag, g_source_remove);
    spice_flow_link_reply_encode(link->out, error, NULL, 0, 0);
    link_flush(link);
}

/*
 * The end of the link phase
 */

/*
 * The last word of the link phase: it must go out whole, because from here on
 * the channel owns the socket.
 */
static bool link_send_result(SFLink *link, uint32_t result)
{
    uint8_t p[4];

    spice_flow_put_u32(p, result);
    return qio_channel_write(link->ioc, (char *)p, sizeof(p), NULL) ==
           sizeof(p);
}

static void link_deny(SFLink *link, uint32_t result, SFRefusal refusal,
                      const char *why)
{
    link_send_result(link, result);
    link_drop(link, refusal, why);
}

static SFChannel *link_channel(SFLink *link)
{
    SFChannelInfo info = {
        .ioc = link->ioc,
        .tls = link->tls,
        .local = link->local,
        .peer = link->peer,
        .pace = link->mess.channel_type == SPICE_CHANNEL_MAIN ?
                NULL : &link->server->pace,
        .mess = link->mess,
    };

    return sf_channel_new(&info);
}

static uint32_t random_id(SFServer *server)
{
    uint32_t id = 0;

    while (id == 0 || sf_server_client(server, id) ||
           sf_handover_joining(server, id)) {
        qcrypto_random_bytes(&id, sizeof(id), &error_abort);
    }
    return id;
}

static void link_done_main(SFLink *link)
{
    g_autoptr(SFChannel) channel = NULL;
    SFServer *server = link->server;
    uint32_t id = link->mess.connection_id;
    uint32_t result = id ? sf_handover_may_join(server, id)
                         : sf_server_admit(server);

    if (result == SPICE_LINK_ERR_BAD_CONNECTION_ID) {
        link_deny(link, result, SF_REFUSAL_UNKNOWN_CLIENT,
                  "there is no migration to join");
        return;
    }
    if (result != SPICE_LINK_ERR_OK) {
        link_deny(link, result, SF_REFUSAL_MAX_CLIENTS,
                  "there are max-clients clients");
        return;
    }
    if (!link_send_result(link, SPICE_LINK_ERR_OK)) {
        link_drop(link, SF_REFUSAL_NONE, "it does not take the result");
        return;
    }
    channel = link_channel(link);
    link_detach(link);
    if (id) {
        sf_handover_join(server, id, channel);
    } else {
        sf_client_new(server, random_id(server), channel);
    }
}

static void link_done_device(SFLink *link)
{
    g_autoptr(SFChannel) channel = NULL;
    SFServer *server = link->server;
    SFEndpoint *endpoint = sf_server_endpoint(server, link->mess.channel_type,
                                              link->mess.channel_id);
    SFClient *client = sf_server_client(server, link->mess.connection_id);
    SFClient *joining = sf_handover_joining(server, link->mess.connection_id);
    uint32_t result;

    if (!client && !joining) {
        link_deny(link, SPICE_LINK_ERR_BAD_CONNECTION_ID,
                  SF_REFUSAL_UNKNOWN_CLIENT,
                  "no client has this connection id");
        return;
    }
    if (joining) {
        result = sf_handover_may_open(joining, link->mess.channel_type,
                                      link->mess.channel_id);
    } else {
        result = endpoint ? endpoint->ops->may_open(endpoint, client)
                          : SPICE_LINK_ERR_CHANNEL_NOT_AVAILABLE;
    }
    if (result != SPICE_LINK_ERR_OK) {
        link_deny(link, result, endpoint ? SF_REFUSAL_CHANNEL_BUSY
                                         : SF_REFUSAL_NO_SUCH_CHANNEL,
                  "the channel is not free");
        return;
    }
    if (!link_send_result(link, SPICE_LINK_ERR_OK)) {
        link_drop(link, SF_REFUSAL_NONE, "it does not take the result");
        return;
    }
    channel = link_channel(link);
    link_detach(link);
    if (joining) {
        sf_handover_open(joining, channel);
    } else {
        sf_client_add_channel(client, channel);
        sf_event_channel_opened(client, channel);
        endpoint->ops->open(endpoint, client, channel);
    }
}

/*
 * States
 */

static void link_ticket(SFLink *link)
{
    g_autofree char *password = NULL;

    if (!sf_server_password(link->server, &password)) {
        link_deny(link, SPICE_LINK_ERR_PERMISSION_DENIED,
                  SF_REFUSAL_AUTHENTICATION, "the password's secret is gone");
    } else if (password && !sf_ticket_check(link->server->key, link->in,
                                            password)) {
        link_deny(link, SPICE_LINK_ERR_PERMISSION_DENIED,
                  SF_REFUSAL_AUTHENTICATION, "wrong password");
    } else if (link->mess.channel_type == SPICE_CHANNEL_MAIN) {
        link_done_main(link);
    } else {
        link_done_device(link);
    }
}

static void link_mechanism(SFLink *link)
{
    if (spice_flow_get_u32(link->in) != SPICE_COMMON_CAP_AUTH_SPICE) {
        link_refuse(link, SPICE_LINK_ERR_INVALID_DATA,
                    SF_REFUSAL_PROTOCOL_ERROR,
                    "unknown authentication mechanism");
        return;
    }
    link_expect(link, LINK_TICKET, SPICE_FLOW_TICKET_SIZE);
}

static void link_reply(SFLink *link, uint32_t channel_caps)
{
    uint32_t common_caps = BIT(SPICE_COMMON_CAP_PROTOCOL_AUTH_SELECTION) |
                           BIT(SPICE_COMMON_CAP_AUTH_SPICE) |
                           BIT(SPICE_COMMON_CAP_MINI_HEADER);

    spice_flow_link_reply_encode(link->out, SPICE_LINK_ERR_OK,
                                 sf_ticket_key_public(link->server->key),
                                 common_caps, channel_caps);
    if (link->mess.common_caps &
        BIT(SPICE_COMMON_CAP_PROTOCOL_AUTH_SELECTION)) {
        link_expect(link, LINK_MECHANISM, MECHANISM_SIZE);
    } else {
        link_expect(link, LINK_TICKET, SPICE_FLOW_TICKET_SIZE);
    }
    link_flush(link);
}

static void link_mess(SFLink *link)
{
    SFServer *server = link->server;
    uint32_t error = spice_flow_link_mess_decode(link->in, link->have,
                                                 &link->mess);
    SFChannelInfo info = { .local = link->local };
    SFEndpoint *endpoint;

    if (error != SPICE_LINK_ERR_OK) {
        link_refuse(link, error, SF_REFUSAL_PROTOCOL_ERROR,
                    "malformed link message");
        return;
    }
    if (link->plain_refused) {
        link_refuse(link, SPICE_LINK_ERR_NEED_SECURED,
                    SF_REFUSAL_TLS_REQUIRED, "TLS is required");
        return;
    }
    trace_spiceflow_link_mess(link->peer, link->mess.connection_id,
                              link->mess.channel_type, link->mess.channel_id);
    if (link->mess.channel_type == SPICE_CHANNEL_MAIN) {
        link_reply(link, BIT(SPICE_MAIN_CAP_SEMI_SEAMLESS_MIGRATE) |
                         BIT(SPICE_MAIN_CAP_NAME_AND_UUID) |
                         BIT(SPICE_MAIN_CAP_AGENT_CONNECTED_TOKENS) |
                         BIT(SPICE_MAIN_CAP_SEAMLESS_MIGRATE));
        return;
    }
    endpoint = sf_server_endpoint(server, link->mess.channel_type,
                                  link->mess.channel_id);
    if (!endpoint) {
        link_refuse(link, SPICE_LINK_ERR_CHANNEL_NOT_AVAILABLE,
                    SF_REFUSAL_NO_SUCH_CHANNEL, "no such channel");
        return;
    }
    link_reply(link, endpoint->ops->channel_caps(endpoint, &info));
}

static void link_header(SFLink *link)
{
    uint32_t size;
    uint32_t error = spice_flow_link_header_decode(link->in, &size);

    if (error != SPICE_LINK_ERR_OK) {
        link_refuse(link, error, SF_REFUSAL_PROTOCOL_ERROR,
                    "malformed link header");
        return;
    }
    link_expect(link, LINK_MESS, size);
}

static void link_step(SFLink *link)
{
    switch (link->state) {
    case LINK_HEADER:
        link_header(link);
        break;
    case LINK_MESS:
        link_mess(link);
        break;
    case LINK_MECHANISM:
        link_mechanism(link);
        break;
    case LINK_TICKET:
        link_ticket(link);
        break;
    case LINK_SECURE:
    case LINK_CLOSING:
        break;
    }
}

/*
 * TLS
 */

static void link_tls_done(QIOTask *task, gpointer opaque)
{
    SFLink *link = opaque;
    Error *err = NULL;

    if (qio_task_propagate_error(task, &err)) {
        if (!link->freed) {
            link_drop(link, SF_REFUSAL_TLS_FAILED, error_get_pretty(err));
        }
        error_free(err);
    } else if (!link->freed) {
        link_expect(link, LINK_HEADER, SPICE_FLOW_LINK_HEADER_SIZE);
        link_watch_input(link);
    }
    link_unref(link);
}

static void link_tls_start(SFLink *link)
{
    SFServer *server = link->server;
    Error *err = NULL;
    g_autoptr(SFTlsBuffer) buffer = sf_tls_buffer_new(link->socket);
    QIOChannelTLS *tls = qio_channel_tls_new_server(QIO_CHANNEL(buffer),
                                                    server->tls_creds,
                                                    server->tls_authz, &err);

    g_clear_handle_id(&link->in_tag, g_source_remove);
    if (!tls) {
        link_drop(link, SF_REFUSAL_TLS_FAILED, error_get_pretty(err));
        error_free(err);
        return;
    }
    object_unref(OBJECT(link->ioc));
    link->ioc = QIO_CHANNEL(tls);
    link->tls = true;
    link->refs++;
    qio_channel_tls_handshake(tls, link_tls_done, link, NULL, NULL);
}

/* The first byte tells TLS from a client that speaks SPICE in the clear. */
static void link_secure(SFLink *link)
{
    char c;
    ssize_t n = recv(link->socket->fd, &c, 1, MSG_PEEK);

    if (n == 1 && c == 'R') {
        link->plain_refused = true;
        link_expect(link, LINK_HEADER, SPICE_FLOW_LINK_HEADER_SIZE);
    } else if (n == 1) {
        link_tls_start(link);
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        link_drop(link, SF_REFUSAL_NONE, "left");
    }
}

/*
 * Input and output
 */

/* Returns whether the link goes on at once. */
static bool link_read(SFLink *link)
{
    g_autoptr(Error) err = NULL;
    ssize_t n = qio_channel_read(link->ioc, (char *)link->in + link->have,
                                 link->need - link->have, &err);

    if (n == QIO_CHANNEL_ERR_BLOCK) {
        return false;
    }
    if (n <= 0) {
        link_drop(link, SF_REFUSAL_NONE, n ? error_get_pretty(err) : "left");
        return false;
    }
    link->have += n;
    if (link->have == link->need) {
        link_step(link);
    }
    return !link->freed;
}

static gboolean link_readable(QIOChannel *ioc, GIOCondition condition,
                              void *opaque)
{
    SFLink *link = opaque;
    gboolean again;

    link->refs++;
    if (link->state == LINK_SECURE) {
        link_secure(link);
    } else {
        /* Only one answer is out at a time: what a client sends ahead waits. */
        while (link->out->len == 0 && link->state != LINK_CLOSING &&
               link_read(link)) {
            /* on to the next part */
        }
    }
    again = !link->freed && link->in_tag;
    link_unref(link);
    return again ? G_SOURCE_CONTINUE : G_SOURCE_REMOVE;
}

static void link_watch_input(SFLink *link)
{
    if (!link->in_tag && link->state != LINK_CLOSING) {
        link->in_tag = qio_channel_add_watch(link->ioc, G_IO_IN, link_readable,
                                             link, NULL);
    }
}

static gboolean link_writable(QIOChannel *ioc, GIOCondition condition,
                              void *opaque)
{
    SFLink *link = opaque;
    gboolean again;

    link->refs++;
    again = !link_flush(link) && !link->freed;
    link_unref(link);
    return again ? G_SOURCE_CONTINUE : G_SOURCE_REMOVE;
}

/* Returns whether everything is out; the link may be freed. */
static bool link_flush(SFLink *link)
{
    ssize_t n = qio_channel_write(link->ioc, (char *)link->out->data,
                                  link->out->len, NULL);

    if (n < 0 && n != QIO_CHANNEL_ERR_BLOCK) {
        link_drop(link, SF_REFUSAL_NONE, "left");
        return true;
    }
    if (n > 0) {
        g_byte_array_remove_range(link->out, 0, n);
    }
    if (link->out->len) {
        g_clear_handle_id(&link->in_tag, g_source_remove);
        if (!link->out_tag) {
            link->out_tag = qio_channel_add_watch(link->ioc, G_IO_OUT,
                                                  link_writable, link, NULL);
        }
        return false;
    }
    g_clear_handle_id(&link->out_tag, g_source_remove);
    if (link->state == LINK_CLOSING) {
        sf_link_free(link);
    } else {
        link_watch_input(link);
    }
    return true;
}

static char *link_peer_text(QIOChannelSocket *socket, bool local)
{
    g_autoptr(SocketAddress) addr = NULL;

    if (!local) {
        addr = qio_channel_socket_get_remote_address(socket, NULL);
    }
    return addr && addr->type == SOCKET_ADDRESS_TYPE_INET ?
           g_strdup_printf("%s:%s", addr->u.inet.host, addr->u.inet.port) :
           g_strdup("local");
}

static void socket_tune(QIOChannelSocket *socket, bool local)
{
    int on = 1;

    qio_channel_set_blocking(QIO_CHANNEL(socket), false, NULL);
    if (!local) {
        qio_channel_set_delay(QIO_CHANNEL(socket), false);
        setsockopt(socket->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    }
}

void sf_link_new(SFServer *server, QIOChannelSocket *socket)
{
    SFLink *link = g_new0(SFLink, 1);

    if (server->num_links >= server->max_pending_links) {
        link_drop(QTAILQ_FIRST(&server->links), SF_REFUSAL_TOO_MANY_LINKS,
                  "too many pending links");
    }
    link->refs = 1;
    link->server = server;
    link->socket = socket;
    link->ioc = QIO_CHANNEL(socket);
    object_ref(OBJECT(socket));
    object_ref(OBJECT(socket));
    link->local = socket->remoteAddr.ss_family == AF_UNIX;
    link->peer = link_peer_text(socket, link->local);
    link->out = g_byte_array_new();
    QTAILQ_INSERT_TAIL(&server->links, link, next);
    server->num_links++;
    server->links_accepted++;
    trace_spiceflow_link_new(link->peer);

    socket_tune(socket, link->local);
    link->deadline = timer_new_ms(QEMU_CLOCK_REALTIME, link_expired, link);
    timer_mod(link->deadline, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
                              server->link_timeout);
    if (server->tls_creds) {
        link->state = LINK_SECURE;
    } else {
        link_expect(link, LINK_HEADER, SPICE_FLOW_LINK_HEADER_SIZE);
    }
    link_watch_input(link);
}
