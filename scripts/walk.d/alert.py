"""Alert rules of docs/operations/alerts.yml against a running cluster: the simple ones, which compare a metric with a number."""

import re
import time
from pathlib import Path

from hosts import Failed, get
from outputs import LABEL, parse

RULES = Path(__file__).resolve().parent.parent.parent / "docs/operations/alerts.yml"
EXPRESSION = re.compile(r"(?:max by \(\w+\) )?\(?(\w+)(?:\{([^}]*)\})?\)? (>|==) (\d+)$")


def rule(name):
    """Its metric, labels, comparison, number, and for how many seconds it must hold."""
    text = RULES.read_text().split(f"- alert: {name}\n")[1].split("- alert:")[0]
    expression = re.search(r"expr: (.*)", text)[1].strip()
    parts = EXPRESSION.fullmatch(expression)
    if not parts:
        raise Failed(f"the rule {name} is no simple comparison: {expression}")
    metric, labels, comparison, number = parts.groups()
    lasts = re.search(r"for: (\d+)s", text)
    return metric, dict(LABEL.findall(labels or "")), comparison, float(number), int(lasts[1]) if lasts else 0


def holds(cluster, name):
    """Whether the rule's expression is true now, as Prometheus would see it."""
    metric, labels, comparison, number, _ = rule(name)
    for host in cluster.metas():
        for have, found in parse(get(host.url(), "/metrics")[1]).get(metric, []):
            same = all(have.get(key) == wanted for key, wanted in labels.items())
            if same and (found > number if comparison == ">" else found == number):
                return True
    return False


def fires(cluster, name):
    """Whether it is true for as long as the rule asks."""
    end = time.monotonic() + rule(name)[-1]
    while holds(cluster, name):
        if time.monotonic() >= end:
            return True
        time.sleep(0.5)
    return False
