// Tiles and tables: each takes what the API answered and makes elements of it.

const LEVELS = { fine: "good", warn: "warn", full: "bad" };
const SEVERITIES = { info: "", warning: "warn", error: "bad" };

// What the server says of a thing in a few words, and how that looks.
const BAD = /down|dead|failed|unreachable|missing|stalled|wait|full|unfinished/;
const GOOD = /^(up|in service|serving)(, read-only)?$/;
const moodOf = (status) => (GOOD.test(status) ? "good" : BAD.test(status) ? "bad" : status.startsWith("detached") ? "" : "warn");
const statusTag = (thing) => tag(thing.status, moodOf(thing.status));

function tile(title, value, note, mood) {
  return el(mood ? `li.${mood}` : "li", el("span", title), el("b", value), el("small", note || ""));
}

function tiles({ cluster, capacity, nodes, disks, load, health }) {
  const up = nodes.filter((n) => n.state === "up").length;
  const serving = disks.filter((d) => d.status === "in service").length;
  const problems = health.conditions.filter((c) => c.severity !== "info");
  const errors = problems.filter((c) => c.severity === "error").length;
  const whole = load.redundancy;
  const used = percentOf(capacity.used, capacity.reported);
  const lacking = whole.degraded_chunks + whole.leaving_replicas;
  return [
    tile("Problems", problems.length || "none", errors ? `${errors} of them stop something` : health.summary,
      errors ? "bad" : problems.length ? "warn" : "good"),
    tile("Leader", cluster.leader ? `member ${cluster.leader}` : "none", `of ${plural(cluster.members.length, "member", "members")}`,
      cluster.leader ? "good" : "bad"),
    tile("Nodes up", `${up} of ${nodes.length}`, up < nodes.length ? `${nodes.length - up} not heard of` : "all heard of",
      up < nodes.length ? "bad" : "good"),
    tile("Disks in service", `${serving} of ${disks.length}`, size(capacity.capacity), serving < disks.length ? "warn" : "good"),
    tile("Used", `${used} %`, capacity.detail || `${size(capacity.used)} of ${size(capacity.reported)}`, LEVELS[capacity.level]),
    tile("Promised", size(capacity.provisioned), capacity.provisionable ? `of ${size(capacity.provisionable)}` : "no limit"),
    tile("Redundancy", lacking ? `${count(whole.degraded_chunks)} lacking` : "whole",
      whole.stalled_volumes ? `${plural(whole.stalled_volumes, "volume is", "volumes are")} stalled`
        : whole.waiting_chunks ? `${plural(whole.waiting_chunks, "chunk waits", "chunks wait")}`
        : `${count(whole.healthy_chunks)} whole chunks of ${plural(whole.volumes, "served volume", "served volumes")}`,
      whole.waiting_chunks || whole.stalled_volumes ? "bad" : lacking ? "warn" : "good"),
    tile("Guests", `${count(requests(load.guests))}/s`, `${count(load.guests.reads)} reads, ${count(load.guests.writes)} writes`),
    tile("Throughput", `${size(bytes(load.guests))}/s`, `disks ${size(bytes(load.disk_load))}/s`),
  ];
}

function members({ cluster }) {
  return cluster.members.map((member) => {
    const leads = member.id === cluster.leader;
    return el("li", `${member.id} `, leads ? tag("leader", "good") : null, leads ? " " : null, el("span.quiet", member.url));
  });
}

// A row that explains the one before it.
function why(columns, text) {
  const cell = el("td.why", text);
  cell.colSpan = columns;
  return el("tr.more", cell);
}

// Every state that wants a word, with what is done about it; the worst first.
function conditionRows({ health }) {
  if (!health.conditions.length) return [el("li.quiet", "All is well.")];
  return health.conditions.map((c) => {
    const item = el("li", tag(`${c.kind} ${c.word}`, SEVERITIES[c.severity]), " ", c.text,
      c.since_ms ? el("span.quiet", ` since ${moment(c.since_ms)}`) : null, ...c.doing.map((line) => el("div.quiet", line)));
    item.dataset.condition = `${c.kind} ${c.subject} ${c.word}`;
    return item;
  });
}

function nodeRows({ nodes, load }) {
  const busy = new Map(load.nodes.map((n) => [n.node, n]));
  if (!nodes.length) return [empty(6, "No node has registered.")];
  return nodes.flatMap((node) => {
    const work = busy.get(node.id);
    const place = [node.zone, node.rack].filter(Boolean).join(" / ");
    const name = el("td.name", node.name, place ? el("span.quiet", ` ${place}`) : null);
    const row = el("tr", titled(name, place ? `${node.name}: ${place}` : node.name), el("td", statusTag(node)),
      el("td.n", node.disks.length), el("td.n", work ? work.volumes : "–"),
      el("td.n", work ? count(requests(work.guests)) : "–"), el("td.n", work ? size(bytes(work.guests)) : "–"));
    row.dataset.node = node.name;
    return node.detail ? [row, why(6, node.detail)] : [row];
  });
}

