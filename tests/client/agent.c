/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest's agent: file copies and the clipboard
 *
 * Theory of operation
 *
 * "agent copy FILE..." is what dropping files on a viewer's window does.
 * Several copies may run at once; each ends with its own line.
 *
 * "clip set FILE" offers the file's text to the guest, which asks for it when
 * something is pasted there; the offer stands until the next one.  The
 * guest's own offers are shown as "clip-grab"; "clip get FILE" asks for the
 * text and ends when it has come.  Only the CLIPBOARD selection and UTF-8
 * text are used.
 *
 * "clip check BYTES [SEED]" takes clipboard data that nobody asked for and
 * compares it with the 64-bit words SEED << 48 | i that the guest's test agent
 * floods with (tests/guest/agenttool.c), until so many bytes have come: what
 * is lost, repeated or out of order is named.
 */

#include <string.h>
#include <glib/gstdio.h>

#include "sfclient.h"

#define SELECTION 0     /* VD_AGENT_CLIPBOARD_SELECTION_CLIPBOARD */
#define TEXT_TYPE 1     /* VD_AGENT_CLIPBOARD_UTF8_TEXT */

typedef struct Copy {
    char *name;
    gint64 start, progress;
    goffset bytes;
} Copy;

static char *offered;
static gsize offered_len;
static char *wanted_path;       /* of a "clip get" under way */
static gint64 wanted_start;
static struct {
    guint64 total, bytes, seed;
    gint64 start, progress;
} check;

static bool agent_there(const char *what)
{
    gboolean connected = FALSE;

    if (main_channel) {
        g_object_get(main_channel, "agent-connected", &connected, NULL);
    }
    if (!connected) {
        say("failed %s: the guest has no agent", what);
    }
    return connected;
}

/* ---- files ---- */

static void on_copy_progress(goffset done, goffset total, gpointer data)
{
    Copy *copy = data;

    if (progress_due(&copy->progress)) {
        say("progress agent %s %" G_GOFFSET_FORMAT " %" G_GOFFSET_FORMAT,
            copy->name, done, total);
    }
}

static void on_copied(GObject *source, GAsyncResult *result, gpointer data)
{
    Copy *copy = data;
    GError *error = NULL;
    gint64 spent = g_get_monotonic_time() - copy->start;

    if (spice_main_channel_file_copy_finish(SPICE_MAIN_CHANNEL(source),
                                            result, &error)) {
        say("done agent copy %s bytes=%" G_GOFFSET_FORMAT
            " seconds=%.3f rate=%.1f", copy->name, copy->bytes, spent / 1e6,
            rate(copy->bytes, spent));
    } else {
        say("failed agent copy %s: %s", copy->name, error->message);
        g_error_free(error);
    }
    g_free(copy->name);
    g_free(copy);
}

static void copy_files(int count, char **paths)
{
    GFile **files = g_new0(GFile *, count + 1);
    Copy *copy = g_new0(Copy, 1);

    copy->name = g_path_get_basename(paths[0]);
    copy->start = g_get_monotonic_time();
    for (int i = 0; i < count; i++) {
        GStatBuf st;

        /* The last progress may lack what the guest took at the very end. */
        copy->bytes += g_stat(paths[i], &st) == 0 ? st.st_size : 0;
        files[i] = g_file_new_for_commandline_arg(paths[i]);
    }
    spice_main_channel_file_copy_async(main_channel, files, G_FILE_COPY_NONE,
                                       NULL, on_copy_progress, copy,
                                       on_copied, copy);
    for (int i = 0; i < count; i++) {
        g_object_unref(files[i]);
    }
    g_free(files);
}

static bool agent_command(int argc, char **argv)
{
    if (argc < 3 || strcmp(argv[1], "copy")) {
        return false;
    }
    if (agent_there("agent copy")) {
        copy_files(argc - 2, argv + 2);
    }
    return true;
}

/* ---- clipboard ---- */

static gboolean on_grab(SpiceMainChannel *channel G_GNUC_UNUSED,
                        guint selection, gpointer types, guint count,
                        gpointer data G_GNUC_UNUSED)
{
    const guint32 *type = types;
    GString *text = g_string_new(NULL);

    for (guint i = 0; i < count; i++) {
        g_string_append_printf(text, " %u", type[i]);
    }
    say("clip-grab %u%s", selection, text->str);
    g_string_free(text, TRUE);
    return TRUE;
}

static void on_release(SpiceMainChannel *channel G_GNUC_UNUSED,
                       guint selection, gpointer data G_GNUC_UNUSED)
{
    say("clip-release %u", selection);
}

static gboolean on_request(SpiceMainChannel *channel, guint selection,
                           guint type, gpointer data G_GNUC_UNUSED)
{
    say("clip-request %u %u", selection, type);
    if (!offered || selection != SELECTION || type != TEXT_TYPE) {
        return FALSE;
    }
    spice_main_channel_clipboard_selection_notify(
        channel, selection, type, (const guchar *)offered, offered_len);
    return TRUE;
}

