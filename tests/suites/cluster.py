"""Clients that others wrote, against a cluster of three nodes, of which one is killed.

Each client is a program of its own. It writes and reads, says `ready`, and waits for a line. Then a node is killed,
and the client gets its line: it has to read what it has written, and to write more, by its own means.
"""

import json
import os
import re
import select
import shutil
import subprocess
import time

from support import HERE, ROOT, WORK, build, call, free_port, python

KEYS = 200
PATIENCE = 120


class Cluster:
    """Three nodes with three shards, each of which leads some group."""

    def __init__(self, binary):
        self.binary, self.home = binary, WORK / "cluster"
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir(parents=True)
        (self.home / "secret").write_text("secret of the suites")
        self.peers, self.redis = ([free_port() for _ in range(3)] for _ in range(2))
        self.nodes = []

    def found(self):
        for number in range(3):
            self.nodes.append(self.start(number))
        for number in range(3):
            self.until(lambda: self.administer(number, "status")[1] == 0)
        self.administer(0, "init", "--shards", 3, must=True)
        for number in (1, 2):
            self.administer(number, "join", f"127.0.0.1:{self.peers[0]}", must=True)
        self.administer(0, "balance", must=True)

    def start(self, number):
        log = open(self.home / f"{number}.log", "wb")
        return subprocess.Popen(
            [self.binary, "--dir", self.home / str(number), "--log-level", "off", "server", "start", "--cluster",
             "--node-id", str(number + 1), "--cluster-listen", f"127.0.0.1:{self.peers[number]}", "--port", "0",
             "--cluster-secret-file", self.home / "secret", "--resp-port", str(self.redis[number])],
            stdout=log, stderr=log)

    def administer(self, number, *arguments, must=False):
        return call(self.binary, "cluster", "--node", f"127.0.0.1:{self.peers[number]}", "--secret-file",
                    self.home / "secret", *arguments, must=must)

    def until(self, condition):
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise SystemExit(f"the cluster does not get ready: see {self.home}")
            time.sleep(0.1)

    def leader(self, group):
        """Waits until a node leads a group, and returns which, as a number from 0 on."""
        found = []
        self.until(lambda: found.append(self.known_leader(group)) or found[-1] is not None)
        return found[-1]

    def known_leader(self, group):
        for number, node in enumerate(self.nodes):
            if node.poll() is None:
                text, code = self.administer(number, "status", "--json")
                leaders = [it["leader"] for it in json.loads(text)["groups"] if it["number"] == group] if not code else []
                if leaders and leaders[0]:
                    return leaders[0] - 1
        return None

    def kill(self, number):
        self.nodes[number].kill()
        self.nodes[number].wait()

    def stop(self):
        for node in self.nodes:
            node.terminate()
        for node in self.nodes:
            node.wait(60)
        shutil.rmtree(self.home, ignore_errors=True)


def clients(is_quick, versions):
    """Returns the clients: a name, and a command."""
    yield f"redis-py {versions['redis-py']}", [python(f"redis=={versions['redis-py']}"), HERE / "cluster_client.py"]
    home = WORK / "node"
    if shutil.which("npm"):
        shutil.copytree(HERE / "node", home, dirs_exist_ok=True)
        call("npm", "install", "--no-audit", "--no-fund", cwd=home)
        packages = json.loads((HERE / "node/package.json").read_text())["dependencies"]
        yield f"ioredis {packages['ioredis']}", ["node", home / "cluster_client.js"]
    if not is_quick:
        call("cargo", "build", "--example", "cluster_client", "--target-dir", WORK / "rust", cwd=HERE / "rust")
        yield "redis-rs 1.8", [WORK / "rust/debug/examples/cluster_client"]


def run(is_quick, versions):
    """Yields a row for each client, and for the tools."""
    build("cli,cluster", "--bin", "bitcask")
    started = list(clients(is_quick, versions))
    cluster, running = Cluster(ROOT / "target/release/bitcask"), []
    try:
        cluster.found()
        yield from tools(cluster)
        seeds = " ".join(f"127.0.0.1:{port}" for port in cluster.redis)
        for name, command in started:
            log = open(cluster.home / f"client-{name.split()[0]}.log", "w+", encoding="utf-8")
            client = subprocess.Popen([str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=log, text=True, env={**os.environ, "SUITE_SEEDS": seeds})
            running.append((name, client, log))
        ready = {name: first_line(client) == "ready" for name, client, _ in running}
        cluster.kill(cluster.leader(2))
        for name, client, log in running:
            try:
                said, _ = client.communicate("\n", timeout=PATIENCE)
            except (subprocess.TimeoutExpired, BrokenPipeError):
                client.kill()
                said = "no answer in time"
            is_good = ready[name] and said.strip() == f"kept {KEYS}"
            if not is_good:
                log.seek(0)
                print(f"{name}: {said.strip()}\n{log.read()[-2000:]}")
            yield f"{name}, cluster and failover", int(is_good), 0, int(not is_good)
        yield from survivors(cluster)
    finally:
        for _, client, _ in running:
            client.kill()
        cluster.stop()


def first_line(client):
    """Returns the first line that a client says, or nothing if it says none in time."""
    is_there, _, _ = select.select([client.stdout], [], [], PATIENCE)
    return client.stdout.readline().strip() if is_there else ""


def tools(cluster):
    passed = 0
    for port in cluster.redis:
        for number in range(5):
            text, _ = call("redis-cli", "-c", "-p", port, "SET", f"cli:{port}:{number}", number, must=False)
            passed += text.strip() == "OK"
    yield "redis-cli -c", passed, 0, 15 - passed
    tests = ["set", "get", "incr"]
    text, _ = call("redis-benchmark", "--cluster", "-p", cluster.redis[1], "-n", 3000, "-r", 1000, "-P", 4, "-q",
                   "-t", ",".join(tests), must=False, log="redis-benchmark-cluster", seconds=PATIENCE)
    passed = len(re.findall(r"requests per second", text))
    yield "redis-benchmark --cluster", passed, 0, len(tests) - passed


def survivors(cluster):
    """What redis-cli has written is there, at each node that is left."""
    passed, expected = 0, 0
    for at, node in zip(cluster.redis, cluster.nodes):
        if node.poll() is None:
            for port in cluster.redis:
                text, _ = call("redis-cli", "-c", "-p", at, "GET", f"cli:{port}:4", must=False)
                passed, expected = passed + (text.strip() == "4"), expected + 1
    yield "redis-cli -c, after the failover", passed, 0, expected - passed
