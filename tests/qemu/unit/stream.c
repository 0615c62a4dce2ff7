/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * States of devices as streams, by QEMU's own save and load code, and what
 * QEMU reports of them instead of returning it.
 */
#include "qemu/osdep.h"
#include "io/channel-buffer.h"
#include "migration/qemu-file-types.h"
#include "migration/vmstate.h"
#include "monitor/monitor.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "../migration/qemu-file.h"
#include "saved.h"
#include "stream.h"

/*
 * Errors that QEMU reports instead of returning
 */

GString *reported;

int error_vprintf(const char *fmt, va_list ap)
{
    size_t before = reported->len;

    g_string_append_vprintf(reported, fmt, ap);
    return reported->len - before;
}

int error_vprintf_unless_qmp(const char *fmt, va_list ap)
{
    return error_vprintf(fmt, ap);
}

/*
 * Streams
 */

GByteArray *stream_save_body(const VMStateDescription *vmsd, void *opaque)
{
    QIOChannelBuffer *ioc = qio_channel_buffer_new(4096);
    QEMUFile *f = qemu_file_new_output(QIO_CHANNEL(ioc));
    GByteArray *stream = g_byte_array_new();

#if QEMU_VERSION_MAJOR > 10 || QEMU_VERSION_MINOR >= 2
    g_assert(vmstate_save_state(f, vmsd, opaque, NULL, &error_abort) == 0);
#else
    g_assert(vmstate_save_state(f, vmsd, opaque, NULL) == 0);
#endif
    /* The load looks whether a subsection follows. */
    qemu_put_byte(f, 0);
    g_assert(qemu_fflush(f) == 0);
    g_byte_array_append(stream, ioc->data, ioc->usage);
    qemu_fclose(f);
    object_unref(OBJECT(ioc));
    return stream;
}

bool stream_load_body(const VMStateDescription *vmsd, void *opaque,
                      const uint8_t *data, size_t len)
{
    QIOChannelBuffer *ioc = qio_channel_buffer_new(len);
    QEMUFile *f;
    int ret;

    memcpy(ioc->data, data, len);
    ioc->usage = len;
    f = qemu_file_new_input(QIO_CHANNEL(ioc));
    g_string_truncate(reported, 0);
#if QEMU_VERSION_MAJOR > 10 || QEMU_VERSION_MINOR >= 2
    Error *err = NULL;

    ret = vmstate_load_state(f, vmsd, opaque, 1, &err);
    if (ret < 0) {
        g_string_append(reported, error_get_pretty(err));
        error_free(err);
    }
#else
    ret = vmstate_load_state(f, vmsd, opaque, 1);
#endif
    qemu_fclose(f);
    object_unref(OBJECT(ioc));
    return ret == 0;
}

GByteArray *stream_save(SFSaved *saved)
{
    saved->data_max = INT32_MAX;
    return stream_save_body(&sf_vmstate_saved, saved);
}

bool stream_load(SFSaved *saved, const uint8_t *data, size_t len)
{
    saved->data_max = SF_SAVED_DATA_MIN;
    return stream_load_body(&sf_vmstate_saved, saved, data, len);
}