static void check_data(const guint8 *data, guint size)
{
    guint64 word, want;

    for (guint i = 0; i + 8 <= size; i += 8) {
        memcpy(&word, data + i, 8);
        want = GUINT64_TO_LE(check.seed << 48 | (check.bytes + i) / 8);
        if (word != want) {
            say("failed clip check: word %" G_GUINT64_FORMAT " is %"
                G_GINT64_MODIFIER "x", (check.bytes + i) / 8, word);
            check.total = 0;
            return;
        }
    }
    check.bytes += size;
    if (progress_due(&check.progress)) {
        say("progress clip check %" G_GUINT64_FORMAT " %" G_GUINT64_FORMAT,
            check.bytes, check.total);
    }
    if (check.bytes >= check.total) {
        gint64 spent = g_get_monotonic_time() - check.start;

        say("done clip check bytes=%" G_GUINT64_FORMAT " seconds=%.3f"
            " rate=%.1f", check.bytes, spent / 1e6, rate(check.bytes, spent));
        check.total = 0;
    }
}

static void on_clipboard(SpiceMainChannel *channel G_GNUC_UNUSED,
                         guint selection, guint type, gpointer bytes,
                         guint size, gpointer data G_GNUC_UNUSED)
{
    GError *error = NULL;
    char *sum;

    if (check.total) {
        check_data(bytes, size);
        return;
    }
    if (!wanted_path) {
        say("clip-data %u %u %u", selection, type, size);
        return;
    }
    if (!g_file_set_contents(wanted_path, bytes, size, &error)) {
        say("failed clip get: %s", error->message);
        g_error_free(error);
    } else {
        sum = file_sha256(wanted_path);
        say("done clip get bytes=%u type=%u seconds=%.3f sha256=%s", size,
            type, (g_get_monotonic_time() - wanted_start) / 1e6, sum);
        g_free(sum);
    }
    g_clear_pointer(&wanted_path, g_free);
}

static void clip_set(const char *path)
{
    guint32 types[] = { TEXT_TYPE };
    GError *error = NULL;

    g_clear_pointer(&offered, g_free);
    if (!g_file_get_contents(path, &offered, &offered_len, &error)) {
        say("failed clip set: %s", error->message);
        g_error_free(error);
        return;
    }
    spice_main_channel_clipboard_selection_grab(main_channel, SELECTION,
                                                types, 1);
    say("done clip set bytes=%" G_GSIZE_FORMAT, offered_len);
}

static bool clip_command(int argc, char **argv)
{
    const char *word = argc > 1 ? argv[1] : "";

    if (!strcmp(word, "set") && argc == 3) {
        if (agent_there("clip set")) {
            clip_set(argv[2]);
        }
        return true;
    }
    if (!strcmp(word, "get") && argc == 3) {
        if (wanted_path) {
            say("failed clip get: one is still under way");
        } else if (agent_there("clip get")) {
            wanted_path = g_strdup(argv[2]);
            wanted_start = g_get_monotonic_time();
            spice_main_channel_clipboard_selection_request(
                main_channel, SELECTION, TEXT_TYPE);
        }
        return true;
    }
    if (!strcmp(word, "check") && (argc == 3 || argc == 4)) {
        check.bytes = check.seed = 0;
        check.start = g_get_monotonic_time();
        if (!parse_number(argv[2], &check.total) ||
            (argc == 4 && !parse_number(argv[3], &check.seed))) {
            check.total = 0;
        }
        return true;
    }
    if (!strcmp(word, "release") && argc == 2) {
        if (agent_there("clip release")) {
            spice_main_channel_clipboard_selection_release(main_channel,
                                                           SELECTION);
            say("done clip release");
        }
        return true;
    }
    return false;
}

/* ---- the channel ---- */

static void on_agent(SpiceMainChannel *channel, gpointer data G_GNUC_UNUSED)
{
    static int last = -1;
    gboolean connected;
    guint32 caps = 0;

    /* The property "agent-caps-0" keeps those of the agent before. */
    for (int i = 0; i < 32; i++) {
        if (spice_main_channel_agent_test_capability(channel, i)) {
            caps |= 1u << i;
        }
    }
    g_object_get(channel, "agent-connected", &connected, NULL);
    if (connected != last) {
        last = connected;
        say("agent-connected %d", connected);
    }
    if (connected && caps) {
        say("agent-caps %x", caps);
    }
}

static void agent_channel_new(SpiceChannel *channel)
{
    if (!SPICE_IS_MAIN_CHANNEL(channel)) {
        return;
    }
    g_signal_connect(channel, "main-agent-update", G_CALLBACK(on_agent), NULL);
    g_signal_connect(channel, "main-clipboard-selection-grab",
                     G_CALLBACK(on_grab), NULL);
    g_signal_connect(channel, "main-clipboard-selection-release",
                     G_CALLBACK(on_release), NULL);
    g_signal_connect(channel, "main-clipboard-selection-request",
                     G_CALLBACK(on_request), NULL);
    g_signal_connect(channel, "main-clipboard-selection",
                     G_CALLBACK(on_clipboard), NULL);
}

const Part agent_part = {
    .name = "agent",
    .channel_new = agent_channel_new,
    .command = agent_command,
    .usage = "agent copy FILE...",
};

const Part clip_part = {
    .name = "clip",
    .command = clip_command,
    .usage = "clip set FILE | get FILE | release | check BYTES [SEED]",
};
