/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sfclient - a SPICE client without a display, driven by lines
 *
 * What the parts of the program share; main.c says how it works.
 */

#ifndef SFCLIENT_H
#define SFCLIENT_H

#include <stdbool.h>
#include <spice-client.h>

typedef struct Options {
    char *password;
    char *password_file;
    char *ca_file;
    char *host_subject;
    char *card_db;
    char *card_certs;       /* three nicknames, comma separated */
    int write_size;
    int progress_ms;        /* 0: no progress lines */
    gboolean no_ports;
    char *records;          /* name of the port of record.c */
    gint64 record_next;     /* number of the first one that comes */
    gboolean usb;
    int usb_channel;        /* the only one to be used, or -1 */
} Options;

extern Options options;
extern SpiceSession *session;
extern SpiceMainChannel *main_channel;

/*
 * A part of the client.  @command returns false if it does not know the
 * words; argv[0] is the part's own name.  Any hook may be NULL.
 */
typedef struct Part {
    const char *name;
    void (*start)(void);
    void (*stop)(void);         /* the program ends */
    void (*channel_new)(SpiceChannel *channel);
    void (*channel_gone)(SpiceChannel *channel);
    bool (*command)(int argc, char **argv);
    const char *usage;
} Part;

extern const Part port_part, record_part, agent_part, clip_part, usb_part,
                  card_part;

/* True if the port of that name is for records; then it is used here. */
bool record_claims(SpicePortChannel *channel, const char *name);

/* One line on standard output, flushed at once. */
void say(const char *fmt, ...) G_GNUC_PRINTF(1, 2);

/* A whole number from a command line; complains and returns false if not. */
bool parse_number(const char *text, guint64 *value);

/* SHA-256 of a file as hex text, or NULL with a line said; free the result. */
char *file_sha256(const char *path);

/* Megabytes (10^6) per second. */
double rate(guint64 bytes, gint64 microseconds);

/* A token for a progress line: true at most every progress_ms. */
bool progress_due(gint64 *last);

#endif
