/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Port channels: bytes to and from a guest's virtio port
 *
 * Theory of operation
 *
 * A port is known by its name, which arrives only after its channel is up;
 * a command may name a port before that and then waits for it.  In each
 * direction a port does one thing at a time.
 *
 * To the guest: up to WRITES_AHEAD messages are handed to the library at
 * once, the next when one of them has gone out to the socket; so a server
 * that stops reading stops us, and nothing piles up here.  Nothing is sent
 * before the guest has opened the port.
 *
 * From the guest: data that nobody has asked for yet waits in a backlog,
 * because the library can not be told to stop reading.  Its size is bounded;
 * beyond that the port fails loudly.
 *
 * The generated stream is that of tests/guest/porttool.c: 64-bit words
 * SEED << 48 | i.
 */

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sfclient.h"

#define WRITES_AHEAD 2
#define BACKLOG_MAX (256 * 1024 * 1024)

typedef enum Sending {
    SEND_NOTHING,
    SEND_FILE,
    SEND_STREAM,
    SEND_ECHO,
    SEND_PING,
} Sending;

typedef enum Receiving {
    RECEIVE_NOTHING,
    RECEIVE_FILE,
    RECEIVE_CHECK,
    RECEIVE_DRAIN,
    RECEIVE_ECHO,
    RECEIVE_PING,
} Receiving;

static const char *const send_words[] = {
    "", "send", "gen", "echo", "ping"
};
static const char *const receive_words[] = {
    "", "recv", "check", "drain", "echo", "ping"
};

typedef struct Port {
    char *name;
    SpicePortChannel *channel;      /* NULL while there is none */
    bool opened;

    Sending sending;
    guint64 send_total, send_given, send_done, send_seed;
    guint writes;                   /* handed to the library, not yet out */
    GMappedFile *source;
    char *source_path;
    gint64 send_start, send_progress;

    Receiving receiving;
    guint64 receive_total, received, receive_seed;
    gint64 receive_start, receive_progress;
    int sink;
    char *sink_path;
    guint8 partial[8];              /* of a word, when checking */

    GByteArray *backlog;
    guint64 backlog_lost;

    GArray *ping_times;
    gint64 ping_start;
    guint64 ping_count;
} Port;

/* One message on its way out. */
typedef struct Write {
    Port *port;
    void *data;                     /* to free, or NULL */
    gsize len;
} Write;

static GHashTable *ports;           /* name -> Port; never removed */

static void send_more(Port *port);

static Port *port_get(const char *name)
{
    Port *port = g_hash_table_lookup(ports, name);

    if (!port) {
        port = g_new0(Port, 1);
        port->name = g_strdup(name);
        port->sink = -1;
        port->backlog = g_byte_array_new();
        port->ping_times = g_array_new(FALSE, FALSE, sizeof(gint64));
        g_hash_table_insert(ports, port->name, port);
    }
    return port;
}

/* ---- to the guest ---- */

static void send_end(Port *port)
{
    port->sending = SEND_NOTHING;
    g_clear_pointer(&port->source, g_mapped_file_unref);
    g_clear_pointer(&port->source_path, g_free);
}

static void send_failed(Port *port, const char *why)
{
    if (port->sending != SEND_NOTHING) {
        say("failed port %s %s: %s after %" G_GUINT64_FORMAT " bytes",
            port->name, send_words[port->sending], why, port->send_done);
        send_end(port);
    }
}

static void send_done(Port *port)
{
    gint64 spent = g_get_monotonic_time() - port->send_start;
    char *sum = port->source_path ? file_sha256(port->source_path) : NULL;

    say("done port %s %s bytes=%" G_GUINT64_FORMAT
        " seconds=%.3f rate=%.1f%s%s", port->name, send_words[port->sending],
        port->send_done, spent / 1e6, rate(port->send_done, spent),
        sum ? " sha256=" : "", sum ? sum : "");
    g_free(sum);
    send_end(port);
}

