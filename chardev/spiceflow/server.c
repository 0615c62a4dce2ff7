/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * -object spiceflow-server.
 *
 * The object listens from the end of its creation until it is deleted, which
 * is refused while a chardev uses it.  Policy may change at any time with
 * qom-set; where it listens, TLS and who may connect are fixed.  The password
 * is looked up in its secret for every link, so that a new secret under the
 * same id takes effect at once.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-qom.h"
#include "qapi/qapi-visit-sockets.h"
#include "qapi/visitor.h"
#include "qemu/cutils.h"
#include "qemu/module.h"
#include "qemu/sockets.h"
#include "qemu/units.h"
#include "crypto/secret.h"
#include "crypto/tlscreds.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "qom/object_interfaces.h"
#include "compat.h"
#include "descriptions.h"
#include "device.h"
#include "events.h"
#include "handover.h"
#include "trace.h"

/*
 * Connections that the kernel holds for us.  A full backlog turns clients with
 * a UNIX socket away at once, so a burst must fit.
 */
#define BACKLOG             512
/* An INIT with fewer tokens would be odd: upstream's clients know 10. */
#define AGENT_WINDOW_MAX    4096

/*
 * Registry
 */

SFClient *sf_server_client(SFServer *server, uint32_t id)
{
    SFClient *client;

    QTAILQ_FOREACH(client, &server->clients, next) {
        if (client->id == id) {
            return client;
        }
    }
    return NULL;
}

SFEndpoint *sf_server_endpoint(SFServer *server, uint8_t type, uint8_t id)
{
    SFEndpoint *endpoint;

    QTAILQ_FOREACH(endpoint, &server->endpoints, next) {
        if (endpoint->type == type && endpoint->id == id) {
            return endpoint;
        }
    }
    return NULL;
}

static bool choose_id(SFServer *server, SFEndpoint *endpoint)
{
    for (unsigned id = 0; id <= UINT8_MAX; id++) {
        if (!sf_server_endpoint(server, endpoint->type, id)) {
            endpoint->id = id;
            return true;
        }
    }
    return false;
}

bool sf_server_add_endpoint(SFServer *server, SFEndpoint *endpoint,
                            Error **errp)
{
    SpiceFlowChannelId channel;
    SFClient *client;

    if (!choose_id(server, endpoint)) {
        error_setg(errp, "the server has 256 channels of this kind already");
        return false;
    }
    QTAILQ_INSERT_TAIL(&server->endpoints, endpoint, next);
    channel = (SpiceFlowChannelId) { endpoint->type, endpoint->id };
    QTAILQ_FOREACH(client, &server->clients, next) {
        if (endpoint->ops->client_new) {
            endpoint->ops->client_new(endpoint, client);
        }
        if (endpoint->type != SPICE_CHANNEL_MAIN) {
            sf_main_channel_add(client, channel);
        }
    }
    return true;
}

void sf_server_remove_endpoint(SFServer *server, SFEndpoint *endpoint)
{
    QTAILQ_REMOVE(&server->endpoints, endpoint, next);
}

uint32_t sf_server_admit(SFServer *server)
{
    SFHandover *handover = server->handover;

    /* There may be several: it was more when they came. */
    while (server->num_clients + handover->num_joining >=
           server->max_clients) {
        if (sf_handover_give_way(handover)) {
            continue;
        }
        /* Who follows the VM is not to find somebody else in its place. */
        if (server->max_clients > 1 || handover->num_joining) {
            return SPICE_LINK_ERR_PERMISSION_DENIED;
        }
        sf_client_remove(QTAILQ_FIRST(&server->clients), SF_REASON_REPLACED,
                         NULL);
    }
    return SPICE_LINK_ERR_OK;
}

bool sf_server_password(SFServer *server, char **password)
{
    *password = NULL;
    if (!server->password_secret) {
        return true;
    }
    *password = qcrypto_secret_lookup_as_utf8(server->password_secret, NULL);
    return *password != NULL;
}

typedef struct FindServer {
    SFServer *found;
    unsigned count;
} FindServer;

static int find_server(Object *obj, void *opaque)
{
    FindServer *find = opaque;

    if (object_dynamic_cast(obj, TYPE_SPICEFLOW_SERVER)) {
        find->found = SPICEFLOW_SERVER(obj);
        find->count++;
    }
    return 0;
}

