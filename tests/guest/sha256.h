/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * SHA-256 (FIPS 180-4), incremental, for static programs in the guest
 *
 * The guest has no library to take it from; the message is processed as it
 * comes, so that a large file need not be kept.  Where the CPU has the SHA
 * instructions they are used: in an emulated CPU one of them does as much as
 * hundreds of others, and costs as little.
 */

#ifndef SHA256_H
#define SHA256_H

#include <cpuid.h>
#include <endian.h>
#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef struct Sha256 {
    uint32_t h[8];
    uint64_t total;
    uint8_t block[64];
} Sha256;

static inline void sha256_init(Sha256 *s)
{
    static const uint32_t start[8] = {
        0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
        0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
    };

    memcpy(s->h, start, sizeof(start));
    s->total = 0;
}

static inline uint32_t sha256_ror(uint32_t x, int n)
{
    return x >> n | x << (32 - n);
}

static const uint32_t sha256_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b,
    0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01,
    0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7,
    0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc,
    0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152,
    0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
    0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc,
    0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819,
    0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08,
    0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
    0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static inline bool sha256_cpu_has_sha(void)
{
    unsigned a, b, c, d;

    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && b & bit_SHA;
}

/* Four rounds at a time; the state is kept as the instructions want it. */
__attribute__((target("sha,sse4.1")))
static inline void sha256_block_fast(Sha256 *s, const uint8_t *data)
{
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b,
                                        0x0405060700010203);
    __m128i dcba = _mm_loadu_si128((const void *)&s->h[0]);
    __m128i hgfe = _mm_loadu_si128((const void *)&s->h[4]);
    __m128i cdab = _mm_shuffle_epi32(dcba, 0xb1);
    __m128i efgh = _mm_shuffle_epi32(hgfe, 0x1b);
    __m128i abef = _mm_alignr_epi8(cdab, efgh, 8);
    __m128i cdgh = _mm_blend_epi16(efgh, cdab, 0xf0);
    const __m128i abef0 = abef, cdgh0 = cdgh;
    __m128i m[4], w;

    for (int i = 0; i < 16; i++) {
        if (i < 4) {
            w = _mm_loadu_si128((const void *)(data + 16 * i));
            w = _mm_shuffle_epi8(w, swap);
        } else {
            w = _mm_sha256msg1_epu32(m[i % 4], m[(i + 1) % 4]);
            w = _mm_add_epi32(w, _mm_alignr_epi8(m[(i + 3) % 4],
                                                 m[(i + 2) % 4], 4));
            w = _mm_sha256msg2_epu32(w, m[(i + 3) % 4]);
        }
        m[i % 4] = w;
        w = _mm_add_epi32(w, _mm_loadu_si128(
            (const void *)&sha256_k[4 * i]));
        cdgh = _mm_sha256rnds2_epu32(cdgh, abef, w);
        abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(w, 0x0e));
    }
    abef = _mm_add_epi32(abef, abef0);
    cdgh = _mm_add_epi32(cdgh, cdgh0);
    cdab = _mm_shuffle_epi32(abef, 0x1b);       /* f e b a, reversed */
    efgh = _mm_shuffle_epi32(cdgh, 0xb1);
    _mm_storeu_si128((void *)&s->h[0], _mm_blend_epi16(cdab, efgh, 0xf0));
    _mm_storeu_si128((void *)&s->h[4], _mm_alignr_epi8(efgh, cdab, 8));
}

static inline void sha256_block_plain(Sha256 *s, const uint8_t *data)
{
    uint32_t w[64], v[8];

    for (int i = 0; i < 16; i++) {
        memcpy(&w[i], data + 4 * i, 4);
        w[i] = be32toh(w[i]);
    }
    for (int i = 16; i < 64; i++) {
        uint32_t a = w[i - 15], b = w[i - 2];

        w[i] = w[i - 16] + w[i - 7] +
            (sha256_ror(a, 7) ^ sha256_ror(a, 18) ^ a >> 3) +
            (sha256_ror(b, 17) ^ sha256_ror(b, 19) ^ b >> 10);
    }
    memcpy(v, s->h, sizeof(v));
    for (int i = 0; i < 64; i++) {
        uint32_t t1 = v[7] + sha256_k[i] + w[i] +
            ((v[4] & v[5]) ^ (~v[4] & v[6])) +
            (sha256_ror(v[4], 6) ^ sha256_ror(v[4], 11) ^
             sha256_ror(v[4], 25));
        uint32_t t2 = ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2])) +
            (sha256_ror(v[0], 2) ^ sha256_ror(v[0], 13) ^
             sha256_ror(v[0], 22));

        memmove(v + 1, v, 7 * sizeof(*v));
        v[4] += t1;
        v[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++) {
        s->h[i] += v[i];
    }
}

static inline void sha256_block(Sha256 *s, const uint8_t *data)
{
    static int fast = -1;

    if (fast < 0) {
        fast = sha256_cpu_has_sha();
    }
    if (fast) {
        sha256_block_fast(s, data);
    } else {
        sha256_block_plain(s, data);
    }
}

static inline void sha256_update(Sha256 *s, const void *data, size_t len)
{
    const uint8_t *p = data;
    size_t used = s->total % 64;

    s->total += len;
    if (used && used + len >= 64) {
        memcpy(s->block + used, p, 64 - used);
        sha256_block(s, s->block);
        p += 64 - used;
        len -= 64 - used;
        used = 0;
    }
    while (len >= 64) {
        sha256_block(s, p);
        p += 64;
        len -= 64;
    }
    memcpy(s->block + used, p, len);
}

/* The sum as hex text; ends the calculation. */
static inline void sha256_final(Sha256 *s, char text[65])
{
    static const uint8_t pad[64] = { 0x80 };
    uint64_t bits = htobe64(s->total * 8);

    sha256_update(s, pad, 1 + (119 - s->total % 64) % 64);
    sha256_update(s, &bits, 8);
    for (int i = 0; i < 8; i++) {
        sprintf(text + 8 * i, "%08x", s->h[i]);
    }
}

#endif
