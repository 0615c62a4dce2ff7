/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A machine with a spiceflow server and one port, for the qtests.
 */
#include "qemu/osdep.h"
#include "qobject/qlist.h"
#include "machine.h"

#include <glib/gstdio.h>

void spice_test_server(SpiceTestServer *server, unsigned queue_size)
{
    spice_test_server_for(server, "", "org.example.q", queue_size);
}

void spice_test_server_for(SpiceTestServer *server, const char *options,
                           const char *name, unsigned queue_size)
{
    server->folder = g_dir_make_tmp("spiceflow-qtest-XXXXXX", NULL);
    g_assert_nonnull(server->folder);
    server->path = g_build_filename(server->folder, "spice", NULL);
    server->args = g_strdup_printf(
        "%s -nodefaults -object spiceflow-server,id=sf0,type=unix,path=%s%s "
        "-chardev spiceflow,id=p1,name=%s,queue-size=%u ",
        g_getenv("SPICEFLOW_QTEST_ARGS") ?: "", server->path, options, name,
        queue_size);
}

void spice_test_server_clear(SpiceTestServer *server)
{
    g_unlink(server->path);
    g_assert_cmpint(g_rmdir(server->folder), ==, 0);
    g_free(server->folder);
    g_free(server->path);
    g_free(server->args);
}

int64_t spice_test_flow(QTestState *qts, const char *name)
{
    QDict *resp = qtest_qmp(qts, "{ 'execute': 'qom-get', 'arguments': {"
                            " 'path': '/chardevs/p1', 'property': 'flow' }}");
    QDict *flow = qdict_get_qdict(resp, "return");
    int64_t value;

    g_assert_nonnull(flow);
    if (g_str_has_prefix(name, "client/")) {
        QList *clients = qdict_get_qlist(flow, "clients");
        const QListEntry *first = qlist_first(clients);

        g_assert_nonnull(first);
        flow = qobject_to(QDict, qlist_entry_obj(first));
        name += strlen("client/");
    }
    g_assert_true(qdict_haskey(flow, name));
    value = qdict_get_int(flow, name);
    qobject_unref(resp);
    return value;
}

void spice_test_flow_wait(QTestState *qts, const char *name, int64_t value)
{
    for (unsigned i = 0; i < 1000; i++) {
        if (spice_test_flow(qts, name) == value) {
            return;
        }
        g_usleep(5000);
    }
    g_assert_cmpint(spice_test_flow(qts, name), ==, value);
}
