"""Who is measured. Each is started anew for each case, in a directory of its own, on ports that were free."""

import os
import pathlib
import re
import urllib.request

from .processes import Process, Redis, can_connect, free_port, Failed

HERE = pathlib.Path(__file__).resolve().parent
CORES = os.cpu_count() or 1
NGINX_MODULES = pathlib.Path("/usr/lib/nginx/modules")


class Contender:
    """One server, and the Redis behind it if it has one."""

    name = ""
    label = ""
    # What it is measured with; see report.py for what they are.
    cases = ("pulse", "list", "ndjson", "tenant")
    stores = True

    def __init__(self, programs, directory, env=None):
        self.programs, self.directory, self.env = programs, directory, env or {}
        self.redis = None
        self.process = None
        self.port = None

    def start(self):
        raise NotImplementedError

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/ingest"

    def stored_pulses(self):
        """How many it says it has stored, if it says so."""
        return None

    def stop(self):
        for process in (self.process, self.redis):
            if process is not None:
                process.stop()

    def listening_port(self):
        found = re.search(r"http://127\.0\.0\.1:(\d+)/ingest", self.process.text())
        self.port = int(found.group(1)) if found else None
        return self.port is not None


class Ours(Contender):
    name = "ours-redis"
    label = "this, Redis without AOF"
    cases = (*Contender.cases, "steady")
    store = "redis"
    appendfsync_always = False

    def start(self):
        settings = {
            "INGESTOR_PORT": "0", "LOG_DIR": str(self.directory / "log"), "DRAIN_TIMEOUT": "5s",
            # No window ends while it is measured.
            "INTERVAL_TO_SEND": "24h",
        }
        if self.store == "redis":
            self.redis = Redis(self.directory, self.appendfsync_always)
            settings.update(REDIS_HOST="127.0.0.1", REDIS_PORT=str(self.redis.port))
        else:
            settings.update(DATA_DIR=str(self.directory / "data"))
        self.process = Process([self.programs["ingestor"], "serve"], self.directory, {**settings, **self.env})
        self.process.wait_for(self.listening_port)

    def stored_pulses(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        found = re.search(r'^ingestor_pulses_total\{outcome="stored"\} (\d+)', text, re.M)
        return int(found.group(1)) if found else 0


class OursAof(Ours):
    name = "ours-redis-aof"
    label = "this, Redis with appendfsync always"
    appendfsync_always = True


class OursEmbedded(Ours):
    name = "ours-embedded"
    label = "this, embedded store"
    store = "embedded"


class Webdis(Contender):
    """HTTP to one Redis command: no validation, no lists."""

    name = "webdis"
    label = "webdis, Redis without AOF"
    cases = ("pulse",)
    appendfsync_always = False

    def start(self):
        self.redis = Redis(self.directory, self.appendfsync_always)
        self.port = free_port()
        settings = self.directory / "webdis.json"
        settings.write_text(
            f'{{"redis_host": "127.0.0.1", "redis_port": {self.redis.port}, "redis_auth": null,'
            f' "http_host": "127.0.0.1", "http_port": {self.port}, "threads": {CORES}, "pool_size": 20,'
            f' "daemonize": false, "database": 0, "acl": [], "verbosity": 0, "logfile": "{self.directory}/webdis.log"}}')
        self.process = Process(["webdis", settings], self.directory)
        self.process.wait_for(lambda: can_connect(self.port))

    @property
    def url(self):
        # The command stands in the body.
        return f"http://127.0.0.1:{self.port}/"


class WebdisAof(Webdis):
    name = "webdis-aof"
    label = "webdis, Redis with appendfsync always"
    appendfsync_always = True


class Nginx(Contender):
    """nginx with this location, one worker a core."""

    location = ""

    def start(self):
        self.port = free_port()
        settings = self.directory / "nginx.conf"
        text = (HERE / "nginx.conf.in").read_text()
        values = {
            "user": "user root;" if os.geteuid() == 0 else "", "modules": NGINX_MODULES, "workers": CORES,
            "directory": self.directory, "port": self.port, "location": self.nginx_location(),
            "load_modules": self.load_modules(),
        }
        for name, value in values.items():
            text = text.replace(f"@{name}@", str(value))
        settings.write_text(text)
        self.process = Process(["nginx", "-p", self.directory, "-e", "stderr", "-c", settings], self.directory)
        self.process.wait_for(lambda: can_connect(self.port))

    def nginx_location(self):
        return self.location

    def load_modules(self):
        return ""


class Nginx204(Nginx):
    """What the client and the kernel can do: the body is not even looked at."""

    name = "nginx-204"
    label = "nginx return 204 (no work)"
    cases = (*Contender.cases, "steady")
    location = "return 204;"
    stores = False


class NginxLua(Nginx):
    name = "nginx-lua"
    label = "nginx + Lua, Redis without AOF"
    appendfsync_always = False

    def start(self):
        self.redis = Redis(self.directory, self.appendfsync_always)
        super().start()

    def nginx_location(self):
        return f"set $redis_port {self.redis.port}; content_by_lua_file {HERE / 'ingest.lua'};"

    def load_modules(self):
        modules = ("ndk_http_module.so", "ngx_http_lua_module.so")
        return "\n".join(f"load_module {NGINX_MODULES / module};" for module in modules)


class NginxLuaAof(NginxLua):
    name = "nginx-lua-aof"
    label = "nginx + Lua, Redis with appendfsync always"
    appendfsync_always = True


class BareTinyHttp(Contender):
    name = "tiny-http"
    label = "bare tiny_http (no work)"
    cases = (*Contender.cases, "steady")
    stores = False

    def start(self):
        self.process = Process([self.programs["bare_tiny_http"]], self.directory)
        self.process.wait_for(self.listening_port)


ALL = [Ours, OursAof, OursEmbedded, Webdis, WebdisAof, NginxLua, NginxLuaAof, Nginx204, BareTinyHttp]


def chosen(names):
    if not names:
        return ALL
    unknown = set(names) - {contender.name for contender in ALL}
    if unknown:
        raise Failed(f"no contender is called {', '.join(sorted(unknown))}; there are {', '.join(c.name for c in ALL)}")
    return [contender for contender in ALL if contender.name in names]
