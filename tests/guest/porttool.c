/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * porttool - exercise a virtio port (or any character device) in the guest
 *
 * Theory of operation
 *
 *   porttool gen   PORT BYTES [-w SIZE] [-s SEED] [-p MS]
 *   porttool check PORT BYTES [-w SIZE] [-s SEED] [-p MS]
 *   porttool send  PORT FILE [-w SIZE]
 *   porttool recv  PORT BYTES FILE [-w SIZE]
 *   porttool echo  PORT [BYTES]
 *   porttool ping  PORT COUNT
 *   porttool drain PORT BYTES
 *   porttool watch PORT SECONDS
 *   porttool hold  PORT SECONDS
 *   porttool file  FILE BYTES [-s SEED]
 *
 * PORT is a path, or a virtio port's name as in /sys/class/virtio-ports; a
 * name is waited for, since a port can be hotplugged.  SIZE is that of one
 * read or write (default 32768).
 *
 * The generated stream is made of 64-bit little-endian words, word i being
 * SEED << 48 | i.  The checker therefore sees loss, repetition and reordering
 * at once and can name which it was: the words are compared as words, because
 * an emulated CPU makes a byte-wise check the bottleneck.  A total that is
 * not a multiple of 8 ends in a part of a word.
 *
 * Each run prints exactly one line at its end, beginning with "ok" or "bad",
 * then key=value pairs, and exits 0 or 1.  With -p it also prints "progress
 * bytes=N" every MS milliseconds in which the count has changed.  To stop and
 * resume it, use SIGSTOP and SIGCONT.
 *
 * A virtio port whose host side is closed reads as end of file and blocks
 * writes.  Reading modes treat that as "not yet": they look again after a
 * short sleep until the total is there.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tool.h"

static size_t block = 32768;
static uint64_t seed;
static int64_t progress_ns;

static void done(const char *mode, uint64_t bytes, int64_t start)
{
    double s = (now_ns() - start) / 1e9;

    printf("ok mode=%s bytes=%" PRIu64 " seconds=%.3f rate=%.1f\n", mode,
           bytes, s, s > 0 ? bytes / s / 1e6 : 0);
}

static void *buffer_new(size_t size)
{
    void *buffer = NULL;

    if (posix_memalign(&buffer, 4096, (size + 4095) & ~(size_t)4095)) {
        bad("out of memory");
    }
    return buffer;
}

static void write_all(int fd, const void *data, size_t len)
{
    const char *p = data;

    while (len > 0) {
        ssize_t n = write(fd, p, len);

        if (n < 0 && errno != EINTR) {
            bad("write: %s", strerror(errno));
        }
        if (n > 0) {
            p += n;
            len -= n;
        }
    }
}

/* At least one byte, at most @len; waits while the host side is closed. */
static size_t read_some(int fd, void *data, size_t len)
{
    for (;;) {
        ssize_t n = read(fd, data, len);

        if (n > 0) {
            return n;
        }
        if (n < 0 && errno != EINTR) {
            bad("read: %s", strerror(errno));
        }
        if (n == 0) {
            usleep(HOST_CLOSED_SLEEP_US);
        }
    }
}

static void progress(uint64_t bytes)
{
    static int64_t last;
    int64_t now;

    if (!progress_ns) {
        return;
    }
    now = now_ns();
    if (now - last >= progress_ns) {
        last = now;
        printf("progress bytes=%" PRIu64 "\n", bytes);
    }
}

static void fill(uint64_t *words, size_t count, uint64_t first)
{
    for (size_t i = 0; i < count; i++) {
        words[i] = (seed << 48) | (first + i);
    }
}

/*
 * Bytes @at.. of the stream into @buffer, which has room for 8 more bytes
 * than @len; the write then starts inside the first word if @at is odd.
 */
static const char *stream_bytes(uint64_t *buffer, uint64_t at, size_t len)
{
    fill(buffer, len / 8 + 2, at / 8);
    return (const char *)buffer + at % 8;
}

static void run_gen(int fd, uint64_t total)
{
    uint64_t *buffer = buffer_new(block + 16);
    uint64_t sent = 0;
    int64_t start = now_ns();

    while (sent < total) {
        size_t len = total - sent < block ? total - sent : block;

        write_all(fd, stream_bytes(buffer, sent, len), len);
        sent += len;
        progress(sent);
    }
    done("gen", sent, start);
}

