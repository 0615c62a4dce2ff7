# SPDX-License-Identifier: GPL-2.0-or-later
"""A relay between a SPICE client and its server that keeps what passes.

For clients that are not ours: it listens on a UNIX socket, connects each client
to the server's, and can tell afterwards what the DATA messages of a channel
carried in each direction.  It understands mini headers and links without TLS,
which is what the clients of these tests use on UNIX sockets.
"""

import os
import select
import socket
import struct
import threading

from . import spiceclient as sc

TICKET = 4 + 128                # mechanism, password


class Stream:
    """One direction of one connection."""

    def __init__(self):
        self.data = bytearray()

    def after_link(self, *sizes):
        """Where the messages begin: a header of 16 bytes, what that announces,
        and what comes then."""
        size, = struct.unpack_from("<I", self.data, 12)
        return 16 + size + sum(sizes)

    def payload(self, start, kind):
        """What whole messages of that type carried, and the last one's part."""
        out, at = bytearray(), start
        while at + 6 <= len(self.data):
            this, size = struct.unpack_from("<HI", self.data, at)
            if this == kind:
                out += self.data[at + 6:at + 6 + size]
            at += 6 + size
        return bytes(out)


class Connection:
    """Both directions."""

    def __init__(self):
        self.to_server = Stream()
        self.to_client = Stream()

    def channel(self):
        """(type, id) as in the client's link message, None before that."""
        if len(self.to_server.data) < 16 + 6:
            return None
        return struct.unpack_from("<BB", self.to_server.data, 16 + 4)

    def captured(self):
        """What its DATA messages carried: (to guest, to client)."""
        return (self.to_server.payload(self.to_server.after_link(TICKET),
                                       sc.MSGC_DATA),
                self.to_client.payload(self.to_client.after_link(4),
                                       sc.MSG_DATA))


class Recorder:
    """The relay, in threads; PATH is where it listens."""

    def __init__(self, path, server):
        self.path = path
        self.server = server
        self.connections = []
        self.sockets = []
        self.threads = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(16)
        self._start(self._accept)

    def _start(self, function, *args):
        thread = threading.Thread(target=function, args=args, daemon=True)
        self.threads.append(thread)
        thread.start()

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            try:
                far.connect(self.server)
            except OSError:
                near.close()
                far.close()
                continue
            connection = Connection()
            self.connections.append(connection)
            self.sockets += [near, far]
            self._start(self._relay, near, far, connection)

    @staticmethod
    def _relay(near, far, connection):
        streams = {near: (far, connection.to_server),
                   far: (near, connection.to_client)}
        try:
            while True:
                for sock in select.select([near, far], [], [])[0]:
                    other, stream = streams[sock]
                    data = sock.recv(1 << 18)
                    if not data:
                        return
                    # Before it goes on: who has seen it finds it here
                    stream.data += data
                    other.sendall(data)
        except (OSError, ValueError):
            pass
        finally:
            for sock in near, far:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def last(self, channel_type, channel_id=0):
        """The last connection of that channel."""
        return [c for c in self.connections
                if c.channel() == (channel_type, channel_id)][-1]

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for sock in self.sockets:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self.threads:
            thread.join(10)
        for sock in self.sockets:
            sock.close()
        os.unlink(self.path)
