/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A machine with a spiceflow server and one port, for the qtests.
 */
#ifndef SPICEFLOW_QTEST_MACHINE_H
#define SPICEFLOW_QTEST_MACHINE_H

#include "libqtest.h"
#include "qobject/qdict.h"
#include "spice-client.h"

/**
 * struct SpiceTestServer: where the server of a test listens.
 * @folder: its own, removed at the end
 * @path: the socket
 * @args: QEMU's options for the server and a port "p1" on it
 */
typedef struct SpiceTestServer {
    char *folder;
    char *path;
    char *args;
} SpiceTestServer;

/**
 * spice_test_server: choose a place and the options for it.
 * @server: filled
 * @queue_size: of the port
 */
void spice_test_server(SpiceTestServer *server, unsigned queue_size);

/**
 * spice_test_server_for: likewise, for another chardev.
 * @server: filled
 * @options: more for the server, each after a comma
 * @name: of the chardev "p1"
 * @queue_size: of that
 */
void spice_test_server_for(SpiceTestServer *server, const char *options,
                           const char *name, unsigned queue_size);
void spice_test_server_clear(SpiceTestServer *server);

/**
 * spice_test_flow: one number of the port's "flow" property.
 * @qts: the machine
 * @name: its name, or "client/NAME" for that of the only client
 */
int64_t spice_test_flow(QTestState *qts, const char *name);

/**
 * spice_test_flow_wait: wait until a number has a value.
 * @qts: the machine
 * @name: as for spice_test_flow()
 * @value: the value
 */
void spice_test_flow_wait(QTestState *qts, const char *name, int64_t value);

#endif
