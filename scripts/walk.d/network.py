"""A network namespace for each host, all on one bridge; what passes between two of them can be cut.

A cut drops silently at the receiver, as a dead switch does: a routing rule before the one for local addresses swallows what arrives
from the other's address (perf/src/faults/network.rs does the same). The bridge has no other port: nothing gets out. Names carry this
process's id, so that what a killed run left is known by it, and removed by the next one.
"""

import os
import re
import signal
import subprocess
from pathlib import Path

PREFIX = "lvw"
OURS = re.compile(rf"^{PREFIX}(\d+)(?:-h|h|b)")
# Only a hang takes that long.
PATIENCE_S = 20
# The rule for local addresses is moved here, so that cuts come before it.
LOCAL_PRIORITY = 30000


def run(*words):
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"`{' '.join(words)}`: {done.stderr.strip()}")
    return done.stdout


def ip(*words):
    return run("ip", *words)


class Network:
    """Removed by `remove_own`."""

    def __init__(self, hosts):
        self.prefix = f"{PREFIX}{os.getpid()}"
        self.subnet = free_subnet()
        self.cuts = 0
        bridge = f"{self.prefix}b"
        ip("link", "add", bridge, "type", "bridge")
        ip("addr", "add", f"{self.subnet}.254/24", "dev", bridge)
        ip("link", "set", bridge, "up")
        for number in range(1, hosts + 1):
            self.make_namespace(number, bridge)

    def make_namespace(self, number, bridge):
        name, link = self.namespace(number), f"{self.prefix}h{number}"
        ip("netns", "add", name)
        ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("link", "set", link, "master", bridge, "up")
        ip("-n", name, "addr", "add", f"{self.address(number)}/24", "dev", "eth0")
        ip("-n", name, "link", "set", "lo", "up")
        ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", name, "rule", "add", "pref", str(LOCAL_PRIORITY), "lookup", "local")
        ip("-n", name, "rule", "del", "pref", "0")

    def namespace(self, number):
        return f"{self.prefix}-h{number}"

    def address(self, number):
        return f"{self.subnet}.{number}"

    def cut(self, one, other, port):
        """Both directions of TCP to and from a port between two hosts; returns what `mend` takes."""
        made = []
        for to, sender in ((one, other), (other, one)):
            for side in ("sport", "dport"):
                self.cuts += 1
                rule = (self.namespace(to), str(self.cuts))
                ip("-n", rule[0], "rule", "add", "pref", rule[1], "from", self.address(sender), "ipproto", "tcp", side, str(port),
                   "blackhole")
                made.append(rule)
        return made

    def mend(self, cut):
        for namespace, priority in cut:
            ip("-n", namespace, "rule", "del", "pref", priority)


def names():
    """Of all links and namespaces. Links come first: one may outlive its namespace while a process is in that."""
    links = [line.split(": ")[1].split("@")[0] for line in ip("-o", "link", "show").splitlines()]
    return links + [line.split()[0] for line in ip("netns", "list").splitlines() if line.strip()]


def remove(prefix):
    """All that has this prefix, and the processes in the namespaces: they can only be ours."""
    problems = []
    ours = [name for name in names() if OURS.match(name) and name.startswith((f"{prefix}-", f"{prefix}h", f"{prefix}b"))]
    for name in ours:
        try:
            if "-" not in name:
                ip("link", "del", name)
                continue
            for pid in ip("netns", "pids", name).split():
                os.kill(int(pid), signal.SIGKILL)
            ip("netns", "del", name)
        except (RuntimeError, ProcessLookupError, subprocess.TimeoutExpired) as e:
            problems.append(str(e))
    return problems


def remove_own():
    """All of this process, however far it came; what could not be removed."""
    return remove(f"{PREFIX}{os.getpid()}")


def remove_leftovers():
    """What runs left whose process is dead."""
    owners = {match.group(1) for match in map(OURS.match, names()) if match}
    for pid in owners:
        if not Path(f"/proc/{pid}").exists():
            remove(f"{PREFIX}{pid}")


def free_subnet():
    used = ip("-o", "-4", "addr", "show")
    for step in range(250):
        subnet = f"10.232.{(os.getpid() + step) % 250}"
        if f" {subnet}." not in used:
            return subnet
    raise RuntimeError("no address range is free for the network")
