"""What is true at one moment of the walk: what all outputs must agree with.

Which nodes and members are there is not repeated here: the walk knows which processes it has started, stopped and killed. What else
there is to be said of the cluster is listed as conditions, in the words of `GET /v1/health`; whoever changes those words changes this
file and the lists in the steps. `must` has to be told by every output; `may` comes and goes while work is under way; anything else
is a contradiction.
"""

import re
from dataclasses import dataclass, field

ANY = ".*"


@dataclass(frozen=True)
class Word:
    """A condition. `kind` and `word` are names, `subject` is an expression."""
    kind: str
    subject: str
    word: str
    # info: no problem; `levee doctor` exits with 0. ANY: it depends on how far things are.
    severity: str = "warning"

    def covers(self, other):
        return (self.kind, self.word) == (other.kind, other.word) and re.fullmatch(self.subject, other.subject) is not None

    def __str__(self):
        return f"{self.kind} {self.subject} {self.word}"


@dataclass(frozen=True)
class Happened:
    """An event: `text` is an expression to be found in it."""
    kind: str
    subject: str
    text: str

    def covers(self, event):
        return (self.kind == event["kind"] and re.fullmatch(self.subject, event["subject"]) is not None
                and re.search(self.text, event["text"], re.I) is not None)

    def __str__(self):
        return f"{self.kind} {self.subject} /{self.text}/"


@dataclass
class Moment:
    """`name` completes "after step ...: "."""
    name: str
    must: list[Word] = field(default_factory=list)
    may: list[Word] = field(default_factory=list)
    # Told for a moment without being false.
    passing: list[Word] = field(default_factory=list)
    # Since the last moment. Others that are warnings or worse are contradictions.
    events: list[Happened] = field(default_factory=list)
    may_events: list[Happened] = field(default_factory=list)
    # By number, those that are not in service: draining, dead.
    disks: dict = field(default_factory=dict)
    # Nodes that are being emptied, and those in maintenance.
    draining: set = field(default_factory=set)
    maintained: set = field(default_factory=set)
    # Volume -> node; None: it is detached.
    volumes: dict = field(default_factory=dict)
    # All copies of all volumes are there.
    whole: bool = True
    # There is a majority of meta servers.
    led: bool = True
    held: bool = False
    # served, or waits.
    guest: str = "served"
    guest_volume: str = "vm1"
    # Most that a guest's request may have taken since the last moment.
    guest_wait_s: float = 1.0
    # How long outputs may take to become true.
    patience_s: float = 10.0


# While copies are moved: none is missing meanwhile.
MOVING = [Word("repair", "cluster", "leaving", "info"), Word("volume", ANY, "repairing", "info")]
DEGRADED = Word("repair", "cluster", "degraded", ANY)
# While copies that are missing are made.
COPYING = [*MOVING, DEGRADED]

# Copies were missing for a while.
COPIED = [Happened("repair", "cluster", ANY)]


def down(*hosts, severity="warning"):
    return [Word("node", host, "down", severity) for host in hosts]


def silent(*ids):
    return [Word("member", str(number), "silent", "warning") for number in ids]


# A daemon was stopped and is started again at once: short enough to be missed, and nothing to be woken for.
RESTARTS = [
    Happened("node", ANY, r"down|stopped|reach|good condition|up\b"), Happened("link", ANY, ANY), Happened("repair", "cluster", ANY),
    Happened("volume", ANY, ANY), Happened("member", ANY, ANY),
]

# What `levee doctor` said before there was `GET /v1/health`: its kind, what it says, and the same in today's words.
EARLIER = [
    ("meta-server", r"no leader", "member", "leaderless"), ("meta-server", r"does not answer", "member", "silent"),
    ("meta-server", r"log entries behind", "member", "behind"), ("node", r"is down", "node", "down"),
    ("node", r"partitioned", "node", "partitioned"), ("node", r"slow", "node", "slow"), ("node", r"flapping", "node", "flapping"),
    ("node", r"has told what it holds", "node", "awaited"), ("disk", r"is dead", "disk", "dead"), ("disk", r"has failed", "disk", "failed"),
    ("disk", r"is being drained", "disk", "draining"), ("disk", r"is drained", "disk", "drained"), ("disk", r"is full", "disk", "full"),
    ("volume", r"is down", "volume", "down"), ("volume", r"cannot be served", "volume", "unserved"),
    ("volume", r"not served yet", "volume", "opening"), ("volume", r"being repaired", "volume", "repairing"),
    ("volume", r"of its chunks.* (wait|without a quorum)", "volume", "waiting"), ("volume", r"of its chunks", "repair", "degraded"),
    ("volume", r"to put elsewhere", "repair", "leaving"), ("repair", r"is held", "repair", "held"),
    ("repair", r"cannot be put elsewhere", "repair", "no-place"), ("maintenance", r"is in maintenance", "maintenance", "open"),
    ("rebalance", r"is running", "rebalance", "running"),
]


def word_of(finding):
    """A condition from `GET /v1/health`, or a finding of an earlier `levee doctor`."""
    word = finding.get("word") or finding.get("condition")
    if word:
        return Word(finding["kind"], str(finding["subject"]), word, finding["severity"])
    for kind, says, now, word in EARLIER:
        if finding["kind"] == kind and re.search(says, finding["what"]):
            whole = now in ("repair", "rebalance") or finding["name"] in ("the whole cluster", "all")
            subject = "cluster" if whole else finding["name"]
            return Word(now, subject, word, finding["severity"])
    return Word(finding["kind"], str(finding["name"]), f"? ({finding['what']})", finding["severity"])