static void __attribute__((noreturn))
report_word(uint64_t at, uint64_t want, uint64_t got)
{
    const char *kind = "garbage";

    if (got >> 48 == seed) {
        kind = got > want ? "lost" : "repeated-or-reordered";
    }
    bad("mode=check at=%" PRIu64 " kind=%s want=%" PRIx64 " got=%" PRIx64,
        at, kind, want, got);
}

static void run_check(int fd, uint64_t total)
{
    uint64_t *buffer = buffer_new(block + 8);
    uint64_t got = 0;
    size_t have = 0;    /* of a word that is not complete yet, < 8 */
    int64_t start = 0;

    while (got < total) {
        uint64_t left = total - got;
        size_t room = block < left ? block : left;
        size_t n = read_some(fd, (char *)buffer + have, room);
        size_t words = (have + n) / 8;
        uint64_t first = (got - have) / 8;

        if (!start) {
            start = now_ns();
        }
        for (size_t i = 0; i < words; i++) {
            uint64_t want = (seed << 48) | (first + i);

            if (buffer[i] != want) {
                report_word((first + i) * 8, want, buffer[i]);
            }
        }
        got += n;
        have = (have + n) % 8;
        buffer[0] = buffer[words];
        progress(got);
    }
    if (have) {
        uint64_t want = (seed << 48) | (got / 8);

        if (memcmp(buffer, &want, have)) {
            bad("mode=check at=%" PRIu64 " kind=tail", got - have);
        }
    }
    done("check", got, start);
}

static void run_drain(int fd, uint64_t total)
{
    void *buffer = buffer_new(block);
    uint64_t got = 0;
    int64_t start = now_ns();

    while (got < total) {
        uint64_t left = total - got;

        got += read_some(fd, buffer, block < left ? block : left);
        progress(got);
    }
    done("drain", got, start);
}

static void run_send(int fd, const char *path)
{
    int file = open(path, O_RDONLY);
    void *buffer = buffer_new(block);
    uint64_t sent = 0;
    int64_t start = now_ns();
    ssize_t n;

    if (file < 0) {
        bad("open %s: %s", path, strerror(errno));
    }
    while ((n = read(file, buffer, block)) > 0) {
        write_all(fd, buffer, n);
        sent += n;
        progress(sent);
    }
    close(file);
    done("send", sent, start);
}

/*
 * Into memory first, with every page touched beforehand, then into the file:
 * what is timed is the port, not the guest's page faults.
 */
static void run_recv(int fd, uint64_t total, const char *path)
{
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    char *buffer = buffer_new(total);
    uint64_t got = 0;
    int64_t start = 0, spent = 0;

    if (file < 0) {
        bad("open %s: %s", path, strerror(errno));
    }
    memset(buffer, 0xa5, total);
    while (got < total) {
        uint64_t left = total - got;
        size_t n = read_some(fd, buffer + got, block < left ? block : left);

        if (!start) {
            start = now_ns();
        }
        got += n;
        progress(got);
    }
    spent = now_ns() - start;
    write_all(file, buffer, total);
    close(file);
    free(buffer);
    done("recv", got, now_ns() - spent);
}

static void run_file(const char *path, uint64_t total)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    if (fd < 0) {
        bad("open %s: %s", path, strerror(errno));
    }
    run_gen(fd, total);
    close(fd);
}

static void run_echo(int fd, uint64_t total)
{
    void *buffer = buffer_new(block);
    uint64_t count = 0;
    int64_t start = now_ns();

    while (count < total) {
        size_t n = read_some(fd, buffer, block);

        write_all(fd, buffer, n);
        count += n;
    }
    done("echo", count, start);
}

