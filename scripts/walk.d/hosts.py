"""The hosts with their daemons, and what an operator has at hand: the `levee` command and HTTP."""

import ctypes
import json
import os
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import Future
from pathlib import Path

META_PORT, ADMIN_PORT, DATA_PORT = 7400, 7500, 7501
DISK_SIZE = "2G"
# Only a hang takes that long.
PATIENCE_S = 30
STOP_S = 20
DOWN_AFTER_S, REPAIR_AFTER_S = 3, 12
# Slow enough to look at what is under way.
REPAIR_RATE = "32M"
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


class Failed(Exception):
    """An operation did not do what it should."""


def wait_for(what, look, seconds=PATIENCE_S, pause=0.1):
    """What `look` answers, once that is true."""
    end = time.monotonic() + seconds
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() >= end:
            raise Failed(f"waited {seconds} s for {what}, in vain")
        time.sleep(pause)


class Daemon:
    """A process in a host's namespace. `running` and `stopped` say what was done to it last."""

    def __init__(self, name, namespace, words, log):
        self.name, self.log = name, log
        self.words = ["nsenter", f"--net=/run/netns/{namespace}", *map(str, words)]
        self.process = None
        self.running = self.stopped = False

    def start(self, words=None):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                words or self.words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                preexec_fn=lambda: LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL))
        self.running, self.stopped = True, False

    def kill(self):
        self.running = self.stopped = False
        if self.process:
            self.process.kill()
            self.process.wait(STOP_S)

    def stop(self):
        """In good order."""
        self.running, self.stopped = False, True
        self.process.terminate()
        try:
            code = self.process.wait(STOP_S)
        except subprocess.TimeoutExpired as e:
            self.process.kill()
            raise Failed(f"{self.name} has not stopped {STOP_S} s after SIGTERM") from e
        if code != 0:
            raise Failed(f"{self.name} ended with {code} after SIGTERM; see {self.log}")

    def has_ended(self):
        """By itself: it should run and does not."""
        return self.running and self.process.poll() is not None


class Host:
    def __init__(self, number, cluster):
        self.number, self.name = number, f"h{number}"
        self.address = cluster.network.address(number)
        self.namespace = cluster.network.namespace(number)
        self.folder = cluster.folder / self.name
        self.folder.mkdir()
        (self.folder / "sock").mkdir()
        self.zone = f"z{(number - 1) % 3 + 1}"
        self.disks = []
        self.meta = None
        self.cluster = cluster
        self.stored = Daemon(f"levee-stored of {self.name}", self.namespace, [], cluster.log(f"stored-{self.name}"))

    def url(self):
        return f"http://{self.address}:{META_PORT}"

    def format(self, name, folder=None):
        path = (folder or self.folder) / name
        self.cluster.run([self.cluster.bin / "levee-stored", "format", path, "--size", DISK_SIZE])
        self.disks.append(path)

    def start_stored(self):
        """With the disks that it has now, as an operator writes them into its file."""
        disks = [word for disk in self.disks for word in ("--disk", disk)]
        metas = ",".join(self.cluster.urls())
        self.stored.words[2:] = map(str, [
            self.cluster.bin / "levee-stored", "run", "--name", self.name, "--meta", metas, "--dir", self.folder / "stored", *disks,
            "--zone", self.zone, "--rack", f"r{self.number}", "--admin", f"{self.address}:{ADMIN_PORT}",
            "--data", f"{self.address}:{DATA_PORT}", "--sockets", self.folder / "sock", "--guest-memory", "64M", "--shared-cache", "0"])
        self.stored.start()

    def make_meta(self, number, *more):
        folder = self.folder / f"meta-{number}"
        words = [
            self.cluster.bin / "levee-metad", "--id", number, "--listen", f"{self.address}:{META_PORT}", "--dir", folder,
            "--down-after", DOWN_AFTER_S, "--repair-after", REPAIR_AFTER_S, "--repair-rate", REPAIR_RATE, *more]
        self.meta = Daemon(f"meta server {number}", self.namespace, words, self.cluster.log(f"meta-{self.name}"))
        self.meta.id, self.meta.folder = number, folder
        return self.meta

    def daemons(self):
        return [daemon for daemon in (self.meta, self.stored) if daemon]

    def kill(self):
        for daemon in self.daemons():
            daemon.kill()


