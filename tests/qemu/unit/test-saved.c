/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The state of devices through QEMU's own save and load code.
 *
 * States come from machines that took random steps, so queues, half-received
 * and half-sent messages, tokens and questions of every kind occur.  What is
 * saved is loaded, taken over by another machine and saved again: the two
 * streams must be equal.  That the descriptions leave no field out is seen from
 * their offsets: what they do not cover must be padding.
 *
 * Streams are then damaged, at random and on purpose: a load fails, and then it
 * names a field, or what comes of it is judged by the machine that is to take
 * it over.  Streams that an earlier version saved must load for ever; they lie
 * in saved/.
 */
#include "qemu/osdep.h"
#include <spice/enums.h>
#include "migration/vmstate.h"
#include "qemu/bswap.h"
#include "qemu/module.h"
#include "saved-device.h"
#include "stream.h"

#define WALKS           (g_test_slow() ? 3000 : 60)
#define DAMAGES         (g_test_slow() ? 40000 : 800)

static const uint8_t types[] = {
    SPICE_CHANNEL_MAIN, SPICE_CHANNEL_PORT, SPICE_CHANNEL_USBREDIR,
    SPICE_CHANNEL_SMARTCARD,
};

static void round_trip(uint8_t type, GRand *rand)
{
    g_autoptr(GByteArray) first = NULL;
    g_autoptr(GByteArray) again = NULL;
    g_autoptr(GByteArray) second = NULL;
    SFSaved saved, loaded = { 0 };
    Device device, other;

    device_walk(&device, type, rand);
    device_save(&device, &saved);
    first = stream_save(&saved);
    sf_saved_clear(&saved);

    /* saving consumes nothing */
    device_save(&device, &saved);
    again = stream_save(&saved);
    sf_saved_clear(&saved);
    g_assert_cmpmem(first->data, first->len, again->data, again->len);

    g_assert(stream_load(&loaded, first->data, first->len));
    device_init(&other, type, rand);
    g_assert(device_restore(&other, &loaded));
    g_assert_null(spice_flow_check(other.flow));
    device_save(&other, &saved);
    /* time goes on in between, but stands still for who is stopped */
    saved.flow.turn_waited = loaded.flow.turn_waited;
    for (uint32_t i = 0; i < saved.flow.num_clients; i++) {
        saved.flow.clients[i].waited = loaded.flow.clients[i].waited;
    }
    second = stream_save(&saved);
    g_assert_cmpmem(first->data, first->len, second->data, second->len);
    sf_saved_clear(&saved);
    sf_saved_clear(&loaded);
    device_clear(&other);
    device_clear(&device);
}

static void test_round_trip(void)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(1);

    for (int i = 0; i < WALKS; i++) {
        for (size_t t = 0; t < ARRAY_SIZE(types); t++) {
            round_trip(types[t], rand);
        }
    }
}

/* What is loaded is taken over or refused, and what is taken over works. */
static void load_and_run(GByteArray *stream, uint8_t type, GRand *rand,
                         unsigned *taken, unsigned *refused, unsigned *failed)
{
    SFSaved loaded = { 0 };
    Device device;

    if (!stream_load(&loaded, stream->data, stream->len)) {
        (*failed)++;
        sf_saved_clear(&loaded);
        return;
    }
    device_init(&device, type, rand);
    if (!device_restore(&device, &loaded)) {
        (*refused)++;
    } else {
        (*taken)++;
        spice_flow_start(device.flow, 7000);
        for (uint32_t i = 0; i < loaded.flow.num_clients; i++) {
            spice_flow_client_remove(spice_flow_client_find(
                device.flow, loaded.flow.clients[i].params.id));
        }
        for (int i = 0; i < 50; i++) {
            spice_flow_guest_ready(device.flow);
        }
        spice_flow_stop(device.flow, 8000);
    }
    sf_saved_clear(&loaded);
    device_clear(&device);
}

static void test_damage(void)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(2);
    unsigned taken = 0, refused = 0, failed = 0;

    for (int i = 0; i < DAMAGES; i++) {
        uint8_t type = types[i % ARRAY_SIZE(types)];
        g_autoptr(GByteArray) stream = NULL;
        Device device;
        SFSaved saved;

        device_walk(&device, type, rand);
        device_save(&device, &saved);
        stream = stream_save(&saved);
        sf_saved_clear(&saved);
        device_clear(&device);
        if (i % 5 == 0) {
            g_byte_array_set_size(stream, g_rand_int_range(rand, 0,
                                                           stream->len));
        } else {
            /* Mostly near the front, where counts and lengths are. */
            for (int k = g_rand_int_range(rand, 1, 4); k; k--) {
                uint32_t n = g_rand_boolean(rand) ? stream->len
                                                  : MIN(stream->len, 200);

                stream->data[g_rand_int_range(rand, 0, n)] =
                    g_rand_int(rand);
            }
        }
        load_and_run(stream, type, rand, &taken, &refused, &failed);
    }
    g_test_message("%u taken, %u refused, %u failed to load", taken, refused,
                   failed);
    g_assert(taken && refused && failed);
}

