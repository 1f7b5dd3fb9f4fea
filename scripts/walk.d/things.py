"""Nodes, disks and volumes: lists, the API and metrics against the truth."""

import re

from lines import Line, api_list, listed, node_truth, status_of, value


def nodes(cluster, moment, seen):
    truth = node_truth(cluster)
    sources = {"levee node list": listed(seen, "nodes"), "/v1/nodes": api_list(seen, "nodes"),
               "levee status": status_of(seen).get("nodes", []), "/v1/load": api_list(seen, "load", "nodes")}
    for source, items in sources.items():
        said = {item["name"]: item for item in items}
        # The busiest ones are not all.
        if said.keys() != truth.keys() and source != "/v1/load":
            yield Line(source, f"has nodes {sorted(said)}, there are {sorted(truth)}")
        for name in truth.keys() & said.keys():
            yield from node(source, name, truth[name], said[name], moment)
    metrics = seen.leaders_metrics()
    for name, is_so in truth.items():
        up = value(metrics, "levee_node_up", node=name)
        if up != float(is_so == "up"):
            yield Line("/metrics", f"levee_node_up of {name} is {up}, and it is {is_so}")
        told = {labels["state"] for labels, number in metrics.get("levee_node_state", []) if labels["node"] == name and number}
        if told not in ({is_so}, {"up" if is_so == "up" else "down"}):
            yield Line("/metrics", f"levee_node_state of {name} is {told}, and it is {is_so}")


def node(source, name, is_so, said, moment):
    if said["state"] not in (is_so, "up" if is_so == "up" else "down"):
        yield Line(source, f"says that node {name} is {said['state']}, it is {is_so}")
    status = said.get("status")
    if not status:
        return
    words = status.split(", ")
    expected = {is_so} | ({"in maintenance"} if name in moment.maintained else set())
    if name in moment.draining:
        expected.add("drained" if "drained" in words else "draining")
    if set(words) != expected:
        yield Line(source, f"shows node {name} as '{status}', it is '{', '.join(sorted(expected))}'")


def disks(cluster, moment, seen):
    truth, names = node_truth(cluster), {n["id"]: n["name"] for n in listed(seen, "nodes")}
    there = {str(path) for host in cluster.hosts.values() for path in host.disks}
    busy = [{**disk, "id": disk["disk"]} for disk in api_list(seen, "load", "disks")]
    for source, items in {"levee disk list": listed(seen, "disks"), "/v1/disks": api_list(seen, "disks"), "/v1/load": busy}.items():
        said = {disk["path"] for disk in items}
        if said != there and source != "/v1/load":
            yield Line(source, f"has disks that are not there: {said - there or 'none'}; it lacks {there - said or 'none'}")
        wrong = {}
        for disk in items:
            for what in disk_lines(disk, moment.disks.get(disk["id"], "in-service"), truth.get(names.get(disk["node"]))):
                wrong.setdefault(what, []).append(disk["id"])
        for what, numbers in wrong.items():
            yield Line(source, f"shows disk {', '.join(map(str, sorted(numbers)))} as {what}")
    metrics = seen.leaders_metrics()
    for disk in listed(seen, "disks"):
        is_so, number = moment.disks.get(disk["id"], "in-service"), str(disk["id"])
        told = {labels["state"] for labels, one in metrics.get("levee_disk_state", []) if labels["disk"] == number and one}
        if told != {is_so}:
            yield Line("/metrics", f"levee_disk_state of disk {number} is {told}, and it is {is_so}")


def disk_lines(disk, is_so, node_is):
    if disk["state"] != is_so:
        yield f"{disk['state']}, it is {is_so}"
    status = disk.get("status")
    if status is None:
        if is_so == "in-service" and node_is != "up":
            yield f"{disk['state']} and nothing more, its node is {node_is}"
        return
    emptied = {"drained"} if disk.get("replicas") == 0 or "drained" in status and "replicas" not in disk else {"draining"}
    words = {"in-service": set(), "dead": {"dead"}, "draining": emptied}[is_so]
    if is_so != "dead" and node_is != "up":
        words = words | {"unreachable"}
    if set(status.split(", ")) != (words or {"in service"}):
        yield f"'{status}', it is '{', '.join(sorted(words)) or 'in service'}'"


