/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * recordtool - exchange records with the client through a virtio port
 *
 * Theory of operation
 *
 *   recordtool PORT [-s SEED] [-r RATE]
 *
 * Two streams of records (record.h), one each way, which know nothing of each
 * other: nothing is echoed, so that neither side's reading ever waits for its
 * writing.  The port is not blocking; one poll loop serves both ways.  RATE is
 * in bytes per second to the client, as bursts; without it as much as goes.
 *
 *   SIGUSR1     pause behind the present record, or stay paused, and say
 *               "counts KEY=VALUE..."
 *   SIGUSR2     go on
 *   SIGTERM     send the last record, wait for the client's, and end
 *   SIGINT      end now
 *
 * The last line begins with "ok mode=records" and has the counts; with
 * complete=1 both streams came to their end.
 *
 * A port whose host side is closed polls as hung up; it is looked at again
 * after a short sleep.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "record.h"
#include "tool.h"

#define BURST_NS    INT64_C(50000000)

static RecordReader reader;
static uint64_t seed, rate;

static uint8_t out[RECORD_MAX];
static size_t out_len, out_pos;
static uint64_t sent, bytes_out;
static bool paused, report, finish, last_sent;
static int64_t credit, credit_at;   /* bytes that may go out, as of when */

static void counts(const char *words)
{
    printf("%s sent=%" PRIu64 " received=%" PRIu64 " next=%" PRIu64
           " lost=%" PRIu64 " repeated=%" PRIu64 " wrong=%" PRIu64
           " bytes_out=%" PRIu64 " bytes_in=%" PRIu64 "\n", words, sent,
           reader.received, reader.next, reader.lost, reader.repeated,
           reader.wrong, bytes_out, reader.bytes);
}

/* May a record go out now?  Otherwise the loop comes back after a while. */
static bool credit_there(void)
{
    int64_t now = now_ns();

    if (!rate) {
        return true;
    }
    if (now - credit_at >= BURST_NS) {
        credit = rate * BURST_NS / 1000000000;
        credit_at = now;
    }
    return credit > 0;
}

static void next_record(void)
{
    if (out_len || paused || last_sent || !credit_there()) {
        return;
    }
    last_sent = finish;
    out_len = record_make(out, seed, sent, finish);
    out_pos = 0;
}

static void write_some(int fd)
{
    while (out_len) {
        ssize_t n = write(fd, out + out_pos, out_len - out_pos);

        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            bad("write: %s", strerror(errno));
        }
        if (n <= 0) {
            return;
        }
        out_pos += n;
        bytes_out += n;
        credit -= n;
        if (out_pos == out_len) {
            out_len = 0;
            sent++;
            next_record();
        }
    }
}

static void read_some(int fd)
{
    static uint8_t buffer[65536];
    ssize_t n = read(fd, buffer, sizeof(buffer));

    if (n > 0) {
        record_take(&reader, buffer, n);
    } else if (n < 0 && errno != EAGAIN && errno != EINTR) {
        bad("read: %s", strerror(errno));
    }
}

static void on_signal(int signals)
{
    struct signalfd_siginfo info;

    while (read(signals, &info, sizeof(info)) == sizeof(info)) {
        switch (info.ssi_signo) {
        case SIGUSR1:
            paused = report = true;
            break;
        case SIGUSR2:
            paused = false;
            break;
        case SIGTERM:
            paused = false;
            finish = true;
            break;
        default:
            counts("ok mode=records complete=0");
            exit(0);
        }
    }
}

static int signals_open(void)
{
    sigset_t mask;

    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1);
    sigaddset(&mask, SIGUSR2);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGINT);
    sigprocmask(SIG_BLOCK, &mask, NULL);
    return signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC);
}

int main(int argc, char **argv)
{
    struct pollfd pfd[2];
    int opt, fd, signals;

    setvbuf(stdout, NULL, _IOLBF, 0);
    while ((opt = getopt(argc, argv, "s:r:")) != -1) {
        switch (opt) {
        case 's':
            seed = strtoull(optarg, NULL, 0);
            break;
        case 'r':
            rate = strtoull(optarg, NULL, 0);
            break;
        default:
            optind = argc;
        }
    }
    if (optind + 1 != argc) {
        fprintf(stderr, "usage: recordtool PORT [-s SEED] [-r RATE]\n");
        return 2;
    }
    signals = signals_open();
    if (signals < 0) {
        bad("signalfd: %s", strerror(errno));
    }
    fd = port_open(argv[optind], O_RDWR | O_NOCTTY | O_NONBLOCK);
    printf("open\n");

    while (!last_sent || out_len || !reader.ended) {
        int wait = -1;

        next_record();
        if (report && !out_len) {
            report = false;
            counts("counts");
        }
        if (!out_len && !paused && !last_sent) {
            wait = (BURST_NS - (now_ns() - credit_at)) / 1000000 + 1;
        }
        pfd[0] = (struct pollfd) {
            .fd = fd, .events = POLLIN | (out_len ? POLLOUT : 0)
        };
        pfd[1] = (struct pollfd) { .fd = signals, .events = POLLIN };
        poll(pfd, 2, wait);
        if (pfd[1].revents) {
            on_signal(signals);
        }
        read_some(fd);
        write_some(fd);
        if (pfd[0].revents & POLLHUP) {
            usleep(HOST_CLOSED_SLEEP_US);
        }
    }
    counts("ok mode=records complete=1");
    return 0;
}