/* Streams with one length that can not be: the error names it. */
static void test_lengths(void)
{
    static const struct {
        uint8_t type;
        const char *name;
        size_t offset;
    } cases[] = {
        { SPICE_CHANNEL_PORT, "num_clients", 3 + 4 + 4 + 8 + 1 },
        { SPICE_CHANNEL_PORT, "num_buffers", 3 + 4 + 4 + 8 + 1 + 4 },
        { SPICE_CHANNEL_PORT, "data_size", 3 + 4 + 4 + 8 + 1 + 8 },
        { SPICE_CHANNEL_PORT, "pending_size", 3 + 4 + 4 + 8 + 1 + 12 },
        { SPICE_CHANNEL_USBREDIR, "held_size",
          3 + 4 + 4 + 8 + 1 + 12 + 4 + 5 + 1 + 1 + 4 + 4 + 4 },
        { SPICE_CHANNEL_SMARTCARD, "size",
          3 + 4 + 4 + 8 + 1 + 12 + 1 + 1 + 4 + 4 + 4 },
        { SPICE_CHANNEL_MAIN, "num_clients",
          3 + 4 + 4 + 8 + 1 + 12 + 1 },
    };
    g_autoptr(GRand) rand = g_rand_new_with_seed(3);

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        static const uint32_t bad[] = { 0x7fffffff, 0x80000000, 0xffffffff,
                                        65 * 1024 * 1024 };

        for (size_t k = 0; k < ARRAY_SIZE(bad); k++) {
            g_autoptr(GByteArray) stream = NULL;
            g_autofree char *name = NULL;
            SFSaved saved, loaded = { 0 };
            Device device;

            device_init(&device, cases[i].type, rand);
            device_save(&device, &saved);
            stream = stream_save(&saved);
            sf_saved_clear(&saved);
            device_clear(&device);
            stl_be_p(stream->data + cases[i].offset, bad[k]);
            g_assert(!stream_load(&loaded, stream->data, stream->len));
            name = g_strdup_printf("/%s", cases[i].name);
            if (!strstr(reported->str, name)) {
                g_error("no %s in: %s", name, reported->str);
            }
            sf_saved_clear(&loaded);
        }
    }
}

static void mark_covered(const VMStateDescription *vmsd, uint8_t *seen,
                         size_t size)
{
    for (const VMStateField *field = vmsd->fields; field->name; field++) {
        size_t n = field->size;

        if (field->flags & VMS_MUST_EXIST) {
            continue;
        }
        if (field->flags & VMS_POINTER) {
            n = sizeof(void *);
        } else if (field->flags & VMS_ARRAY) {
            n *= field->num;
        }
        g_assert(field->offset + n <= size);
        memset(seen + field->offset, 1, n);
    }
    for (size_t i = 0; vmsd->subsections && vmsd->subsections[i]; i++) {
        mark_covered(vmsd->subsections[i], seen, size);
    }
}

/* Bytes of a struct that no field of its description covers. */
static size_t not_covered(const VMStateDescription *vmsd, size_t size)
{
    g_autofree uint8_t *seen = g_malloc0(size);
    size_t left = 0;

    mark_covered(vmsd, seen, size);
    for (size_t i = 0; i < size; i++) {
        left += !seen[i];
    }
    return left;
}

static const VMStateDescription *part(const VMStateDescription *vmsd,
                                      const char *name)
{
    for (const VMStateField *field = vmsd->fields; field->name; field++) {
        if (field->vmsd && g_str_equal(field->name, name)) {
            return field->vmsd;
        }
    }
    for (size_t i = 0; vmsd->subsections && vmsd->subsections[i]; i++) {
        if (g_str_has_suffix(vmsd->subsections[i]->name, name)) {
            return vmsd->subsections[i];
        }
    }
    g_error("%s has no part %s", vmsd->name, name);
}

/*
 * The number behind each is padding, and what need not be carried: parts of
 * SFSaved, and the agent's counts of the pieces that have passed.
 */