static int compare_int64(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

static void run_ping(int fd, uint64_t count)
{
    int64_t *times = buffer_new(count * sizeof(*times));

    for (uint64_t i = 0; i < count; i++) {
        char out = i, in;
        int64_t start = now_ns();

        write_all(fd, &out, 1);
        read_some(fd, &in, 1);
        times[i] = now_ns() - start;
        if (in != out) {
            bad("mode=ping at=%" PRIu64 " want=%02x got=%02x", i,
                (unsigned char)out, (unsigned char)in);
        }
    }
    qsort(times, count, sizeof(*times), compare_int64);
    printf("ok mode=ping count=%" PRIu64 " min_us=%.1f median_us=%.1f "
           "p99_us=%.1f max_us=%.1f\n", count, times[0] / 1e3,
           times[count / 2] / 1e3, times[count * 99 / 100] / 1e3,
           times[count - 1] / 1e3);
}

/* Print every change of the host side's state, as the driver reports it. */
static void run_watch(int fd, double seconds)
{
    int64_t start = now_ns();
    int64_t end = start + seconds * 1e9;
    int last = -1;
    unsigned changes = 0;

    while (now_ns() < end) {
        struct pollfd pfd = { .fd = fd, .events = POLLIN | POLLOUT };
        int connected;

        poll(&pfd, 1, 0);
        connected = !(pfd.revents & POLLHUP);
        if (connected != last) {
            changes += last >= 0;
            last = connected;
            printf("host connected=%d\n", connected);
        }
        usleep(HOST_CLOSED_SLEEP_US);
    }
    printf("ok mode=watch changes=%u connected=%d\n", changes, last);
}

static void __attribute__((noreturn)) usage(void)
{
    fprintf(stderr,
            "usage: porttool gen|check|drain PORT BYTES\n"
            "       porttool send PORT FILE\n"
            "       porttool recv PORT BYTES FILE\n"
            "       porttool echo PORT [BYTES]\n"
            "       porttool ping PORT COUNT\n"
            "       porttool watch|hold PORT SECONDS\n"
            "       porttool file FILE BYTES\n"
            "options: -w SIZE of one read or write, -s SEED, -p MS\n");
    exit(2);
}

static uint64_t number(int argc, char **argv, int at)
{
    char *end;
    uint64_t value;

    if (at >= argc) {
        usage();
    }
    value = strtoull(argv[at], &end, 0);
    if (end == argv[at] || *end) {
        usage();
    }
    return value;
}

int main(int argc, char **argv)
{
    const char *mode, *port;
    int opt, fd;

    setvbuf(stdout, NULL, _IOLBF, 0);
    while ((opt = getopt(argc, argv, "w:s:p:")) != -1) {
        switch (opt) {
        case 'w':
            block = strtoull(optarg, NULL, 0);
            break;
        case 's':
            seed = strtoull(optarg, NULL, 0) & 0xffff;
            break;
        case 'p':
            progress_ns = strtoll(optarg, NULL, 0) * 1000000;
            break;
        default:
            usage();
        }
    }
    argc -= optind;
    argv += optind;
    if (argc < 2 || block == 0) {
        usage();
    }
    mode = argv[0];
    port = argv[1];

    if (!strcmp(mode, "file")) {
        run_file(port, number(argc, argv, 2));
        return 0;
    }

    /* Blocking: the driver sleeps until there is room or data. */
    fd = port_open(port, O_RDWR | O_NOCTTY);
    if (!strcmp(mode, "gen")) {
        run_gen(fd, number(argc, argv, 2));
    } else if (!strcmp(mode, "check")) {
        run_check(fd, number(argc, argv, 2));
    } else if (!strcmp(mode, "drain")) {
        run_drain(fd, number(argc, argv, 2));
    } else if (!strcmp(mode, "send") && argc == 3) {
        run_send(fd, argv[2]);
    } else if (!strcmp(mode, "recv") && argc == 4) {
        run_recv(fd, number(argc, argv, 2), argv[3]);
    } else if (!strcmp(mode, "echo")) {
        run_echo(fd, argc > 2 ? number(argc, argv, 2) : UINT64_MAX);
    } else if (!strcmp(mode, "ping")) {
        run_ping(fd, number(argc, argv, 2));
    } else if (!strcmp(mode, "watch")) {
        run_watch(fd, number(argc, argv, 2));
    } else if (!strcmp(mode, "hold")) {
        printf("ok mode=hold\n");
        sleep(number(argc, argv, 2));
    } else {
        usage();
    }
    close(fd);
    return 0;
}
