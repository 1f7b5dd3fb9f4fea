"""Steps: hosts, links and meta servers are lost, and come back."""

import time

from alert import fires, holds
from hosts import REPAIR_AFTER_S, Failed, wait_for
from shared import DATA, DATA_HOST, GUEST_HOST, VM
from truth import ANY, COPIED, COPYING, DEGRADED, Happened, Word, down, silent

# Of docs/operations/alerts.yml.
STALLED = "LeveeVolumeStalled"


def lose(walk):
    """The host with the leader dies, is given up, and comes back."""
    cluster = walk.cluster
    host = cluster.leader()
    name, disks = host.name, walk.disks_of(host.name)
    gone = time.monotonic()
    host.kill()
    cluster.leader()
    wait_for(f"{name} to be down", lambda: walk.states([name]) == {"down"}, 10)
    walk.moment(
        f"{name}, where the leader was, is dead", must=[*down(name), *silent(host.meta.id), DEGRADED], may=COPYING, whole=False,
        guest_wait_s=3, patience_s=max(1.0, gone + REPAIR_AFTER_S - 4 - time.monotonic()), events=[
            Happened("node", name, "down"), Happened("member", str(host.meta.id), "answer"), Happened("member", ANY, "lead")],
        may_events=[*COPIED, Happened("member", ANY, ANY)])
    are_dead = lambda: all(d["state"] == "dead" for d in cluster.disks() if d["id"] in disks)
    wait_for("its disks to be given up", are_dead, REPAIR_AFTER_S + 15)
    walk.wait_whole()
    walk.moment(
        f"{name} is given up", disks={disk: "dead" for disk in disks}, must=[*down(name, severity="info"), *silent(host.meta.id)],
        may=[Word("disk", str(disk), "dead", "info") for disk in disks],
        events=[Happened("disk", str(disk), "lost|given up|dead") for disk in disks], may_events=COPIED)
    host.meta.start()
    host.start_stored()
    walk.wait_up(name)
    walk.wait_members()
    walk.wait_whole()
    walk.moment(f"{name} is back", may=COPYING, may_events=COPIED, events=[
        Happened("node", name, "up"), Happened("member", str(host.meta.id), "answer"),
        *[Happened("disk", str(disk), "service") for disk in disks]])


def cut(walk):
    """Two hosts do not reach each other's data ports; then they do again."""
    cluster = walk.cluster
    one, other = cluster[GUEST_HOST], cluster[peer_of_guest(walk)]
    between = f"(?:{one.name}-{other.name}|{other.name}-{one.name})"
    rules = cluster.network.cut(one.number, other.number, 7501)
    time.sleep(7)
    if not walk.report(VM).get("degraded_chunks"):
        raise Failed(f"{VM} has lost no copy on {other.name}, and its gateway {one.name} does not reach it")
    walk.moment(
        f"the link between {one.name} and {other.name} is cut", must=[Word("link", between, "cut", "warning"), DEGRADED], may=COPYING,
        whole=False, guest_wait_s=6, events=[Happened("link", between, "reach|cut")], may_events=COPIED)
    cluster.network.mend(rules)
    time.sleep(2)
    walk.wait_whole()
    walk.moment("the link is mended", guest_wait_s=6, events=[Happened("link", between, "reach|again|over")], may_events=COPIED)


def peer_of_guest(walk):
    """A host that has copies of the guest's volume."""
    for nodes in walk.places(VM):
        for name in sorted(nodes - {GUEST_HOST, DATA_HOST}):
            return name
    raise Failed(f"no host but {GUEST_HOST} has copies of {VM}")


def quorum(walk):
    """Two of three meta servers die, the leader among them, and are started again."""
    cluster = walk.cluster
    leader = cluster.leader()
    other = next(host for host in cluster.metas() if host is not leader)
    for host in (leader, other):
        host.meta.kill()
    time.sleep(3)
    walk.moment("two of three meta servers are dead", led=False, must=[Word("member", "cluster", "leaderless", "error")], may=[
        Word("member", ANY, "silent", "warning")], patience_s=6)
    for host in (leader, other):
        host.meta.start()
    cluster.leader()
    walk.wait_members()
    walk.moment("they run again", events=[Happened("member", ANY, "lead")], may_events=[Happened("member", ANY, ANY)])


def stall(walk):
    """Three of five storage daemons die, so that the guest waits; then they are back."""
    cluster = walk.cluster
    chosen = quorum_breakers(walk.places(VM), cluster)
    if holds(cluster, STALLED):
        raise Failed(f"the alert {STALLED} is true while nobody waits")
    for name in chosen:
        cluster[name].stored.kill()
    wait_for("the guest to wait", walk.guest.waits, 30)
    time.sleep(REPAIR_AFTER_S + 2)
    lost = [Word("volume", DATA, "down", "error")] if DATA_HOST in chosen else []
    walk.moment(
        f"{', '.join(chosen)} are dead, the guest waits", must=[
            *down(*chosen), *lost, DEGRADED, Word("volume", VM, "stalled", "error"), Word("repair", "cluster", "held", "warning")],
        may=[*COPYING, Word("repair", "cluster", "no-place", "warning"), Word("volume", ANY, "waiting", "error")], whole=False, held=True,
        guest="waits", guest_wait_s=60, events=[
            *[Happened("node", name, "down") for name in chosen], Happened("volume", VM, "stall|wait"),
            Happened("repair", "cluster", "held")],
        may_events=[*COPIED, Happened("volume", DATA, ANY)])
    if not fires(cluster, STALLED):
        raise Failed(f"the alert {STALLED} does not fire while the guest waits")
    for name in chosen:
        cluster[name].start_stored()
    walk.wait_up(*chosen)
    wait_for("the guest to be served", lambda: not walk.guest.waits(), 30)
    walk.wait_whole()
    walk.moment("all are back", guest_wait_s=60, may_events=[*COPIED, Happened("volume", ANY, ANY)], events=[
        *[Happened("node", name, "up") for name in chosen], Happened("volume", VM, "again|over|served|no longer|not")])


def quorum_breakers(places, cluster):
    """Three hosts, not the guest's, without which some chunk of the guest has one copy at most."""
    others = [name for name in cluster.hosts if name != GUEST_HOST]
    for spared in others:
        chosen = [name for name in others if name != spared]
        if any(len(nodes - set(chosen)) <= 1 for nodes in places):
            return chosen
    raise Failed(f"no three hosts hold enough of the guest's copies: {places}")
