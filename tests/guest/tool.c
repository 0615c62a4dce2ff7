/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the tools for the test guest share; see tool.h.  There is no udev in the
 * guest, so names of ports are looked up in sysfs.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tool.h"

#define PORT_WAIT_S 10

int64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

void say(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
    fflush(stdout);
}

void bad(const char *fmt, ...)
{
    va_list ap;

    printf("bad ");
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
    exit(1);
}

/* Is /sys/class/virtio-ports/DEV/name equal to @name? */
static bool port_has_name(const char *dev, const char *name)
{
    char path[300], text[128] = "";
    FILE *file;
    bool same;

    snprintf(path, sizeof(path), "/sys/class/virtio-ports/%s/name", dev);
    file = fopen(path, "r");
    if (!file) {
        return false;
    }
    same = fgets(text, sizeof(text), file) != NULL;
    fclose(file);
    text[strcspn(text, "\n")] = '\0';
    return same && !strcmp(text, name);
}

static bool port_lookup(const char *name, char *path, size_t size)
{
    DIR *dir = opendir("/sys/class/virtio-ports");
    struct dirent *entry;
    bool found = false;

    while (dir && !found && (entry = readdir(dir))) {
        if (port_has_name(entry->d_name, name)) {
            snprintf(path, size, "/dev/%s", entry->d_name);
            found = access(path, F_OK) == 0;
        }
    }
    if (dir) {
        closedir(dir);
    }
    return found;
}

int port_open(const char *name, int flags)
{
    int64_t deadline = now_ns() + PORT_WAIT_S * INT64_C(1000000000);
    char path[300];
    int fd;

    snprintf(path, sizeof(path), "%s", name);
    while (name[0] != '/' && !port_lookup(name, path, sizeof(path))) {
        if (now_ns() > deadline) {
            bad("no port named %s after %d s", name, PORT_WAIT_S);
        }
        usleep(HOST_CLOSED_SLEEP_US);
    }
    /* The previous user's close may still be under way: a port opens once. */
    while ((fd = open(path, flags)) < 0 && errno == EBUSY &&
           now_ns() < deadline) {
        usleep(HOST_CLOSED_SLEEP_US);
    }
    if (fd < 0) {
        bad("open %s: %s", path, strerror(errno));
    }
    return fd;
}
