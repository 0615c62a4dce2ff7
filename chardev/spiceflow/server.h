/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * -object spiceflow-server: where SPICE clients connect, who may, and the
 * registry of clients and devices.
 */
#ifndef CHARDEV_SPICEFLOW_SERVER_H
#define CHARDEV_SPICEFLOW_SERVER_H

#include "client.h"
#include "crypto/tlscreds.h"
#include "io/net-listener.h"
#include "qapi/qapi-types-qom.h"
#include "qom/object.h"
#include "ticket.h"

#define TYPE_SPICEFLOW_SERVER "spiceflow-server"
OBJECT_DECLARE_SIMPLE_TYPE(SFServer, SPICEFLOW_SERVER)

typedef struct SFDevice SFDevice;
typedef struct SFEndpoint SFEndpoint;
typedef struct SFEvents SFEvents;
typedef struct SFLink SFLink;

/**
 * struct SFEndpointOps: what the server side asks of something that clients
 * have to do with.  The first four only of what they can open a channel to.
 * @channel_caps: the channel's capabilities, told in the link reply
 * @may_open: SPICE_LINK_ERR_OK, or why this client can not have a channel now
 * @open: a channel has passed its link phase: sf_channel_set_ops() is due, and
 *   a reference if it is to stay
 * @resume: likewise of a client that follows its VM: it goes on where its state
 *   that was loaded has it.  false when there is none
 * @client_gone: the client leaves; whatever is held of it goes
 * @client_new: a client has come, before it is told anything.  Optional
 */
typedef struct SFEndpointOps {
    uint32_t (*channel_caps)(SFEndpoint *endpoint, const SFChannelInfo *info);
    uint32_t (*may_open)(SFEndpoint *endpoint, SFClient *client);
    void (*open)(SFEndpoint *endpoint, SFClient *client, SFChannel *channel);
    bool (*resume)(SFEndpoint *endpoint, SFClient *client, SFChannel *channel);
    void (*client_gone)(SFEndpoint *endpoint, SFClient *client);
    void (*client_new)(SFEndpoint *endpoint, SFClient *client);
} SFEndpointOps;

/**
 * struct SFEndpoint: a channel that clients can open, or with the main
 * channel's type the agent, which has none of its own.
 * @ops: of its kind
 * @type: SPICE_CHANNEL_*
 * @id: number among the channels of that type; chosen when it is added
 */
struct SFEndpoint {
    const SFEndpointOps *ops;
    uint8_t type;
    uint8_t id;
    QTAILQ_ENTRY(SFEndpoint) next;
};

/**
 * struct SFAgentOps: what the main channel asks of the agent's device.
 * @connected: whether the guest's agent is there
 * @start: SPICE_MSGC_MAIN_AGENT_START
 * @tokens: SPICE_MSGC_MAIN_AGENT_TOKEN
 * @begin: the header of SPICE_MSGC_MAIN_AGENT_DATA; false when the client is
 *   on its way out
 * @data: SPICE_MSGC_MAIN_AGENT_DATA
 * @received: all that was read is handed over
 * @sent: the oldest message kept by the main channel is out
 * @policy: one of the server's agent-* properties has changed
 */
typedef struct SFAgentOps {
    bool (*connected)(SFDevice *device);
    void (*start)(SFDevice *device, SFClient *client, uint32_t tokens);
    void (*tokens)(SFDevice *device, SFClient *client, uint32_t n);
    bool (*begin)(SFDevice *device, SFClient *client);
    void (*data)(SFDevice *device, SFClient *client, uint8_t *data,
                 size_t len);
    void (*received)(SFDevice *device, SFClient *client);
    void (*sent)(SFDevice *device, SFClient *client);
    void (*policy)(SFDevice *device);
} SFAgentOps;

/**
 * struct SFServer: the object.
 * @addr: what it was told to listen on
 * @listener: NULL until complete
 * @tls_creds: NULL for none
 * @key: for passwords
 * @endpoints: what clients can open
 * @devices: the chardevs
 * @agent: the agent's device, or NULL
 * @cards: what the smart-card devices share, or NULL
 * @events: what is told of it; NULL until complete
 * @handover: clients that go and come with the VM; NULL until complete
 * @pace: of what all channels but the main ones move
 * @links: connections in their link phase, oldest first
 */
struct SFServer {
    Object parent;

    SocketAddress *addr;
    QIONetListener *listener;
    char *tls_creds_id;
    QCryptoTLSCreds *tls_creds;
    char *tls_authz;
    char *password_secret;
    SFTicketKey *key;
    SFEvents *events;

    uint32_t max_clients;
    uint32_t agent_window;
    SpiceflowClipboard agent_clipboard;
    uint64_t agent_max_clipboard;
    bool agent_file_transfer;
    uint32_t link_timeout;
    uint32_t stall_timeout;
    uint32_t max_pending_links;
    uint32_t migrate_timeout;

    QTAILQ_HEAD(, SFLink) links;
    uint32_t num_links;
    QTAILQ_HEAD(, SFClient) clients;
    uint32_t num_clients;
    QTAILQ_HEAD(, SFEndpoint) endpoints;
    QTAILQ_HEAD(, SFDevice) devices;
    SFDevice *agent;
    struct SFCards *cards;
    struct SFHandover *handover;
    char *migrate_target;
    SFPace pace;

    uint64_t links_accepted;
    uint64_t links_failed;
};

/**
 * sf_server_find: the server with an id, or the only one.
 * @id: the id, or NULL
 * @errp: pointer to a NULL-initialized error object
 *
 * Returns: a reference, or NULL.
 */
SFServer *sf_server_find(const char *id, Error **errp);

/**
 * sf_server_add_endpoint: register a channel; clients are told of it.
 * @server: the server
 * @endpoint: with ops and type set
 * @errp: pointer to a NULL-initialized error object
 *
 * Returns: false when there can be no more of its type.
 */
bool sf_server_add_endpoint(SFServer *server, SFEndpoint *endpoint,
                            Error **errp);

/**
 * sf_server_remove_endpoint: the opposite.  Whoever owns it drops its clients
 * itself.
 * @server: the server
 * @endpoint: the endpoint
 */
void sf_server_remove_endpoint(SFServer *server, SFEndpoint *endpoint);

/**
 * sf_server_client: the client with a connection id.
 * @server: the server
 * @id: connection id
 *
 * Returns: the client, or NULL.
 */
SFClient *sf_server_client(SFServer *server, uint32_t id);

/**
 * sf_server_endpoint: what is behind a channel.
 * @server: the server
 * @type: SPICE_CHANNEL_*
 * @id: its number
 *
 * Returns: the endpoint, or NULL.
 */
SFEndpoint *sf_server_endpoint(SFServer *server, uint8_t type, uint8_t id);

/**
 * sf_server_admit: whether a new client may be made; with one client at a time
 * the old one goes.
 * @server: the server
 *
 * Returns: SPICE_LINK_ERR_OK, or the link result to answer with.
 */
uint32_t sf_server_admit(SFServer *server);

/**
 * sf_server_password: the password that clients must give.
 * @server: the server
 * @password: set to it, to be freed with g_free(), or to NULL for none
 *
 * Returns: false when there is one, but it can not be found any more.
 */
bool sf_server_password(SFServer *server, char **password);

/* link.c */

/**
 * sf_link_new: a connection was accepted; ends in a channel or in nothing.
 * @server: the server
 * @socket: the connection
 */
void sf_link_new(SFServer *server, QIOChannelSocket *socket);

/**
 * sf_link_free: end a link phase, closing its connection.
 * @link: the link
 */
void sf_link_free(SFLink *link);

#endif
