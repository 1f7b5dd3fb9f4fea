"""Conditions and events: exactly those that are so."""

import re

from lines import Line, status_of
from truth import ANY, word_of

PASSED = re.compile(r"is in good condition again|reach each other again")
BAD = re.compile(r"partitioned|slow|flapping|not reach")


def conditions(_cluster, moment, seen):
    doctor = seen.commands["doctor"]
    told = {"levee doctor": findings(doctor.document)}
    health = seen.api.get("health")
    if isinstance(health, dict) and "conditions" in health:
        told["/v1/health"] = health["conditions"]
        # Without one there is no row.
        told["/metrics"] = [labels for labels, number in seen.leaders_metrics().get("levee_condition", []) if number]
    if "conditions" in status_of(seen):
        told["levee status"] = status_of(seen)["conditions"]
    for source, found in told.items():
        yield from conditions_of(source, [word_of(one) for one in found], moment)
        yield from promises(source, found, moment)
    problems = [str(word) for word in map(word_of, told["levee doctor"]) if word.severity != "info"]
    if (doctor.code == 0) != (not problems):
        yield Line("levee doctor", f"exits with {doctor.code}, and has {problems or 'no problem'}")


def findings(document):
    """Of `levee doctor --json`, today's and earlier."""
    document = document or {}
    if "conditions" in document:
        return document["conditions"]
    worst = {"problems": "warning", "notes": "info"}
    return [{"severity": severity, **one} for part, severity in worst.items() for one in document.get(part, [])]


def conditions_of(source, words, moment):
    for expected in moment.must:
        if not any(expected.covers(word) for word in words):
            yield Line(source, f"does not say: {expected}")
    for word in words:
        expected = [e for e in moment.must + moment.may if e.covers(word)]
        if not expected:
            yield Line(source, f"says what is not so: {word} ({word.severity})", word)
        elif not any(severity_fits(e.severity, word.severity) for e in expected):
            yield Line(source, f"tells as {word.severity} what is {expected[0].severity}: {word}")


def severity_fits(expected, said):
    """Warnings and errors are problems; which of the two it is was not told before."""
    return expected == ANY or (expected == "info") == (said == "info")


def promises(source, found, moment):
    """What is said to be done about a node, and is not."""
    for one in found:
        doing = " ".join(one.get("doing", []))
        is_node, name = one["kind"] == "node", one.get("subject", one.get("name"))
        if is_node and (moment.held or name in moment.maintained) and re.search(r"after it was last heard of.*made anew", doing):
            why = "repair is held" if moment.held else "it is in maintenance"
            yield Line(source, f"says of node {name} '{doing}', but {why}")


def events(_cluster, moment, seen):
    for expected in moment.events:
        if not any(expected.covers(event) for event in seen.events):
            yield Line("events", f"have none of: {expected}")
    for event in seen.events:
        known = any(e.covers(event) for e in moment.events + moment.may_events)
        what = f"{event['kind']} {event['subject']} {event['text']}"
        if not known and event["severity"] != "info":
            yield Line("events", f"tell what did not happen ({event['severity']}): {what}")
        if PASSED.search(event["text"]) and not began(event, seen):
            yield Line("events", f"tell of an end that had no beginning: {what}")


def began(end, seen):
    """Whether the last word on its subject before was a bad one."""
    same = [e for e in seen.known + seen.events if e["seq"] < end["seq"] and (e["kind"], e["subject"]) == (end["kind"], end["subject"])]
    bad = [bool(BAD.search(e["text"])) for e in same if BAD.search(e["text"]) or PASSED.search(e["text"])]
    return bool(bad) and bad[-1]
