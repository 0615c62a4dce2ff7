# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent with both ends scripted: what its tests have in common.

A test class derived from AgentScript has one QEMU without a guest, whose agent
is the test itself (agentguest) at the far end of a bridge, and as many
scripted clients as it asks for.
"""

import contextlib
import struct

from . import agentguest as ag
from . import spiceclient as sc
from .process import wait_until
from .rig import server_args

WINDOW = 8
STALL = 1.5         # seconds
NO_TOKENS_CAP = sc.MAIN_CAPS & ~sc.CAP_AGENT_TOKENS
BRIDGE = "/machine/peripheral/bridge"


class AgentClient:
    """A scripted client's view of the agent: messages out of pieces."""

    def __init__(self, session):
        self.session = session
        self.main = session.main
        self.id = session.init.session_id
        self.stream = bytearray()
        self.pieces = []

    def say(self, kind, payload=b"", **options):
        for piece in ag.pieces(ag.message(kind, payload, **options)):
            self.main.agent_data(piece)

    def announce(self, caps=ag.CAPS, request=1):
        self.main.agent_data(ag.announce(caps, request))

    def take(self, timeout=None):
        """The next message of the guest's: (type, payload)."""
        while True:
            if len(self.stream) >= 20:
                protocol, kind, _, size = struct.unpack_from("<IIQI",
                                                             self.stream)
                assert protocol == 1, protocol
                if len(self.stream) >= 20 + size:
                    payload = bytes(self.stream[20:20 + size])
                    del self.stream[:20 + size]
                    return kind, payload
            piece = self.main.expect(sc.MSG_MAIN_AGENT_DATA, timeout)
            self.pieces.append(len(piece))
            self.stream += piece

    def expect(self, kind, timeout=None):
        """The payload of the next message of that type; others are passed."""
        while True:
            got, payload = self.take(timeout)
            if got == kind:
                return payload

    def silent(self, duration=0.2):
        """Nothing of the agent's comes, tokens aside."""
        return not self.stream and not self.collect(duration)

    def collect(self, duration=0.2):
        """Everything of the agent's that comes until it is silent."""
        found = []
        while self.main.pending or not self.main.silent(duration):
            kind, body = self.main.receive()
            if kind == sc.MSG_MAIN_AGENT_DATA:
                self.stream += body
            elif kind == sc.MSG_MAIN_AGENT_TOKEN:
                continue
            else:
                raise AssertionError("message %d: %r" % (kind, body))
        while self.stream:
            found.append(self.take(0.1))
        return found

    def tokens_given(self):
        """Sum of the AGENT_TOKEN that have come, which are used up."""
        given = 0
        while not self.main.connection.silent(0.1):
            self.main.pending.append(self.main.receive_any())
        for message in list(self.main.pending):
            if message[0] == sc.MSG_MAIN_AGENT_TOKEN:
                self.main.pending.remove(message)
                given += struct.unpack("<I", message[1])[0]
        return given


