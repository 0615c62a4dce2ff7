# SPDX-License-Identifier: GPL-2.0-or-later
"""What hinders clipboard, files, USB, cards and ports, and what to do.

How it works.  A Case is all that the VM says, twice, a moment apart: what is
stuck is what waits both times while nothing has moved.  For each feature
diagnose() makes a list of findings, in the order in which somebody would look:
the machine, the server, the client, the device, its frontend, the guest, the
policy, the flow.  A finding that is "wrong" means that the feature does not
work, a "note" that it may not do what is expected of it.
"""

import os
import time

import qmp
import vm

FEATURES = {
    "clipboard": "clipboard",
    "files": "file copy",
    "usb": "USB",
    "card": "smart card",
    "port": "ports",
}

AGENT_PORT = "com.redhat.spice.0"
WEBDAV_PORT = "org.spice-space.webdav.0"

FRONTENDS = {"vdagent": "virtserialport", "usbredir": "usb-redir",
             "smartcard": "ccid-card-passthru"}

REFUSALS = {
    "authentication": "give the viewer the password that the secret object "
                      "holds; a new secret counts from the next connection",
    "tls-required": "connect with TLS: remote-viewer 'spice://HOST?tls-port="
                    "PORT', with --spice-ca-file for an authority of your own",
    "tls-failed": "see that the viewer has the authority's certificate, that "
                  "the server's names its host, and that both are in time; "
                  "with verify-peer=on the viewer needs one too",
    "max-clients": "close another viewer, or raise max-clients",
    "unknown-client": "connect the viewer anew",
    "no-such-channel": "connect the viewer anew: it asks for a device that "
                       "was removed",
    "channel-busy": "close the viewer that has the device",
    "timeout": "see that the network lets through what comes after the "
               "connection; on a slow one raise link-timeout",
    "too-many-links": "something opens connections and says nothing; raise "
                      "max-pending-links, or keep it away",
    "protocol-error": "what connects there is no SPICE viewer, or comes with "
                      "TLS to a server without",
}


class Finding:
    """One thing that was noticed."""

    def __init__(self, code, where, text, advice="", wrong=True):
        self.code = code        # for programs; does not change
        self.where = where      # id of a device or server, or None
        self.text = text
        self.advice = advice
        self.wrong = wrong

    def as_json(self):
        return {"code": self.code, "wrong": self.wrong, "where": self.where,
                "text": self.text, "advice": self.advice}


class Case:
    """What the VM says of itself, twice."""

    def __init__(self, machine, interval):
        self.before = machine.devices()
        time.sleep(interval)
        self.state = machine.state()
        self.frontends = {}
        for folder in ("/machine/peripheral", "/machine/peripheral-anon"):
            for name, kind in machine.children(folder):
                self.add_frontend(machine, folder + "/" + name, kind)

    def add_frontend(self, machine, path, kind):
        """A device that may have a chardev, and what concerns us of it."""
        def get(name):
            try:
                return machine.get(path, name)
            except qmp.Refused:
                return None
        chardev = get("chardev")
        if not isinstance(chardev, str):
            return
        found = {"path": path, "type": kind}
        if kind == "virtserialport":
            found["name"] = get("name")
            found["driver"] = self.driver(machine, get("parent_bus"))
        elif kind == "usb-redir":
            found["attached"] = get("attached")
        self.frontends[chardev] = found

    @staticmethod
    def driver(machine, bus):
        """Whether the guest drives a virtio device; None if not known."""
        try:
            status = machine.monitor.execute(
                "x-query-virtio-status", {"path": os.path.dirname(bus or "")})
            return any("DRIVER_OK" in s
                       for s in status["status"]["statuses"])
        except (qmp.Refused, KeyError, TypeError):
            return None

    def devices(self, *names):
        """(device, its flow, its flow before) of those with these names."""
        old = {d["id"]: d["flow"] for d in self.before}
        for device in self.state["devices"]:
            flow = device["flow"]
            kind = flow["name"] if flow["name"] in FRONTENDS else "port"
            if kind in names and self.server(device["id"]):
                yield device["id"], flow, old.get(device["id"], flow)

    def server(self, device):
        """The server of a device; None while that comes or goes."""
        return next((s for s in self.state["servers"]
                     if device in s["stats"]["devices"]), None)


# ---- the machine, the server, its clients

def machine_findings(case):
    status = case.state["status"]
    if status == "running":
        return []
    what = {"prelaunch": "has not been started yet",
            "paused": "is paused", "inmigrate": "waits to be migrated to",
            "postmigrate": "was migrated away",
            "shutdown": "is shut down"}.get(status, "does not run: " + status)
    return [Finding("vm-stopped", None, "the machine " + what,
                    "nothing moves until it runs: cont in QMP, virsh resume "
                    "in libvirt")]


