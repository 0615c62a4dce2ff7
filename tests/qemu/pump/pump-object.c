/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * spiceflow-pump as an object: its settings, `running` and `results`, which are
 * properties that QMP reads and sets.  What they mean is in pump.c.
 */

#include "qemu/osdep.h"
#include "hw/qdev-properties.h"
#include "hw/qdev-properties-system.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "qemu/module.h"
#include "qemu/timer.h"
#include "qemu/units.h"

#include "pattern.h"
#include "pump.h"
#include "samples.h"

#define PUMP_MAX_UNIT  PUMP_PATTERN_MAX
#define PUMP_MAX_COUNT (10u * 1000 * 1000)

const char *const pump_mode_names[] = {
    [PUMP_SOURCE] = "source",
    [PUMP_SINK] = "sink",
    [PUMP_ECHO] = "echo",
    [PUMP_PING] = "ping",
    NULL
};

static const QEnumLookup pump_mode_lookup = {
    .array = pump_mode_names,
    .size = ARRAY_SIZE(pump_mode_names) - 1,
};

static bool pump_get_running(Object *obj, Error **errp)
{
    return SPICEFLOW_PUMP(obj)->running;
}

static void pump_set_running(Object *obj, bool value, Error **errp)
{
    SpiceFlowPump *p = SPICEFLOW_PUMP(obj);

    if (!DEVICE(obj)->realized) {
        error_setg(errp, "spiceflow-pump: 'running' can be set only after "
                   "the device was created");
        return;
    }
    if (value == p->running && value) {
        error_setg(errp, "spiceflow-pump: it is running already");
        return;
    }
    if (value) {
        pump_start(p, errp);
    } else {
        pump_stop(p);
    }
}

/* Settings */

static bool pump_may_set(SpiceFlowPump *p, const char *name, Error **errp)
{
    if (p->running) {
        error_setg(errp, "spiceflow-pump: '%s' can not be changed while the "
                   "pump is running", name);
        return false;
    }
    return true;
}

static int pump_get_mode(Object *obj, Error **errp)
{
    return SPICEFLOW_PUMP(obj)->set.mode;
}

static void pump_set_mode(Object *obj, int value, Error **errp)
{
    SpiceFlowPump *p = SPICEFLOW_PUMP(obj);

    if (pump_may_set(p, "mode", errp)) {
        p->set.mode = value;
    }
}

/* One description per plain setting; all are unsigned with a range */
typedef struct PumpSetting {
    const char *name;
    const char *help;
    size_t offset;
    uint64_t min;
    uint64_t max;
    uint64_t initial;
    enum { PUMP_BOOL, PUMP_U32, PUMP_U64 } kind;
} PumpSetting;

static const PumpSetting pump_settings[] = {
    { "write-size", "bytes in one write to the chardev",
      offsetof(PumpSettings, write_size), 1, PUMP_MAX_UNIT, 4 * KiB, PUMP_U32 },
    { "can-read-size", "bytes accepted in one read from the chardev",
      offsetof(PumpSettings, can_read_size), 1, PUMP_MAX_UNIT, 4 * KiB,
      PUMP_U32 },
    { "burst", "bytes per direction and turn of the main loop, 0: no limit",
      offsetof(PumpSettings, burst), 0, 1 * GiB, 512 * KiB, PUMP_U32 },
    { "count", "round trips in mode ping",
      offsetof(PumpSettings, count), 1, PUMP_MAX_COUNT, 10000, PUMP_U32 },
    { "total", "bytes to move in the other modes",
      offsetof(PumpSettings, total), 0, INT64_MAX, 256 * MiB, PUMP_U64 },
    { "verify", "the data carries its position and is checked when read",
      offsetof(PumpSettings, verify), 0, 1, 0, PUMP_BOOL },
    { "agent", "mode source writes what a SPICE agent would",
      offsetof(PumpSettings, agent), 0, 1, 0, PUMP_BOOL },
    { "defer", "modes echo and ping answer from a bottom half",
      offsetof(PumpSettings, defer), 0, 1, 0, PUMP_BOOL },
    { "drops", "mode source loses what is not taken, and does not wait",
      offsetof(PumpSettings, drops), 0, 1, 0, PUMP_BOOL },
};

static uint64_t pump_load(const SpiceFlowPump *p, const PumpSetting *s)
{
    const char *field = (const char *)&p->set + s->offset;

    switch (s->kind) {
    case PUMP_BOOL:
        return *(const bool *)field;
    case PUMP_U32:
        return *(const uint32_t *)field;
    default:
        return *(const uint64_t *)field;
    }
}

static void pump_store(SpiceFlowPump *p, const PumpSetting *s, uint64_t value)
{
    char *field = (char *)&p->set + s->offset;

    switch (s->kind) {
    case PUMP_BOOL:
        *(bool *)field = value;
        break;
    case PUMP_U32:
        *(uint32_t *)field = value;
        break;
    default:
        *(uint64_t *)field = value;
        break;
    }
}

static void pump_get_setting(Object *obj, Visitor *v, const char *name,
                             void *opaque, Error **errp)
{
    const PumpSetting *s = opaque;
    uint64_t value = pump_load(SPICEFLOW_PUMP(obj), s);
    bool on = value;

    if (s->kind == PUMP_BOOL) {
        visit_type_bool(v, name, &on, errp);
    } else {
        visit_type_uint64(v, name, &value, errp);
    }
}

