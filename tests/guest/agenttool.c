/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * agenttool - a SPICE agent for tests, driven by lines
 *
 * Theory of operation
 *
 *   agenttool run [-p PORT] [-c FIFO] [-d DIR] [-k SIZE] [-x CAP]... [-n]
 *   agenttool do [-c FIFO] WORD...
 *
 * "run" opens the agent's port (com.redhat.spice.0), announces itself and then
 * does what the real spice-vdagentd and a session's vdagent do together, but
 * without a desktop: it receives files, has a clipboard, and says on standard
 * output, one line per event, what came.  "do" gives it a command through a
 * named pipe (/run/agent) and ends at once:
 *
 *   set FILE         offer the file's text to the client as the clipboard
 *   release          withdraw that
 *   get [FILE]       ask for the client's clipboard; write it to FILE
 *   accept ID|all    let file transfers begin (after "hold")
 *   hold             answer no file transfer until "accept"
 *   cancel ID        cancel a file transfer
 *   caps [0|1]       announce the capabilities, with that request flag
 *   flood BYTES [SIZE [SEED]]
 *                    send unasked clipboard messages of SIZE bytes each, made
 *                    of 64-bit words SEED << 48 | i counted through all of
 *                    them, BYTES in total (without headers)
 *   partial SIZE NOW send a clipboard message of SIZE bytes, but only its
 *                    first NOW bytes, headers included; then nothing more
 *   stop, go         stop and resume reading from the port
 *   reopen           close the port and open it again, as a new agent does
 *   break KIND       break the protocol: chunk (a port that does not exist),
 *                    protocol (a wrong number), size (a chunk with more than
 *                    its message)
 *   mark TEXT        say TEXT, to show that everything before it was done
 *
 * Files go to DIR if one is given and otherwise nowhere; either way their
 * SHA-256 is calculated as they come.  -k limits the size of a chunk toward
 * the client, -x leaves a capability out, -n announces none at start.
 *
 * It is one poll loop over the port and the pipe.  What is to be sent is
 * queued and written as the port takes it.  Messages are reassembled per
 * chunk port, because the server's own messages may come between the chunks
 * of a client's.  Anything the agent protocol does not allow ends it with a
 * line "bad ..." and status 1.
 *
 * A virtio port whose host side is closed polls as hung up and reads as end
 * of file; it is looked at again after a short sleep.
 */

#define _GNU_SOURCE
#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "sha256.h"

#define PORT_NAME "com.redhat.spice.0"
#define FIFO_NAME "/run/agent"
#define PORT_WAIT_S 10
#define HOST_CLOSED_SLEEP_US 20000
#define READ_SIZE 65536

/* Numbers of the agent protocol (spice/vd_agent.h) */
enum { PORT_CLIENT = 1, PORT_SERVER = 2, PROTOCOL = 1 };
enum {
    MSG_MOUSE_STATE = 1, MSG_MONITORS_CONFIG, MSG_REPLY, MSG_CLIPBOARD,
    MSG_DISPLAY_CONFIG, MSG_CAPS, MSG_GRAB, MSG_REQUEST, MSG_RELEASE,
    MSG_FILE_START, MSG_FILE_STATUS, MSG_FILE_DATA, MSG_DISCONNECTED,
    MSG_MAX_CLIPBOARD, MSG_VOLUME, MSG_GRAPHICS,
};
enum {
    CAP_MONITORS_CONFIG = 1, CAP_REPLY = 2, CAP_BY_DEMAND = 5,
    CAP_SELECTION = 6, CAP_LINEEND_LF = 8, CAP_MAX_CLIPBOARD = 10,
    CAP_FILE_ERRORS = 14,
};
enum { FILE_CAN_SEND, FILE_CANCELLED, FILE_ERROR, FILE_SUCCESS };
#define TEXT_TYPE 1
#define CHUNK_HEADER 8
#define HEADER 20
#define MESSAGE_MAX (256u << 20)

/* A message of one chunk port, as far as it has come. */
typedef struct Message {
    uint8_t header[HEADER];
    uint32_t have;              /* of header and body together */
    uint32_t type, size;
    uint8_t *body;
} Message;

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

