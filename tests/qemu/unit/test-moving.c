/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the stream tells of clients that are to go on where it is loaded: a
 * list beside the state of a device, whole and damaged in every bit.
 */
#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/module.h"
#include "saved.h"
#include "stream.h"

static void test_moving(void)
{
    SFMovingClient clients[] = { { 17, 3 }, { UINT32_MAX, 0 }, { 1, 2 } };
    SFMoving saved = { .place = 5, .num = 3, .clients = clients };
    g_autoptr(GByteArray) stream = stream_save_body(&sf_vmstate_moving,
                                                    &saved);
    SFMoving loaded = { 0 };

    g_assert(stream_load_body(&sf_vmstate_moving, &loaded, stream->data,
                              stream->len));
    g_assert_cmpuint(loaded.place, ==, 5);
    g_assert_cmpmem(loaded.clients, loaded.num * sizeof(*clients), clients,
                    sizeof(clients));
    sf_moving_clear(&loaded);

    /* a number that can not be */
    stl_be_p(stream->data + 4, SF_SAVED_CLIENTS_MAX + 1);
    g_assert(!stream_load_body(&sf_vmstate_moving, &loaded, stream->data,
                               stream->len));
    g_assert(strstr(reported->str, "/num"));
    sf_moving_clear(&loaded);
    stl_be_p(stream->data + 4, 3);

    for (size_t at = 0; at < stream->len; at++) {
        for (int bit = 0; bit < 8; bit++) {
            stream->data[at] ^= 1 << bit;
            if (stream_load_body(&sf_vmstate_moving, &loaded, stream->data,
                                 stream->len)) {
                g_assert_cmpuint(loaded.num, <=, stream->len / 8);
            } else {
                g_assert_cmpuint(reported->len, >, 0);
            }
            sf_moving_clear(&loaded);
            stream->data[at] ^= 1 << bit;
        }
        g_assert(!stream_load_body(&sf_vmstate_moving, &loaded, stream->data,
                                   at) || at + 1 == stream->len);
        sf_moving_clear(&loaded);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    module_call_init(MODULE_INIT_QOM);
    reported = g_string_new(NULL);
    g_test_add_func("/spiceflow/moving/carried-and-damaged", test_moving);
    return g_test_run();
}
