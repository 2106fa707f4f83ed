"""What is sent, and by what: wrk for as much as it takes, steady.py for a constant rate."""

import json
import os
import pathlib
import random
import subprocess
import sys
import threading
import time

from .processes import Failed, machine_busy_seconds, stuck_connections

HERE = pathlib.Path(__file__).resolve().parent
TENANTS = 3000
SKUS = 10
UNITS = ("KB", "MB", "GB", "KB/sec", "MB/sec", "GB/sec")
LIST_PULSES = 100
NDJSON_PULSES = 1000
SEED = 5
CLIENT_TIMEOUT_SECONDS = 10
HEAD_START_MAX_SECONDS = 0.5
SETTLE_SECONDS_MAX = 10
SETTLE_LOOK_SECONDS = 0.2
IDLE_CORES = 0.1
# How often the connections are looked at; one that is stuck each time was not answered.
LOOKS = 4

CONTENT_TYPES = {"pulse": "application/json", "list": "application/json", "ndjson": "application/x-ndjson",
                 "tenant": "application/x-ndjson", "command": "text/plain"}
PULSES = {"pulse": 1, "list": LIST_PULSES, "ndjson": NDJSON_PULSES, "tenant": NDJSON_PULSES, "command": 1}


def pulses():
    """One pulse for each tenant and SKU, in an order that is random and always the same."""
    chance = random.Random(SEED)
    keys = [(tenant, sku) for tenant in range(1, TENANTS + 1) for sku in range(1, SKUS + 1)]
    chance.shuffle(keys)
    for tenant, sku in keys:
        amount = f"{chance.randrange(1, 1000)}.{chance.randrange(1, 1000):03}"
        yield tenant, sku, amount, UNITS[sku % len(UNITS)]


def pulse_text(tenant, sku, amount, unit):
    # The amount comes last because LuaJIT, inside wrk, hashes no more of a string than its length, its ends and its middle:
    # thirty thousand that are equal in those would make one long chain, and wrk's start take seconds.
    return f'{{"tenant_id":"tenant_{tenant}","product_sku":"sku_{sku}","use_unit":"{unit}","used_amount":{amount}}}'


def bodies(kind):
    """The bodies of one kind; each is sent as often as there is time."""
    if kind == "command":
        # For webdis: the same amount added to the same field, without what it can't check. "/" would end an argument.
        return [f"HINCRBYFLOAT/usage/tenant_{tenant}:sku_{sku}:{unit.replace('/', '%2f')}/{amount}"
                for tenant, sku, amount, unit in pulses()]
    texts = [pulse_text(*pulse) for pulse in pulses()]
    if kind == "pulse":
        return texts
    if kind == "tenant":
        # What an agent of one tenant has gathered: a thousand pulses about ten SKUs.
        return ["\n".join(pulse_text(tenant, place % SKUS + 1, f"{place % 97 + 1}.25", UNITS[(place % SKUS + 1) % len(UNITS)])
                          for place in range(NDJSON_PULSES)) + "\n" for tenant in range(1, 31)]
    size = PULSES[kind]
    groups = [texts[start:start + size] for start in range(0, len(texts), size)]
    if kind == "list":
        return [f"[{','.join(group)}]" for group in groups]
    return ["\n".join(group) + "\n" for group in groups]


def request(kind, path, body):
    """A whole request. No server here looks at what Host says."""
    data = body.encode()
    head = (f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {CONTENT_TYPES[kind]}\r\n"
            f"Content-Length: {len(data)}\r\n\r\n")
    return head.encode() + data


def write_requests(directory):
    """One file for each kind, which wrk.lua reads: a line of lengths, then the requests."""
    for kind in PULSES:
        path = "/" if kind == "command" else "/ingest"
        requests = [request(kind, path, body) for body in bodies(kind)]
        lengths = " ".join(str(len(one)) for one in requests)
        (directory / f"{kind}.requests").write_bytes(lengths.encode() + b"\n" + b"".join(requests))


def kind_for(contender, kind):
    return "command" if contender.name.startswith("webdis") else kind


def wrk(contender, kind, connections, seconds, directory):
    """Runs wrk; returns what it measured and the CPU time that it took itself."""
    threads = min(os.cpu_count() or 1, connections)
    kind = kind_for(contender, kind)
    command = ["wrk", "-t", threads, "-c", connections, "-d", f"{max(round(seconds), 1)}s", "--timeout", f"{CLIENT_TIMEOUT_SECONDS}s",
               "-s", HERE / "wrk.lua", contender.url, "--", directory / f"{kind}.requests", threads]
    before, begun = os.times(), time.monotonic()
    done = subprocess.run([str(part) for part in command], text=True, capture_output=True, check=False,
                          timeout=seconds + 60)
    after, elapsed = os.times(), time.monotonic() - begun
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode != 0 or not lines:
        raise Failed(f"wrk against {contender.name} failed:\n{done.stdout}{done.stderr}")
    result = json.loads(lines[0].removeprefix("RESULT "))
    # wrk starts its clock after its last thread, and counts what the first ones did before: that must not be much.
    if elapsed - result["duration_us"] / 1e6 > HEAD_START_MAX_SECONDS:
        print(f"wrk took {elapsed:.1f} s for {result['duration_us'] / 1e6:.1f} s: its figures are too high", file=sys.stderr)
    own_seconds = after.children_user + after.children_system - before.children_user - before.children_system
    return result, own_seconds


