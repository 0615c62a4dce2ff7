/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * agenttool: the clipboard.  There is one text that it offers; contents of the
 * client's are told by their SHA-256.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "agent.h"
#include "sha256.h"

static uint8_t *offered;
static size_t offered_len;
static char *wanted;            /* path that "get" named */

static void on_clipboard_data(uint32_t type, const uint8_t *data, size_t len)
{
    Sha256 sum;
    char text[65];
    FILE *file;

    sha256_init(&sum);
    sha256_update(&sum, data, len);
    sha256_final(&sum, text);
    if (wanted) {
        file = fopen(wanted, "w");
        if (!file || fwrite(data, 1, len, file) != len || fclose(file)) {
            bad("%s: %s", wanted, strerror(errno));
        }
        free(wanted);
        wanted = NULL;
    }
    say("clip-data type=%" PRIu32 " bytes=%zu sha256=%s", type, len, text);
}

void on_clipboard(uint32_t kind, const uint8_t *body, uint32_t size)
{
    uint32_t selection = 0;

    if (selections()) {
        if (size < 4) {
            bad("a clipboard message %" PRIu32 " of %" PRIu32 " bytes", kind,
                size);
        }
        selection = body[0];
        body += 4;
        size -= 4;
    }
    switch (kind) {
    case MSG_GRAB:
        say("clip-grab selection=%" PRIu32 " types=%" PRIu32 " first=%" PRIu32,
            selection, size / 4, size >= 4 ? get32(body) : 0);
        break;
    case MSG_RELEASE:
        say("clip-release selection=%" PRIu32, selection);
        break;
    case MSG_REQUEST:
        if (size < 4) {
            bad("a clipboard request of %" PRIu32 " bytes", size);
        }
        say("clip-request selection=%" PRIu32 " type=%" PRIu32, selection,
            get32(body));
        send_clipboard(MSG_CLIPBOARD, true, offered, offered_len);
        break;
    default:
        if (size < 4) {
            bad("clipboard data of %" PRIu32 " bytes", size);
        }
        on_clipboard_data(get32(body), body + 4, size - 4);
    }
}

void clip_set(const char *path)
{
    struct stat st;
    FILE *file = fopen(path, "r");

    if (!file || fstat(fileno(file), &st) < 0) {
        bad("%s: %s", path, strerror(errno));
    }
    free(offered);
    offered_len = st.st_size;
    offered = malloc(offered_len + 1);
    if (!offered || fread(offered, 1, offered_len, file) != offered_len) {
        bad("%s cannot be read", path);
    }
    fclose(file);
    send_clipboard(MSG_GRAB, true, NULL, 0);
}

void clip_get(const char *path)
{
    free(wanted);
    wanted = path ? strdup(path) : NULL;
    send_clipboard(MSG_REQUEST, true, NULL, 0);
}
