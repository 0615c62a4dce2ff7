/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What QEMU's usb-ccid does not tell its card.
 *
 * A reader drops what its guest has not fetched yet when a card is removed, and
 * no call says what that is.  But the reader describes its state for migration,
 * with the names of the fields, which can not change as long as old streams are
 * to load.  So the two positions in its ring of answers are read from there, by
 * name; where they are not found the caller has to do without.
 */
#include "qemu/osdep.h"
#include "hw/qdev-core.h"
#include "migration/vmstate.h"
#include "ccid.h"

#define CARD_TYPE       "ccid-card-passthru"
#define READER_TYPE     "usb-ccid"

typedef struct Search {
    const char *label;
    DeviceState *reader;
} Search;

static int search_card(Object *object, void *opaque)
{
    g_autofree char *label = NULL;
    Search *search = opaque;
    BusState *bus;

    if (!object_dynamic_cast(object, CARD_TYPE)) {
        return 0;
    }
    label = object_property_get_str(object, "chardev", NULL);
    bus = DEVICE(object)->parent_bus;
    if (!label || strcmp(label, search->label) || !bus || !bus->parent ||
        !object_dynamic_cast(OBJECT(bus->parent), READER_TYPE)) {
        return 0;
    }
    search->reader = bus->parent;
    return 1;
}

static const uint32_t *reader_field(DeviceState *reader, const char *name)
{
    const VMStateDescription *vmsd = qdev_get_vmsd(reader);

    for (const VMStateField *field = vmsd ? vmsd->fields : NULL;
         field && field->name; field++) {
        if (!strcmp(field->name, name)) {
            return field->flags == VMS_SINGLE &&
                   field->info == &vmstate_info_uint32 ?
                   (const void *)((const char *)reader + field->offset) : NULL;
        }
    }
    return NULL;
}

int sf_ccid_unfetched(const char *label)
{
    Search search = { .label = label };
    const uint32_t *start, *end;

    object_child_foreach_recursive(object_get_root(), search_card, &search);
    if (!search.reader) {
        return -1;
    }
    start = reader_field(search.reader, "bulk_in_pending_start");
    end = reader_field(search.reader, "bulk_in_pending_end");
    return start && end ? (int)(*end - *start) : -1;
}
