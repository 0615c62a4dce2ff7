/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Records, exchanged with the guest through one port
 *
 * Theory of operation
 *
 * With --records NAME the port of that name is this part's, not port.c's.  It
 * carries two streams of records (tests/guest/record.h), one each way, with
 * tests/guest/recordtool.c at the other end.  What comes is always taken, so
 * that no writing here ever makes the guest's writing wait.
 *
 *   record run SEED RATE [SENT]    begin to send, at most RATE bytes per
 *                                  second, 0: as much as goes
 *   record pause | resume
 *   record counts                  how far both streams are
 *   record finish                  send the last one, wait for the guest's
 *
 * SENT and --record-next continue the streams of a client before this one.
 *
 * A pause is done when what was begun has left the library.  The program's last
 * line has the counts once more ("record-gone").
 */

#include <string.h>

#include "../guest/record.h"
#include "sfclient.h"

#define WRITES_AHEAD    2
#define BURST_US        50000

static SpicePortChannel *port;
static gboolean opened;
static RecordReader reader;
static guint64 seed, pace, sent, written, bytes_out;
static guint writes;
static gboolean running, pausing, finishing, last_sent, finished;
static gint64 credit, credit_at;
static guint timer;

static void send_some(void);

static void say_counts(const char *words)
{
    say("%s sent=%" G_GUINT64_FORMAT " received=%" G_GUINT64_FORMAT
        " next=%" G_GUINT64_FORMAT " lost=%" G_GUINT64_FORMAT
        " repeated=%" G_GUINT64_FORMAT " wrong=%" G_GUINT64_FORMAT
        " bytes_out=%" G_GUINT64_FORMAT " bytes_in=%" G_GUINT64_FORMAT,
        words, (guint64)sent, (guint64)reader.received, (guint64)reader.next,
        (guint64)reader.lost, (guint64)reader.repeated, (guint64)reader.wrong,
        bytes_out, (guint64)reader.bytes);
}

static void look_at_end(void)
{
    if (pausing && !writes) {
        pausing = FALSE;
        say_counts("done record pause");
    }
    if (last_sent && !writes && reader.ended && !finished) {
        finished = TRUE;
        say_counts("done record finish");
    }
}

/* ---- to the guest ---- */

typedef struct Write {
    guint8 data[RECORD_MAX];
    gsize len;
} Write;

static void on_written(GObject *source, GAsyncResult *result, gpointer data)
{
    Write *one = data;
    GError *error = NULL;

    spice_port_channel_write_finish(SPICE_PORT_CHANNEL(source), result,
                                    &error);
    writes--;
    if (error) {
        say("failed record: %s", error->message);
        g_error_free(error);
        running = FALSE;
    } else {
        written++;
        bytes_out += one->len;
        send_some();
    }
    g_free(one);
    look_at_end();
}

static gboolean on_timer(gpointer data G_GNUC_UNUSED)
{
    timer = 0;
    send_some();
    return G_SOURCE_REMOVE;
}

static bool credit_there(void)
{
    gint64 now = g_get_monotonic_time();

    if (!pace) {
        return true;
    }
    if (now - credit_at >= BURST_US) {
        credit = pace * BURST_US / 1000000;
        credit_at = now;
    }
    if (credit <= 0 && !timer) {
        timer = g_timeout_add((BURST_US - (now - credit_at)) / 1000 + 1,
                              on_timer, NULL);
    }
    return credit > 0;
}

static void send_some(void)
{
    while (running && port && opened && writes < WRITES_AHEAD && !last_sent &&
           credit_there()) {
        Write *one = g_new(Write, 1);

        last_sent = finishing;
        one->len = record_make(one->data, seed, sent++, finishing);
        credit -= one->len;
        writes++;
        spice_port_channel_write_async(port, one->data, one->len, NULL,
                                       on_written, one);
    }
}

/* ---- from the guest ---- */

static void on_data(SpicePortChannel *channel G_GNUC_UNUSED, gpointer data,
                    int size, gpointer opaque G_GNUC_UNUSED)
{
    record_take(&reader, data, size);
    look_at_end();
}

/* ---- the channel ---- */

static void on_opened(SpicePortChannel *channel,
                      GParamSpec *spec G_GNUC_UNUSED,
                      gpointer opaque G_GNUC_UNUSED)
{
    g_object_get(channel, "port-opened", &opened, NULL);
    say("record-opened %d", opened);
    send_some();
}

bool record_claims(SpicePortChannel *channel, const char *name)
{
    if (!options.records || strcmp(name, options.records)) {
        return false;
    }
    port = channel;
    if (!reader.bytes) {
        reader.next = MAX(options.record_next, 0);
        reader.anywhere = options.record_next < 0;
    }
    g_signal_connect(channel, "port-data", G_CALLBACK(on_data), NULL);
    g_signal_connect(channel, "notify::port-opened", G_CALLBACK(on_opened),
                     NULL);
    on_opened(channel, NULL, NULL);
    return true;
}

static void record_channel_gone(SpiceChannel *channel)
{
    if (SPICE_CHANNEL(port) == channel) {
        port = NULL;
        opened = FALSE;
        say("failed record: the channel is gone");
    }
}

static void record_stop(void)
{
    if (options.records) {
        /* What the library still holds was not sent. */
        sent = written;
        say_counts("record-gone");
    }
}

/* ---- commands ---- */

static bool record_run(int argc, char **argv)
{
    if (argc < 4 || argc > 5 || !parse_number(argv[2], &seed) ||
        !parse_number(argv[3], &pace) ||
        (argc == 5 && !parse_number(argv[4], &sent))) {
        return false;
    }
    written = sent;
    running = TRUE;
    send_some();
    return true;
}

static bool record_command(int argc, char **argv)
{
    const char *word = argc > 1 ? argv[1] : "";

    if (!strcmp(word, "run")) {
        return record_run(argc, argv);
    }
    if (argc != 2) {
        return false;
    }
    if (!strcmp(word, "pause")) {
        running = FALSE;
        pausing = TRUE;
        look_at_end();
    } else if (!strcmp(word, "resume")) {
        running = TRUE;
        send_some();
    } else if (!strcmp(word, "counts")) {
        say_counts("done record counts");
    } else if (!strcmp(word, "finish")) {
        running = finishing = TRUE;
        send_some();
        look_at_end();
    } else {
        return false;
    }
    return true;
}

const Part record_part = {
    .name = "record",
    .stop = record_stop,
    .channel_gone = record_channel_gone,
    .command = record_command,
    .usage = "record run SEED RATE [SENT] | pause | resume | counts | finish",
};
