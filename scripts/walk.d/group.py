"""Meta servers, and what they decide: who leads, whether repair is held, what is in maintenance."""

from lines import Line, status_of, value


def members(cluster, moment, seen):
    running = {host.meta.id for host in cluster.metas() if host.meta.running}
    led = "a leader" if moment.led else "no leader"
    for number in running:
        if number not in seen.clusters:
            yield Line(f"meta server {number}", "runs and does not answer")
        if seen.healthz.get(number) != (200 if moment.led else 503):
            yield Line(f"/healthz of meta server {number}", f"answers {seen.healthz.get(number)}, there is {led}")
        known = value(seen.metrics.get(number, {}), "levee_meta_leader_known")
        if known != float(moment.led):
            yield Line(f"/metrics of meta server {number}", f"levee_meta_leader_known is {known}, there is {led}")
    leads = sorted(number for number, metrics in seen.metrics.items() if value(metrics, "levee_meta_leader") == 1)
    said = {number: document["leader"] for number, document in seen.clusters.items()}
    if not moment.led:
        if leads or any(said.values()):
            yield Line("/metrics, /v1/cluster", f"name leaders {leads}, {said}: there is no majority")
        yield from answering("levee status", status_of(seen), running)
        return
    if len(leads) != 1 or set(said.values()) != set(leads):
        yield Line("/metrics, /v1/cluster", f"do not agree on who leads: {leads}, of each member {said}")
    yield from member_lists(seen, {host.meta.id for host in cluster.metas()}, running, leads)


def member_lists(seen, there, running, leads):
    listing = seen.commands["members"].document or {}
    sources = {"levee status": status_of(seen), "levee meta list": listing, "/v1/members": seen.api.get("members") or {}}
    for source, document in sources.items():
        told = {m["id"] for m in document.get("members", [])}
        if told != there:
            yield Line(source, f"has meta servers {sorted(told)}, there are {sorted(there)}")
        if [document.get("leader")] != leads:
            yield Line(source, f"says that {document.get('leader')} leads, /metrics {leads}")
        yield from answering(source, document, running)


def answering(source, document, running):
    for member in document.get("members", []):
        number, told = member["id"], member.get("answers", member.get("alive"))
        if told != (number in running):
            yield Line(source, f"says that meta server {number} {'answers' if told else 'does not answer'}, "
                       f"it {'runs' if number in running else 'does not run'}")


def repair(_cluster, moment, seen):
    so = "repair is held" if moment.held else "repair is not held"
    held = (seen.api.get("repair") or {}).get("held")
    if bool(held) != moment.held:
        yield Line("/v1/repair", f"has held={held}, {so}")
    told = value(seen.leaders_metrics(), "levee_repair_held")
    if told != float(moment.held):
        yield Line("/metrics", f"levee_repair_held is {told}, {so}")
    for source, document in {"/v1/maintenance": seen.api.get("maintenance"), "levee status": status_of(seen).get("maintenance")}.items():
        windows = {w.get("node") or "cluster" for w in (document or {}).get("windows", [])}
        if windows != moment.maintained:
            yield Line(source, f"has windows of {sorted(windows)}, there are those of {sorted(moment.maintained)}")
