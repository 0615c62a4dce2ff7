/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * agenttool: files that clients copy.  Their SHA-256 is calculated as they
 * come, whether they are kept or not.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent.h"
#include "sha256.h"

typedef struct Transfer {
    struct Transfer *next;
    uint32_t id;
    char name[256];
    uint64_t size, have;
    int64_t start;
    int fd;                     /* or -1 */
    bool started;
    Sha256 sum;
} Transfer;

static Transfer *transfers;
static uint32_t unknown_id;     /* the last one that was complained about */
static bool holding;

static Transfer *transfer_find(uint32_t id)
{
    for (Transfer *t = transfers; t; t = t->next) {
        if (t->id == id) {
            return t;
        }
    }
    return NULL;
}

static void transfer_free(Transfer *transfer)
{
    Transfer **link = &transfers;

    while (*link != transfer) {
        link = &(*link)->next;
    }
    *link = transfer->next;
    if (transfer->fd >= 0) {
        close(transfer->fd);
    }
    free(transfer);
}

void files_drop(const char *why)
{
    while (transfers) {
        say("file-gone id=%" PRIu32 " name=%s bytes=%" PRIu64 " why=%s",
            transfers->id, transfers->name, transfers->have, why);
        transfer_free(transfers);
    }
}

static void transfer_accept(Transfer *transfer)
{
    if (!transfer->started) {
        transfer->started = true;
        transfer->start = now_ns();
        send_status(transfer->id, FILE_CAN_SEND);
    }
}

/* A key file: "[vdagent-file-xfer]", "name=...", "size=..." */
void on_file_start(const uint8_t *body, uint32_t size)
{
    Transfer *transfer;
    char text[1024];
    char *name, *bytes;

    if (size < 5 || size - 4 >= sizeof(text)) {
        bad("a file start of %" PRIu32 " bytes", size);
    }
    memcpy(text, body + 4, size - 4);
    text[size - 4] = '\0';
    name = strstr(text, "\nname=");
    bytes = strstr(text, "\nsize=");
    if (strncmp(text, "[vdagent-file-xfer]", 19) || !name || !bytes) {
        bad("a file start without name and size: %s", text);
    }
    if (transfer_find(get32(body))) {
        bad("file id %" PRIu32 " is in use", get32(body));
    }
    transfer = calloc(1, sizeof(*transfer));
    if (!transfer) {
        bad("no memory");
    }
    transfer->id = get32(body);
    transfer->size = strtoull(bytes + 6, NULL, 10);
    transfer->fd = -1;
    snprintf(transfer->name, sizeof(transfer->name), "%.*s",
             (int)strcspn(name + 6, "\n"), name + 6);
    sha256_init(&transfer->sum);
    transfer->next = transfers;
    transfers = transfer;
    say("file-start id=%" PRIu32 " name=%s size=%" PRIu64, transfer->id,
        transfer->name, transfer->size);
    if (opt.dir) {
        char path[1024];

        if (strchr(transfer->name, '/')) {
            bad("a file name with a folder: %s", transfer->name);
        }
        snprintf(path, sizeof(path), "%s/%s", opt.dir, transfer->name);
        transfer->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
        if (transfer->fd < 0) {
            bad("%s: %s", path, strerror(errno));
        }
    }
    if (!holding) {
        transfer_accept(transfer);
    }
}

void on_file_data(const uint8_t *body, uint32_t size)
{
    Transfer *transfer;
    char sum[65];
    uint64_t len;

    if (size < 12 || get64(body + 4) != size - 12) {
        bad("file data of %" PRIu32 " bytes that claims %" PRIu64, size,
            size < 12 ? 0 : get64(body + 4));
    }
    len = size - 12;
    transfer = transfer_find(get32(body));
    if (!transfer) {
        if (unknown_id != get32(body)) {
            unknown_id = get32(body);
            say("file-unknown id=%" PRIu32, unknown_id);
        }
        return;
    }
    if (!transfer->started || len > transfer->size - transfer->have) {
        bad("file %" PRIu32 ": %" PRIu64 " bytes at %" PRIu64 " of %" PRIu64,
            transfer->id, len, transfer->have, transfer->size);
    }
    sha256_update(&transfer->sum, body + 12, len);
    for (size_t at = 0; transfer->fd >= 0 && at < len; ) {
        ssize_t n = write(transfer->fd, body + 12 + at, len - at);

        if (n < 0) {
            bad("%s: %s", transfer->name, strerror(errno));
        }
        at += n;
    }
    transfer->have += len;
    if (transfer->have == transfer->size) {
        sha256_final(&transfer->sum, sum);
        say("file-done id=%" PRIu32 " name=%s bytes=%" PRIu64
            " ms=%" PRId64 " sha256=%s", transfer->id, transfer->name,
            transfer->have, (now_ns() - transfer->start) / 1000000, sum);
        send_status(transfer->id, FILE_SUCCESS);
        transfer_free(transfer);
    }
}

void on_file_status(const uint8_t *body, uint32_t size)
{
    Transfer *transfer;

    if (size < 8) {
        bad("a file status of %" PRIu32 " bytes", size);
    }
    say("file-status id=%" PRIu32 " status=%" PRIu32, get32(body),
        get32(body + 4));
    transfer = transfer_find(get32(body));
    if (transfer && get32(body + 4) != FILE_CAN_SEND) {
        transfer_free(transfer);
    }
}

void files_hold(void)
{
    holding = true;
}

void files_accept(const char *which)
{
    holding = false;
    for (Transfer *t = transfers; t; t = t->next) {
        if (!strcmp(which, "all") || t->id == strtoul(which, NULL, 10)) {
            transfer_accept(t);
        }
    }
}

void files_cancel(const char *which)
{
    Transfer *transfer = transfer_find(strtoul(which, NULL, 10));

    if (!transfer) {
        bad("no file %s", which);
    }
    send_status(transfer->id, FILE_CANCELLED);
    transfer_free(transfer);
}
