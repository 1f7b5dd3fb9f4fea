"""What the steps share: the cluster, its volumes and the guest, and how they wait."""

from guest import CHUNK
from hosts import Failed, get_json, wait_for
from truth import Moment

DATA, IDLE, VM = "data", "idle", "vm1"
SIZES = {DATA: 8 * CHUNK, IDLE: 4 * CHUNK, VM: 8 * CHUNK}
# Bytes at the start of each chunk that are filled.
PER_CHUNK = {DATA: 32 << 20, IDLE: 4 << 20}
GUEST_HOST, DATA_HOST = "h4", "h5"


class Walk:
    """What the steps share; `moment` compares all outputs with what is true now."""

    def __init__(self, cluster, moment, note):
        self.cluster, self.compare, self.note = cluster, moment, note
        self.guest = None
        self.weak = None
        self.volumes = {}

    def moment(self, name, **truth):
        self.compare(Moment(name, volumes=dict(self.volumes), **truth))

    def attach(self, name, node):
        answer = self.cluster.levee("volume", "attach", name, "--node", node)
        self.volumes[name] = node
        return answer["socket"]

    def detach(self, name):
        self.cluster.levee("volume", "detach", name)
        self.volumes[name] = None

    def is_whole(self):
        """No copy is missing, none is to be moved, and nothing is being repaired."""
        for volume in self.cluster.levee("volume", "list"):
            attachment = volume.get("attachment")
            report = (attachment or {}).get("report") or {}
            if attachment and (attachment["repair"] or report.get("state") != "serving"):
                return False
            if report.get("degraded_chunks") or report.get("leaving_replicas"):
                return False
        return all(d["state"] == "in-service" or d["replicas"] == 0 for d in self.cluster.disks())

    def report(self, name):
        """What the gateway of a volume reports."""
        volume = next(v for v in self.cluster.levee("volume", "list") if v["name"] == name)
        return (volume.get("attachment") or {}).get("report") or {}

    def wait_whole(self, seconds=60):
        wait_for("all copies to be whole", self.is_whole, seconds, 0.3)

    def wait_up(self, *names, seconds=20):
        wait_for(f"{', '.join(names)} to be up", lambda: self.states(names) == {"up"}, seconds)

    def states(self, names):
        return {n["state"] for n in self.cluster.levee("node", "list") if n["name"] in names}

    def disks_of(self, *names):
        numbers = {n["id"]: n["name"] for n in self.cluster.levee("node", "list")}
        return [d["id"] for d in self.cluster.disks() if numbers.get(d["node"]) in names]

    def wait_members(self, seconds=20):
        """All that run answer, and have the log."""
        def look():
            listing = self.cluster.levee("meta", "list")
            behind = [listing["last"] - (m["matched"] or 0) for m in listing["members"] if m["alive"]]
            running = sum(h.meta.running for h in self.cluster.metas())
            return len(behind) == running and max(behind) < 10
        wait_for("all meta servers to answer and to have the log", look, seconds)

    def places(self, volume):
        """The nodes of the copies of each of a volume's chunks."""
        number = next(v["id"] for v in self.cluster.levee("volume", "list") if v["name"] == volume)
        status, page = get_json(self.cluster.leader().url(), f"/v1/maps/{number}?after=0")
        if status != 200:
            raise Failed(f"/v1/maps/{number} answers {status}: {page}")
        names = {n["id"]: n["name"] for n in self.cluster.levee("node", "list")}
        return [{names[replica["node"]] for replica in chunk["replicas"]} for chunk in page["chunks"]]

    def wait_healthy(self, seconds=30):
        """`levee doctor` exits with 0."""
        doctor = [self.cluster.bin / "levee", "doctor"]
        wait_for("`levee doctor` to find nothing", lambda: self.cluster.run(doctor, ok=False).returncode == 0, seconds, 0.3)