def volumes(cluster, moment, seen):
    truth = node_truth(cluster)
    for source, items in {"levee volume list": listed(seen, "volumes"), "/v1/volumes": api_list(seen, "volumes")}.items():
        said = {v["name"]: v for v in items}
        if said.keys() != moment.volumes.keys():
            yield Line(source, f"has volumes {sorted(said)}, there are {sorted(moment.volumes)}")
        for name, at in moment.volumes.items():
            if name in said:
                yield from volume(source, said[name], at, truth.get(at), moment, seen)
    redundancy = api_list(seen, "load", "redundancy") or {}
    stalled = redundancy.get("stalled_volumes")
    if stalled is not None and stalled != (moment.guest == "waits"):
        yield Line("/v1/load", f"has {stalled} stalled volumes, the guest {'waits' if moment.guest == 'waits' else 'is served'}")
    if not moment.whole:
        return
    for source, counts in {"/v1/load": redundancy, "levee status": status_of(seen).get("repair") or {}}.items():
        if counts.get("degraded_chunks") or counts.get("waiting_chunks"):
            yield Line(source, f"counts {counts['degraded_chunks']} chunks below their copies, all are there")
    for name in ("levee_chunks_below_copies", "levee_chunks_waiting", "levee_volume_full"):
        for labels, number in seen.leaders_metrics().get(name, []):
            if number:
                yield Line("/metrics", f"{name} of volume {labels.get('volume')} is {number:g}, all copies are there")


def volume(source, said, at, node_is, moment, seen):
    name, attachment = said["name"], said.get("attachment") or {}
    served_by = None if attachment.get("repair") else attachment.get("node_name")
    if served_by != at:
        yield Line(source, f"says that volume {name} is attached to {served_by}, it is to {at}")
    report, status = attachment.get("report") or {}, said.get("status")
    if at and node_is == "up" and report.get("state") != "serving":
        yield Line(source, f"says that volume {name} is {report.get('state')}, it is served")
    if at and node_is != "up" and (status is None or "serving" in status) and report.get("state") == "serving":
        yield Line(source, f"says that volume {name} is serving{f' ({status})' if status else ''}, its node {at} is {node_is}")
    if moment.whole and (report.get("degraded_chunks") or report.get("waiting_chunks")):
        yield Line(source, f"says that volume {name} has {report['degraded_chunks']} chunks below their copies, all are there")
    waits = moment.guest == "waits"
    told = status and re.search("stalled|wait", status)
    if status and at and node_is == "up" and waits != bool(told) and (name == moment.guest_volume or not waits):
        yield Line(source, f"shows volume {name} as '{status}', its guest {'waits' if waits else 'is served'}")
    has_guest = seen.guest_age is not None and name == moment.guest_volume
    connected = (report.get("front_end") or {}).get("connected")
    if at and node_is == "up" and connected is not None and connected != has_guest:
        yield Line(source, f"says that volume {name} is {'' if connected else 'not '}in use by a guest, it is {'' if has_guest else 'not'}")


def sums(_cluster, moment, seen):
    """Totals against lists."""
    metrics = seen.leaders_metrics()
    for name in ("nodes", "disks", "volumes"):
        told, count = value(metrics, f"levee_meta_{name}"), len(listed(seen, name))
        if told != count:
            yield Line("/metrics", f"levee_meta_{name} is {told}, the list has {count}")
    capacity = sum(disk["capacity"] for disk in listed(seen, "disks") if disk["state"] == "in-service")
    if value(metrics, "levee_capacity_bytes") != capacity:
        yield Line("/metrics", f"levee_capacity_bytes is {value(metrics, 'levee_capacity_bytes')}, disks in service have {capacity}")
    counts = status_of(seen).get("repair") or {}
    for word in ("dead", "draining"):
        told, count = counts.get(f"{word}_disks"), sum(state == word for state in moment.disks.values())
        if told is not None and told != count:
            yield Line("levee status", f"counts {told} {word} disks, there are {count}")
    totals, volume_list = status_of(seen).get("volumes", {}), listed(seen, "volumes")
    users = [v for v in volume_list if v.get("attachment") and not v["attachment"].get("repair")]
    if isinstance(totals, dict) and totals and (totals["count"], totals["attached"]) != (len(volume_list), len(users)):
        told = f"{totals['count']} volumes, {totals['attached']} attached"
        yield Line("levee status", f"counts {told}; there are {len(volume_list)}, {len(users)}")