def where_to(server):
    """How a viewer gets there."""
    addr = server["addr"]
    if addr["type"] == "unix":
        return "remote-viewer spice+unix://" + addr["path"]
    if addr["type"] == "inet":
        host = "[%s]" % addr["host"] if ":" in addr["host"] else addr["host"]
        if host in ("0.0.0.0", "[::]", ""):
            host = "HOST"
        port = "?tls-port=%s" if server["tls-creds"] else ":%s"
        return "remote-viewer 'spice://%s%s'" % (host, port % addr["port"])
    return "connect a SPICE viewer to " + vm.address(addr)


def refusal_findings(server, wrong):
    stats = server["stats"]
    count = sum(stats["links-refused"].values())
    last = stats.get("last-refused")
    if not count or not last:
        return []
    return [Finding("refused-" + last["reason"], server["id"],
                    "%d connection%s refused, the last one from %s: %s" %
                    (count, " was" if count == 1 else "s were",
                     last["peer"], vm.printable(last["message"])),
                    REFUSALS.get(last["reason"], ""), wrong)]


def server_findings(server):
    addr = server["addr"]
    if server["stats"]["clients"]:
        return refusal_findings(server, False)
    found = []
    if addr["type"] == "unix" and addr["path"].startswith("/") and \
            not (addr.get("abstract") or os.path.exists(addr["path"])):
        found.append(Finding(
            "socket-gone", server["id"],
            "the socket %s is not there any more" % addr["path"],
            "something has deleted it; delete the server object and add it "
            "again, or restart the machine"))
    found.append(Finding("no-client", server["id"], "no viewer is connected",
                         where_to(server)))
    return found + refusal_findings(server, True)


# ---- a device and its frontend

def frontend_findings(case, device, flow):
    frontend = case.frontends.get(device)
    name = flow["name"]
    wanted = FRONTENDS.get(name, "virtserialport")
    if not flow["frontend"]:
        port = {"vdagent": ",name=" + AGENT_PORT, "usbredir": "",
                "smartcard": ""}.get(name, ",name=" + name)
        return [Finding("no-frontend", device, "no QEMU device uses it",
                        "add -device %s,chardev=%s%s" %
                        (wanted, device, port))]
    if not frontend:
        return []
    kind = frontend["type"]
    known = set(FRONTENDS.values())
    if kind in known and kind != wanted:
        return [Finding("wrong-frontend", device,
                        "it is for %s, but %s uses it" % (name, kind),
                        "give %s a chardev with the name for it, and this one "
                        "to -device %s" % (kind, wanted))]
    if kind != "virtserialport":
        return []
    port = AGENT_PORT if name == "vdagent" else name
    if frontend["name"] == port:
        return []
    if name in ("vdagent", WEBDAV_PORT):
        return [Finding("wrong-port-name", device,
                        "the guest sees its port as '%s', but its program "
                        "looks for '%s'" % (frontend["name"], port),
                        "add name=%s to its -device virtserialport" % port)]
    return [Finding("other-port-name", device,
                    "viewers see the port as '%s', the guest as '%s'" %
                    (port, frontend["name"]),
                    "give both the same name, if that is not meant so", False)]


def guest_findings(case, device, flow, program):
    """The guest's side is closed."""
    if flow["guest-open"]:
        return []
    if case.frontends.get(device, {}).get("driver") is False:
        return [Finding("no-driver", device,
                        "the guest does not drive its virtio-serial device",
                        "wait until it has booted; then see that its kernel "
                        "has virtio_console, on Windows vioserial")]
    return [Finding("guest-closed", device,
                    "no program in the guest has opened the port", program)]


# ---- the flow