SFServer *sf_server_find(const char *id, Error **errp)
{
    FindServer find = { 0 };
    Object *obj;

    if (id) {
        obj = object_resolve_path_component(object_get_objects_root(), id);
        find.found = (SFServer *)object_dynamic_cast(obj,
                                                     TYPE_SPICEFLOW_SERVER);
        if (!find.found) {
            error_setg(errp, "server-id: there is no spiceflow-server object "
                       "'%s'", id);
            return NULL;
        }
    } else {
        object_child_foreach(object_get_objects_root(), find_server, &find);
        if (find.count != 1) {
            error_setg(errp, find.count ?
                       "server-id: there are several spiceflow-server objects, "
                       "name one" :
                       "there is no spiceflow-server object: add "
                       "-object spiceflow-server,id=...,type=unix,path=...");
            return NULL;
        }
    }
    object_ref(OBJECT(find.found));
    return find.found;
}

/*
 * Start
 */

static void server_accept(QIONetListener *listener, QIOChannelSocket *socket,
                          gpointer opaque)
{
    sf_link_new(opaque, socket);
}

/* QEMU would take a UNIX path over from whoever listens there. */
static bool address_in_use(const SocketAddress *addr)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    bool used;
    int fd;

    if (addr->type != SOCKET_ADDRESS_TYPE_UNIX ||
        strlen(addr->u.q_unix.path) >= sizeof(un.sun_path)
#ifdef CONFIG_LINUX
        || (addr->u.q_unix.has_abstract && addr->u.q_unix.abstract)
#endif
        ) {
        return false;
    }
    pstrcpy(un.sun_path, sizeof(un.sun_path), addr->u.q_unix.path);
    fd = qemu_socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0) {
        return false;
    }
    g_unix_set_fd_nonblocking(fd, true, NULL);
    used = connect(fd, (struct sockaddr *)&un, sizeof(un)) == 0 ||
           errno == EAGAIN;
    close(fd);
    return used;
}

/* The resolver takes a number that is too large for another one. */
static bool check_port(const SocketAddress *addr, Error **errp)
{
    uint64_t port;

    if (addr->type == SOCKET_ADDRESS_TYPE_INET &&
        qemu_strtou64(addr->u.inet.port, NULL, 10, &port) != -EINVAL &&
        port > UINT16_MAX) {
        error_setg(errp, "addr: there is no port %s", addr->u.inet.port);
        return false;
    }
    return true;
}

static bool server_listen(SFServer *server, Error **errp)
{
    QIONetListener *listener;

    if (!check_port(server->addr, errp)) {
        return false;
    }
    if (address_in_use(server->addr)) {
        error_setg(errp, "addr: somebody listens on '%s' already",
                   server->addr->u.q_unix.path);
        return false;
    }
    listener = qio_net_listener_new();
    if (qio_net_listener_open_sync(listener, server->addr, BACKLOG, errp) < 0) {
        error_prepend(errp, "addr: ");
        object_unref(OBJECT(listener));
        return false;
    }
    qio_net_listener_set_name(listener, "spiceflow-listener");
    qio_net_listener_set_client_func(listener, server_accept, server, NULL);
    server->listener = listener;
    return true;
}

static bool server_load_tls(SFServer *server, Error **errp)
{
    Object *obj;

    if (!server->tls_creds_id) {
        if (server->tls_authz) {
            error_setg(errp, "tls-authz: needs tls-creds");
            return false;
        }
        return true;
    }
    obj = object_resolve_path_component(object_get_objects_root(),
                                        server->tls_creds_id);
    if (!object_dynamic_cast(obj, TYPE_QCRYPTO_TLS_CREDS)) {
        error_setg(errp, "tls-creds: there is no TLS credentials object '%s'",
                   server->tls_creds_id);
        return false;
    }
    server->tls_creds = QCRYPTO_TLS_CREDS(obj);
    object_ref(obj);
    if (!qcrypto_tls_creds_check_endpoint(server->tls_creds,
                                          QCRYPTO_TLS_CREDS_ENDPOINT_SERVER,
                                          errp)) {
        error_prepend(errp, "tls-creds: ");
        return false;
    }
    return true;
}

