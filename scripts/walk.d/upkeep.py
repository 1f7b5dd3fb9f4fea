"""Steps: restarts, maintenance, a group of meta servers that is made anew, and the reckoning at the end."""

import re
import shutil
import time

from guest import check
from hosts import REPAIR_AFTER_S, Failed, get_json, wait_for
from shared import DATA, DATA_HOST, IDLE, PER_CHUNK, SIZES
from truth import ANY, COPIED, COPYING, RESTARTS, Happened, Word

# That a node is back is told when it has stayed for a while; if it goes again before, that is no new event.
TOLD_S = 7


def rolling(walk):
    """All daemons are restarted, one by one, as for an upgrade."""
    cluster = walk.cluster
    leader = cluster.leader()
    metas = sorted(cluster.metas(), key=lambda host: host is leader)
    for host in metas:
        host.meta.stop()
        host.meta.start()
        cluster.leader()
        walk.wait_members()
    for host in cluster.hosts.values():
        host.stored.stop()
        host.start_stored()
        walk.wait_up(host.name)
        walk.wait_whole()
        walk.wait_healthy()
    time.sleep(TOLD_S)
    walk.moment("all are restarted", guest_wait_s=5, events=[Happened("member", ANY, "lead")], may_events=RESTARTS)


def maintenance(walk):
    """A host is stopped in a window, for longer than hosts may be silent else, and started again."""
    cluster, host = walk.cluster, walk.cluster[DATA_HOST]
    cluster.levee("maintenance", "start", "--node", host.name, "--for", "10m", "--reason", "new firmware")
    host.stored.stop()
    time.sleep(REPAIR_AFTER_S + 4)
    window = Word("maintenance", host.name, "open", "info")
    walk.moment(
        f"{host.name} is stopped in its window", maintained={host.name}, whole=False, guest_wait_s=2, must=[
            window, Word("node", host.name, "stopped", "info"), Word("volume", DATA, "down", "info"),
            Word("repair", "cluster", "degraded", "info")],
        events=[Happened("maintenance", host.name, "maintenance|begin"), Happened("node", host.name, "stopped")],
        may_events=[Happened("repair", "cluster", ANY)])
    host.start_stored()
    walk.wait_up(host.name)
    walk.wait_whole()
    walk.moment(f"{host.name} runs again", maintained={host.name}, must=[window], events=[Happened("node", host.name, "up")],
                may_events=[*COPIED, Happened("volume", DATA, ANY)])
    cluster.levee("maintenance", "stop", "--node", host.name)
    walk.moment("the window is closed", events=[Happened("maintenance", host.name, "over|ended|stopped")])


def recover(walk):
    """Two meta servers are lost for good: the third goes on alone, and two new ones join it."""
    cluster = walk.cluster
    leader = cluster.leader()
    lost = [host for host in cluster.metas() if host is not leader]
    for host in lost:
        host.meta.kill()
        shutil.rmtree(host.meta.folder)
        host.meta = None
    leader.meta.stop()
    go_on_alone(cluster, leader)
    cluster.leader()
    for number, host in enumerate(lost, 4):
        host.make_meta(number, "--join", leader.url()).start()
        wait_for(f"meta server {number} to listen", lambda host=host: get_json(host.url(), "/v1/cluster")[0] != 0)
        cluster.levee("meta", "add", host.url(), "--timeout", "30s", seconds=40)
    walk.wait_members()
    walk.wait_healthy()
    walk.moment("the group is made anew", may=COPYING, events=[
        Happened("cluster", "cluster", "may be older|went on|recover"), Happened("cluster", "cluster", "volumes are opened again"),
        *[Happened("member", number, "join|added|vot|count|taken in") for number in ("4", "5")]],
        may_events=[Happened("cluster", "cluster", ANY), Happened("node", ANY, ANY), *RESTARTS])


def go_on_alone(cluster, host):
    """`levee-metad recover`, which says first what it would do."""
    words = [cluster.bin / "levee-metad", "recover", "--dir", host.meta.folder, "--id", host.meta.id, "--url", host.url()]
    looked = cluster.run(words, ok=False)
    said = re.search(r"--confirm ([0-9a-f]{8})", looked.stdout + looked.stderr)
    if not said:
        raise Failed(f"`levee-metad recover` does not say how to confirm: {looked.stdout}{looked.stderr}")
    cluster.run([*words, "--confirm", said.group(1)])
    host.make_meta(host.meta.id).start()


def finish(walk):
    """Everything that was written is read back, and copies are compared."""
    cluster = walk.cluster
    blocks = walk.guest.finish()
    walk.guest.close()
    wrong = check(walk.attach(DATA, DATA_HOST), SIZES[DATA], PER_CHUNK[DATA]) + check(
        walk.attach(IDLE, "h1"), SIZES[IDLE], PER_CHUNK[IDLE])
    if wrong or walk.guest.errors or not blocks:
        raise Failed(f"what is read back is not what was written: {wrong[:5]}; the guest: {walk.guest.errors[:5]}, {blocks} blocks")
    for name in SIZES:
        cluster.levee("volume", "verify", name)