def stuck_findings(device, flow, before):
    """What waits, and did so a moment ago, while nothing moved."""
    found = []
    old = {c["connection-id"]: c for c in before["clients"]}
    still = flow["total-to-guest-bytes"] == before["total-to-guest-bytes"]
    if still and flow["to-guest-bytes"] and before["to-guest-bytes"]:
        out = [c["connection-id"] for c in flow["clients"]
               if c["flow-control"] and not c["client-tokens"]]
        text = "%s wait for the guest, which reads nothing" % \
            vm.bytes_text(flow["to-guest-bytes"])
        if out:
            text += "; no tokens are left to client %s" % \
                ", ".join(map(str, out))
        found.append(Finding("guest-does-not-read", device, text,
                             "restart the program that has the port open in "
                             "the guest"))
    waits = flow["guest-waits"] and before["guest-waits"]
    for client in flow["clients"]:
        number = client["connection-id"]
        earlier = old.get(number, client)
        queued = client["to-client-bytes"]
        end = ", %s wait for it" % vm.bytes_text(queued) if queued else ""
        end += ", the guest waits" if waits else ""
        if client["away"]:
            found.append(Finding(
                "client-away", device, "client %d came with a saved state and "
                "is not connected" % number, "", False))
        elif client["to-client-in-flight"] and \
                earlier["to-client-in-flight"] and (waits or client["stalls"]):
            found.append(Finding(
                "client-does-not-read", device, "client %d does not read what "
                "it is sent%s" % (number, end),
                "the viewer hangs, or its network is too slow; close it and "
                "connect anew"))
        elif client["flow-control"] and not client["send-tokens"] and \
                not earlier["send-tokens"] and \
                (waits or earlier["to-client-messages"]):
            found.append(Finding(
                "no-send-tokens", device, "client %d wants no more%s" %
                (number, end),
                "the viewer hangs; close it and connect anew"))
    return found


def owner_findings(case, device, flow, who, unopened):
    """Who has a device that only one can have."""
    clients = case.server(device)["stats"]["clients"]
    if not clients:
        return []
    owners = [c["connection-id"] for c in flow["clients"]]
    if not owners:
        return [unopened]
    if who is not None and who not in owners:
        return [Finding("claimed", device, "client %d has it" % owners[0],
                        "it is free again when that one leaves")]
    if who is None and len(clients) > 1:
        return [Finding("claimed", device, "client %d of %d has it" %
                        (owners[0], len(clients)),
                        "the others can have it when that one leaves", False)]
    return []


# ---- features

def base(case, device):
    return machine_findings(case) + server_findings(case.server(device))


def agent_findings(case, who, feature, policy):
    """What clipboard and files have in common, and between it POLICY."""
    for device, flow, before in case.devices("vdagent"):
        server = case.server(device)
        agent = flow["agent"]
        found = base(case, device) + policy(server)
        found += frontend_findings(case, device, flow)
        closed = guest_findings(
            case, device, flow, "install spice-vdagent in the guest and start "
            "its service spice-vdagentd (Windows: the SPICE guest tools)")
        if any(f.code in ("no-frontend", "wrong-port-name",
                          "wrong-frontend") for f in found):
            return found
        found += closed
        if closed:
            return found
        if not agent["connected"]:
            found.append(Finding("agent-broken", device,
                                 "the guest's agent broke the protocol",
                                 "restart spice-vdagentd in the guest"))
            return found
        users = [c["connection-id"] for c in flow["clients"]]
        for client in server["stats"]["clients"]:
            number = client["connection-id"]
            if number not in users and who in (None, number):
                found.append(Finding(
                    "client-without-agent", device, "client %d does not use "
                    "the agent" % number, "it has to be a viewer with agent "
                    "support, and not be told to do without",
                    len(server["stats"]["clients"]) == 1 or who == number))
        if users:
            found += capability_findings(device, agent, feature, server)
        return found + stuck_findings(device, flow, before)
    return None


def capability_findings(device, agent, feature, server):
    can = agent["guest-capabilities"]
    if not can:
        return [Finding("agent-silent", device, "the guest's agent has not "
                        "said what it can", "restart spice-vdagentd in the "
                        "guest; something else may have its port open")]
    if feature == "clipboard":
        if not {"clipboard-by-demand", "clipboard"} & set(can):
            return [Finding("agent-lacks", device, "the guest's agent does "
                            "not do clipboards", "use spice-vdagent in the "
                            "guest; its version for a session must run too")]
        if all(c["owner"] == "nobody" for c in agent["clipboards"].values()):
            return [Finding("clipboard-unused", device,
                            "nobody has copied anything yet", "if somebody "
                            "has: spice-vdagent must run in the session of "
                            "the guest's user too, and it can not do every "
                            "Wayland desktop", False)]
    if feature == "files" and "file-xfer-disabled" in can and \
            server["agent-file-transfer"]:
        return [Finding("agent-lacks", device, "the guest's agent takes no "
                        "files", "see how spice-vdagentd and spice-vdagent "
                        "are started in the guest")]
    return []