static bool server_check_password(SFServer *server, Error **errp)
{
    g_autofree char *password = NULL;

    if (!server->password_secret) {
        return true;
    }
    password = qcrypto_secret_lookup_as_utf8(server->password_secret, errp);
    if (!password) {
        error_prepend(errp, "password-secret: ");
        return false;
    }
    if (strlen(password) > SF_PASSWORD_MAX) {
        error_setg(errp, "password-secret: the password has %zu bytes, SPICE "
                   "clients send at most %d", strlen(password),
                   SF_PASSWORD_MAX);
        return false;
    }
    return true;
}

static void server_complete(UserCreatable *uc, Error **errp)
{
    SFServer *server = SPICEFLOW_SERVER(uc);

    if (!server->addr) {
        error_setg(errp, "spiceflow-server needs an address, such as "
                   "type=unix,path=...");
        return;
    }
    if (!server_load_tls(server, errp) ||
        !server_check_password(server, errp)) {
        return;
    }
    server->events = sf_events_new(object_get_canonical_path_component(
                                       OBJECT(uc)));
    server->key = sf_ticket_key_new(errp);
    if (!server->key || !server_listen(server, errp)) {
        return;
    }
    server->handover = sf_handover_new(server);
    sf_handover_set_target(server->handover, server->migrate_target, NULL);
}

static bool server_can_be_deleted(UserCreatable *uc)
{
    return QTAILQ_EMPTY(&SPICEFLOW_SERVER(uc)->devices);
}

static void server_init(Object *obj)
{
    SFServer *server = SPICEFLOW_SERVER(obj);

    QTAILQ_INIT(&server->links);
    QTAILQ_INIT(&server->clients);
    QTAILQ_INIT(&server->endpoints);
    QTAILQ_INIT(&server->devices);
    sf_pace_init(&server->pace);
    server->max_clients = 1;
    server->agent_window = 64;
    server->agent_clipboard = SPICEFLOW_CLIPBOARD_BOTH;
    server->agent_max_clipboard = 100 * MiB;
    server->agent_file_transfer = true;
    server->link_timeout = 10000;
    server->stall_timeout = 30000;
    server->max_pending_links = 64;
    server->migrate_timeout = 10000;
}

static void server_finalize(Object *obj)
{
    SFServer *server = SPICEFLOW_SERVER(obj);

    if (server->listener) {
        qio_net_listener_disconnect(server->listener);
        object_unref(OBJECT(server->listener));
    }
    while (!QTAILQ_EMPTY(&server->links)) {
        sf_link_free(QTAILQ_FIRST(&server->links));
    }
    while (!QTAILQ_EMPTY(&server->clients)) {
        sf_client_remove(QTAILQ_FIRST(&server->clients),
                         SF_REASON_SERVER_DELETED, NULL);
    }
    sf_pace_cleanup(&server->pace);
    sf_handover_free(server->handover);
    g_free(server->migrate_target);
    sf_events_free(server->events);
    if (server->tls_creds) {
        object_unref(OBJECT(server->tls_creds));
    }
    sf_ticket_key_free(server->key);
    qapi_free_SocketAddress(server->addr);
    g_free(server->tls_creds_id);
    g_free(server->tls_authz);
    g_free(server->password_secret);
}

/*
 * Properties
 */

static void server_policy_changed(SFServer *server)
{
    SFDevice *agent = server->agent;

    if (agent && agent->agent_ops->policy) {
        agent->agent_ops->policy(agent);
    }
}

static void server_stall_timeout_changed(SFServer *server)
{
    SFDevice *device;

    QTAILQ_FOREACH(device, &server->devices, next) {
        sf_device_stall_timeout_changed(device);
    }
}

/*
 * A number among the properties: where it is kept, what it may be, and who is
 * told of a new one at once.
 */
typedef struct NumberProp {
    const char *name;
    size_t offset;
    uint64_t min;
    uint64_t max;
    bool is_size;
    void (*changed)(SFServer *server);
} NumberProp;

#define NUMBER(prop, field, lo, hi, ...)                                \
    { .name = prop, .offset = offsetof(SFServer, field), .min = lo,     \
      .max = hi, .is_size = sizeof_field(SFServer, field) == 8,         \
      __VA_ARGS__ }

static const NumberProp number_props[] = {
    NUMBER("max-clients", max_clients, 1, 1024),
    NUMBER("agent-window", agent_window, 1, AGENT_WINDOW_MAX),
    NUMBER("agent-max-clipboard", agent_max_clipboard, 0, UINT32_MAX,
           .changed = server_policy_changed),
    NUMBER("link-timeout", link_timeout, 1, INT32_MAX),
    NUMBER("stall-timeout", stall_timeout, 1, INT32_MAX,
           .changed = server_stall_timeout_changed),
    NUMBER("max-pending-links", max_pending_links, 1, 65536),
    NUMBER("migrate-timeout", migrate_timeout, 1, INT32_MAX),
};

