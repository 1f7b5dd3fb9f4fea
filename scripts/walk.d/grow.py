"""Steps: a cluster is set up and grows, and disks and hosts make room for others."""

from guest import Guest, fill
from hosts import Failed, wait_for
from shared import DATA, DATA_HOST, GUEST_HOST, IDLE, PER_CHUNK, SIZES, VM
from truth import ANY, COPIED, COPYING, MOVING, Happened, Word
from weakdisk import WeakFolder

WEAK_SIZE = 3 << 30


def bootstrap(walk):
    """Three hosts, each with a meta server and two disks; two volumes are filled."""
    cluster = walk.cluster
    walk.weak = WeakFolder(cluster["h3"].folder / "weak", WEAK_SIZE)
    peers = ",".join(f"{n}={url}" for n, url in enumerate(cluster.urls(), 1))
    for number, name in enumerate(("h1", "h2", "h3"), 1):
        host = cluster[name]
        host.format("disk-1")
        host.format("disk-2", walk.weak.path if name == "h3" else None)
        host.make_meta(number, "--peers", peers).start()
    cluster.leader()
    for name in ("h1", "h2", "h3"):
        cluster[name].start_stored()
    wait_for("three nodes that are up", lambda: len(up_nodes(cluster)) == 3)
    for name in (DATA, IDLE, VM):
        cluster.levee("volume", "create", name, "--size", str(SIZES[name]))
        walk.volumes[name] = None
    for name in (DATA, IDLE):
        fill(walk.attach(name, "h3"), SIZES[name], PER_CHUNK[name])
        walk.detach(name)
    walk.moment("three hosts run", events=[
        Happened("cluster", "cluster", "founded"), *[Happened("node", host, "joined") for host in ("h1", "h2", "h3")],
        *[Happened("volume", name, "created") for name in walk.volumes], Happened("volume", DATA, "attached"),
        Happened("volume", DATA, "detached"), Happened("member", ANY, "lead")])


def up_nodes(cluster):
    return [n for n in cluster.levee("node", "list") if n["state"] == "up"]


def expand(walk):
    """Two hosts join; volumes are attached to them, and a guest starts."""
    cluster = walk.cluster
    for name in ("h4", "h5"):
        cluster[name].format("disk-1")
        cluster[name].format("disk-2")
        cluster[name].start_stored()
    wait_for("five nodes that are up", lambda: len(up_nodes(cluster)) == 5)
    walk.attach(DATA, DATA_HOST)
    walk.guest = Guest(walk.attach(VM, GUEST_HOST), SIZES[VM])
    # The copies in h3's zone are put on the disk that will fail: one that nobody uses is not found out.
    other = cluster.disk_at(cluster["h3"].disks[0])
    cluster.levee("disk", "weight", other, "0")
    walk.guest.start()
    wait_for("the guest's first requests", lambda: walk.guest.done > 100)
    cluster.levee("disk", "weight", other, "100")
    walk.moment("five hosts run", events=[
        *[Happened("node", name, "joined") for name in ("h4", "h5")], *[Happened("volume", name, "attached") for name in (VM, DATA)]])


def rebalance(walk):
    """Copies move until disks are used alike."""
    before = used(walk, "h4", "h5")
    plan = lambda: walk.cluster.levee("rebalance", "plan", "--tolerance", "1")
    first = plan()
    if not first["count"]:
        walk.note(f"hosts have joined, and `levee rebalance plan` has nothing to move at first: {first['remark']}")
        wait_for("a rebalance to have something to move", lambda: plan()["count"])
    job = walk.cluster.begin("rebalance", "run", "--tolerance", "1", "--wait", "--timeout", "60s")
    wait_for("it to begin", lambda: walk.cluster.levee("rebalance", "status")["state"] == "running", 10)
    walk.moment("it is under way", must=[Word("rebalance", "cluster", "running", "info")], may=MOVING, patience_s=0,
                events=[Happened("rebalance", "cluster", "begins")])
    answer, status = job.result(80), walk.cluster.levee("rebalance", "status")
    if status["state"] != "done" or not status["done"] or status["skipped"]:
        raise Failed(f"the rebalance has not done what it should: it answered {answer}; its status is {status}")
    wait_for("the new hosts to be used", lambda: used(walk, "h4", "h5") > before, 10)
    walk.wait_whole()
    walk.moment("it is done", events=[Happened("rebalance", "cluster", "done|ended|finished")])


def used(walk, *names):
    disks = set(walk.disks_of(*names))
    return sum(d["used"] or 0 for d in walk.cluster.disks() if d["id"] in disks)


def drain(walk):
    """A host is emptied, and taken back."""
    disks = walk.disks_of("h2")
    state = {"draining": {"h2"}, "disks": {disk: "draining" for disk in disks}}
    disk_words = [Word("disk", str(disk), word, "info") for disk in disks for word in ("draining", "drained")]
    job = walk.cluster.begin("node", "drain", "h2", "--reason", "a new mainboard", "--wait", "--timeout", "60s")
    wait_for("copies to leave", lambda: walk.report(DATA).get("leaving_replicas"), 10)
    walk.moment("h2 is being drained", **state, may=[*MOVING, *disk_words], must=[Word("node", "h2", "draining", "info")], patience_s=0,
                events=[Happened("node", "h2", "being emptied|being drained")])
    job.result(80)
    walk.moment("h2 is drained", **state, may=[*MOVING, *disk_words], must=[Word("node", "h2", "drained", "info")], events=[
        Happened("node", "h2", "is empty|was emptied|is drained|nothing is on it")])
    walk.cluster.levee("node", "undrain", "h2")
    walk.wait_whole()
    walk.moment("h2 is taken back", events=[Happened("node", "h2", "back|service|undrained|drain")])


def replace(walk):
    """A disk that works makes room for another one; then one fails for good."""
    cluster, host = walk.cluster, walk.cluster["h1"]
    old, new = host.disks[0], host.folder / "disk-3"
    number = cluster.disk_at(old)
    cluster.levee("disk", "replace", number, new, "--format", "--size", "2G", "--timeout", "60s", seconds=70)
    host.disks[0] = new
    walk.moment("a disk is replaced", may=MOVING, events=[
        Happened("disk", str(cluster.disk_at(new)), "joined|added|came"), Happened("disk", str(number), "left")])
    fails(walk, cluster["h3"])


def fails(walk, host):
    cluster, old, new = walk.cluster, host.disks[1], host.folder / "disk-3"
    number = cluster.disk_at(old)
    walk.weak.fail()
    find = lambda: next(d for d in cluster.disks() if d["id"] == number)
    wait_for("the failed disk to be given up", lambda: find()["state"] == "dead", 30)
    walk.moment("a disk has failed", disks={number: "dead"}, must=[Word("disk", str(number), "dead", ANY)], may=COPYING, whole=False,
                events=[Happened("disk", str(number), "fail|lost")], may_events=COPIED)
    wait_for("its copies to be made anew", lambda: find()["replicas"] == 0, 60)
    walk.wait_whole()
    walk.moment("its copies are made anew", disks={number: "dead"}, must=[Word("disk", str(number), "dead", "info")], may_events=COPIED)
    cluster.levee("disk", "replace", number, new, "--format", "--size", "2G", "--timeout", "60s", seconds=70)
    host.disks[1] = new
    walk.moment("the failed disk is replaced", may=MOVING, events=[
        Happened("disk", str(cluster.disk_at(new)), "joined|added|came"), Happened("disk", str(number), "left")])