static struct {
    const char *port, *fifo, *dir;
    uint32_t caps, chunk_max;
    bool quiet;
} opt = {
    .port = PORT_NAME, .fifo = FIFO_NAME, .chunk_max = UINT32_MAX,
    .caps = 1u << CAP_MONITORS_CONFIG | 1u << CAP_REPLY |
            1u << CAP_BY_DEMAND | 1u << CAP_SELECTION |
            1u << CAP_LINEEND_LF | 1u << CAP_MAX_CLIPBOARD |
            1u << CAP_FILE_ERRORS,
};

static int port = -1;
static uint32_t peer_caps;
static bool reading = true, holding;

static uint8_t chunk_header[CHUNK_HEADER];
static uint32_t chunk_have, chunk_left, chunk_port;
static Message messages[3];     /* by chunk port */
static Transfer *transfers;
static uint32_t unknown_id;     /* the last one that was complained about */

static uint8_t *out;
static size_t out_pos, out_len, out_size;
static struct {
    uint64_t left, next;
    uint32_t size;
    int64_t start;
    uint64_t total;
} flood;
static bool muted;              /* after "partial": nothing may follow */

static uint8_t *offered;
static size_t offered_len;
static char *wanted;            /* path that "get" named */

static int64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void __attribute__((format(printf, 1, 2))) say(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
    fflush(stdout);
}

static void __attribute__((noreturn, format(printf, 1, 2)))
bad(const char *fmt, ...)
{
    va_list ap;

    printf("bad ");
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
    exit(1);
}

static uint32_t get32(const void *p)
{
    uint32_t v;

    memcpy(&v, p, 4);
    return le32toh(v);
}

static uint64_t get64(const void *p)
{
    uint64_t v;

    memcpy(&v, p, 8);
    return le64toh(v);
}

static uint8_t *put32(uint8_t *p, uint32_t v)
{
    v = htole32(v);
    memcpy(p, &v, 4);
    return p + 4;
}

/* ---- sending ---- */

static uint8_t *out_reserve(size_t len)
{
    if (out_pos == out_len) {
        out_pos = out_len = 0;
    }
    if (out_len + len > out_size) {
        memmove(out, out + out_pos, out_len - out_pos);
        out_len -= out_pos;
        out_pos = 0;
    }
    if (out_len + len > out_size) {
        out_size = out_len + len;
        out = realloc(out, out_size);
        if (!out) {
            bad("no memory for %zu bytes to be sent", out_size);
        }
    }
    out_len += len;
    return out + out_len - len;
}

/* Queue bytes of one chunk stream, in chunks of the wanted size. */
static void send_chunks(const uint8_t *data, size_t len)
{
    while (len > 0) {
        size_t n = len < opt.chunk_max ? len : opt.chunk_max;
        uint8_t *p = out_reserve(CHUNK_HEADER + n);

        p = put32(p, PORT_CLIENT);
        p = put32(p, n);
        memcpy(p, data, n);
        data += n;
        len -= n;
    }
}

/* A message: its body is @head followed by @data. */
static void send_message(uint32_t type, const void *head, size_t head_len,
                         const void *data, size_t len)
{
    size_t total = HEADER + head_len + len;
    uint8_t *whole, *p;

    if (muted) {
        return;
    }
    p = whole = malloc(total);
    if (!whole) {
        bad("no memory for a message of %zu bytes", total);
    }
    p = put32(p, PROTOCOL);
    p = put32(p, type);
    p = put32(p, 0);
    p = put32(p, 0);
    p = put32(p, head_len + len);
    if (head_len) {
        memcpy(p, head, head_len);
    }
    if (len) {
        memcpy(p + head_len, data, len);
    }
    send_chunks(whole, total);
    free(whole);
}

static void send_caps(uint32_t request)
{
    uint8_t body[8];

    put32(put32(body, request), opt.caps);
    send_message(MSG_CAPS, body, 8, NULL, 0);
}