static void number_get(Object *obj, Visitor *v, const char *name, void *opaque,
                       Error **errp)
{
    const NumberProp *prop = opaque;
    void *field = (char *)obj + prop->offset;

    if (prop->is_size) {
        visit_type_size(v, name, field, errp);
    } else {
        visit_type_uint32(v, name, field, errp);
    }
}

static void number_set(Object *obj, Visitor *v, const char *name, void *opaque,
                       Error **errp)
{
    const NumberProp *prop = opaque;
    void *field = (char *)obj + prop->offset;
    uint64_t value;

    if (prop->is_size ? !visit_type_size(v, name, &value, errp)
                      : !visit_type_uint64(v, name, &value, errp)) {
        return;
    }
    if (value < prop->min || value > prop->max) {
        error_setg(errp, "%s: must be from %" PRIu64 " to %" PRIu64 ", not %"
                   PRIu64, name, prop->min, prop->max, value);
        return;
    }
    if (prop->is_size) {
        *(uint64_t *)field = value;
    } else {
        *(uint32_t *)field = value;
    }
    if (prop->changed) {
        prop->changed(SPICEFLOW_SERVER(obj));
    }
}

/* A text among the properties, fixed once the server listens. */
typedef struct TextProp {
    const char *name;
    size_t offset;
} TextProp;

static const TextProp text_props[] = {
    { "tls-creds", offsetof(SFServer, tls_creds_id) },
    { "tls-authz", offsetof(SFServer, tls_authz) },
    { "password-secret", offsetof(SFServer, password_secret) },
};

static bool refuse_when_listening(SFServer *server, const char *name,
                                  Error **errp)
{
    if (server->listener) {
        error_setg(errp, "%s: can not be changed once the server listens",
                   name);
    }
    return server->listener != NULL;
}

static void text_get(Object *obj, Visitor *v, const char *name, void *opaque,
                     Error **errp)
{
    const TextProp *prop = opaque;
    char **field = (char **)((char *)obj + prop->offset);
    char *value = *field ?: (char *)"";

    visit_type_str(v, name, &value, errp);
}

static void text_set(Object *obj, Visitor *v, const char *name, void *opaque,
                     Error **errp)
{
    const TextProp *prop = opaque;
    char **field = (char **)((char *)obj + prop->offset);
    char *value;

    if (refuse_when_listening(SPICEFLOW_SERVER(obj), name, errp) ||
        !visit_type_str(v, name, &value, errp)) {
        return;
    }
    g_free(*field);
    *field = value;
}

static void addr_get(Object *obj, Visitor *v, const char *name, void *opaque,
                     Error **errp)
{
    SFServer *server = SPICEFLOW_SERVER(obj);
    g_autoptr(SocketAddress) local = NULL;
    SocketAddress *addr = server->addr;

    /* What the system chose, where it was asked to. */
    if (server->listener) {
        local = sf_compat_listener_address(server->listener);
        addr = local ?: addr;
    }
    visit_type_SocketAddress(v, name, &addr, errp);
}

static void addr_set(Object *obj, Visitor *v, const char *name, void *opaque,
                     Error **errp)
{
    SFServer *server = SPICEFLOW_SERVER(obj);
    SocketAddress *addr;

    if (refuse_when_listening(server, name, errp) ||
        !visit_type_SocketAddress(v, name, &addr, errp)) {
        return;
    }
    qapi_free_SocketAddress(server->addr);
    server->addr = addr;
}

static char *target_get(Object *obj, Error **errp)
{
    return g_strdup(SPICEFLOW_SERVER(obj)->migrate_target ?: "");
}

static void target_set(Object *obj, const char *value, Error **errp)
{
    SFServer *server = SPICEFLOW_SERVER(obj);

    if (sf_handover_check_target(value, errp) &&
        (!server->handover ||
         sf_handover_set_target(server->handover, value, errp))) {
        g_free(server->migrate_target);
        server->migrate_target = g_strdup(value);
    }
}

static int clipboard_get(Object *obj, Error **errp)
{
    return SPICEFLOW_SERVER(obj)->agent_clipboard;
}

