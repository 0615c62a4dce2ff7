/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * States of devices as streams, by QEMU's own save and load code.
 */
#ifndef SPICEFLOW_TEST_STREAM_H
#define SPICEFLOW_TEST_STREAM_H

#include "saved.h"

/* What was reported last; the program makes it. */
extern GString *reported;

/* What a description makes of a struct.  A load fails with a report. */
GByteArray *stream_save_body(const VMStateDescription *vmsd, void *opaque);
bool stream_load_body(const VMStateDescription *vmsd, void *opaque,
                      const uint8_t *data, size_t len);

/* The same for the state of a device. */
GByteArray *stream_save(SFSaved *saved);
bool stream_load(SFSaved *saved, const uint8_t *data, size_t len);

#endif