static void on_written(GObject *source, GAsyncResult *result, gpointer data)
{
    Write *write = data;
    Port *port = write->port;
    GError *error = NULL;

    spice_port_channel_write_finish(SPICE_PORT_CHANNEL(source), result,
                                    &error);
    port->writes--;
    if (error) {
        send_failed(port, error->message);
        g_error_free(error);
    } else if (port->sending != SEND_NOTHING) {
        port->send_done += write->len;
        if (progress_due(&port->send_progress)) {
            say("progress port %s %" G_GUINT64_FORMAT " %" G_GUINT64_FORMAT,
                port->name, port->send_done, port->send_total);
        }
        if ((port->sending == SEND_FILE || port->sending == SEND_STREAM) &&
            port->send_done == port->send_total) {
            send_done(port);
        } else {
            send_more(port);
        }
    }
    g_free(write->data);
    g_free(write);
}

/* Hand @len bytes to the library; @owned is freed when they are out. */
static void port_write(Port *port, const void *data, gsize len, void *owned)
{
    Write *write = g_new(Write, 1);

    *write = (Write) { .port = port, .data = owned, .len = len };
    port->writes++;
    spice_port_channel_write_async(port->channel, data, len, NULL, on_written,
                                   write);
}

static void port_write_copy(Port *port, const void *data, gsize len)
{
    void *copy = g_memdup2(data, len);

    port_write(port, copy, len, copy);
}

static void send_stream(Port *port, gsize len)
{
    gsize count = len / 8 + 2;
    guint64 *words = g_new(guint64, count);
    guint64 first = port->send_given / 8;

    for (gsize i = 0; i < count; i++) {
        words[i] = GUINT64_TO_LE(port->send_seed << 48 | (first + i));
    }
    port_write(port, (char *)words + port->send_given % 8, len, words);
}

static void send_more(Port *port)
{
    while (port->channel && port->opened && port->writes < WRITES_AHEAD &&
           (port->sending == SEND_FILE || port->sending == SEND_STREAM) &&
           port->send_given < port->send_total) {
        gsize len = MIN(port->send_total - port->send_given,
                        (guint64)options.write_size);

        if (!port->send_start) {
            port->send_start = g_get_monotonic_time();
        }
        if (port->sending == SEND_FILE) {
            port_write(port, g_mapped_file_get_contents(port->source) +
                       port->send_given, len, NULL);
        } else {
            send_stream(port, len);
        }
        port->send_given += len;
    }
}

static void send_begin(Port *port, Sending what, guint64 total)
{
    port->sending = what;
    port->send_total = total;
    port->send_given = port->send_done = 0;
    port->send_start = 0;
    if (!total) {
        port->send_start = g_get_monotonic_time();
        send_done(port);
        return;
    }
    send_more(port);
}

/* ---- from the guest ---- */

static void receive_end(Port *port)
{
    port->receiving = RECEIVE_NOTHING;
    if (port->sink >= 0) {
        close(port->sink);
        port->sink = -1;
    }
    g_clear_pointer(&port->sink_path, g_free);
}

static void receive_failed(Port *port, const char *why)
{
    if (port->receiving != RECEIVE_NOTHING) {
        say("failed port %s %s: %s after %" G_GUINT64_FORMAT " bytes",
            port->name, receive_words[port->receiving], why, port->received);
        receive_end(port);
    }
}

static int compare_times(gconstpointer a, gconstpointer b)
{
    gint64 x = *(const gint64 *)a, y = *(const gint64 *)b;

    return (x > y) - (x < y);
}

static void ping_done(Port *port)
{
    GArray *times = port->ping_times;

    g_array_sort(times, compare_times);
    say("done port %s ping count=%u min_us=%" G_GINT64_FORMAT " median_us=%"
        G_GINT64_FORMAT " p99_us=%" G_GINT64_FORMAT, port->name, times->len,
        g_array_index(times, gint64, 0),
        g_array_index(times, gint64, times->len / 2),
        g_array_index(times, gint64, times->len * 99 / 100));
    port->sending = SEND_NOTHING;
    receive_end(port);
}

static void ping_next(Port *port)
{
    guint8 byte = port->ping_times->len;

    port->ping_start = g_get_monotonic_time();
    port_write_copy(port, &byte, 1);
}

