/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Runs a fuzzer without libFuzzer: feeds it every file that is named on the
 * command line, and every file in the folders named there.  So each compiler
 * builds the harnesses, and their corpus is a regression test everywhere.
 * Finding nothing to feed is a failure.
 */
#include "fuzz.h"

#include <glib.h>
#include <stdint.h>
#include <stdlib.h>

static unsigned replay_file(const char *path)
{
    g_autoptr(GError) err = NULL;
    g_autofree char *data = NULL;
    g_autofree uint8_t *exact = NULL;
    gsize size;

    if (!g_file_get_contents(path, &data, &size, &err)) {
        g_printerr("%s\n", err->message);
        exit(1);
    }

    /* a block of just that size, so that sanitizers see any byte beyond */
    exact = g_memdup2(data, size);
    LLVMFuzzerTestOneInput(exact, size);
    return 1;
}

static unsigned replay(const char *path)
{
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    const char *name;
    unsigned count = 0;

    if (!dir) {
        return replay_file(path);
    }
    while ((name = g_dir_read_name(dir))) {
        g_autofree char *file = g_build_filename(path, name, NULL);

        count += replay(file);
    }
    return count;
}

int main(int argc, char **argv)
{
    unsigned count = 0;
    int i;

    for (i = 1; i < argc; i++) {
        count += replay(argv[i]);
    }
    g_print("%u inputs\n", count);
    return count ? 0 : 1;
}
