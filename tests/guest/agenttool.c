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
 * queued and written as the port takes it.  Anything the agent protocol does
 * not allow ends it with a line "bad ..." and status 1.
 *
 * A virtio port whose host side is closed polls as hung up and reads as end
 * of file; it is looked at again after a short sleep.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent.h"

#define PORT_NAME "com.redhat.spice.0"
#define FIFO_NAME "/run/agent"
#define READ_SIZE 65536

Options opt = {
    .port = PORT_NAME, .fifo = FIFO_NAME, .chunk_max = UINT32_MAX,
    .caps = 1u << CAP_MONITORS_CONFIG | 1u << CAP_REPLY |
            1u << CAP_BY_DEMAND | 1u << CAP_SELECTION |
            1u << CAP_LINEEND_LF | 1u << CAP_MAX_CLIPBOARD |
            1u << CAP_FILE_ERRORS,
};

uint32_t peer_caps;
static int port = -1;
static bool reading = true;

/* ---- the port ---- */

static void agent_open(void)
{
    port = port_open(opt.port, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    in_reset();
    out_reset();
    say("open");
    if (!opt.quiet) {
        send_caps(1);
    }
}

static void agent_close(void)
{
    close(port);
    port = -1;
    files_drop("port-closed");
}

/* True if there was something. */
static bool agent_read(void)
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
    out_shorten(now < all ? all - now : 0);
    out_mute();
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
    out_shorten(HEADER + 64 - chunk);
    say("broke %s", kind);
}

static void run_command(char *line)
{
    char *word = strtok(line, " ");
    char *a = strtok(NULL, " "), *b = strtok(NULL, " ");
    char *c = strtok(NULL, " ");

    if (!word) {
        return;
    }
    if (!strcmp(word, "set") && a) {
        clip_set(a);
    } else if (!strcmp(word, "release")) {
        send_clipboard(MSG_RELEASE, false, NULL, 0);
    } else if (!strcmp(word, "get")) {
        clip_get(a);
    } else if (!strcmp(word, "hold")) {
        files_hold();
    } else if (!strcmp(word, "accept") && a) {
        files_accept(a);
    } else if (!strcmp(word, "cancel") && a) {
        files_cancel(a);
    } else if (!strcmp(word, "caps")) {
        send_caps(a ? atoi(a) : 0);
    } else if (!strcmp(word, "flood") && a) {
        send_flood(strtoull(a, NULL, 10), b ? atoi(b) : 0,
                   c ? strtoull(c, NULL, 10) : 0);
    } else if (!strcmp(word, "partial") && a && b) {
        do_partial(atoi(a), atoi(b));
    } else if (!strcmp(word, "stop")) {
        reading = false;
        say("stopped");
    } else if (!strcmp(word, "go")) {
        reading = true;
    } else if (!strcmp(word, "reopen")) {
        agent_close();
        agent_open();
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
    agent_open();
    for (;;) {
        bool more = out_waits();
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
            out_write(port);
        }
        if (reading && fds[1].revents & (POLLIN | POLLHUP) && !agent_read() &&
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