static void receive_done(Port *port)
{
    gint64 spent = g_get_monotonic_time() - port->receive_start;
    const char *word = receive_words[port->receiving];
    char *sum = port->sink_path ? file_sha256(port->sink_path) : NULL;

    say("done port %s %s bytes=%" G_GUINT64_FORMAT
        " seconds=%.3f rate=%.1f%s%s", port->name, word, port->received,
        spent / 1e6, rate(port->received, spent),
        sum ? " sha256=" : "", sum ? sum : "");
    g_free(sum);
    if (port->receiving == RECEIVE_ECHO) {
        port->sending = SEND_NOTHING;
    }
    receive_end(port);
}

static bool receive_file(Port *port, const guint8 *data, gsize len)
{
    while (len > 0) {
        ssize_t n = write(port->sink, data, len);

        if (n <= 0) {
            receive_failed(port, g_strerror(errno));
            return false;
        }
        data += n;
        len -= n;
    }
    return true;
}

static bool word_wrong(Port *port, guint64 index, guint64 got)
{
    guint64 want = port->receive_seed << 48 | index;
    char why[160];

    if (got == want) {
        return false;
    }
    g_snprintf(why, sizeof(why), "%s at byte %" G_GUINT64_FORMAT
               ": want %" G_GINT64_MODIFIER "x got %" G_GINT64_MODIFIER "x",
               got >> 48 != port->receive_seed ? "garbage" :
               got > want ? "lost" : "repeated or reordered",
               index * 8, want, got);
    receive_failed(port, why);
    return true;
}

static bool receive_check(Port *port, const guint8 *data, gsize len)
{
    guint64 at = port->received;
    gsize have = at % 8, used = 0;
    guint64 word;

    if (have) {
        used = MIN(8 - have, len);
        memcpy(port->partial + have, data, used);
        if (have + used < 8) {
            return true;
        }
        memcpy(&word, port->partial, 8);
        if (word_wrong(port, at / 8, GUINT64_FROM_LE(word))) {
            return false;
        }
        at += used;
    }
    for (; used + 8 <= len; used += 8, at += 8) {
        memcpy(&word, data + used, 8);
        if (word_wrong(port, at / 8, GUINT64_FROM_LE(word))) {
            return false;
        }
    }
    memcpy(port->partial, data + used, len - used);
    return true;
}

static bool receive_ping(Port *port, const guint8 *data)
{
    gint64 spent = g_get_monotonic_time() - port->ping_start;

    if (data[0] != (guint8)port->ping_times->len) {
        port->sending = SEND_NOTHING;
        receive_failed(port, "the wrong byte came back");
        return false;
    }
    g_array_append_val(port->ping_times, spent);
    if (port->ping_times->len < port->ping_count) {
        ping_next(port);
    } else {
        ping_done(port);
    }
    return true;
}

/* Take what the present command wants; returns how much that was. */
static gsize receive_some(Port *port, const guint8 *data, gsize len)
{
    bool good = true;

    len = MIN(len, port->receive_total - port->received);
    if (!port->receive_start) {
        port->receive_start = g_get_monotonic_time();
    }
    switch (port->receiving) {
    case RECEIVE_FILE:
        good = receive_file(port, data, len);
        break;
    case RECEIVE_CHECK:
        good = receive_check(port, data, len);
        break;
    case RECEIVE_ECHO:
        port_write_copy(port, data, len);
        break;
    case RECEIVE_PING:
        receive_ping(port, data);
        return 1;
    default:
        break;
    }
    if (!good) {
        return len;
    }
    port->received += len;
    if (progress_due(&port->receive_progress)) {
        say("progress port %s %" G_GUINT64_FORMAT " %" G_GUINT64_FORMAT,
            port->name, port->received, port->receive_total);
    }
    if (port->received == port->receive_total) {
        receive_done(port);
    }
    return len;
}

static void receive_backlog(Port *port)
{
    while (port->backlog->len && port->receiving != RECEIVE_NOTHING) {
        gsize used = receive_some(port, port->backlog->data,
                                  port->backlog->len);

        g_byte_array_remove_range(port->backlog, 0, used);
    }
}