static void test_every_field(void)
{
    const VMStateDescription *saved = &sf_vmstate_saved;
    const VMStateDescription *flow = part(saved, "flow");
    const VMStateDescription *agent = part(saved, "agent");
    const VMStateDescription *vdagent = part(agent, "vdagent");
    const VMStateDescription *once = part(vdagent, "agent");
    const VMStateDescription *vmc = part(saved, "vmc");
    const VMStateDescription *guard = part(vmc, "guard");
    const VMStateDescription *order = part(part(guard, "/order"), "order");
    const VMStateDescription *card = part(saved, "card");
    const VMStateDescription *client = part(flow, "clients");
    const struct {
        const VMStateDescription *vmsd;
        size_t size;
        size_t padding;
    } all[] = {
        { saved, sizeof(SFSaved), sizeof(uint32_t) + 1 },
        { flow, sizeof(SpiceFlowSaved), 3 + 4 + 4 },
        { client, sizeof(SpiceFlowSavedClient), 7 },
        { part(client, "params"), sizeof(SpiceFlowClientParams), 3 + 12 },
        { part(flow, "buffers"), sizeof(SpiceFlowSavedBuffer), 0 },
        { agent, sizeof(SFSavedAgent), 3 },
        { part(agent, "clients"), sizeof(SFSavedAgentClient), 0 },
        { vdagent, sizeof(SpiceVdagentSaved), 3 + 4 + 4 },
        { once, sizeof(SpiceVdagentState), 24 },
        { part(once, "guest"), sizeof(SpiceVdagentCaps), 2 },
        { part(once, "selection"), sizeof(SpiceVdagentSelection), 12 },
        { part(once, "replies"), sizeof(SpiceVdagentQuestions),
          7 + SPICE_VDAGENT_QUESTIONS * 8 },
        { part(vdagent, "clients"), sizeof(SpiceVdagentClientState), 15 + 8 },
        { part(vdagent, "xfers"), sizeof(SpiceVdagentXferState), 12 },
        { part(vdagent, "statuses"), sizeof(SpiceVdagentStatusState), 0 },
        { vmc, sizeof(SFSavedVmc), 4 },
        { guard, sizeof(SpiceFlowUsbredirSaved), 3 + 4 },
        { part(guard, "stream"), sizeof(SpiceFlowUsbredirSavedStream), 3 },
        { order, sizeof(SpiceFlowUsbredirSavedOrder), 3 + 4 },
        { part(order, "device"), sizeof(SpiceFlowUsbredirDevice), 2 },
        { part(order, "requests"), sizeof(SpiceFlowUsbredirRequest), 3 },
        { card, sizeof(SFSavedCard), 2 + 4 },
        { part(card, "parser"), sizeof(SpiceFlowVscSaved), 0 },
        { &sf_vmstate_moving, sizeof(SFMoving), 0 },
        { part(&sf_vmstate_moving, "clients"), sizeof(SFMovingClient), 0 },
    };

    for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
        size_t n = not_covered(all[i].vmsd, all[i].size);

        if (n != all[i].padding) {
            g_test_message("%s: %zu bytes are not described, not %zu",
                           all[i].vmsd->name, n, all[i].padding);
            g_test_fail();
        }
    }
}

/* How long a save and a load of full queues take at best. */
static void test_time(void)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(4);
    SpiceFlowClientParams params = {
        .id = 1,
        .to_guest_bytes = 1024 * 1024,
        .to_guest_messages = 1024,
        .to_client_bytes = 1024 * 1024,
        .to_client_messages = 1024,
    };
    static uint8_t data[1024];
    SpiceFlowBuffer buffer = { .data = data, .len = sizeof(data) };
    SFSaved saved, loaded = { 0 };
    int64_t begin, save = INT64_MAX, load = INT64_MAX;
    SpiceFlowClient *client;
    Device device, other;
    size_t size = 0;

    device_init(&device, SPICE_CHANNEL_PORT, rand);
    client = device_add_client(&device, &params);
    for (int i = 0; i < 1024; i++) {
        g_assert(spice_flow_client_write(client, &buffer));
    }
    spice_flow_start(device.flow, 0);
    for (int i = 0; i < 1024; i++) {
        spice_flow_send_to(client, data, sizeof(data));
    }
    spice_flow_stop(device.flow, 0);

    for (int i = 0; i < 20; i++) {
        g_autoptr(GByteArray) stream = NULL;

        begin = g_get_monotonic_time();
        device_save(&device, &saved);
        stream = stream_save(&saved);
        save = MIN(save, g_get_monotonic_time() - begin);
        sf_saved_clear(&saved);

        device_init(&other, SPICE_CHANNEL_PORT, rand);
        begin = g_get_monotonic_time();
        g_assert(stream_load(&loaded, stream->data, stream->len));
        g_assert(device_restore(&other, &loaded));
        load = MIN(load, g_get_monotonic_time() - begin);
        size = stream->len;
        sf_saved_clear(&loaded);
        device_clear(&other);
    }
    g_test_message("stream of %zu bytes: save %" PRId64 " us, load %" PRId64
                   " us", size, save, load);
    device_clear(&device);
}

