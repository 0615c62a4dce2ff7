/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sfclient - a SPICE client without a display, driven by lines
 *
 * Theory of operation
 *
 *   sfclient [OPTIONS] spice://HOST:PORT | spice+unix://PATH | ...
 *
 * It is a thin shell around libspice-client-glib, the library behind
 * remote-viewer, spicy and GNOME Boxes: what works here works with the code
 * that people use.  It reads commands from standard input, one per line,
 * quoted as for a shell, and prints one line per event:
 *
 *   channel-new TYPE ID            the server listed a channel
 *   channel-event TYPE ID EVENT    opened, closed, error-connect, ...
 *   port-opened NAME 0|1           the guest's side of a port
 *   agent-connected 0|1
 *   progress PART NAME BYTES TOTAL
 *   done PART ... KEY=VALUE ...    a command has been carried out
 *   failed PART ...: TEXT          it has not
 *
 * "quit" or the end of standard input ends the program with status 0; a
 * session that the server ended, or that never came up, with status 2.
 *
 * Each kind of channel is a Part (sfclient.h) in a file of its own; the table
 * below is all that this file knows of them.
 */

#include <gio/gio.h>
#include <gio/gunixinputstream.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sfclient.h"

Options options = { .write_size = 65536, .usb_channel = -1 };
SpiceSession *session;
SpiceMainChannel *main_channel;

static GMainLoop *loop;
static int exit_status;

static const Part *const parts[] = {
    &port_part, &record_part, &agent_part, &clip_part, &usb_part, &card_part,
};

void say(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
    fflush(stdout);
}

bool parse_number(const char *text, guint64 *value)
{
    GError *error = NULL;

    if (g_ascii_string_to_unsigned(text, 10, 0, G_MAXINT64, value, &error)) {
        return true;
    }
    say("failed command: %s", error->message);
    g_error_free(error);
    return false;
}

char *file_sha256(const char *path)
{
    GError *error = NULL;
    GMappedFile *file = g_mapped_file_new(path, FALSE, &error);
    char *sum;

    if (!file) {
        say("failed sha256: %s", error->message);
        g_error_free(error);
        return NULL;
    }
    sum = g_compute_checksum_for_data(
        G_CHECKSUM_SHA256, (const guchar *)g_mapped_file_get_contents(file),
        g_mapped_file_get_length(file));
    g_mapped_file_unref(file);
    return sum;
}

double rate(guint64 bytes, gint64 microseconds)
{
    return microseconds > 0 ? (double)bytes / microseconds : 0;
}

bool progress_due(gint64 *last)
{
    gint64 now = g_get_monotonic_time();

    if (!options.progress_ms ||
        now - *last < options.progress_ms * G_GINT64_CONSTANT(1000)) {
        return false;
    }
    *last = now;
    return true;
}

static void quit(int status)
{
    exit_status = status;
    g_main_loop_quit(loop);
}

/* ---- channels ---- */

static const char *channel_type(SpiceChannel *channel)
{
    int type;

    g_object_get(channel, "channel-type", &type, NULL);
    return spice_channel_type_to_string(type);
}

static int channel_id(SpiceChannel *channel)
{
    int id;

    g_object_get(channel, "channel-id", &id, NULL);
    return id;
}

static void on_channel_event(SpiceChannel *channel, SpiceChannelEvent event,
                             gpointer data G_GNUC_UNUSED)
{
    GEnumClass *names = g_type_class_ref(SPICE_TYPE_CHANNEL_EVENT);
    GEnumValue *value = g_enum_get_value(names, event);
    const GError *error = spice_channel_get_error(channel);

    if (error && event != SPICE_CHANNEL_OPENED) {
        say("channel-event %s %d %s %s", channel_type(channel),
            channel_id(channel), value ? value->value_nick : "unknown",
            error->message);
    } else {
        say("channel-event %s %d %s", channel_type(channel),
            channel_id(channel), value ? value->value_nick : "unknown");
    }
    g_type_class_unref(names);

    if (channel == SPICE_CHANNEL(main_channel) &&
        event >= SPICE_CHANNEL_ERROR_CONNECT) {
        /* The library goes on asking for another password, for ever. */
        quit(2);
    }
}

static void on_channel_new(SpiceSession *s G_GNUC_UNUSED,
                           SpiceChannel *channel,
                           gpointer data G_GNUC_UNUSED)
{
    say("channel-new %s %d", channel_type(channel), channel_id(channel));
    g_signal_connect(channel, "channel-event", G_CALLBACK(on_channel_event),
                     NULL);
    if (SPICE_IS_MAIN_CHANNEL(channel)) {
        main_channel = SPICE_MAIN_CHANNEL(channel);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(parts); i++) {
        if (parts[i]->channel_new) {
            parts[i]->channel_new(channel);
        }
    }
}

static void on_channel_destroy(SpiceSession *s G_GNUC_UNUSED,
                               SpiceChannel *channel,
                               gpointer data G_GNUC_UNUSED)
{
    say("channel-gone %s %d", channel_type(channel), channel_id(channel));
    if (channel == SPICE_CHANNEL(main_channel)) {
        main_channel = NULL;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(parts); i++) {
        if (parts[i]->channel_gone) {
            parts[i]->channel_gone(channel);
        }
    }
}

static void on_disconnected(SpiceSession *s G_GNUC_UNUSED,
                            gpointer data G_GNUC_UNUSED)
{
    say("disconnected");
    if (g_main_loop_is_running(loop)) {
        quit(2);
    }
}

/* ---- commands ---- */

