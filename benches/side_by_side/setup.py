"""What must be there before anything is measured: Debian's packages and our own release build."""

import json
import os
import pathlib
import shutil
import subprocess

from .processes import Failed

ROOT = pathlib.Path(__file__).resolve().parents[2]
# What is looked for, the packages that bring it, and the services that these would start at the next boot.
NEEDED = {
    "redis-server": (lambda: shutil.which("redis-server"), ["redis-server"], ["redis-server"]),
    "wrk": (lambda: shutil.which("wrk"), ["wrk"], []),
    "webdis": (lambda: shutil.which("webdis"), ["webdis"], ["webdis"]),
    "nginx": (lambda: shutil.which("nginx"), ["nginx"], ["nginx"]),
    "nginx-lua": (
        lambda: all(map(os.path.exists, ("/usr/lib/nginx/modules/ngx_http_lua_module.so",
                                         "/usr/share/lua/5.1/nginx/redis.lua", "/usr/share/lua/5.1/cjson"))),
        ["libnginx-mod-http-lua", "lua-nginx-redis", "lua-cjson"], ["nginx"]),
}


def install(names):
    missing = [name for name in names if not NEEDED[name][0]()]
    if not missing:
        return
    print(f"missing, to be installed: {', '.join(missing)}")
    packages = [package for name in missing for package in NEEDED[name][1]]
    services = sorted({service for name in missing for service in NEEDED[name][2]})
    subprocess.run([ROOT / "scripts" / "apt-install", *packages], check=False)
    # Not started now, but their packages have enabled them for the next boot.
    if services and shutil.which("systemctl"):
        privileged = [] if os.geteuid() == 0 else ["sudo", "-n"]
        subprocess.run([*privileged, "systemctl", "--quiet", "disable", *services], check=False)
    still = [name for name in missing if not NEEDED[name][0]()]
    if still:
        raise Failed(f"could not install {', '.join(still)}")


def build(ingestor=None, with_bare_server=True):
    """Release builds of this program, unless `ingestor` names one that is there already, and of the bare server."""
    programs = {"ingestor": ingestor.resolve()} if ingestor else {}
    what = [] if ingestor else ["--bin", "ingestor"]
    what += ["--example", "bare_tiny_http"] if with_bare_server else []
    if what:
        command = ["cargo", "build", "--locked", "--release", *what, "--message-format=json"]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            raise Failed("the build failed")
        for message in map(json.loads, done.stdout.splitlines()):
            if message.get("executable"):
                programs[message["target"]["name"]] = pathlib.Path(message["executable"])
    return programs


def target_directory():
    return pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
