/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * USB redirection: a CD drive emulated by the client library
 *
 * Theory of operation
 *
 * The library's device manager connects every usbredir channel as soon as the
 * manager exists, so it is made only when asked for: by --usb or by the first
 * "usb" command.  "usb cd IMAGE" makes a drive with that image and redirects
 * it to the first free channel; "usb unplug" takes all redirected devices
 * back, as pulling the plug would.  The library throws an emulated drive away
 * when it is unplugged: to plug it in again is another "usb cd".
 *
 * A client that connects every channel claims every device of the server.  So
 * that two clients can share one, --usb-channel hides all channels but one
 * from the manager: our handler for new channels runs before its own, and
 * ends the emission of the signal there.
 */

#include <string.h>

#include "sfclient.h"

static SpiceUsbDeviceManager *manager;
static GQueue created = G_QUEUE_INIT;   /* names of drives not yet announced */
static guint unplugging, unplugged;

static void on_error(SpiceUsbDeviceManager *m G_GNUC_UNUSED,
                     SpiceUsbDevice *device G_GNUC_UNUSED, GError *error,
                     gpointer data G_GNUC_UNUSED)
{
    say("usb-error %s", error->message);
}

static void on_connected(GObject *source, GAsyncResult *result,
                         gpointer data)
{
    char *name = data;
    GError *error = NULL;

    if (spice_usb_device_manager_connect_device_finish(
            SPICE_USB_DEVICE_MANAGER(source), result, &error)) {
        say("done usb cd %s", name);
    } else {
        say("failed usb cd %s: %s", name, error->message);
        g_error_free(error);
    }
    g_free(name);
}

static void on_disconnected(GObject *source, GAsyncResult *result,
                            gpointer data G_GNUC_UNUSED)
{
    GError *error = NULL;

    if (spice_usb_device_manager_disconnect_device_finish(
            SPICE_USB_DEVICE_MANAGER(source), result, &error)) {
        unplugged++;
    } else {
        say("failed usb unplug: %s", error->message);
        g_error_free(error);
    }
    if (--unplugging == 0) {
        say("done usb unplug devices=%u", unplugged);
    }
}

static void on_added(SpiceUsbDeviceManager *m, SpiceUsbDevice *device,
                     gpointer data G_GNUC_UNUSED)
{
    char *text = spice_usb_device_get_description(device, NULL);

    say("usb-device %s", text);
    g_free(text);
    if (spice_usb_device_manager_is_device_shared_cd(m, device)) {
        spice_usb_device_manager_connect_device_async(
            m, device, NULL, on_connected, g_queue_pop_head(&created));
    }
}

static void on_removed(SpiceUsbDeviceManager *m G_GNUC_UNUSED,
                       SpiceUsbDevice *device, gpointer data G_GNUC_UNUSED)
{
    char *text = spice_usb_device_get_description(device, NULL);

    say("usb-removed %s", text);
    g_free(text);
}

static bool usb_open(void)
{
    GError *error = NULL;

    if (manager) {
        return true;
    }
    manager = spice_usb_device_manager_get(session, &error);
    if (!manager) {
        say("failed usb: %s", error->message);
        g_error_free(error);
        return false;
    }
    g_signal_connect(manager, "device-added", G_CALLBACK(on_added), NULL);
    g_signal_connect(manager, "device-removed", G_CALLBACK(on_removed), NULL);
    g_signal_connect(manager, "device-error", G_CALLBACK(on_error), NULL);
    return true;
}

static void usb_unplug(void)
{
    GPtrArray *devices = spice_usb_device_manager_get_devices(manager);

    unplugged = 0;
    for (guint i = 0; i < devices->len; i++) {
        SpiceUsbDevice *device = g_ptr_array_index(devices, i);

        if (spice_usb_device_manager_is_device_connected(manager, device)) {
            unplugging++;
            spice_usb_device_manager_disconnect_device_async(
                manager, device, NULL, on_disconnected, NULL);
        }
    }
    g_ptr_array_unref(devices);
    if (!unplugging) {
        say("failed usb unplug: no device is redirected");
    }
}

/* The drive is announced by on_added(), from in here or from an idle call. */
static void usb_cd(char *image)
{
    GError *error = NULL;
    char *name = g_path_get_basename(image);

    g_queue_push_tail(&created, name);
    if (!spice_usb_device_manager_create_shared_cd_device(manager, image,
                                                          &error)) {
        g_queue_remove(&created, name);
        say("failed usb cd %s: %s", name,
            error ? error->message : "no reason");
        g_clear_error(&error);
        g_free(name);
    }
}

static bool usb_command(int argc, char **argv)
{
    const char *word = argc > 1 ? argv[1] : "";

    if (!strcmp(word, "cd") && argc == 3) {
        if (usb_open()) {
            usb_cd(argv[2]);
        }
        return true;
    }
    if (!strcmp(word, "unplug") && argc == 2) {
        if (unplugging) {
            say("failed usb unplug: one is still under way");
        } else if (usb_open()) {
            usb_unplug();
        }
        return true;
    }
    return false;
}

static void usb_start(void)
{
    if (options.usb || options.usb_channel >= 0) {
        usb_open();
    }
}

static void usb_channel_new(SpiceChannel *channel)
{
    int id;

    g_object_get(channel, "channel-id", &id, NULL);
    if (SPICE_IS_USBREDIR_CHANNEL(channel) && options.usb_channel >= 0 &&
        id != options.usb_channel) {
        g_signal_stop_emission_by_name(session, "channel-new");
    }
}

const Part usb_part = {
    .name = "usb",
    .start = usb_start,
    .channel_new = usb_channel_new,
    .command = usb_command,
    .usage = "usb cd IMAGE | unplug",
};
