"""A constant rate of requests over many kept-alive connections, one thread, one epoll.

The rate does not wait for the server: each request has a moment at which it is due, connections take turns, and the latency
counts from that moment, also when the connection was still waiting for an earlier answer. Prints one JSON object.
"""

import argparse
import array
import collections
import gc
import json
import pathlib
import select
import signal
import socket
import sys
import time
import urllib.parse

if __package__ in (None, ""):
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from side_by_side import load  # noqa: E402

CONNECT_SECONDS = 60
# The first requests find cold caches and threads that are being made.
WARM_UP_SECONDS = 2
# How long to wait for the last answers.
LINGER_SECONDS = 5
READ_BYTES = 65536


class Connection:
    """One client; at most one request is under way on it."""

    __slots__ = ("socket", "due", "waiting", "answers", "received")

    def __init__(self, address):
        self.socket = socket.create_connection(address, timeout=CONNECT_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(CONNECT_SECONDS)
        # When the request under way was due, and when those behind it are.
        self.due = None
        self.waiting = collections.deque()
        self.answers = 0
        self.received = b""


def answer_length(data):
    """The length of the answer that begins here, or None if its head is not complete."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = data[:end].lower()
    if head.startswith((b"http/1.1 204", b"http/1.1 304")):
        return end + 4
    at = head.find(b"\r\ncontent-length:")
    if at < 0:
        raise ValueError("an answer without a length")
    return end + 4 + int(head[at + 17:].split(b"\r\n", 1)[0])


class Run:
    """The whole run."""

    def __init__(self, args):
        url = urllib.parse.urlsplit(args.url)
        self.args = args
        self.requests = [load.request(args.kind, url.path, body) for body in load.bodies(args.kind)]
        self.connections = [Connection((url.hostname, url.port)) for _ in range(args.connections)]
        self.epoll = select.epoll()
        self.by_fd = {}
        for connection in self.connections:
            self.by_fd[connection.socket.fileno()] = connection
            self.epoll.register(connection.socket.fileno(), select.EPOLLIN)
        self.sent = self.errors = 0
        self.stopped = False
        self.moments, self.latencies = array.array("d"), array.array("d")

    def send(self, connection, due):
        connection.due = due
        self.sent += 1
        try:
            connection.socket.sendall(self.requests[self.sent % len(self.requests)])
        except OSError:
            self.drop(connection)

    def drop(self, connection):
        """A connection that broke: its requests, this one and those to come, are errors."""
        self.errors += (connection.due is not None) + len(connection.waiting)
        connection.due = None
        connection.waiting.clear()
        if self.by_fd.pop(connection.socket.fileno(), None):
            self.epoll.unregister(connection.socket.fileno())
            connection.socket.close()

    def receive(self, connection, measured_from):
        try:
            data = connection.socket.recv(READ_BYTES)
            data = connection.received + data if data else b""
            length = answer_length(data) if data else None
        except (OSError, ValueError):
            data, length = b"", None
        if not data:
            self.drop(connection)
        elif length is None or len(data) < length:
            connection.received = data
        else:
            now, due = time.monotonic(), connection.due
            connection.received = data[length:]
            connection.due = None
            connection.answers += 1
            if not data.startswith(b"HTTP/1.1 2"):
                self.errors += 1
            elif due is not None and due >= measured_from:
                self.moments.append(due)
                self.latencies.append(now - due)
            if connection.waiting:
                self.send(connection, connection.waiting.popleft())

    def poll(self, until, measured_from):
        timeout = max(until - time.monotonic(), 0)
        for descriptor, _event in self.epoll.poll(timeout, 256):
            connection = self.by_fd.get(descriptor)
            if connection is not None:
                self.receive(connection, measured_from)

    def go(self):
        begun = time.monotonic()
        measured_from = begun + WARM_UP_SECONDS
        total = int((self.args.seconds + WARM_UP_SECONDS) * self.args.rate)
        for number in range(total):
            if self.stopped:
                break
            due = begun + number / self.args.rate
            while time.monotonic() < due:
                self.poll(due, measured_from)
            connection = self.connections[number % len(self.connections)]
            if connection.socket.fileno() < 0:
                self.errors += 1
            elif connection.due is None:
                self.send(connection, due)
            else:
                connection.waiting.append(due)
            if number % 16 == 0:
                # However late this client is, answers are taken.
                self.poll(0, measured_from)
        ended = time.monotonic()
        while any(c.due is not None for c in self.connections) and time.monotonic() < ended + LINGER_SECONDS:
            self.poll(time.monotonic() + 0.05, measured_from)
        unanswered = [c for c in self.connections if c.due is not None]
        self.errors += sum(1 + len(c.waiting) for c in unanswered)
        return {
            "sent": self.sent, "answers": len(self.latencies), "errors": self.errors, "seconds": max(ended - measured_from, 0.001),
            "all_seconds": time.monotonic() - begun, "cpu_seconds": time.process_time(),
            "unserved_connections": sum(c.answers == 0 for c in unanswered),
            **{name: percentile(self.latencies, share) for name, share in
               (("p50_ms", 0.5), ("p99_ms", 0.99), ("p999_ms", 0.999), ("max_ms", 1.0))},
        }


def percentile(latencies, share):
    """In milliseconds."""
    if not latencies:
        return 0.0
    ordered = sorted(latencies)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1e3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--connections", type=int, default=3000)
    parser.add_argument("--rate", type=float, default=2000, help="requests a second")
    parser.add_argument("--seconds", type=float, default=10, help="how long, after a warm-up")
    parser.add_argument("--kind", choices=load.PULSES, default="pulse")
    parser.add_argument("--samples", help="file for each request's moment (monotonic clock) and latency, in seconds")
    run = Run(parser.parse_args())
    # Told to end early, it reports what there was.
    signal.signal(signal.SIGTERM, lambda *_: setattr(run, "stopped", True))
    gc.freeze()
    gc.disable()
    result = run.go()
    if run.args.samples:
        with open(run.args.samples, "w", encoding="ascii") as file:
            file.writelines(f"{moment:.6f} {latency:.6f}\n" for moment, latency in zip(run.moments, run.latencies))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