def clipboard(case, who):
    def policy(server):
        way = server["agent-clipboard"]
        change = "qom-set /objects/%s agent-clipboard both" % server["id"]
        if way == "off":
            return [Finding("policy", server["id"], "agent-clipboard is off",
                            change)]
        found = []
        if way != "both":
            found.append(Finding("policy", server["id"], "contents go %s only "
                                 "(agent-clipboard)" % way.replace("-", " "),
                                 change, False))
        if server["agent-max-clipboard"] < 65536:
            found.append(Finding(
                "policy-size", server["id"], "contents of more than %s are "
                "refused (agent-max-clipboard)" %
                vm.bytes_text(server["agent-max-clipboard"]),
                "qom-set /objects/%s agent-max-clipboard 104857600" %
                server["id"], server["agent-max-clipboard"] == 0))
        return found
    found = agent_findings(case, who, "clipboard", policy)
    for device, flow, _ in case.devices("vdagent"):
        count = flow["agent"]["messages"]["refused-size"]
        if count:
            found.append(Finding(
                "refused-size", device, "%d message%s too large and refused" %
                (count, " was" if count == 1 else "s were"),
                "raise agent-max-clipboard", False))
    return found


def files(case, who):
    def policy(server):
        if server["agent-file-transfer"]:
            return []
        return [Finding("policy", server["id"], "agent-file-transfer is off",
                        "qom-set /objects/%s agent-file-transfer true" %
                        server["id"])]
    return agent_findings(case, who, "files", policy)


def each(case, kind, look):
    """Findings of all devices of a kind; None when there is none."""
    found, any_device, used = [], False, False
    for device, flow, before in case.devices(kind):
        for finding in base(case, device) if not any_device else []:
            found.append(finding)
        any_device = True
        frontend = frontend_findings(case, device, flow)
        found += frontend
        used |= bool(flow["clients"])
        if not any(f.wrong for f in frontend):
            found += look(device, flow) + stuck_findings(device, flow, before)
    for finding in found:
        # Of several that do the same one is enough.
        if used and finding.code in ("not-opened", "no-reader"):
            finding.wrong = False
    return found if any_device else None


def usb(case, who):
    def look(device, flow):
        found = owner_findings(case, device, flow, who, Finding(
            "not-opened", device, "no viewer has opened it",
            "use a viewer with USB redirection, and see that it is not "
            "switched off there"))
        frontend = case.frontends.get(device, {})
        if flow["clients"] and not found and \
                frontend.get("attached") is False:
            found.append(Finding(
                "no-usb-device", device, "nothing is plugged in", "choose a "
                "device in the viewer's menu; what is refused there is so by "
                "a filter, or too fast for the controller", False))
        return found
    return each(case, "usbredir", look)


def card(case, who):
    return each(case, "smartcard", lambda device, flow: owner_findings(
        case, device, flow, who, Finding(
            "no-reader", device, "no viewer offers a card reader",
            "start the viewer with --spice-smartcard, with a reader that its "
            "own machine knows (pcscd)")))


def port(case, who):
    def look(device, flow):
        return guest_findings(
            case, device, flow,
            "start spice-webdavd in the guest" if flow["name"] == WEBDAV_PORT
            else "start the guest's program for /dev/virtio-ports/" +
            flow["name"]) + owner_findings(case, device, flow, who, Finding(
                "not-opened", device, "no viewer has opened it",
                "viewers open the ports that they know of; folders are "
                "shared in the viewer's menu"))
    return each(case, "port", look)


LOOK = {"clipboard": clipboard, "files": files, "usb": usb, "card": card,
        "port": port}

ABSENT = {
    "clipboard": "-chardev spiceflow,id=agent,name=vdagent with -device "
                 "virtio-serial -device virtserialport,chardev=agent,name=" +
                 AGENT_PORT,
    "usb": "-chardev spiceflow,id=usb1,name=usbredir with -device qemu-xhci "
           "-device usb-redir,chardev=usb1",
    "card": "-chardev spiceflow,id=card,name=smartcard with -device usb-ccid "
            "-device ccid-card-passthru,chardev=card",
    "port": "-chardev spiceflow,id=p1,name=NAME with -device virtio-serial "
            "-device virtserialport,chardev=p1,name=NAME",
}
ABSENT["files"] = ABSENT["clipboard"]


def diagnose(case, wanted, who=None):
    """For each wanted feature its findings; None when it is not set up."""
    found = {}
    for feature in wanted:
        if not case.state["servers"]:
            found[feature] = [Finding(
                "no-server", None, "the machine has no spiceflow-server",
                "add -object spiceflow-server,id=sf0,type=unix,path=PATH")]
        else:
            found[feature] = LOOK[feature](case, who)
    return found


def absent(feature):
    """The finding for a feature that was asked for and is not set up."""
    return Finding("no-device", None, "the machine has no device for it",
                   "add " + ABSENT[feature])
