/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Bodies of COMPRESSED_DATA messages: u8 type, u32 uncompressed size, one LZ4
 * block.
 */
#ifndef CHARDEV_SPICEFLOW_COMPRESS_H
#define CHARDEV_SPICEFLOW_COMPRESS_H

#include "chardev/spiceflow/wire.h"

/* Shorter data is not worth it: spice-server's and spice-gtk's threshold. */
#define SF_COMPRESS_MIN         1001
/*
 * What one message may unpack to.  Clients compress one usbredir packet, and a
 * guest asks for at most 1 MiB in one transfer.
 */
#define SF_UNCOMPRESSED_MAX     (1024 * 1024 + 4096)
/* What such a message may be long: incompressible data grows by 1/255. */
#define SF_COMPRESSED_MAX       (5 + SF_UNCOMPRESSED_MAX + \
                                 SF_UNCOMPRESSED_MAX / 255 + 16)

/**
 * sf_compress: make the body of a COMPRESSED_DATA message.
 * @data: the bytes
 * @len: how many
 *
 * Returns: the body, or NULL when it would not be smaller than @data.
 */
GByteArray *sf_compress(const uint8_t *data, size_t len);

/**
 * sf_uncompress: unpack the body of a COMPRESSED_DATA message.
 * @body: the body
 * @len: its bytes
 * @why: set to what is wrong with it
 *
 * Returns: the data, or NULL.
 */
GByteArray *sf_uncompress(const uint8_t *body, size_t len, const char **why);

#endif
