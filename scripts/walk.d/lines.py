"""What a comparison finds, and how it gets at what was said."""

from dataclasses import dataclass

from truth import Word


@dataclass(frozen=True)
class Line:
    source: str
    text: str
    # What is told and is not so.
    told: Word | None = None

    def __str__(self):
        return f"{self.source} {self.text}"


def merged(lines):
    """Those with the same text, in the place of the first."""
    sources = {}
    for line in lines:
        known = sources.setdefault((line.text, line.told), [])
        if line.source not in known:
            known.append(line.source)
    return [Line(", ".join(known), text, told) for (text, told), known in sources.items()]


def listed(seen, name):
    document = seen.commands[name].document
    return document if isinstance(document, list) else []


def api_list(seen, name, part="items"):
    document = seen.api.get(name)
    return document.get(part, []) if isinstance(document, dict) else []


def status_of(seen):
    document = seen.commands["status"].document
    return document if isinstance(document, dict) else {}


def node_truth(cluster):
    """Node -> up, down or stopped."""
    known = {host.name: host.stored for host in cluster.hosts.values() if host.stored.process}
    return {name: "up" if daemon.running else "stopped" if daemon.stopped else "down" for name, daemon in known.items()}


def value(metrics, name, **labels):
    found = [number for have, number in metrics.get(name, []) if all(have.get(key) == wanted for key, wanted in labels.items())]
    return found[0] if found else None
