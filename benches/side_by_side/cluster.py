"""Ingestors on one Redis or on a cluster of three: what they store together, and what a pulse costs."""

import concurrent.futures
import subprocess
import time

from . import load
from .contenders import Ours
from .processes import Failed, Process, Redis, can_connect, free_port, machine_busy_seconds, wait_until

NODES = 3
SLOTS = 16384


class Cluster:
    """Three masters without replicas, each with a third of the slots."""

    def __init__(self, directory):
        self.nodes = []
        for place in range(NODES):
            home = directory / f"node-{place}"
            home.mkdir()
            port, bus = free_port(), free_port()
            node = Process(["redis-server", "--port", port, "--cluster-port", bus, "--bind", "127.0.0.1", "--dir", home,
                            "--cluster-enabled", "yes", "--save", "", "--appendonly", "no",
                            "--maxmemory-policy", "noeviction"], home)
            node.wait_for(lambda port=port: can_connect(port))
            self.nodes.append((node, port, bus))
        for place, (_, port, _) in enumerate(self.nodes):
            first, last = SLOTS * place // NODES, SLOTS * (place + 1) // NODES - 1
            command(port, "CLUSTER", "ADDSLOTSRANGE", first, last)
            command(port, "CLUSTER", "SET-CONFIG-EPOCH", place + 1)
        for _, port, bus in self.nodes[1:]:
            command(self.nodes[0][1], "CLUSTER", "MEET", "127.0.0.1", port, bus)
        for _, port, _ in self.nodes:
            def agrees(port=port):
                info = command(port, "CLUSTER", "INFO")
                return "cluster_state:ok" in info and f"cluster_size:{NODES}" in info
            wait_until(agrees, "the cluster works")

    @property
    def settings(self):
        return {"REDIS_CLUSTER_NODES": ",".join(f"127.0.0.1:{port}" for _, port, _ in self.nodes)}

    def cpu_seconds(self):
        return sum(node.cpu_seconds() for node, _, _ in self.nodes)

    def stop(self):
        for node, _, _ in self.nodes:
            node.stop()


class One(Redis):
    """One Redis."""

    def __init__(self, directory):
        super().__init__(directory, False)

    @property
    def settings(self):
        return {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(self.port)}


class Beside(Ours):
    """An ingestor on a store that others may use too."""

    def start(self):
        settings = {"INGESTOR_PORT": "0", "LOG_DIR": str(self.directory / "log"), "DRAIN_TIMEOUT": "5s",
                    "INTERVAL_TO_SEND": "24h"}
        self.process = Process([self.programs["ingestor"], "serve"], self.directory, {**settings, **self.env})
        self.process.wait_for(self.listening_port)


def command(port, *words):
    done = subprocess.run(["redis-cli", "-p", str(port), *map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode != 0 or done.stdout.startswith("ERR"):
        raise Failed(f"redis-cli {words}: {done.stdout}{done.stderr}")
    return done.stdout


def measure(store_class, ingestors, shards, kind, connections, programs, directory, settings, seconds, warm_up, requests):
    """One case: requests of one kind, the connections shared out between the ingestors."""
    store = store_class(directory)
    started = []
    try:
        for number in range(ingestors):
            home = directory / f"ingestor-{number}"
            home.mkdir()
            started.append(Beside(programs, home, {**store.settings, "REDIS_SHARDS": str(shards), **settings}))
            started[-1].start()
        share = connections // ingestors
        with concurrent.futures.ThreadPoolExecutor(ingestors) as pool:
            def run(length):
                return [result for result, _ in pool.map(lambda one: load.wrk(one, kind, share, length, requests), started)]
            run(warm_up)
            time.sleep(1)
            stored = sum(one.stored_pulses() for one in started)
            cpu, redis_cpu, busy = sum(one.process.cpu_seconds() for one in started), store.cpu_seconds(), machine_busy_seconds()
            results = run(seconds)
            cpu = sum(one.process.cpu_seconds() for one in started) - cpu
            redis_cpu, busy = store.cpu_seconds() - redis_cpu, machine_busy_seconds() - busy
        answered = sum(result["requests"] - result["errors"]["status"] for result in results) * load.PULSES[kind]
        elapsed = max(result["duration_us"] for result in results) / 1e6
        if sum(one.stored_pulses() for one in started) - stored < answered:
            raise Failed("more pulses were acknowledged than stored")
        return {
            "store": store_class.__name__.lower(), "ingestors": ingestors, "shards": shards, "kind": kind, "connections": connections,
            "pulses_per_second": answered / elapsed,
            "p99_ms": max(result["p99_us"] for result in results) / 1e3,
            "ingestor_us": cpu * 1e6 / max(answered, 1), "redis_us": redis_cpu * 1e6 / max(answered, 1),
            "busy_cores": busy / elapsed, "errors": sum(sum(result["errors"].values()) for result in results),
        }
    finally:
        for one in started:
            one.stop()
        store.stop()