static void receive_begin(Port *port, Receiving what, guint64 total,
                          const char *path)
{
    port->receiving = what;
    port->receive_total = total;
    port->received = 0;
    port->receive_start = 0;
    if (path) {
        port->sink_path = g_strdup(path);
        port->sink = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC,
                          0600);
        if (port->sink < 0) {
            receive_failed(port, g_strerror(errno));
            return;
        }
    }
    if (!total) {
        port->receive_start = g_get_monotonic_time();
        receive_done(port);
        return;
    }
    receive_backlog(port);
}

static void on_data(SpicePortChannel *channel G_GNUC_UNUSED, gpointer data,
                    int size, gpointer opaque)
{
    Port *port = opaque;
    const guint8 *bytes = data;
    gsize len = size;

    /* What came earlier goes first. */
    if (!port->backlog->len) {
        while (len && port->receiving != RECEIVE_NOTHING) {
            gsize used = receive_some(port, bytes, len);

            bytes += used;
            len -= used;
        }
    }
    if (!len) {
        return;
    }
    if (port->backlog->len + len > BACKLOG_MAX) {
        if (!port->backlog_lost) {
            say("failed port %s: nobody takes its data", port->name);
        }
        port->backlog_lost += len;
        return;
    }
    g_byte_array_append(port->backlog, bytes, len);
    receive_backlog(port);
}

/* ---- the channel ---- */

static void on_port_event(SpicePortChannel *channel G_GNUC_UNUSED, int event,
                          gpointer opaque)
{
    Port *port = opaque;

    if (event != SPICE_PORT_EVENT_OPENED && event != SPICE_PORT_EVENT_CLOSED) {
        say("port-event %s %d", port->name, event);
    }
}

static void on_opened(SpicePortChannel *channel, GParamSpec *spec,
                      gpointer opaque);

static void on_name(SpicePortChannel *channel,
                    GParamSpec *spec G_GNUC_UNUSED,
                    gpointer opaque G_GNUC_UNUSED)
{
    Port *port;
    char *name = NULL;

    g_object_get(channel, "port-name", &name, NULL);
    if (!name) {
        return;
    }
    if (record_claims(channel, name)) {
        g_free(name);
        return;
    }
    port = port_get(name);
    g_free(name);
    port->channel = channel;
    say("port-new %s", port->name);
    g_signal_connect(channel, "port-data", G_CALLBACK(on_data), port);
    g_signal_connect(channel, "port-event", G_CALLBACK(on_port_event), port);
    g_signal_connect(channel, "notify::port-opened", G_CALLBACK(on_opened),
                     port);
    on_opened(channel, NULL, port);
}

static void on_opened(SpicePortChannel *channel,
                      GParamSpec *spec G_GNUC_UNUSED, gpointer opaque)
{
    Port *port = opaque;
    gboolean opened;

    g_object_get(channel, "port-opened", &opened, NULL);
    port->opened = opened;
    say("port-opened %s %d", port->name, opened);
    if (opened) {
        send_more(port);
    } else {
        send_failed(port, "the guest closed the port");
    }
}

static void port_channel_new(SpiceChannel *channel)
{
    if (!SPICE_IS_PORT_CHANNEL(channel)) {
        return;
    }
    g_signal_connect(channel, "notify::port-name", G_CALLBACK(on_name), NULL);
    if (!options.no_ports) {
        spice_channel_connect(channel);
    }
}

static void port_forget(Port *port)
{
    port->channel = NULL;
    port->opened = false;
    send_failed(port, "the channel is gone");
    receive_failed(port, "the channel is gone");
}

static void port_channel_gone(SpiceChannel *channel)
{
    GHashTableIter iter;
    gpointer value;

    g_hash_table_iter_init(&iter, ports);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        Port *port = value;

        if (SPICE_CHANNEL(port->channel) == channel) {
            port_forget(port);
        }
    }
}

/* ---- commands ---- */

static bool send_free(Port *port)
{
    if (port->sending != SEND_NOTHING) {
        say("failed port %s: still busy with %s", port->name,
            send_words[port->sending]);
        return false;
    }
    return true;
}