class AgentScript:
    """One QEMU, one agent port that the test itself serves."""

    max_clients = 1
    window = WINDOW
    options = ""

    def setup(self, rig):
        self.rig = rig
        self.agents = []
        self.far = rig.path("agent")
        server = list(server_args(rig.socket))
        server[1] += ",agent-window=%d,max-clients=%d,stall-timeout=%d%s" % (
            self.window, self.max_clients, STALL * 1000, self.options)
        self.qemu = rig.qemu(*server, *ag.bridge_args(self.far),
                             machine="none")
        self.set_defaults()

    def set_defaults(self):
        """What tests change, as it was."""
        for name, value in (("agent-window", self.window),
                            ("agent-clipboard", "both"),
                            ("agent-max-clipboard", 100 << 20),
                            ("agent-file-transfer", True)):
            self.set(name, value)
        self.blocked(False)

    def set(self, name, value):
        """A property of the server."""
        self.qemu.set("/objects/sf0", name, value)

    def blocked(self, value):
        """Whether the guest takes nothing."""
        self.qemu.set(BRIDGE, "blocked", value)

    @contextlib.contextmanager
    def guest_asleep(self):
        self.blocked(True)
        try:
            yield
        finally:
            self.blocked(False)

    # -- the guest --

    def agent(self, caps=None):
        """An agent opens the port; the one before has closed it."""
        self.close_agent()
        self.blocked(False)
        agent = ag.Agent(self.far)
        self.rig.callback(agent.close)
        self.agents.append(agent)
        self.wait_open(True)
        if caps is not None:
            agent.announce(caps)
        return agent

    def close_agent(self):
        while self.agents:
            self.agents.pop().close()
        self.wait_open(False)

    def wait_open(self, open_):
        wait_until(lambda: self.flow()["guest-open"] == open_, 5,
                   "the guest's port is %s" % ("open" if open_ else "closed"))

    # -- what QEMU says --

    def flow(self):
        return self.qemu.flow("agent")

    def counts(self):
        """Messages judged, by verdict."""
        return self.flow()["agent"]["messages"]

    def client_flow(self, client=None):
        """A client as the flow machine sees it; None when it is not there."""
        for found in self.flow()["clients"]:
            if client is None or found["connection-id"] == client.id:
                return found
        return None

    def wait_tokens(self, count, client=None):
        wait_until(lambda: (self.client_flow(client) or {}).get(
            "client-tokens") == count, 5, "the client has %d tokens" % count)

    def wait_gone(self, client, timeout=5):
        """Until nothing knows of the client any more."""
        wait_until(lambda: not self.client_flow(client) and client.id not in [
            c["connection-id"] for c in
            self.qemu.stats()["clients"]], timeout,
            "the client is removed")

    # -- clients --

    def client(self, tokens=sc.UNLIMITED, **options):
        """A client; attached if there is an agent and TOKENS is not None."""
        client = AgentClient(self.rig.raw(**options))
        client.main.expect(sc.MSG_MAIN_NAME)
        client.main.expect(sc.MSG_MAIN_UUID)
        if client.session.init.agent_connected and tokens is not None:
            self.start(client, tokens)
        return client

    def start(self, client, tokens=sc.UNLIMITED):
        """AGENT_START, and the server has taken it."""
        client.main.agent_start(tokens)
        wait_until(lambda: self.client_flow(client), 5,
                   "the client is attached")

    def connected(self, client, tokens=sc.UNLIMITED):
        """The client is told of the agent, and answers; its window."""
        body = client.main.expect(sc.MSG_MAIN_AGENT_CONNECTED_TOKENS)
        self.start(client, tokens)
        return struct.unpack("<I", body)[0]

    def disconnected(self, client):
        """The client is told that the agent is gone; what it had is void."""
        assert client.main.expect(sc.MSG_MAIN_AGENT_DISCONNECTED) == bytes(4)
        client.stream.clear()
        client.main.pending = [m for m in client.main.pending
                               if m[0] != sc.MSG_MAIN_AGENT_DATA]

    def restart_agent(self, *clients, caps=None):
        """The agent goes and comes, and the clients attach to the new one."""
        self.close_agent()
        for client in clients:
            self.disconnected(client)
        agent = self.agent(caps)
        for client in clients:
            self.connected(client)
        return agent

    def pair(self, **options):
        """An agent and a client, both having announced what they can."""
        agent = self.agent()
        client = self.client(**options)
        self.introduce(agent, client)
        return agent, client

    def introduce(self, agent, client, guest_caps=ag.CAPS,
                  client_caps=ag.CAPS):
        """Capabilities both ways, as agents and clients exchange them."""
        client.announce(client_caps)
        agent.expect(ag.ANNOUNCE_CAPABILITIES)
        agent.announce(guest_caps)
        client.expect(ag.ANNOUNCE_CAPABILITIES)
