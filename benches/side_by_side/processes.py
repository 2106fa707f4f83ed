"""Processes that are started for a measurement: each with its own directory, measured through /proc, and none left behind."""

import atexit
import os
import pathlib
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
START_SECONDS = 20
# The ingestor drains within its DRAIN_TIMEOUT, which the contenders set below this.
STOP_SECONDS = 15
# Connections of 3000 clients, two descriptors each.
DESCRIPTORS = 16384

_running = []


class Failed(Exception):
    """Something that a user can do something about."""


def prepare():
    """Raises the limit of descriptors and makes sure that whatever is started is also ended."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    atexit.register(stop_all)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Not the signal's own end: that would skip atexit.
        signal.signal(number, lambda caught, _frame: sys.exit(128 + caught))


def stop_all():
    for process in reversed(_running[:]):
        process.kill()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def can_connect(port):
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition, what, seconds=START_SECONDS, pause_seconds=0.02):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not within {seconds} s")
        time.sleep(pause_seconds)


class Directory:
    """A temporary directory, removed at the end whatever happens."""

    def __init__(self, parent=None):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="ingestor-bench-", dir=parent))
        atexit.register(self.remove)

    def remove(self):
        shutil.rmtree(self.path, ignore_errors=True)


class Process:
    """A child and its children."""

    def __init__(self, command, directory, env=None):
        self.name = pathlib.Path(command[0]).name
        self.output = directory / f"{self.name}.output"
        with self.output.open("wb") as output:
            # Settings of the user's shell must not reach what is measured.
            kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
            self.child = subprocess.Popen(
                [str(part) for part in command], cwd=directory, env={**kept, **(env or {})},
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )
        _running.append(self)

    def wait_for(self, condition):
        """Waits until it is ready, or says what it said when it ended instead."""
        def ready():
            if self.child.poll() is not None:
                raise Failed(f"{self.name} ended with {self.child.returncode}:\n{self.text()[-2000:]}")
            return condition()
        wait_until(ready, f"{self.name} is ready")

    def text(self):
        return self.output.read_text(errors="replace")

    def pids(self):
        found = [self.child.pid]
        for pid in found:
            try:
                found += map(int, pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
            except OSError:
                pass
        return found

    def cpu_seconds(self):
        """User and system time so far."""
        ticks = 0
        for pid in self.pids():
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / TICKS_PER_SECOND

    def peak_rss_bytes(self):
        return sum(self._status_kib(pid, "VmHWM:") for pid in self.pids()) * 1024

    @staticmethod
    def _status_kib(pid, name):
        for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1])
        return 0

    def stop(self):
        """Asks it to end, and ends it if it does not."""
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                print(f"{self.name} did not end within {STOP_SECONDS} s and is killed", file=sys.stderr)
        self.kill()

    def kill(self):
        for pid in self.pids() if self.child.poll() is None else []:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.child.wait()
        if self in _running:
            _running.remove(self)


class Redis(Process):
    """A Redis of its own, without files or with an append-only file that is synced before each answer."""

    def __init__(self, directory, appendfsync_always):
        self.port = free_port()
        files = ["--appendonly", "yes", "--appendfsync", "always"] if appendfsync_always else ["--appendonly", "no"]
        home = directory / "redis"
        home.mkdir()
        super().__init__(
            ["redis-server", "--port", self.port, "--bind", "127.0.0.1", "--dir", home, "--save", "",
             "--maxmemory-policy", "noeviction", *files], home)
        self.wait_for(lambda: can_connect(self.port))


def machine_busy_seconds():
    """CPU time that all processes of the machine have used."""
    fields = pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq = map(int, fields[:7])
    return (user + nice + system + irq + softirq) / TICKS_PER_SECOND


def stuck_connections(port):
    """The clients, by their ports, of connections to this port whose request lies unread in the kernel."""
    stuck = set()
    local = f":{port:04X}"
    for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(local) and fields[3] == "01" and not fields[4].endswith(":00000000"):
            stuck.add(fields[2])
    return stuck
