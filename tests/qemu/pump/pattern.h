/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The bytes that the pump and its peer exchange when they check content
 *
 * Byte number N of a stream is pump_pattern[N mod PUMP_PATTERN_PERIOD].  Both
 * ends make the same table from the same seed, so either can produce or check
 * any stretch of the stream knowing nothing but how far it has come.  The
 * period is a prime: whole buffers, pages or messages that are lost,
 * repeated or swapped never fall back into step.  The table goes on for
 * PUMP_PATTERN_MAX bytes past its period, so that every stretch up to that
 * length is contiguous in memory and costs its reader one memcmp.
 */

#ifndef SPICEFLOW_PUMP_PATTERN_H
#define SPICEFLOW_PUMP_PATTERN_H

#include <stddef.h>
#include <stdint.h>

#define PUMP_PATTERN_PERIOD 262139u     /* the largest prime below 2^18 */
#define PUMP_PATTERN_MAX    (1024u * 1024u)
#define PUMP_PATTERN_SIZE   (PUMP_PATTERN_PERIOD + PUMP_PATTERN_MAX)

/**
 * pump_pattern_fill:
 * @table: PUMP_PATTERN_SIZE bytes to be filled
 */
static inline void pump_pattern_fill(uint8_t *table)
{
    uint64_t x = 0x5f10a1d5c0ffee11ull;
    size_t i;

    for (i = 0; i < PUMP_PATTERN_PERIOD; i++) {
        /* xorshift64: any nonzero seed runs through all 2^64 - 1 states */
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        table[i] = (uint8_t)(x >> 32);
    }
    for (; i < PUMP_PATTERN_SIZE; i++) {
        table[i] = table[i - PUMP_PATTERN_PERIOD];
    }
}

/**
 * pump_pattern_at:
 * @table: a filled table
 * @offset: position in the stream
 *
 * Returns: the bytes of the stream from @offset on; PUMP_PATTERN_MAX of
 * them may be looked at.
 */
static inline const uint8_t *pump_pattern_at(const uint8_t *table,
                                             uint64_t offset)
{
    return table + offset % PUMP_PATTERN_PERIOD;
}

/**
 * pump_pattern_mismatch:
 * @table: a filled table
 * @offset: position in the stream of the first byte of @buf
 * @buf: what was received
 * @len: how much of it, any size
 *
 * Returns: how many bytes at the start of @buf are right; @len if all are.
 */
static inline size_t pump_pattern_mismatch(const uint8_t *table,
                                           uint64_t offset,
                                           const uint8_t *buf, size_t len)
{
    size_t done = 0;

    while (done < len) {
        const uint8_t *want = pump_pattern_at(table, offset + done);
        size_t part = len - done;
        size_t i;

        if (part > PUMP_PATTERN_MAX) {
            part = PUMP_PATTERN_MAX;
        }
        if (__builtin_memcmp(buf + done, want, part)) {
            for (i = 0; buf[done + i] == want[i]; i++) {
                continue;
            }
            return done + i;
        }
        done += part;
    }
    return len;
}

#endif /* SPICEFLOW_PUMP_PATTERN_H */