static void run_command(const char *line)
{
    GError *error = NULL;
    char **argv = NULL;
    int argc = 0;

    if (!g_shell_parse_argv(line, &argc, &argv, &error)) {
        if (!g_error_matches(error, G_SHELL_ERROR,
                             G_SHELL_ERROR_EMPTY_STRING)) {
            say("failed command: %s", error->message);
        }
        g_error_free(error);
        return;
    }
    if (!strcmp(argv[0], "quit")) {
        quit(0);
        g_strfreev(argv);
        return;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(parts); i++) {
        if (!strcmp(parts[i]->name, argv[0])) {
            if (!parts[i]->command(argc, argv)) {
                say("failed command: usage: %s", parts[i]->usage);
            }
            g_strfreev(argv);
            return;
        }
    }
    say("failed command: %s is not known here", argv[0]);
    g_strfreev(argv);
}

static void on_line(GObject *source, GAsyncResult *result, gpointer data)
{
    GDataInputStream *input = G_DATA_INPUT_STREAM(source);
    char *line = g_data_input_stream_read_line_finish(input, result, NULL,
                                                      NULL);

    if (!line) {
        quit(0);
        return;
    }
    run_command(line);
    g_free(line);
    g_data_input_stream_read_line_async(input, G_PRIORITY_DEFAULT, NULL,
                                        on_line, data);
}

/* As QEMU's secret objects do it: all of the file is the password. */
static void password_read(void)
{
    GError *error = NULL;

    if (!g_file_get_contents(options.password_file, &options.password, NULL,
                             &error)) {
        g_printerr("sfclient: %s\n", error->message);
        exit(1);
    }
}

static void options_parse(int *argc, char ***argv)
{
    const GOptionEntry entries[] = {
        { "password", 0, 0, G_OPTION_ARG_STRING, &options.password,
          "the server's password", "TEXT" },
        { "password-file", 0, 0, G_OPTION_ARG_FILENAME,
          &options.password_file, "a file with it", "FILE" },
        { "ca-file", 0, 0, G_OPTION_ARG_FILENAME, &options.ca_file,
          "certificate authority for TLS", "FILE" },
        { "host-subject", 0, 0, G_OPTION_ARG_STRING, &options.host_subject,
          "expected subject of the server's certificate", "TEXT" },
        { "smartcard-db", 0, 0, G_OPTION_ARG_FILENAME, &options.card_db,
          "NSS database of the software card", "DIR" },
        { "smartcard-certs", 0, 0, G_OPTION_ARG_STRING, &options.card_certs,
          "its three certificates", "ID,SIGN,ENCRYPT" },
        { "usb", 0, 0, G_OPTION_ARG_NONE, &options.usb,
          "connect usbredir channels from the start", NULL },
        { "usb-channel", 0, 0, G_OPTION_ARG_INT, &options.usb_channel,
          "the same, but only this one", "ID" },
        { "no-ports", 0, 0, G_OPTION_ARG_NONE, &options.no_ports,
          "leave port channels alone until \"port NUMBER connect\"", NULL },
        { "records", 0, 0, G_OPTION_ARG_STRING, &options.records,
          "exchange records through this port", "NAME" },
        { "record-next", 0, 0, G_OPTION_ARG_INT64, &options.record_next,
          "number of the first record that comes, -1: any", "NUMBER" },
        { "write-size", 0, 0, G_OPTION_ARG_INT, &options.write_size,
          "bytes per message to a port", "BYTES" },
        { "progress", 0, 0, G_OPTION_ARG_INT, &options.progress_ms,
          "print progress at most this often", "MS" },
        G_OPTION_ENTRY_NULL
    };
    GOptionContext *context = g_option_context_new("URI");
    GError *error = NULL;

    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, argc, argv, &error) || *argc != 2 ||
        options.write_size < 1) {
        g_printerr("sfclient: %s\n", error ? error->message :
                   "one URI is wanted; see --help");
        exit(1);
    }
    g_option_context_free(context);
    if (options.password_file) {
        password_read();
    }
}

int main(int argc, char **argv)
{
    GInputStream *raw;
    GDataInputStream *input;

    /* No configuration service, no display: nothing of the user's is used. */
    g_setenv("GSETTINGS_BACKEND", "memory", TRUE);
    options_parse(&argc, &argv);

    loop = g_main_loop_new(NULL, FALSE);
    session = spice_session_new();
    g_object_set(session, "uri", argv[1], "client-sockets", FALSE,
                 "enable-audio", FALSE, NULL);
    if (options.password) {
        g_object_set(session, "password", options.password, NULL);
    }
    if (options.ca_file) {
        g_object_set(session, "ca-file", options.ca_file, NULL);
    }
    if (options.host_subject) {
        g_object_set(session, "cert-subject", options.host_subject,
                     "verify", SPICE_SESSION_VERIFY_SUBJECT, NULL);
    }
    g_signal_connect(session, "channel-new", G_CALLBACK(on_channel_new), NULL);
    g_signal_connect(session, "channel-destroy",
                     G_CALLBACK(on_channel_destroy), NULL);
    g_signal_connect(session, "disconnected", G_CALLBACK(on_disconnected),
                     NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(parts); i++) {
        if (parts[i]->start) {
            parts[i]->start();
        }
    }

    raw = g_unix_input_stream_new(0, FALSE);
    input = g_data_input_stream_new(raw);
    g_data_input_stream_read_line_async(input, G_PRIORITY_DEFAULT, NULL,
                                        on_line, NULL);
    if (!spice_session_connect(session)) {
        say("failed connect: %s is not usable", argv[1]);
        return 2;
    }
    g_main_loop_run(loop);
    for (size_t i = 0; i < G_N_ELEMENTS(parts); i++) {
        if (parts[i]->stop) {
            parts[i]->stop();
        }
    }
    spice_session_disconnect(session);
    return exit_status;
}