static void clipboard_set(Object *obj, int value, Error **errp)
{
    SPICEFLOW_SERVER(obj)->agent_clipboard = value;
    server_policy_changed(SPICEFLOW_SERVER(obj));
}

static bool file_transfer_get(Object *obj, Error **errp)
{
    return SPICEFLOW_SERVER(obj)->agent_file_transfer;
}

static void file_transfer_set(Object *obj, bool value, Error **errp)
{
    SPICEFLOW_SERVER(obj)->agent_file_transfer = value;
    server_policy_changed(SPICEFLOW_SERVER(obj));
}

static QDict *client_stats(SFClient *client)
{
    QDict *dict = qdict_new();

    qdict_put_int(dict, "connection-id", client->id);
    qdict_put_str(dict, "peer", sf_channel_info(client->main)->peer);
    qdict_put_bool(dict, "tls", sf_channel_info(client->main)->tls);
    qdict_put_int(dict, "main-queued", sf_channel_queued(client->main));
    qdict_put_str(dict, "migration", sf_handover_client_state(client));
    return dict;
}

static void stats_get(Object *obj, Visitor *v, const char *name, void *opaque,
                      Error **errp)
{
    SFServer *server = SPICEFLOW_SERVER(obj);
    g_autoptr(QDict) dict = qdict_new();
    QList *clients = qlist_new(), *devices = qlist_new();
    QObject *any = QOBJECT(dict);
    SFClient *client;
    SFDevice *device;

    QTAILQ_FOREACH(client, &server->clients, next) {
        qlist_append(clients, client_stats(client));
    }
    QTAILQ_FOREACH(device, &server->devices, next) {
        qlist_append_str(devices, device->label);
    }
    qdict_put(dict, "clients", clients);
    qdict_put(dict, "devices", devices);
    if (server->handover) {
        qdict_put(dict, "migration", sf_handover_stats(server->handover));
    }
    qdict_put_int(dict, "pending-links", server->num_links);
    qdict_put_int(dict, "links-accepted", server->links_accepted);
    qdict_put_int(dict, "links-failed", server->links_failed);
    sf_events_describe(server->events, dict);
    visit_type_any(v, name, &any, errp);
}

static void server_class_init(ObjectClass *klass, SFClassData *data)
{
    UserCreatableClass *ucc = USER_CREATABLE_CLASS(klass);

    ucc->complete = server_complete;
    ucc->can_be_deleted = server_can_be_deleted;

    object_class_property_add(klass, "addr", "SocketAddress", addr_get,
                              addr_set, NULL, NULL);
    for (size_t i = 0; i < ARRAY_SIZE(text_props); i++) {
        object_class_property_add(klass, text_props[i].name, "str", text_get,
                                  text_set, NULL, (void *)&text_props[i]);
    }
    for (size_t i = 0; i < ARRAY_SIZE(number_props); i++) {
        const NumberProp *prop = &number_props[i];

        object_class_property_add(klass, prop->name,
                                  prop->is_size ? "size" : "uint32",
                                  number_get, number_set, NULL, (void *)prop);
    }
    object_class_property_add_enum(klass, "agent-clipboard",
                                   "SpiceflowClipboard",
                                   &SpiceflowClipboard_lookup, clipboard_get,
                                   clipboard_set);
    object_class_property_add_bool(klass, "agent-file-transfer",
                                   file_transfer_get, file_transfer_set);
    object_class_property_add_str(klass, "migrate-target", target_get,
                                  target_set);
    object_class_property_add(klass, "stats", "any", stats_get, NULL, NULL,
                              NULL);
    object_class_property_set_description(klass, "stats",
                                          "clients, devices and counters");
    for (size_t i = 0; i < ARRAY_SIZE(sf_server_descriptions); i++) {
        object_class_property_set_description(klass,
                                              sf_server_descriptions[i].name,
                                              sf_server_descriptions[i].text);
    }
}

static const TypeInfo server_info = {
    .name = TYPE_SPICEFLOW_SERVER,
    .parent = TYPE_OBJECT,
    .instance_size = sizeof(SFServer),
    .instance_init = server_init,
    .instance_finalize = server_finalize,
    .class_init = server_class_init,
    .interfaces = SF_INTERFACES { { TYPE_USER_CREATABLE }, { } },
};
module_obj(TYPE_SPICEFLOW_SERVER);

static void register_types(void)
{
    type_register_static(&server_info);
}

type_init(register_types);