/* With both sides able to, clipboard messages begin with the selection. */
static bool selections(void)
{
    return opt.caps & peer_caps & 1u << CAP_SELECTION;
}

static void send_clipboard(uint32_t type, bool with_type, const void *data,
                           size_t len)
{
    uint8_t head[8] = { 0 };
    size_t used = selections() ? 4 : 0;

    if (with_type) {
        put32(head + used, TEXT_TYPE);
        used += 4;
    }
    send_message(type, head, used, data, len);
}

static void send_status(uint32_t id, uint32_t status)
{
    uint8_t body[8];

    put32(put32(body, id), status);
    send_message(MSG_FILE_STATUS, body, 8, NULL, 0);
}

/* Keep some of the flood queued, as long as there is any left. */
static void flood_more(void)
{
    while (flood.left > 0 && out_len - out_pos < READ_SIZE) {
        size_t n = flood.left < flood.size ? flood.left : flood.size;
        uint64_t *words = malloc((n + 7) & ~7ul);

        if (!words) {
            bad("no memory");
        }
        for (size_t i = 0; i < (n + 7) / 8; i++) {
            words[i] = htole64(flood.next++);
        }
        send_clipboard(MSG_CLIPBOARD, true, words, n);
        free(words);
        flood.left -= n;
    }
}

/* ---- files ---- */

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

static void transfers_drop(const char *why)
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
        transfer->start = now_ms();
        send_status(transfer->id, FILE_CAN_SEND);
    }
}

/* A key file: "[vdagent-file-xfer]", "name=...", "size=..." */
static void on_file_start(const uint8_t *body, uint32_t size)
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

static void on_file_data(const uint8_t *body, uint32_t size)
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
            transfer->have, now_ms() - transfer->start, sum);
        send_status(transfer->id, FILE_SUCCESS);
        transfer_free(transfer);
    }
}

static void on_file_status(const uint8_t *body, uint32_t size)
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

/* ---- clipboard ---- */

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

static void on_clipboard(uint32_t kind, const uint8_t *body, uint32_t size)
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

/* ---- receiving ---- */

static void message_reset(Message *message)
{
    free(message->body);
    *message = (Message) { 0 };
}

static void on_message(uint32_t from, uint32_t type, const uint8_t *body,
                       uint32_t size)
{
    switch (type) {
    case MSG_CAPS:
        if (size < 8) {
            bad("capabilities of %" PRIu32 " bytes", size);
        }
        peer_caps = get32(body + 4);
        say("caps request=%" PRIu32 " caps=0x%" PRIx32, get32(body),
            peer_caps);
        if (get32(body)) {
            send_caps(0);
        }
        break;
    case MSG_GRAB:
    case MSG_RELEASE:
    case MSG_REQUEST:
    case MSG_CLIPBOARD:
        on_clipboard(type, body, size);
        break;
    case MSG_FILE_START:
        on_file_start(body, size);
        break;
    case MSG_FILE_STATUS:
        on_file_status(body, size);
        break;
    case MSG_FILE_DATA:
        on_file_data(body, size);
        break;
    case MSG_DISCONNECTED:
        if (from != PORT_SERVER || size) {
            bad("a client's end from port %" PRIu32 " with %" PRIu32 " bytes",
                from, size);
        }
        /* As the real agent does; nothing else ends half a message. */
        message_reset(&messages[PORT_CLIENT]);
        transfers_drop("client-left");
        say("client-left");
        break;
    case MSG_MONITORS_CONFIG:
        say("monitors bytes=%" PRIu32, size);
        break;
    case MSG_MAX_CLIPBOARD:
        say("max-clipboard %" PRId32, size < 4 ? 0 : (int32_t)get32(body));
        break;
    default:
        say("message type=%" PRIu32 " port=%" PRIu32 " bytes=%" PRIu32, type,
            from, size);
    }
}

