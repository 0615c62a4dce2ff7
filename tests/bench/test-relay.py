#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Does bench-relay delay right?  Usage: test-relay.py PROGRAM

A byte there and back takes the round trip and hardly more; what is sent in one
go arrives in one go, however much it is; an end of file arrives, as late as a
byte; the other side's silence is felt in the end.
"""

import contextlib
import hashlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

MIB = 1 << 20
LATE = 0.020        # seconds that a busy machine may add, at the median


@contextlib.contextmanager
def relay(program, target, round_trip):
    child = subprocess.Popen(
        [program, "--connect", target, "--round-trip", str(round_trip)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        port = json.loads(child.stdout.readline())["port"]
        with socket.create_connection(("127.0.0.1", port), 20) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield sock
    finally:
        child.stdin.close()
        status = child.wait(20)
        child.stdout.close()
    assert status == 0, status


@contextlib.contextmanager
def server(folder, serve):
    """Somebody on a UNIX socket who serves one connection."""
    path = os.path.join(folder, "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        listener.settimeout(20)

        def run():
            sock, _ = listener.accept()
            with sock:
                sock.settimeout(20)
                serve(sock)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield "unix:" + path
        finally:
            thread.join(20)
            os.unlink(path)
    assert not thread.is_alive()


def echo(sock):
    while data := sock.recv(MIB):
        sock.sendall(data)


def test_round_trip(program, folder):
    for wanted in (0, 10, 50):
        with server(folder, echo) as where, \
                relay(program, where, wanted) as sock:
            spent = []
            for n in range(20):
                start = time.monotonic()
                sock.sendall(bytes([n]))
                assert sock.recv(10) == bytes([n])
                spent.append(time.monotonic() - start)
            least, median = min(spent), statistics.median(spent)
            assert wanted / 1e3 <= least, (wanted, least)
            assert median < wanted / 1e3 + LATE, (wanted, median)
            print("ok: %g ms: %.2f to %.2f ms" % (wanted, least * 1e3,
                                                  median * 1e3))


def test_bandwidth(program, folder):
    """Much in one go takes one delay, not one for every block."""
    body = os.urandom(32 * MIB)
    with server(folder, echo) as where, relay(program, where, 100) as sock:
        start = time.monotonic()
        writer = threading.Thread(target=sock.sendall, args=(body,),
                                  daemon=True)
        writer.start()
        digest, left = hashlib.sha256(), len(body)
        while left:
            data = sock.recv(MIB)
            assert data
            digest.update(data)
            left -= len(data)
        spent = time.monotonic() - start
        writer.join()
        assert digest.digest() == hashlib.sha256(body).digest()
        assert 0.1 <= spent < 5, spent
        print("ok: 32 MiB there and back at 100 ms: %.2f s" % spent)


def test_end(program, folder):
    """The end of one direction, after its last byte; the other goes on."""
    ended = []

    def serve(sock):
        assert sock.recv(100) == b"last"
        assert sock.recv(100) == b""
        ended.append(time.monotonic())
        sock.sendall(b"answer")

    with server(folder, serve) as where, relay(program, where, 100) as sock:
        start = time.monotonic()
        sock.sendall(b"last")
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(100) == b"answer"
        assert sock.recv(100) == b""
        assert time.monotonic() - start >= 0.1
    assert ended[0] - start >= 0.05
    print("ok: the end is delayed, one way at a time")


def test_back_pressure(program, folder):
    """Who does not read stops who writes, at last."""
    stop = threading.Event()
    with server(folder, lambda sock: stop.wait(20)) as where, \
            relay(program, where, 0) as sock:
        sock.settimeout(1)
        sent = 0
        try:
            while sent < 512 * MIB:
                sent += sock.send(bytes(MIB))
        except socket.timeout:
            pass
        stop.set()
    assert 32 * MIB < sent < 256 * MIB, sent
    print("ok: %d MiB go into a line that nobody reads from" % (sent / MIB))


def main():
    with tempfile.TemporaryDirectory(prefix="spiceflow-relay-") as folder:
        for test in (test_round_trip, test_bandwidth, test_end,
                     test_back_pressure):
            test(sys.argv[1], folder)


if __name__ == "__main__":
    main()