class Looker(threading.Thread):
    """Looks for connections that are never served: `tiny_http` can leave some waiting for good."""

    def __init__(self, port, seconds):
        super().__init__(daemon=True)
        self.port, self.seconds = port, seconds
        self.stuck = None

    def run(self):
        begun = time.monotonic()
        for look in range(1, LOOKS + 1):
            time.sleep(max(0, begun + self.seconds * (0.3 + 0.6 * look / LOOKS) - time.monotonic()))
            seen = stuck_connections(self.port)
            self.stuck = seen if self.stuck is None else self.stuck & seen


def settle(contender):
    """Waits until what the warm-up left behind is done: requests whose client is gone still fill the queue."""
    deadline = time.monotonic() + SETTLE_SECONDS_MAX
    spent, before = None, 0
    while time.monotonic() < deadline and (spent is None or spent > SETTLE_LOOK_SECONDS * IDLE_CORES):
        time.sleep(SETTLE_LOOK_SECONDS)
        now = contender.process.cpu_seconds() + (contender.redis.cpu_seconds() if contender.redis else 0)
        spent, before = now - before, now


def measure(contender, kind, connections, seconds, warm_up_seconds, directory):
    """One case, as a row of the results."""
    wrk(contender, kind, connections, warm_up_seconds, directory)
    settle(contender)
    stored = contender.stored_pulses()
    cpu = contender.process.cpu_seconds()
    redis_cpu = contender.redis.cpu_seconds() if contender.redis else 0
    busy = machine_busy_seconds()
    looker = Looker(contender.port, seconds)
    looker.start()
    result, wrk_seconds = wrk(contender, kind, connections, seconds, directory)
    looker.join()
    cpu = contender.process.cpu_seconds() - cpu
    redis_cpu = contender.redis.cpu_seconds() - redis_cpu if contender.redis else 0
    elapsed = result["duration_us"] / 1e6
    other = machine_busy_seconds() - busy - cpu - redis_cpu - wrk_seconds
    requests = result["requests"] - result["errors"]["status"]
    per_request = max(requests, 1)
    row = {
        "requests": requests,
        "requests_per_second": requests / elapsed,
        "pulses_per_second": requests * PULSES[kind] / elapsed,
        "p50_ms": result["p50_us"] / 1e3, "p99_ms": result["p99_us"] / 1e3, "p999_ms": result["p999_us"] / 1e3,
        "max_ms": result["max_us"] / 1e3,
        "cpu_us_per_request": cpu * 1e6 / per_request,
        "redis_cpu_us_per_request": redis_cpu * 1e6 / per_request,
        "wrk_cpu_us_per_request": wrk_seconds * 1e6 / per_request,
        "other_cores": max(other, 0) / elapsed,
        "peak_rss_mb": contender.process.peak_rss_bytes() / 1e6,
        "errors": sum(result["errors"].values()),
        "unserved_connections": len(looker.stuck or ()),
    }
    if stored is not None:
        # What wrk did not wait for may be stored too, but never less than was acknowledged.
        row["stored_pulses"] = contender.stored_pulses() - stored
        if row["stored_pulses"] < requests * PULSES[kind]:
            raise Failed(f"{contender.name} acknowledged {requests * PULSES[kind]} pulses and stored {row['stored_pulses']}")
    return row


def steady(contender, kind, connections, rate, seconds, samples=None):
    """A constant rate over so many kept-alive connections, as a row of the results."""
    command = [sys.executable, HERE / "steady.py", contender.url, "--connections", connections, "--rate", rate,
               "--seconds", seconds, "--kind", kind_for(contender, kind)]
    if samples:
        command += ["--samples", samples]
    cpu, busy = contender.process.cpu_seconds(), machine_busy_seconds()
    redis_cpu = contender.redis.cpu_seconds() if contender.redis else 0
    done = subprocess.run([str(part) for part in command], text=True, capture_output=True, check=False,
                          timeout=seconds + 120)
    if done.returncode != 0:
        raise Failed(f"the steady client failed against {contender.name}:\n{done.stdout}{done.stderr}")
    result = json.loads(done.stdout)
    cpu = contender.process.cpu_seconds() - cpu
    redis_cpu = contender.redis.cpu_seconds() - redis_cpu if contender.redis else 0
    # The warm-up takes CPU time too.
    per_request = max(result["sent"], 1)
    return {
        "requests": result["answers"],
        "requests_per_second": result["answers"] / result["seconds"],
        "pulses_per_second": result["answers"] * PULSES[kind] / result["seconds"],
        "p50_ms": result["p50_ms"], "p99_ms": result["p99_ms"], "p999_ms": result["p999_ms"], "max_ms": result["max_ms"],
        "cpu_us_per_request": cpu * 1e6 / per_request,
        "redis_cpu_us_per_request": redis_cpu * 1e6 / per_request,
        "wrk_cpu_us_per_request": result["cpu_seconds"] * 1e6 / per_request,
        "other_cores": max(machine_busy_seconds() - busy - cpu - redis_cpu - result["cpu_seconds"], 0) / result["all_seconds"],
        "peak_rss_mb": contender.process.peak_rss_bytes() / 1e6,
        "errors": result["errors"],
        "unserved_connections": result["unserved_connections"],
    }
