/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Times that were measured, in ns, in the order in which quantiles are read. */
#ifndef SPICEFLOW_PUMP_SAMPLES_H
#define SPICEFLOW_PUMP_SAMPLES_H

static inline int pump_samples_compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static inline void pump_samples_sort(uint32_t *samples, size_t n)
{
    qsort(samples, n, sizeof(samples[0]), pump_samples_compare);
}

#endif