/* Bytes of one chunk; a chunk may hold several messages or a part of one. */
static void on_chunk_data(uint32_t from, const uint8_t *data, size_t len)
{
    Message *message = &messages[from];

    for (;;) {
        size_t n;

        if (message->have < HEADER) {
            n = HEADER - message->have < len ? HEADER - message->have : len;
            memcpy(message->header + message->have, data, n);
            message->have += n;
            data += n;
            len -= n;
            if (message->have < HEADER) {
                return;
            }
            if (get32(message->header) != PROTOCOL) {
                bad("agent protocol %" PRIu32 " from port %" PRIu32,
                    get32(message->header), from);
            }
            message->type = get32(message->header + 4);
            message->size = get32(message->header + 16);
            if (message->size > MESSAGE_MAX) {
                bad("a message of %" PRIu32 " bytes", message->size);
            }
            message->body = malloc(message->size + 1);
            if (!message->body) {
                bad("no memory for a message of %" PRIu32 " bytes",
                    message->size);
            }
        }
        n = HEADER + message->size - message->have;
        n = n < len ? n : len;
        memcpy(message->body + message->have - HEADER, data, n);
        message->have += n;
        data += n;
        len -= n;
        if (message->have < HEADER + message->size) {
            return;
        }
        on_message(from, message->type, message->body, message->size);
        message_reset(message);
        if (!len) {
            return;
        }
    }
}

static void on_bytes(const uint8_t *data, size_t len)
{
    while (len > 0) {
        size_t n;

        if (chunk_left == 0) {
            n = CHUNK_HEADER - chunk_have < len ?
                CHUNK_HEADER - chunk_have : len;
            memcpy(chunk_header + chunk_have, data, n);
            chunk_have += n;
            data += n;
            len -= n;
            if (chunk_have < CHUNK_HEADER) {
                return;
            }
            chunk_have = 0;
            chunk_port = get32(chunk_header);
            chunk_left = get32(chunk_header + 4);
            if (chunk_port != PORT_CLIENT && chunk_port != PORT_SERVER) {
                bad("a chunk for port %" PRIu32, chunk_port);
            }
            continue;
        }
        n = chunk_left < len ? chunk_left : len;
        on_chunk_data(chunk_port, data, n);
        chunk_left -= n;
        data += n;
        len -= n;
    }
}

/* ---- the port ---- */

/* /dev/vportNpM of the port with that name; there is no udev here. */
static bool port_path(const char *name, char *path, size_t size)
{
    DIR *dir = opendir("/sys/class/virtio-ports");
    bool found = false;
    struct dirent *entry;

    if (name[0] == '/') {
        snprintf(path, size, "%s", name);
        found = access(name, F_OK) == 0;
    }
    while (!found && dir && (entry = readdir(dir))) {
        char file[512], text[128];
        FILE *stream;

        snprintf(file, sizeof(file), "/sys/class/virtio-ports/%s/name",
                 entry->d_name);
        stream = fopen(file, "r");
        if (!stream) {
            continue;
        }
        if (fgets(text, sizeof(text), stream)) {
            text[strcspn(text, "\n")] = '\0';
            if (!strcmp(text, name)) {
                snprintf(path, size, "/dev/%s", entry->d_name);
                found = true;
            }
        }
        fclose(stream);
    }
    if (dir) {
        closedir(dir);
    }
    return found;
}

static void port_open(void)
{
    int64_t end = now_ms() + PORT_WAIT_S * 1000;
    char path[512];

    while (!port_path(opt.port, path, sizeof(path))) {
        if (now_ms() > end) {
            bad("no port %s", opt.port);
        }
        usleep(HOST_CLOSED_SLEEP_US);
    }
    port = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (port < 0) {
        bad("%s: %s", path, strerror(errno));
    }
    chunk_have = chunk_left = 0;
    message_reset(&messages[PORT_CLIENT]);
    message_reset(&messages[PORT_SERVER]);
    peer_caps = 0;
    out_pos = out_len = 0;
    flood.left = 0;
    muted = false;
    say("open");
    if (!opt.quiet) {
        send_caps(1);
    }
}

static void port_close(void)
{
    close(port);
    port = -1;
    transfers_drop("port-closed");
}