/* The guard's open requests: no more than a guard can have. */
static void test_requests_length(void)
{
    static const uint32_t bad[] = { SPICE_FLOW_USBREDIR_REQUESTS + 1,
                                    0x7fffffff, 0xffffffff };
    g_autoptr(GRand) rand = g_rand_new_with_seed(5);

    for (size_t k = 0; k < ARRAY_SIZE(bad); k++) {
        g_autoptr(GByteArray) stream = NULL;
        SFSaved saved, loaded = { 0 };
        Device device;

        device_init(&device, SPICE_CHANNEL_USBREDIR, rand);
        device_save(&device, &saved);
        saved.vmc.guard.order.num_requests = 1;
        saved.vmc.guard.order.requests = g_new0(SpiceFlowUsbredirRequest, 1);
        stream = stream_save(&saved);
        sf_saved_clear(&saved);
        device_clear(&device);
        /* behind it: one request, and the byte after the stream */
        stl_be_p(stream->data + stream->len - 1 - 13 - 4, bad[k]);
        g_assert(!stream_load(&loaded, stream->data, stream->len));
        g_assert(strstr(reported->str, "/num_requests"));
        sf_saved_clear(&loaded);
    }
}

/*
 * Streams of earlier versions, and of this one, which is to load in later ones.
 * To add one, run the test with SPICEFLOW_SAVE_STREAMS set to the folder to
 * write this version's to.
 */
static const struct {
    const char *name;
    uint8_t type;
    uint8_t version;            /* the one that this version writes has 2 */
    unsigned requests;
} streams[] = {
    { "v1-agent", SPICE_CHANNEL_MAIN, 1, 0 },
    { "v1-port", SPICE_CHANNEL_PORT, 1, 0 },
    { "v1-usbredir", SPICE_CHANNEL_USBREDIR, 1, 0 },
    { "v1-card", SPICE_CHANNEL_SMARTCARD, 1, 0 },
    { "v2-usbredir", SPICE_CHANNEL_USBREDIR, 2, 3 },
};

/* A device with some buffers and, of usbredir, some requests. */
static void walk_for_stream(Device *device, size_t i, GRand *rand,
                            SFSaved *saved)
{
    for (;;) {
        device_walk(device, streams[i].type, rand);
        device_save(device, saved);
        if (saved->flow.num_buffers >= 2 && saved->flow.num_buffers <= 6 &&
            saved->vmc.guard.order.num_requests == streams[i].requests) {
            return;
        }
        sf_saved_clear(saved);
        device_clear(device);
    }
}

static void write_stream(const char *folder, size_t i)
{
    g_autofree char *path = g_build_filename(folder, streams[i].name, NULL);
    g_autoptr(GRand) rand = g_rand_new_with_seed(40 + i);
    g_autoptr(GByteArray) stream = NULL;
    SFSaved saved;
    Device device;

    walk_for_stream(&device, i, rand, &saved);
    stream = stream_save(&saved);
    g_assert(g_file_set_contents(path, (char *)stream->data, stream->len,
                                 NULL));
    sf_saved_clear(&saved);
    device_clear(&device);
}

static void read_stream(size_t i)
{
    g_autofree char *path = g_build_filename(SPICEFLOW_SAVED_DIR,
                                             streams[i].name, NULL);
    g_autofree char *data = NULL;
    g_autoptr(GRand) rand = g_rand_new_with_seed(40 + i);
    SFSaved loaded = { 0 };
    SFSaved saved;
    Device device;
    gsize len;

    g_assert(g_file_get_contents(path, &data, &len, NULL));
    g_assert(stream_load(&loaded, (uint8_t *)data, len));
    device_init(&device, streams[i].type, rand);
    g_assert(device_restore(&device, &loaded));
    g_assert(loaded.flow.num_buffers > 0);
    device_save(&device, &saved);
    g_assert_cmpuint(saved.vmc.guard.order.num_requests, ==,
                     streams[i].requests);
    sf_saved_clear(&saved);
    sf_saved_clear(&loaded);
    device_clear(&device);
}

static void test_old_streams(void)
{
    const char *folder = g_getenv("SPICEFLOW_SAVE_STREAMS");

    for (size_t i = 0; i < ARRAY_SIZE(streams); i++) {
        if (folder) {
            if (streams[i].version == 2) {
                write_stream(folder, i);
            }
        } else {
            read_stream(i);
        }
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    module_call_init(MODULE_INIT_QOM);
    reported = g_string_new(NULL);
    g_test_add_func("/spiceflow/saved/every-field", test_every_field);
    g_test_add_func("/spiceflow/saved/round-trip", test_round_trip);
    g_test_add_func("/spiceflow/saved/lengths", test_lengths);
    g_test_add_func("/spiceflow/saved/requests-length", test_requests_length);
    g_test_add_func("/spiceflow/saved/damage", test_damage);
    g_test_add_func("/spiceflow/saved/old-streams", test_old_streams);
    g_test_add_func("/spiceflow/saved/time", test_time);
    return g_test_run();
}