static bool receive_free(Port *port)
{
    if (port->receiving != RECEIVE_NOTHING) {
        say("failed port %s: still busy with %s", port->name,
            receive_words[port->receiving]);
        return false;
    }
    return true;
}

static void command_send(Port *port, const char *path)
{
    GError *error = NULL;

    port->source = g_mapped_file_new(path, FALSE, &error);
    if (!port->source) {
        say("failed port %s send: %s", port->name, error->message);
        g_error_free(error);
        return;
    }
    port->source_path = g_strdup(path);
    send_begin(port, SEND_FILE, g_mapped_file_get_length(port->source));
}

static void command_ping(Port *port, guint64 count)
{
    if (!port->channel || !port->opened || !count) {
        say("failed port %s ping: the port is not open", port->name);
        return;
    }
    port->ping_count = count;
    g_array_set_size(port->ping_times, 0);
    port->sending = SEND_PING;
    receive_begin(port, RECEIVE_PING, G_MAXUINT64, NULL);
    ping_next(port);
}

static bool port_command(int argc, char **argv)
{
    const char *word = argc > 2 ? argv[2] : "";
    guint64 number = 0, seed = 0;
    Port *port;

    if (argc < 3) {
        return false;
    }
    port = port_get(argv[1]);

    if (!strcmp(word, "send") && argc == 4) {
        if (send_free(port)) {
            command_send(port, argv[3]);
        }
        return true;
    }
    if (!strcmp(word, "break") && argc == 3) {
        if (port->channel) {
            spice_port_channel_event(port->channel, SPICE_PORT_EVENT_BREAK);
            say("done port %s break", port->name);
        } else {
            say("failed port %s break: no such port yet", port->name);
        }
        return true;
    }
    if (!strcmp(word, "backlog") && argc == 3) {
        say("done port %s backlog bytes=%u", port->name, port->backlog->len);
        return true;
    }
    if (!strcmp(word, "connect") && argc == 3) {
        GList *channels = spice_session_get_channels(session);

        for (GList *item = channels; item; item = item->next) {
            if (SPICE_IS_PORT_CHANNEL(item->data)) {
                spice_channel_connect(item->data);
            }
        }
        g_list_free(channels);
        return true;
    }
    if (!strcmp(word, "disconnect") && argc == 3) {
        if (port->channel) {
            spice_channel_disconnect(SPICE_CHANNEL(port->channel),
                                     SPICE_CHANNEL_CLOSED);
        }
        return true;
    }

    if (argc < 4 || !parse_number(argv[3], &number) ||
        (argc > 4 && strcmp(word, "recv") && !parse_number(argv[4], &seed))) {
        return false;
    }
    if (!strcmp(word, "gen")) {
        if (send_free(port)) {
            port->send_seed = seed & 0xffff;
            send_begin(port, SEND_STREAM, number);
        }
        return true;
    }
    if (!receive_free(port)) {
        return true;
    }
    port->receive_seed = seed & 0xffff;
    if (!strcmp(word, "recv") && argc == 5) {
        receive_begin(port, RECEIVE_FILE, number, argv[4]);
    } else if (!strcmp(word, "check")) {
        receive_begin(port, RECEIVE_CHECK, number, NULL);
    } else if (!strcmp(word, "drain")) {
        receive_begin(port, RECEIVE_DRAIN, number, NULL);
    } else if (!strcmp(word, "echo")) {
        if (send_free(port)) {
            port->sending = SEND_ECHO;
            receive_begin(port, RECEIVE_ECHO, number, NULL);
        }
    } else if (!strcmp(word, "ping")) {
        if (send_free(port)) {
            command_ping(port, number);
        }
    } else {
        return false;
    }
    return true;
}

static void port_start(void)
{
    ports = g_hash_table_new(g_str_hash, g_str_equal);
}

const Part port_part = {
    .name = "port",
    .start = port_start,
    .channel_new = port_channel_new,
    .channel_gone = port_channel_gone,
    .command = port_command,
    .usage = "port NAME send FILE | gen BYTES [SEED] | recv BYTES FILE | "
             "check BYTES [SEED] | drain BYTES | echo BYTES | ping COUNT | "
             "break | backlog | connect | disconnect",
};
