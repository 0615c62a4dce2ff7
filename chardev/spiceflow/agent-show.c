/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The agent's members of the chardev's `flow` property: capabilities by name,
 * who owns which clipboard, what became of messages.
 */
#include "qemu/osdep.h"
#include "qobject/qlist.h"
#include "agent.h"

#include <spice/vd_agent.h>

static const char *const cap_names[] = {
    [VD_AGENT_CAP_MOUSE_STATE] = "mouse-state",
    [VD_AGENT_CAP_MONITORS_CONFIG] = "monitors-config",
    [VD_AGENT_CAP_REPLY] = "reply",
    [VD_AGENT_CAP_CLIPBOARD] = "clipboard",
    [VD_AGENT_CAP_DISPLAY_CONFIG] = "display-config",
    [VD_AGENT_CAP_CLIPBOARD_BY_DEMAND] = "clipboard-by-demand",
    [VD_AGENT_CAP_CLIPBOARD_SELECTION] = "clipboard-selection",
    [VD_AGENT_CAP_SPARSE_MONITORS_CONFIG] = "sparse-monitors-config",
    [VD_AGENT_CAP_GUEST_LINEEND_LF] = "guest-lineend-lf",
    [VD_AGENT_CAP_GUEST_LINEEND_CRLF] = "guest-lineend-crlf",
    [VD_AGENT_CAP_MAX_CLIPBOARD] = "max-clipboard",
    [VD_AGENT_CAP_AUDIO_VOLUME_SYNC] = "audio-volume-sync",
    [VD_AGENT_CAP_MONITORS_CONFIG_POSITION] = "monitors-config-position",
    [VD_AGENT_CAP_FILE_XFER_DISABLED] = "file-xfer-disabled",
    [VD_AGENT_CAP_FILE_XFER_DETAILED_ERRORS] = "file-xfer-detailed-errors",
    [VD_AGENT_CAP_GRAPHICS_DEVICE_INFO] = "graphics-device-info",
    [VD_AGENT_CAP_CLIPBOARD_NO_RELEASE_ON_REGRAB] =
        "clipboard-no-release-on-regrab",
    [VD_AGENT_CAP_CLIPBOARD_GRAB_SERIAL] = "clipboard-grab-serial",
};

static QList *caps_list(uint32_t caps)
{
    QList *list = qlist_new();

    for (unsigned i = 0; i < 32; i++) {
        if (!(caps & BIT(i))) {
            continue;
        }
        if (i < ARRAY_SIZE(cap_names)) {
            qlist_append_str(list, cap_names[i]);
        } else {
            g_autofree char *name = g_strdup_printf("capability-%u", i);

            qlist_append_str(list, name);
        }
    }
    return list;
}

static QDict *owner_dict(uint32_t owner)
{
    QDict *dict = qdict_new();

    if (owner == 0 || owner == UINT32_MAX) {
        qdict_put_str(dict, "owner", owner ? "guest" : "nobody");
    } else {
        qdict_put_str(dict, "owner", "client");
        qdict_put_int(dict, "connection-id", owner);
    }
    return dict;
}

void sf_agent_describe(SFDevice *device, QDict *dict)
{
    static const char *const selection[] = { "clipboard", "primary",
                                             "secondary" };
    SFAgent *agent = device->priv;
    QDict *own = qdict_new(), *owners = qdict_new(), *messages = qdict_new();
    SpiceVdagentInfo info;

    spice_vdagent_info(agent->agent, &info);
    for (unsigned i = 0; i < ARRAY_SIZE(selection); i++) {
        qdict_put(owners, selection[i], owner_dict(info.clipboard_owner[i]));
    }
    for (unsigned i = 0; i < SPICE_VDAGENT_EV__MAX; i++) {
        qdict_put_int(messages, spice_vdagent_event_name(i), info.messages[i]);
    }
    qdict_put_bool(own, "connected", sf_agent_connected(device));
    qdict_put(own, "guest-capabilities", caps_list(info.guest_caps));
    qdict_put_int(own, "started-clients", info.started);
    qdict_put_int(own, "transfers", info.transfers);
    qdict_put(own, "clipboards", owners);
    qdict_put(own, "messages", messages);
    qdict_put(dict, "agent", own);
}