function diskRows({ disks, nodes, load, capacity }) {
  const busy = new Map(load.disks.map((d) => [d.disk, d]));
  const names = new Map(nodes.map((n) => [n.id, n.name]));
  const [warn, full] = [capacity.limits.warn_percent ?? 101, capacity.limits.full_percent ?? 101];
  if (!disks.length) return [empty(7, "No disk has been registered.")];
  return disks.flatMap((disk) => {
    const work = busy.get(disk.id)?.load.load;
    const share = percentOf(disk.used || 0, disk.capacity);
    const use = disk.used === null ? el("td", el("span.quiet", "unknown"))
      : titled(el("td", bar(share, warn, full), `${share} %`), `${size(disk.used)} of ${size(disk.capacity)}`);
    const row = el("tr", titled(el("td", disk.id), disk.path), el("td.name", names.get(disk.node) ?? disk.node),
      el("td", statusTag(disk)), use, el("td.n", count(disk.replicas)),
      el("td.n", work ? count(requests(work)) : "–"), el("td.n", work ? size(bytes(work)) : "–"));
    row.dataset.disk = disk.id;
    return disk.reason ? [row, why(7, disk.reason)] : [row];
  });
}

function redundancy(volume) {
  const report = volume.attachment?.report;
  if (!report) return el("span.quiet", `${volume.copies} copies`);
  if (report.waiting_chunks) return tag(`${count(report.waiting_chunks)} chunks wait`, "bad");
  if (report.degraded_chunks) return tag(`${count(report.degraded_chunks)} of ${count(report.degraded_chunks + report.healthy_chunks)} lack copies`, "warn");
  if (report.leaving_replicas) return tag(`${count(report.leaving_replicas)} copies move`, "warn");
  return tag(`${volume.copies} copies`, "good");
}

// Whether a guest has the volume.
function guest(report) {
  const frontEnd = report?.front_end;
  if (!frontEnd?.connected) return "";
  return frontEnd.started ? "running" : "connected";
}

function volumeRows({ volumes }) {
  if (!volumes.items.length) return [empty(11, "No volumes here.")];
  return volumes.items.flatMap((volume) => {
    const report = volume.attachment?.report;
    const load = report?.load;
    const row = el("tr", titled(el("td.name", volume.name), volume.name), el("td", statusTag(volume)), el("td", redundancy(volume)),
      el("td.n", size(volume.size)), el("td", volume.attachment?.node_name ?? ""), el("td", guest(report)),
      el("td.n", load ? count(load.load.reads) : "–"), el("td.n", load ? count(load.load.writes) : "–"),
      el("td.n", load ? size(bytes(load.load)) : "–"), el("td.n", micros(load?.p50_us)), el("td.n", micros(load?.p99_us)));
    row.dataset.volume = volume.name;
    const told = report?.stall?.why ?? report?.detail;
    return told ? [row, why(11, told)] : [row];
  });
}

// `rate`: bytes copied a second since the last look.
function repairBody({ repair, load, disks, rebalance, maintenance }, rate) {
  const whole = load.redundancy;
  const items = [];
  const add = (name, ...what) => items.push(el("dt", name), el("dd", ...what));
  const chunks = whole.healthy_chunks + whole.degraded_chunks;
  add("Chunks", whole.degraded_chunks ? tag(`${count(whole.degraded_chunks)} of ${count(chunks)} lack copies`, "warn") : tag("all whole", "good"));
  if (chunks) add("Whole", bar(percentOf(whole.healthy_chunks, chunks), 101, 101), `${percentOf(whole.healthy_chunks, chunks)} %`);
  add("Copying", rate > 0 ? `${size(rate)}/s` : "nothing at the moment", ` (${size(whole.copied_bytes)} since volumes were opened)`);
  for (const disk of disks.filter((d) => d.state !== "in-service")) {
    add(`Disk ${disk.id}`, statusTag(disk), ` ${plural(disk.replicas, "copy", "copies")} still there`);
  }
  if (repair.held) add("Held", tag(repair.held, "warn"));
  add("Nodes are given up", `after ${repair.after_s} s of silence`);
  add("Rate", repair.rate ? `at most ${size(repair.rate)}/s` : "no limit");
  if (rebalance && rebalance.state !== "none") add("Rebalance", ...rebalanceLine(rebalance));
  for (const window of maintenance?.windows ?? []) {
    add("Maintenance", tag(window.node ?? "the whole cluster", "warn"), ` until ${moment(window.until_ms)}`, window.reason ? `: ${window.reason}` : "");
  }
  return [el("dl", ...items)];
}

function rebalanceLine(rebalance) {
  const done = percentOf(rebalance.done_bytes, rebalance.bytes);
  const counts = `${count(rebalance.done)} of ${plural(rebalance.moves, "move", "moves")}, ${size(rebalance.done_bytes)} of ${size(rebalance.bytes)}`;
  const skipped = rebalance.skipped ? `, ${count(rebalance.skipped)} given up` : "";
  return [tag(rebalance.state, rebalance.state === "running" ? "warn" : ""), " ", bar(done, 101, 101), counts + skipped];
}

function eventRows({ events }) {
  if (!events) return [el("li.quiet", "This meta server keeps no events.")];
  if (!events.length) return [el("li.quiet", "Nothing has happened yet.")];
  return [...events].reverse().map((event) => {
    const time = el("time", moment(event.at_ms));
    time.dateTime = new Date(event.at_ms).toISOString();
    return el("li", time, tag(event.kind, SEVERITIES[event.severity]), " ", el("b", event.subject), " ", event.text);
  });
}
