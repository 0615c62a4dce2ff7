/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Smart card: the library's software card, made of three certificates
 *
 * Theory of operation
 *
 * With --smartcard-db and --smartcard-certs the session offers one software
 * reader.  Viewers connect the smart-card channel from their display widget;
 * without one it is ours to connect.  The card is in the reader from the
 * start; "card remove" and "card insert" act on it.
 */

#include <string.h>

#include "sfclient.h"

static bool enabled;

static void on_reader(SpiceSmartcardManager *m G_GNUC_UNUSED,
                      SpiceSmartcardReader *reader, gpointer data)
{
    say("card %s software=%d", (const char *)data,
        spice_smartcard_reader_is_software(reader));
}

static void card_start(void)
{
    SpiceSmartcardManager *manager;
    char **certificates;

    if (!options.card_db || !options.card_certs) {
        return;
    }
    enabled = true;
    certificates = g_strsplit(options.card_certs, ",", 0);
    g_object_set(session, "enable-smartcard", TRUE, "smartcard-db",
                 options.card_db, "smartcard-certificates", certificates,
                 NULL);
    g_strfreev(certificates);

    manager = spice_smartcard_manager_get();
    if (!manager) {
        say("failed card: the library was built without smart cards");
        return;
    }
    g_signal_connect(manager, "reader-added", G_CALLBACK(on_reader),
                     (gpointer)"reader-added");
    g_signal_connect(manager, "reader-removed", G_CALLBACK(on_reader),
                     (gpointer)"reader-removed");
    g_signal_connect(manager, "card-inserted", G_CALLBACK(on_reader),
                     (gpointer)"inserted");
    g_signal_connect(manager, "card-removed", G_CALLBACK(on_reader),
                     (gpointer)"removed");
}

static void card_channel_new(SpiceChannel *channel)
{
    if (enabled && SPICE_IS_SMARTCARD_CHANNEL(channel)) {
        spice_channel_connect(channel);
    }
}

static bool card_command(int argc, char **argv)
{
    const char *word = argc == 2 ? argv[1] : "";
    bool insert = !strcmp(word, "insert");
    bool good;

    if (!insert && strcmp(word, "remove")) {
        return false;
    }
    if (!enabled) {
        say("failed card %s: no --smartcard-db and --smartcard-certs", word);
        return true;
    }
    good = insert ?
        spice_smartcard_manager_insert_card(spice_smartcard_manager_get()) :
        spice_smartcard_manager_remove_card(spice_smartcard_manager_get());
    say("%s card %s%s", good ? "done" : "failed", word,
        good ? "" : ": the reader refused");
    return true;
}

const Part card_part = {
    .name = "card",
    .start = card_start,
    .channel_new = card_channel_new,
    .command = card_command,
    .usage = "card insert | remove",
};
