"""Everything that the cluster says of itself at one moment, as raw as it comes."""

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from hosts import PATIENCE_S, get, get_json

COMMANDS = {
    "status": ("status",), "doctor": ("doctor",), "nodes": ("node", "list"), "disks": ("disk", "list"),
    "volumes": ("volume", "list"), "members": ("meta", "list"),
}
# What the dashboard reads (metaserver/dashboard/main.js), and what is to come.
PATHS = ["cluster", "capacity", "nodes?limit=1000", "disks?limit=1000", "volumes?limit=50", "load?limit=1000", "history", "repair",
         "rebalance", "maintenance", "members", "health"]
ROW = re.compile(r"^([a-zA-Z_:]+)(?:\{(.*)\})? (\S+)$")
LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass
class Said:
    """What a command printed."""
    code: int
    document: object
    text: str
    seconds: float


@dataclass
class Seen:
    at: float
    commands: dict
    # Of the leader, or of any member that answers if there is none: path without its query -> document.
    api: dict
    # Status codes of the same.
    codes: dict
    # Member's id -> /v1/cluster as itself says it.
    clusters: dict
    healthz: dict
    metrics: dict
    events: list
    # Earlier ones.
    known: list
    texts: dict = field(default_factory=dict)
    # How old the guest's request is; None: there is no guest.
    guest_age: float | None = None
    guest_waited: bool = False
    ended: list = field(default_factory=list)

    def leader(self):
        """As most members have it."""
        said = [cluster["leader"] for cluster in self.clusters.values()]
        return max(set(said), key=said.count) if said else None

    def leaders_metrics(self):
        return self.metrics.get(self.leader(), {})


def collect(cluster, known, guest, led):
    """`known`: the events until now. Without a leader commands try for long: they are run side by side, and lists are not asked for."""
    age = guest.age() if guest else None
    names = COMMANDS if led else ("status", "doctor")
    with ThreadPoolExecutor(1 if led else 4) as pool:
        texts, said = {}, {}
        for name in names:
            if name in ("status", "doctor"):
                texts[name] = pool.submit(cluster.run, [cluster.bin / "levee", name], PATIENCE_S, False)
            said[name] = pool.submit(say, cluster, COMMANDS[name])
    running = [host for host in cluster.metas() if host.meta.running]
    clusters, healthz, metrics = {}, {}, {}
    for host in running:
        status, document = get_json(host.url(), "/v1/cluster")
        if status == 200:
            clusters[host.meta.id] = document
        healthz[host.meta.id] = get(host.url(), "/healthz")[0]
        metrics[host.meta.id] = parse(get(host.url(), "/metrics")[1])
    seen = Seen(time.time(), {name: Said(0, None, "", 0.0) for name in COMMANDS}, {}, {}, clusters, healthz, metrics, [], known)
    seen.commands.update({name: job.result() for name, job in said.items()})
    seen.texts = {name: job.result().stdout for name, job in texts.items()}
    if led:
        ask_api(seen, running)
        seen.events = events(cluster, known[-1]["seq"] if known else 0)
    seen.ended = [daemon.name for daemon in cluster.daemons() if daemon.has_ended()]
    if guest:
        later = guest.age()
        seen.guest_age, seen.guest_waited = later, min(age, later) > 1
    return seen


def ask_api(seen, running):
    asked = [host for host in running if host.meta.id == seen.leader()] or running
    for path in PATHS if asked else []:
        name = path.split("?")[0]
        seen.codes[name], seen.api[name] = get_json(asked[0].url(), f"/v1/{path}")


def say(cluster, words):
    begun = time.monotonic()
    done = cluster.run([cluster.bin / "levee", "--json", *words], PATIENCE_S, ok=False)
    seconds = time.monotonic() - begun
    try:
        document = json.loads(done.stdout) if done.stdout.strip() else None
    except ValueError:
        document = None
    return Said(done.returncode, document, (done.stderr.strip() or done.stdout.strip())[:400], seconds)


def events(cluster, after):
    """Those behind a number; empty where nobody can tell."""
    said = say(cluster, ("events", "--after", after, "--limit", 1000))
    return said.document["events"] if isinstance(said.document, dict) and said.code == 0 else []


def parse(text):
    """Prometheus' format: name -> list of (labels, value)."""
    found = {}
    for line in text.splitlines():
        match = ROW.match(line)
        if match and not line.startswith("#"):
            found.setdefault(match.group(1), []).append((dict(LABEL.findall(match.group(2) or "")), float(match.group(3))))
    return found
