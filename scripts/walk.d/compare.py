"""Compares all outputs with the truth, and with one another.

Each check yields lines: who says it, and what contradicts the truth. Lines that differ in nothing but who says it become one.
"""

import re
import traceback
from pathlib import Path

from group import members, repair
from lines import Line, listed, merged, node_truth
from things import disks, nodes, sums, volumes
from told import conditions, events

# Commands that are slower than this are worth a word; without a leader they may try for longer.
SLOW_S, SLOW_LEADERLESS_S = 3.0, 15.0


def contradictions(cluster, moment, seen):
    """All lines, in order."""
    checks = [daemons, commands, members, conditions, guest]
    if moment.led:
        checks += [nodes, disks, volumes, repair, events, sums, texts]
    return merged([line for check in checks for line in lines_of(check, cluster, moment, seen)])


def lines_of(check, cluster, moment, seen):
    try:
        return list(check(cluster, moment, seen))
    except (AttributeError, KeyError, TypeError, ValueError) as e:
        where = traceback.extract_tb(e.__traceback__)[-1]
        return [Line(f"what is said of {check.__name__}", f"is not as it was: {e!r} in {Path(where.filename).name}:{where.lineno}")]


def absences(seen):
    """What these programs do not offer: no contradictions, said once."""
    if seen.leader() is None:
        return
    if seen.codes.get("health") != 200:
        yield "there is no GET /v1/health"
    for name in ("nodes", "disks", "volumes"):
        if any("status" not in item for item in listed(seen, name)):
            yield f"{name} have no `status`"


def daemons(_cluster, _moment, seen):
    for name in seen.ended:
        yield Line(name, "has ended by itself")


def commands(_cluster, moment, seen):
    for name, said in seen.commands.items():
        source = f"`levee {name}`"
        if moment.led and (said.code not in (0, 1) or (said.code == 1 and name != "doctor")):
            yield Line(source, f"ended with {said.code}: {said.text}")
        if moment.led or name in ("status", "doctor"):
            if said.document is None or "error" in said.document:
                yield Line(source, f"says nothing of the cluster: {said.text}")
        if said.seconds > (SLOW_S if moment.led else SLOW_LEADERLESS_S):
            yield Line(source, f"took {said.seconds:.0f} s")
    for name, code in seen.codes.items() if moment.led else ():
        if code != 200 and not (name == "health" and code == 404):
            yield Line(f"GET /v1/{name}", f"answered with status {code}")


def guest(_cluster, moment, seen):
    if seen.guest_age is None:
        return
    if moment.guest == "served" and seen.guest_age > 1:
        yield Line("the guest", f"is to be served, and has waited for {seen.guest_age:.1f} s")
    if moment.guest == "waits" and not seen.guest_waited:
        yield Line("the guest", "is to wait, and is served")


def texts(cluster, moment, seen):
    """What people read, as far as it counts something."""
    truth = node_truth(cluster)
    up = sum(is_so == "up" for is_so in truth.values())
    names = {n["id"]: n["name"] for n in listed(seen, "nodes")}
    serving = sum(truth.get(names.get(d["node"])) == "up" and moment.disks.get(d["id"]) is None for d in listed(seen, "disks"))
    running = sum(host.meta.running for host in cluster.metas())
    counts = [
        (r"(\d+) of (\d+)(?: nodes)? up", (up, len(truth))), (r"(\d+) of (\d+) disks in service", (serving, len(listed(seen, "disks")))),
        (r"(\d+) of (\d+) answer", (running, len(cluster.metas())))]
    for name, text in seen.texts.items():
        for pattern, are in counts:
            for found in re.finditer(pattern, text):
                if tuple(map(int, found.groups())) != are:
                    yield Line(f"levee {name}", f"counts '{found.group(0)}', it is {are[0]} of {are[1]}")
    says, doctor = "All is well" in seen.texts["doctor"], seen.commands["doctor"]
    if says != (doctor.code == 0):
        yield Line("levee doctor", f"exits with {doctor.code}, and its text {'says' if says else 'does not say'} that all is well")
