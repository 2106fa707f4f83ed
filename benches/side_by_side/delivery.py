"""How long a whole generation takes to be delivered, what that needs, and what clients notice of it."""

import http.client
import json
import math
import pathlib
import re
import subprocess
import sys
import time

from . import load
from .processes import Directory, Failed, Process, free_port

HERE = pathlib.Path(__file__).resolve().parent
SKUS = 100
REQUEST_PULSES = 1000
# What clients send meanwhile: enough to notice a pause, little enough that one core is free for the delivery.
RATE = 500
CONNECTIONS = 100
# Quiet time before the window ends, and time for the aggregates to come in: 40 000 a second at least.
QUIET_SECONDS = 5
FILL_PER_SECOND = 40_000
# A Python that starts, its connections and its warm-up.
CLIENT_START_SECONDS = 4
STABILIZATION_SECONDS = 1
DELIVERED_SECONDS_MAX = 600


def window_seconds(aggregates):
    """A whole number of seconds that a minute or an hour is a multiple of: windows end on multiples of themselves."""
    needed = QUIET_SECONDS + CLIENT_START_SECONDS + aggregates / FILL_PER_SECOND + 2
    return next(length for length in (15, 20, 30, 60, 120, 300) if length >= needed)


def fill(port, aggregates):
    """Makes so many aggregates in the open generation, over one connection, a thousand in each request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for first in range(0, aggregates, REQUEST_PULSES):
        body = "\n".join(load.pulse_text(f"d{number // SKUS}", number % SKUS, "1.25", "GB")
                         for number in range(first, min(first + REQUEST_PULSES, aggregates)))
        connection.request("POST", "/ingest", body, {"Content-Type": "application/x-ndjson"})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise Failed(f"the ingestor answered {answer.status}: {text[:300]!r}")
    connection.close()


class Receiver:
    """The reference receiver on a port of its own."""

    def __init__(self, program, directory):
        self.port = free_port()
        self.process = Process([program, "receive", "--port", self.port, "--data-dir", directory / "received"], directory)
        self.process.wait_for(lambda: "listening on" in self.process.text())

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/process"


class Watcher:
    """Reads on where it stopped in the ingestor's output, and knows when what was said."""

    def __init__(self, process):
        self.path, self.offset, self.rest = process.output, 0, ""
        self.sealed_at = {}
        self.frozen_at = {}
        self.confirmed = {}
        self.confirmed_at = {}

    def look(self):
        with self.path.open(errors="replace") as file:
            file.seek(self.offset)
            text = self.rest + file.read()
            self.offset = file.tell()
        lines = text.split("\n")
        self.rest = lines.pop()
        now = time.monotonic()
        for line in lines:
            if found := re.search(r"generation (\d+)\w? sealed", line):
                self.sealed_at[found.group(1)] = now
            elif found := re.search(r"generation (\d+)\w? is frozen whole", line):
                self.frozen_at[found.group(1)] = now
            elif found := re.search(r"batch \S+\.(\d+)\.\d+: (\d+) aggregates confirmed", line):
                generation, count = found.group(1), int(found.group(2))
                self.confirmed[generation] = self.confirmed.get(generation, 0) + count
                self.confirmed_at[generation] = now


def samples_between(path, first, last):
    found = []
    for line in path.read_text().splitlines():
        moment, latency = map(float, line.split())
        if first <= moment < last:
            found.append(latency)
    return sorted(found)


def quantile_ms(latencies, share):
    return latencies[min(int(len(latencies) * share), len(latencies) - 1)] * 1e3 if latencies else math.nan


def measure(contender_class, programs, aggregates, data):
    """One row: a generation of so many aggregates on one store."""
    directory = Directory(data)
    window = window_seconds(aggregates)
    receiver = Receiver(programs["ingestor"], directory.path)
    contender = contender_class(programs, directory.path, {
        "API_URL_SENDER": receiver.url, "INTERVAL_TO_SEND": f"{window}s",
        "STABILIZATION_DELAY": f"{STABILIZATION_SECONDS}s",
    })
    client = None
    try:
        # Windows end on multiples of their length, so begin with a whole one before us.
        time.sleep(window - time.time() % window + 0.2)
        contender.start()
        window_end = time.monotonic() + window - time.time() % window
        fill_begun = time.monotonic()
        fill(contender.port, aggregates)
        filled = time.monotonic()
        if window_end - filled < QUIET_SECONDS + CLIENT_START_SECONDS:
            raise Failed(f"{aggregates} aggregates took {filled - fill_begun:.0f} s: too long for a window of {window} s")
        sample_file = directory.path / "samples"
        client = subprocess.Popen(
            [sys.executable, HERE / "steady.py", contender.url, "--connections", str(CONNECTIONS), "--rate", str(RATE),
             # It goes on until it is told to stop; this is only the limit.
             "--seconds", str(window + DELIVERED_SECONDS_MAX), "--samples", sample_file],
            stdout=subprocess.PIPE, text=True)
        watcher = Watcher(contender.process)
        generation, delivered_at = wait_for_delivery(watcher, aggregates, window_end)
        cpu, rss = contender.process.cpu_seconds(), contender.process.peak_rss_bytes()
        client.terminate()
        result = json.loads(client.communicate(timeout=60)[0])
        sealed_at = watcher.sealed_at[generation]
        quiet = samples_between(sample_file, window_end - QUIET_SECONDS, window_end)
        busy = samples_between(sample_file, sealed_at, delivered_at)
        seconds = delivered_at - sealed_at - STABILIZATION_SECONDS
        return {
            "contender": contender.name, "aggregates": aggregates,
            "fill_seconds": filled - fill_begun,
            "freeze_seconds": watcher.frozen_at.get(generation, math.nan) - sealed_at - STABILIZATION_SECONDS,
            "delivery_seconds": seconds, "us_per_aggregate": seconds * 1e6 / aggregates,
            "peak_rss_mb": rss / 1e6, "cpu_seconds": cpu,
            "quiet_p99_ms": quantile_ms(quiet, 0.99), "busy_p99_ms": quantile_ms(busy, 0.99),
            "quiet_samples": len(quiet), "busy_samples": len(busy), "errors": result["errors"],
        }
    finally:
        if client is not None and client.poll() is None:
            client.kill()
            client.wait()
        contender.stop()
        receiver.process.stop()
        directory.remove()


def wait_for_delivery(watcher, aggregates, window_end):
    """The generation that held the aggregates, and when the last of them was confirmed."""
    while time.monotonic() < window_end + DELIVERED_SECONDS_MAX:
        watcher.look()
        for generation, count in watcher.confirmed.items():
            # What the clients sent in that window are aggregates too, so there are more than were filled in.
            if count >= aggregates and generation in watcher.frozen_at:
                return generation, watcher.confirmed_at[generation]
        time.sleep(0.02)
    raise Failed(f"not delivered within {DELIVERED_SECONDS_MAX} s: {watcher.confirmed}")