static void pump_set_setting(Object *obj, Visitor *v, const char *name,
                             void *opaque, Error **errp)
{
    const PumpSetting *s = opaque;
    SpiceFlowPump *p = SPICEFLOW_PUMP(obj);
    uint64_t value;
    bool on;

    if (s->kind == PUMP_BOOL) {
        if (!visit_type_bool(v, name, &on, errp)) {
            return;
        }
        value = on;
    } else if (!visit_type_size(v, name, &value, errp)) {
        return;
    }
    if (!pump_may_set(p, name, errp)) {
        return;
    }
    if (value < s->min || value > s->max) {
        error_setg(errp, "spiceflow-pump: '%s' must be from %" PRIu64
                   " to %" PRIu64 ", not %" PRIu64,
                   name, s->min, s->max, value);
        return;
    }
    pump_store(p, s, value);
}

/* Results */

/* The value that @permille of the samples do not exceed */
static uint64_t pump_quantile(SpiceFlowPump *p, unsigned permille)
{
    uint32_t n = p->res.round_trips;

    if (!n || p->running) {
        return 0;
    }
    if (!p->sorted) {
        pump_samples_sort(p->samples, n);
        p->sorted = true;
    }
    return p->samples[(uint64_t)(n - 1) * permille / 1000];
}

static void pump_get_results(Object *obj, Visitor *v, const char *name,
                             void *opaque, Error **errp)
{
    SpiceFlowPump *p = SPICEFLOW_PUMP(obj);
    const PumpResults *r = &p->res;
    int64_t end = p->running ? get_clock() : r->finished_ns;
    struct {
        const char *name;
        uint64_t value;
    } numbers[] = {
        { "elapsed-ns", end - r->started_ns },
        { "started-ns", r->started_ns },
        { "first-ns", r->first_ns },
        { "finished-ns", r->finished_ns },
        { "bytes-written", r->written },
        { "bytes-read", r->read },
        { "writes", r->writes },
        { "reads", r->reads },
        { "short-writes", r->short_writes },
        { "zero-writes", r->zero_writes },
        { "watches", r->watches },
        { "turns", r->turns },
        { "round-trips", r->round_trips },
        { "min-ns", pump_quantile(p, 0) },
        { "p50-ns", pump_quantile(p, 500) },
        { "p90-ns", pump_quantile(p, 900) },
        { "p99-ns", pump_quantile(p, 990) },
        { "max-ns", pump_quantile(p, 1000) },
    };
    bool done = r->finished_ns && !p->error &&
        (p->set.mode == PUMP_PING ? r->round_trips == p->set.count :
         p->set.mode == PUMP_SINK ? r->read == p->set.total :
         r->written == p->set.total);
    char *error = p->error ? p->error : (char *)"";
    size_t i;

    if (!visit_start_struct(v, name, NULL, 0, errp)) {
        return;
    }
    if (!visit_type_bool(v, "running", &p->running, errp) ||
        !visit_type_bool(v, "opened", &p->opened, errp) ||
        !visit_type_bool(v, "done", &done, errp) ||
        !visit_type_str(v, "error", &error, errp)) {
        goto out;
    }
    for (i = 0; i < ARRAY_SIZE(numbers); i++) {
        if (!visit_type_uint64(v, numbers[i].name, &numbers[i].value, errp)) {
            goto out;
        }
    }
    visit_check_struct(v, errp);
out:
    visit_end_struct(v, NULL);
}

/* The device */

static void pump_init(Object *obj)
{
    SpiceFlowPump *p = SPICEFLOW_PUMP(obj);
    size_t i;

    for (i = 0; i < ARRAY_SIZE(pump_settings); i++) {
        pump_store(p, &pump_settings[i], pump_settings[i].initial);
    }
}

static const Property pump_properties[] = {
    DEFINE_PROP_CHR("chardev", SpiceFlowPump, chr),
};

static void pump_class_init(ObjectClass *klass, TestClassData *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    size_t i;

    dc->desc = "feeds and drains a chardev without a guest, for measuring";
    dc->realize = pump_realize;
    dc->unrealize = pump_unrealize;
    dc->hotpluggable = false;
    device_class_set_props(dc, pump_properties);
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);

    object_class_property_add_enum(klass, "mode", "SpiceFlowPumpMode",
                                   &pump_mode_lookup,
                                   pump_get_mode, pump_set_mode);
    object_class_property_set_description(klass, "mode",
                                          "source, sink, echo or ping");
    for (i = 0; i < ARRAY_SIZE(pump_settings); i++) {
        const PumpSetting *s = &pump_settings[i];

        object_class_property_add(klass, s->name,
                                  s->kind == PUMP_BOOL ? "bool" : "size",
                                  pump_get_setting, pump_set_setting,
                                  NULL, (void *)s);
        object_class_property_set_description(klass, s->name, s->help);
    }
    object_class_property_add_bool(klass, "running", pump_get_running,
                                   pump_set_running);
    object_class_property_set_description(klass, "running",
                                          "set it to start or to stop");
    object_class_property_add(klass, "results", "SpiceFlowPumpResults",
                              pump_get_results, NULL, NULL, NULL);
    object_class_property_set_description(klass, "results",
                                          "what the last run did");
}

static const TypeInfo pump_types[] = {
    {
        .name = TYPE_SPICEFLOW_PUMP,
        .parent = TYPE_DEVICE,
        .instance_size = sizeof(SpiceFlowPump),
        .instance_init = pump_init,
        .class_init = pump_class_init,
    },
};

module_obj(TYPE_SPICEFLOW_PUMP);

DEFINE_TYPES(pump_types)
