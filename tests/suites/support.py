"""Installs what suites need, starts servers for them, and runs programs."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = ROOT / "target" / "suites"


class Missing(Exception):
    """What a suite needs cannot be installed."""


def call(*command, log=None, must=True, seconds=1500, **options):
    """Runs a program, and returns what it has printed, which also goes to a file."""
    command = [str(part) for part in command]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              stdin=subprocess.DEVNULL, timeout=seconds, **options)
    except subprocess.TimeoutExpired as error:
        done = subprocess.CompletedProcess(command, 1, (error.stdout or b"") + b"\ntimed out\n")
    except OSError as error:
        raise Missing(f"`{command[0]}`: {error}")
    text = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout.decode("utf-8", "replace"))
    if log:
        (WORK / f"{log}.log").write_text(text)
    if must and done.returncode:
        raise Missing(f"`{' '.join(command[:4])}` failed: {text.strip().splitlines()[-1:]}")
    return text, done.returncode


def program(name, package):
    if not shutil.which(name):
        call("apt-get", "install", "-y", "-qq", package)


def python(*packages):
    """Returns a Python that has packages."""
    home = WORK / "python"
    if not (home / "bin" / "pip").exists():
        call(sys.executable, "-m", "venv", home)
    call(home / "bin" / "pip", "install", "-q", *packages)
    return home / "bin" / "python"


def source(package, version):
    """Returns the directory of a Python package's source, which has its tests."""
    directory = WORK / f"{package}-{version}"
    if not directory.exists():
        pip = python("pip").parent / "pip"
        call(pip, "download", "-q", "--no-deps", "--no-binary", ":all:", f"{package}=={version}", cwd=WORK)
        call("tar", "xf", f"{package}-{version}.tar.gz", cwd=WORK)
    return directory


def skips(name):
    """Returns what a list beside this file leaves out, with the reasons."""
    found, reason = {}, ""
    for line in (HERE / name).read_text().splitlines():
        if line.startswith("#"):
            reason = line[2:]
        elif line:
            found[line] = reason
    return found


def build(features, *target):
    """Builds a server. If that fails, nothing can be said of any suite."""
    try:
        call("cargo", "build", "--release", "--features", features, *target, cwd=ROOT, log="build")
    except Missing as error:
        raise SystemExit(str(error))


def debian_source(package, version):
    """Returns the directory of a Debian package's source. The machine's own lists stay as they are."""
    directory = WORK / f"{package}-{version}"
    if not directory.exists():
        parts = WORK / "apt"
        (parts / "lists/partial").mkdir(parents=True, exist_ok=True)
        for file in Path("/etc/apt/sources.list.d").glob("*.sources"):
            text = re.sub(r"^Types:.*", "Types: deb-src", file.read_text(), flags=re.M)
            (parts / file.name).write_text(text)
        options = ["-o", "Dir::Etc::sourcelist=/dev/null", "-o", f"Dir::Etc::sourceparts={parts}",
                   "-o", f"Dir::State::lists={parts}/lists"]
        call("apt-get", *options, "update")
        call("apt-get", *options, "source", "-qq", "--download-only", package, cwd=WORK)
        call("tar", "xf", f"{package}_{version}.orig.tar.gz", cwd=WORK)
    return directory


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Servers:
    """Starts servers on free ports, each with a new store."""

    def __init__(self):
        self.running = []

    def start(self, make):
        port = free_port()
        store = WORK / f"store-{port}"
        shutil.rmtree(store, ignore_errors=True)
        (store / "0").mkdir(parents=True)
        command, environment = make(store, port)
        log = open(WORK / f"server-{port}.log", "wb")
        server = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **environment})
        self.running.append((server, store))
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                return port
            except OSError:
                time.sleep(0.05)
        raise SystemExit(f"the server does not start: see {log.name}")

    def redis(self):
        build("cli,cluster", "--bin", "bitcask")
        binary = ROOT / "target/release/bitcask"
        command = ["server", "start", "--port", "0", "--resp-port"]
        return self.start(lambda store, port: (
            [binary, "--dir", store / "redis", *command, str(port)], {"BITCASK_LOG_LEVEL": "off"}))

    def http(self):
        build("cli,cluster", "--bin", "bitcask")
        binary = ROOT / "target/release/bitcask"
        command = ["server", "start", "--port"]
        return self.start(lambda store, port: (
            [binary, "--dir", store / "http", *command, str(port)], {"BITCASK_TOKEN": "secret"}))

    def stop(self):
        for server, store in self.running:
            server.send_signal(signal.SIGTERM)
            server.wait(60)
            shutil.rmtree(store, ignore_errors=True)
