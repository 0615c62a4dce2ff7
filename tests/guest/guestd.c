/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * guestd - run commands in the test guest on behalf of the test program
 *
 * Theory of operation
 *
 * The test program talks to this one over a serial port, in lines:
 *
 *   to the guest      ID run COMMAND      run it with /bin/sh
 *                     ID kill SIGNAL      to the process group of ID
 *   from the guest    ready               once, after start
 *                     ID out TEXT         a piece of output (both streams)
 *                     ID end STATUS       as a shell reports it: 128+signal
 *
 * ID is a number chosen by the test program; several commands may run at
 * once.  COMMAND and TEXT carry any byte but those outside 0x20..0x7e and
 * '%' itself are written as %XX, so that neither side ever depends on line
 * breaks, tty modes or encodings.
 *
 * Standard input of a command is /dev/null, standard output and error one
 * pipe.  A command ends when its shell does *and* the pipe is closed or
 * empty: background processes that keep the pipe do not delay the end.
 *
 * It runs as process 1, so it also reaps orphans.  A line that does not
 * parse is answered with "error LINE", never ignored.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define MAX_JOBS 32
#define MAX_LINE 16384
#define PIECE 1024

typedef struct Job {
    unsigned long id;
    pid_t pid;              /* 0: slot is free; -1: shell has ended */
    int out;                /* read end of the output pipe, or -1 */
    int status;
} Job;

static Job jobs[MAX_JOBS];
static int tty = -1;

static void die(const char *what)
{
    dprintf(STDERR_FILENO, "guestd: %s: %s\n", what, strerror(errno));
    sleep(3600);
    _exit(1);
}

static void tty_write(const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(tty, data, len);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && errno == EAGAIN) {
            struct pollfd pfd = { .fd = tty, .events = POLLOUT };

            poll(&pfd, 1, -1);
            continue;
        }
        if (n < 0) {
            die("write");
        }
        data += n;
        len -= n;
    }
}

static void say(unsigned long id, const char *word, const char *data,
                size_t len)
{
    static const char hex[] = "0123456789abcdef";
    static char line[3 * PIECE + 64];
    size_t used = snprintf(line, 64, "%lu %s ", id, word);

    for (size_t i = 0; i < len; i++) {
        unsigned char c = data[i];

        if (c < 0x20 || c > 0x7e || c == '%') {
            line[used++] = '%';
            line[used++] = hex[c >> 4];
            line[used++] = hex[c & 15];
        } else {
            line[used++] = c;
        }
    }
    line[used++] = '\n';
    tty_write(line, used);
}

static void say_number(unsigned long id, const char *word, int number)
{
    char text[16];
    int len = snprintf(text, sizeof(text), "%d", number);

    say(id, word, text, len);
}

/* Undo the %XX notation in place; false if it is malformed. */
static bool unescape(char *text)
{
    char *to = text;

    while (*text) {
        if (*text == '%') {
            unsigned value;

            if (!text[1] || !text[2] || sscanf(text + 1, "%2x", &value) != 1) {
                return false;
            }
            *to++ = value;
            text += 3;
        } else {
            *to++ = *text++;
        }
    }
    *to = '\0';
    return true;
}

static void job_start(unsigned long id, const char *command)
{
    int fds[2];
    Job *job = NULL;

    for (size_t i = 0; i < MAX_JOBS; i++) {
        if (jobs[i].pid == 0) {
            job = &jobs[i];
            break;
        }
    }
    if (!job || pipe2(fds, O_CLOEXEC) < 0) {
        const char *why = job ? strerror(errno) : "too many commands";

        say(id, "out", why, strlen(why));
        say_number(id, "end", 126);
        return;
    }

    job->pid = fork();
    if (job->pid < 0) {
        die("fork");
    }
    if (job->pid == 0) {
        sigset_t none;
        int null = open("/dev/null", O_RDONLY);

        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        setpgid(0, 0);
        dup2(null, STDIN_FILENO);
        dup2(fds[1], STDOUT_FILENO);
        dup2(fds[1], STDERR_FILENO);
        execl("/bin/sh", "sh", "-c", command, NULL);
        _exit(127);
    }
    setpgid(job->pid, job->pid);    /* here too: a signal may come next */
    close(fds[1]);
    fcntl(fds[0], F_SETFL, O_NONBLOCK);
    job->id = id;
    job->out = fds[0];
}