class Cluster:
    """Hosts h1 to h5; meta servers on the first three."""

    def __init__(self, folder, programs, network, hosts, metas):
        self.folder, self.bin, self.network = folder, Path(programs), network
        self.logs = folder / "log"
        self.logs.mkdir()
        self.commands = []
        self.meta_hosts = metas
        self.hosts = {f"h{n}": Host(n, self) for n in range(1, hosts + 1)}

    def __getitem__(self, name):
        return self.hosts[name]

    def log(self, name):
        return self.logs / f"{name}.log"

    def urls(self):
        return [self.hosts[f"h{n}"].url() for n in range(1, self.meta_hosts + 1)]

    def metas(self):
        """Hosts with a meta server, whether it runs or not."""
        return [host for host in self.hosts.values() if host.meta]

    def daemons(self):
        return [daemon for host in self.hosts.values() for daemon in host.daemons()]

    def run(self, words, seconds=PATIENCE_S, ok=True):
        """A command from the bridge's side. Its exit status must be 0, unless it says something by that."""
        environment = {"PATH": os.environ.get("PATH", ""), "LEVEE_CLUSTER": ",".join(self.urls())}
        words = [str(word) for word in words]
        begun = time.monotonic()
        try:
            done = subprocess.run(
                words, capture_output=True, text=True, timeout=seconds, env=environment, stdin=subprocess.DEVNULL, check=False)
        except subprocess.TimeoutExpired as e:
            raise Failed(f"`{shown(words)}` has not ended after {seconds} s") from e
        self.commands.append((shown(words), time.monotonic() - begun, done.returncode))
        if ok and done.returncode != 0:
            raise Failed(f"`{shown(words)}` ended with {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
        return done

    def levee(self, *words, seconds=60):
        """A command that must succeed; what it says in JSON."""
        text = self.run([self.bin / "levee", "--json", *words], seconds).stdout
        return json.loads(text) if text.strip() else None

    def begin(self, *words):
        """The same in the background, for a look at what is under way; `result()` waits for it."""
        job = Future()
        def work():
            try:
                job.set_result(self.levee(*words, seconds=70))
            except Exception as e:  # pylint: disable=broad-except
                job.set_exception(e)
        threading.Thread(target=work, daemon=True).start()
        return job

    def leader(self, seconds=PATIENCE_S):
        """The host on which the leader is, as most of the members that answer have it."""
        def look():
            answers = [get_json(host.url(), "/v1/cluster")[1] for host in self.metas() if host.meta.running]
            said = {answer["leader"] for answer in answers if isinstance(answer, dict)}
            found = [host for host in self.metas() if host.meta.running and {host.meta.id} == said]
            return found[0] if found else None
        return wait_for("a leader that all members agree on", look, seconds)

    def disks(self):
        return self.levee("disk", "list")

    def disk_at(self, path):
        """The number of the disk at a path."""
        found = [disk["id"] for disk in self.disks() if disk["path"] == str(path)]
        if len(found) != 1:
            raise Failed(f"`levee disk list` has {len(found)} disks at {path}")
        return found[0]


def shown(words):
    return " ".join([Path(words[0]).name, *words[1:]])


def get(url, path, seconds=5):
    """Status and text; status 0 if there is no answer."""
    try:
        with urllib.request.urlopen(url + path, timeout=seconds) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode(errors="replace")
    except (OSError, ValueError) as e:
        return 0, str(e)


def get_json(url, path):
    status, text = get(url, path)
    try:
        return status, json.loads(text)
    except ValueError:
        return status, None