static void port_write(void)
{
    flood_more();
    for (int turn = 0; turn < 4 && out_pos < out_len; turn++) {
        ssize_t n = write(port, out + out_pos, out_len - out_pos);

        if (n < 0 && errno == EAGAIN) {
            return;
        }
        if (n < 0) {
            bad("writing to the port: %s", strerror(errno));
        }
        out_pos += n;
        flood_more();
    }
    if (flood.total && !flood.left) {
        say("flood-sent bytes=%" PRIu64 " ms=%" PRId64, flood.total,
            now_ms() - flood.start);
        flood.total = 0;
    }
}

/* True if there was something. */
static bool port_read(void)
{
    static uint8_t data[READ_SIZE];
    ssize_t n = read(port, data, sizeof(data));

    if (n > 0) {
        on_bytes(data, n);
        return true;
    }
    if (n < 0 && errno != EAGAIN) {
        bad("reading from the port: %s", strerror(errno));
    }
    return false;
}

/* ---- commands ---- */

static void do_set(const char *path)
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

static void do_flood(uint64_t bytes, uint32_t size, uint64_t start)
{
    flood.left = flood.total = bytes;
    flood.size = size ? size : 65536;
    flood.next = start << 48;
    flood.start = now_ms();
}

static void do_partial(uint32_t size, uint32_t now)
{
    uint8_t *p = out_reserve(CHUNK_HEADER + HEADER + size);
    size_t all = CHUNK_HEADER + HEADER + size;

    memset(p, 'p', all);
    p = put32(p, PORT_CLIENT);
    p = put32(p, HEADER + size);
    p = put32(p, PROTOCOL);
    p = put32(p, MSG_CLIPBOARD);
    p = put32(p, 0);
    p = put32(p, 0);
    put32(p, size);
    out_len -= now < all ? all - now : 0;
    muted = true;
    say("partial bytes=%" PRIu32, now);
}

static void do_break(const char *kind)
{
    uint32_t from = PORT_CLIENT, protocol = PROTOCOL, chunk = HEADER + 8;
    uint8_t *p;

    if (!strcmp(kind, "chunk")) {
        from = 77;
    } else if (!strcmp(kind, "protocol")) {
        protocol = 77;
    } else if (!strcmp(kind, "size")) {
        chunk = HEADER + 64;
    } else {
        bad("no such break: %s", kind);
    }
    p = out_reserve(CHUNK_HEADER + HEADER + 64);
    memset(p, 'b', CHUNK_HEADER + HEADER + 64);
    p = put32(p, from);
    p = put32(p, chunk);
    p = put32(p, protocol);
    p = put32(p, MSG_REPLY);
    p = put32(p, 0);
    p = put32(p, 0);
    put32(p, 8);
    out_len -= HEADER + 64 - chunk;
    say("broke %s", kind);
}

static void run_command(char *line)
{
    char *word = strtok(line, " ");
    char *a = strtok(NULL, " "), *b = strtok(NULL, " ");
    char *c = strtok(NULL, " ");
    Transfer *transfer;

    if (!word) {
        return;
    }
    if (!strcmp(word, "set") && a) {
        do_set(a);
    } else if (!strcmp(word, "release")) {
        send_clipboard(MSG_RELEASE, false, NULL, 0);
    } else if (!strcmp(word, "get")) {
        free(wanted);
        wanted = a ? strdup(a) : NULL;
        send_clipboard(MSG_REQUEST, true, NULL, 0);
    } else if (!strcmp(word, "hold")) {
        holding = true;
    } else if (!strcmp(word, "accept") && a) {
        holding = false;
        for (transfer = transfers; transfer; transfer = transfer->next) {
            if (!strcmp(a, "all") || transfer->id == strtoul(a, NULL, 10)) {
                transfer_accept(transfer);
            }
        }
    } else if (!strcmp(word, "cancel") && a) {
        transfer = transfer_find(strtoul(a, NULL, 10));
        if (!transfer) {
            bad("no file %s", a);
        }
        send_status(transfer->id, FILE_CANCELLED);
        transfer_free(transfer);
    } else if (!strcmp(word, "caps")) {
        send_caps(a ? atoi(a) : 0);
    } else if (!strcmp(word, "flood") && a) {
        do_flood(strtoull(a, NULL, 10), b ? atoi(b) : 0,
                 c ? strtoull(c, NULL, 10) : 0);
    } else if (!strcmp(word, "partial") && a && b) {
        do_partial(atoi(a), atoi(b));
    } else if (!strcmp(word, "stop")) {
        reading = false;
        say("stopped");
    } else if (!strcmp(word, "go")) {
        reading = true;
    } else if (!strcmp(word, "reopen")) {
        port_close();
        port_open();
    } else if (!strcmp(word, "break") && a) {
        do_break(a);
    } else if (!strcmp(word, "mark") && a) {
        say("mark %s", a);
    } else {
        bad("no such command: %s", word);
    }
}