/* Pass on what is in the pipe now; true if there was something. */
static bool job_output(Job *job)
{
    char data[PIECE];
    ssize_t n = read(job->out, data, sizeof(data));

    if (n > 0) {
        say(job->id, "out", data, n);
        return true;
    }
    if (n == 0) {
        close(job->out);
        job->out = -1;
    }
    return false;
}

static void jobs_reap(void)
{
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        for (size_t i = 0; i < MAX_JOBS; i++) {
            Job *job = &jobs[i];

            if (job->pid != pid) {
                continue;
            }
            while (job->out >= 0 && job_output(job)) {
                continue;
            }
            if (job->out >= 0) {
                close(job->out);
                job->out = -1;
            }
            say_number(job->id, "end", WIFSIGNALED(status) ?
                       128 + WTERMSIG(status) : WEXITSTATUS(status));
            job->pid = 0;
        }
    }
}

static void job_kill(unsigned long id, const char *argument)
{
    int signum = atoi(argument);

    for (size_t i = 0; i < MAX_JOBS; i++) {
        if (jobs[i].pid > 0 && jobs[i].id == id) {
            kill(-jobs[i].pid, signum);
        }
    }
}

static void handle_line(char *line)
{
    unsigned long id;
    char word[8];
    int at = 0;

    if (sscanf(line, "%lu %7s %n", &id, word, &at) >= 2 && at > 0 &&
        unescape(line + at)) {
        if (!strcmp(word, "run")) {
            job_start(id, line + at);
            return;
        }
        if (!strcmp(word, "kill")) {
            job_kill(id, line + at);
            return;
        }
    }
    say(0, "error", line, strnlen(line, PIECE));
}

static void tty_read(void)
{
    static char line[MAX_LINE];
    static size_t used;
    char data[512];
    ssize_t n = read(tty, data, sizeof(data));

    for (ssize_t i = 0; i < n; i++) {
        if (data[i] == '\n') {
            line[used] = '\0';
            if (used) {
                handle_line(line);
            }
            used = 0;
        } else if (used < sizeof(line) - 1) {
            line[used++] = data[i];
        }
    }
}

static void tty_open(const char *path)
{
    struct termios mode;

    tty = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (tty < 0 || tcgetattr(tty, &mode) < 0) {
        die(path);
    }
    cfmakeraw(&mode);
    cfsetspeed(&mode, B115200);
    mode.c_cflag |= CLOCAL;
    mode.c_cc[VMIN] = 1;
    tcsetattr(tty, TCSANOW, &mode);
}

int main(int argc, char **argv)
{
    struct pollfd pfd[2 + MAX_JOBS];
    struct signalfd_siginfo info;
    sigset_t mask;
    int sigfd;

    tty_open(argc > 1 ? argv[1] : "/dev/ttyS1");
    sigemptyset(&mask);
    sigaddset(&mask, SIGCHLD);
    sigprocmask(SIG_BLOCK, &mask, NULL);
    sigfd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
    if (sigfd < 0) {
        die("signalfd");
    }
    tty_write("ready\n", 6);

    for (;;) {
        pfd[0] = (struct pollfd) { .fd = tty, .events = POLLIN };
        pfd[1] = (struct pollfd) { .fd = sigfd, .events = POLLIN };
        for (size_t i = 0; i < MAX_JOBS; i++) {
            pfd[2 + i] = (struct pollfd) {
                .fd = jobs[i].pid ? jobs[i].out : -1, .events = POLLIN
            };
        }
        if (poll(pfd, 2 + MAX_JOBS, -1) < 0) {
            continue;
        }
        if (pfd[0].revents) {
            tty_read();
        }
        for (size_t i = 0; i < MAX_JOBS; i++) {
            if (pfd[2 + i].revents) {
                job_output(&jobs[i]);
            }
        }
        if (pfd[1].revents) {
            while (read(sigfd, &info, sizeof(info)) > 0) {
                continue;
            }
            jobs_reap();
        }
    }
}
