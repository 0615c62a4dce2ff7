/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Numbered, checksummed records, as the guest and the client exchange them in
 * a torture run
 *
 * Theory of operation
 *
 * A stream is a row of records, numbered from 0:
 *
 *   u32 magic, u32 checksum, u64 number, u32 size, u32 flags, payload
 *
 * in little endian.  The checksum is a CRC-32 of everything behind it.  Size
 * and payload come from a generator seeded by the stream's seed and the
 * number, so that short and long records follow each other without order.
 *
 * The reader judges and goes on: what it can not read as a record is passed
 * over to the next one that it can, once counted as "wrong"; a number that is
 * larger than the next makes the ones between "lost", a smaller one is
 * "repeated", which is also what a reordered one becomes.  A correct stream
 * has none of these, and ends with a record that is flagged as the last.
 *
 * It is plain C for both sides, and in a header as each program of the guest
 * is one file.
 */

#ifndef RECORD_H
#define RECORD_H

#include <endian.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define RECORD_MAGIC        UINT32_C(0x43455253)
#define RECORD_HEADER       24
#define RECORD_PAYLOAD_MAX  32768
#define RECORD_MAX          (RECORD_HEADER + RECORD_PAYLOAD_MAX)
#define RECORD_LAST         1u

typedef struct RecordReader {
    uint8_t buffer[2 * RECORD_MAX];
    size_t have;
    uint64_t next;          /* the number that is to come */
    bool anywhere;          /* begins in the middle: any number is the first */
    bool astray;            /* looking for the next record */
    bool ended;             /* the last one has come */
    uint64_t received, lost, repeated, wrong, bytes;
} RecordReader;

static uint32_t record_table[8][256];

static inline void record_table_fill(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t value = i;

        for (int bit = 0; bit < 8; bit++) {
            value = value >> 1 ^ (value & 1 ? UINT32_C(0xedb88320) : 0);
        }
        record_table[0][i] = value;
    }
    for (int i = 0; i < 256; i++) {
        for (int slice = 1; slice < 8; slice++) {
            uint32_t value = record_table[slice - 1][i];

            record_table[slice][i] = value >> 8 ^ record_table[0][value & 255];
        }
    }
}

/* Eight bytes at a time: the guest's processor may be an emulated one. */
static inline uint32_t record_crc(const uint8_t *data, size_t len)
{
    uint32_t crc = ~UINT32_C(0), low, high;

    if (!record_table[0][1]) {
        record_table_fill();
    }
    for (; len >= 8; data += 8, len -= 8) {
        memcpy(&low, data, 4);
        memcpy(&high, data + 4, 4);
        low = le32toh(low) ^ crc;
        high = le32toh(high);
        crc = record_table[7][low & 255] ^ record_table[6][low >> 8 & 255] ^
              record_table[5][low >> 16 & 255] ^ record_table[4][low >> 24] ^
              record_table[3][high & 255] ^ record_table[2][high >> 8 & 255] ^
              record_table[1][high >> 16 & 255] ^ record_table[0][high >> 24];
    }
    for (; len; data++, len--) {
        crc = crc >> 8 ^ record_table[0][(crc ^ *data) & 255];
    }
    return ~crc;
}

static inline uint64_t record_random(uint64_t *state)
{
    uint64_t value = *state += UINT64_C(0x9e3779b97f4a7c15);

    value = (value ^ value >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ value >> 27) * UINT64_C(0x94d049bb133111eb);
    return value ^ value >> 31;
}

static inline void record_put(uint8_t *to, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++) {
        to[i] = value >> 8 * i;
    }
}

static inline uint64_t record_get(const uint8_t *from, int bytes)
{
    uint64_t value = 0;

    for (int i = 0; i < bytes; i++) {
        value |= (uint64_t)from[i] << 8 * i;
    }
    return value;
}

/* Build record @number at @to, which has room for RECORD_MAX; its length. */
static inline size_t record_make(uint8_t *to, uint64_t seed, uint64_t number,
                                 bool last)
{
    static const uint32_t sizes[] = { 64, 4096, 4096, RECORD_PAYLOAD_MAX };
    uint64_t state = seed << 48 ^ number;
    uint64_t choice = record_random(&state);
    uint32_t size = (choice >> 8) % sizes[choice & 3] + 1;

    for (uint32_t at = 0; at < size; at += 8) {
        uint64_t word = htole64(record_random(&state));

        memcpy(to + RECORD_HEADER + at, &word, size - at < 8 ? size - at : 8);
    }
    record_put(to, RECORD_MAGIC, 4);
    record_put(to + 8, number, 8);
    record_put(to + 16, size, 4);
    record_put(to + 20, last ? RECORD_LAST : 0, 4);
    record_put(to + 4, record_crc(to + 8, RECORD_HEADER - 8 + size), 4);
    return RECORD_HEADER + size;
}

static inline void record_judge(RecordReader *reader, uint64_t number,
                                bool last)
{
    if (reader->anywhere) {
        reader->anywhere = false;
        reader->next = number;
    }
    if (number < reader->next) {
        reader->repeated++;
        return;
    }
    reader->lost += number - reader->next;
    reader->next = number + 1;
    reader->received++;
    reader->ended |= last;
}

/* Returns how many bytes at @data are done with; 0: more have to come. */
static inline size_t record_parse(RecordReader *reader, const uint8_t *data,
                                  size_t len)
{
    size_t size;

    if (len < RECORD_HEADER) {
        return 0;
    }
    size = record_get(data + 16, 4);
    if (record_get(data, 4) == RECORD_MAGIC && size <= RECORD_PAYLOAD_MAX) {
        if (len < RECORD_HEADER + size) {
            return 0;
        }
        if (record_crc(data + 8, RECORD_HEADER - 8 + size) ==
            record_get(data + 4, 4)) {
            reader->astray = false;
            record_judge(reader, record_get(data + 8, 8),
                         record_get(data + 20, 4) & RECORD_LAST);
            return RECORD_HEADER + size;
        }
    }
    if (!reader->astray) {
        reader->astray = true;
        reader->wrong += !reader->anywhere;
    }
    return 1;
}

/* Take what has come. */
static inline void record_take(RecordReader *reader, const uint8_t *data,
                               size_t len)
{
    reader->bytes += len;
    while (len) {
        size_t room = sizeof(reader->buffer) - reader->have;
        size_t n = len < room ? len : room, at = 0, used;

        memcpy(reader->buffer + reader->have, data, n);
        reader->have += n;
        data += n;
        len -= n;
        while ((used = record_parse(reader, reader->buffer + at,
                                    reader->have - at))) {
            at += used;
        }
        reader->have -= at;
        memmove(reader->buffer, reader->buffer + at, reader->have);
    }
}

#endif