static void fifo_read(int fifo)
{
    static char line[1024];
    static size_t used;
    char data[512];
    ssize_t n = read(fifo, data, sizeof(data));

    for (ssize_t i = 0; i < n; i++) {
        if (data[i] == '\n') {
            line[used] = '\0';
            used = 0;
            run_command(line);
        } else if (used < sizeof(line) - 1) {
            line[used++] = data[i];
        }
    }
}

static int agent_run(void)
{
    int fifo;

    /* A new one: commands for an agent that was killed must not stay. */
    unlink(opt.fifo);
    if (mkfifo(opt.fifo, 0600) < 0) {
        bad("%s: %s", opt.fifo, strerror(errno));
    }
    /* For writing too, so that it never is at its end. */
    fifo = open(opt.fifo, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fifo < 0) {
        bad("%s: %s", opt.fifo, strerror(errno));
    }
    port_open();
    for (;;) {
        bool more = out_pos < out_len || flood.left;
        struct pollfd fds[] = {
            { .fd = fifo, .events = POLLIN },
            { .fd = reading || more ? port : -1,
              .events = (reading ? POLLIN : 0) | (more ? POLLOUT : 0) },
        };

        if (poll(fds, 2, -1) < 0) {
            bad("poll: %s", strerror(errno));
        }
        if (fds[0].revents) {
            fifo_read(fifo);
            continue;
        }
        if (fds[1].revents & POLLOUT) {
            port_write();
        }
        if (reading && fds[1].revents & (POLLIN | POLLHUP) && !port_read() &&
            fds[1].revents & POLLHUP) {
            usleep(HOST_CLOSED_SLEEP_US);
        } else if (!reading && fds[1].revents & POLLHUP) {
            usleep(HOST_CLOSED_SLEEP_US);
        }
    }
}

static int agent_do(int count, char **words)
{
    int fifo = open(opt.fifo, O_WRONLY | O_NONBLOCK);
    char line[1024] = "";

    if (fifo < 0) {
        bad("no agent listens at %s: %s", opt.fifo, strerror(errno));
    }
    for (int i = 0; i < count; i++) {
        strncat(line, words[i], sizeof(line) - strlen(line) - 3);
        strcat(line, i + 1 < count ? " " : "\n");
    }
    if (write(fifo, line, strlen(line)) < 0) {
        bad("%s: %s", opt.fifo, strerror(errno));
    }
    return 0;
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "";
    int letter;

    if (argc > 1) {
        optind = 2;
    }
    while ((letter = getopt(argc, argv, "+p:c:d:k:x:n")) != -1) {
        switch (letter) {
        case 'p':
            opt.port = optarg;
            break;
        case 'c':
            opt.fifo = optarg;
            break;
        case 'd':
            opt.dir = optarg;
            break;
        case 'k':
            opt.chunk_max = atoi(optarg);
            break;
        case 'x':
            opt.caps &= ~(1u << atoi(optarg));
            break;
        case 'n':
            opt.quiet = true;
            break;
        default:
            bad("usage: agenttool run|do ..., see its source");
        }
    }
    if (!strcmp(mode, "run") && optind == argc && opt.chunk_max > 0) {
        return agent_run();
    }
    if (!strcmp(mode, "do") && optind < argc) {
        return agent_do(argc - optind, argv + optind);
    }
    bad("usage: agenttool run|do ..., see its source");
}
