// Asks the API every two seconds while somebody looks, and shows what it tells.

const EVERY_MS = 2000;
const PATIENCE_MS = 8000;
const PAGE = 50;
const EVENTS = 60;
const MAX_PAGES = 20;

const page = { after: "", next: null, offers: new Set(), copied: null, shownAt: null };

async function get(path) {
  const response = await fetch(path, { signal: AbortSignal.timeout(PATIENCE_MS), cache: "no-store" });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.detail || `status ${response.status}`);
  return answer;
}

// What older servers do not offer is not asked for.
const optional = (path, query = "") => (page.offers.has(path) ? get(path + query).catch(() => null) : null);

async function all(path) {
  const items = [];
  let after = "";
  for (let i = 0; i < MAX_PAGES; i += 1) {
    const answer = await get(`${path}?limit=1000${after}`);
    items.push(...answer.items);
    if (!answer.next) break;
    after = `&after=${encodeURIComponent(answer.next)}`;
  }
  return items;
}

async function newestEvents() {
  if (!page.offers.has("/v1/events")) return null;
  const { newest } = await get("/v1/events?limit=1");
  return (await get(`/v1/events?limit=${EVENTS}&after=${Math.max(0, newest - EVENTS)}`)).events;
}

async function look() {
  if (!page.offers.size) page.offers = new Set(Object.keys((await get("/v1/openapi.json")).paths));
  const [cluster, health, capacity, nodes, disks, volumes, load, history, repair, rebalance, maintenance, events] = await Promise.all([
    get("/v1/cluster"), get("/v1/health"), get("/v1/capacity"), all("/v1/nodes"), all("/v1/disks"),
    get(`/v1/volumes?limit=${PAGE}&after=${encodeURIComponent(page.after)}`), get("/v1/load?limit=1000"), get("/v1/history"),
    get("/v1/repair"), optional("/v1/rebalance"), optional("/v1/maintenance"), newestEvents(),
  ]);
  return { cluster, health, capacity, nodes, disks, volumes, load, history, repair, rebalance, maintenance, events };
}

// Bytes copied a second since the look before. Sums go back when volumes are closed.
function copyRate(load) {
  const now = { bytes: load.redundancy.copied_bytes, at: performance.now() };
  const before = page.copied;
  page.copied = now;
  return before && now.bytes > before.bytes ? ((now.bytes - before.bytes) * 1000) / (now.at - before.at) : 0;
}

function show(seen) {
  page.next = seen.volumes.next ?? null;
  fill(byId("tiles"), tiles(seen));
  fill(byId("condition-rows"), conditionRows(seen));
  fill(byId("members"), members(seen));
  fill(byId("node-rows"), nodeRows(seen));
  fill(byId("disk-rows"), diskRows(seen));
  fill(byId("volume-rows"), volumeRows(seen));
  fill(byId("repair-body"), repairBody(seen, copyRate(seen.load)));
  fill(byId("event-rows"), eventRows(seen));
  fill(byId("heat"), heatmap(seen));
  byId("volume-next").disabled = !page.next;
  byId("volume-first").disabled = !page.after;
  byId("cluster-id").textContent = `Cluster ${seen.cluster.cluster}, asked: member ${seen.cluster.member}`;
}

async function round() {
  const banner = byId("banner");
  try {
    show(await look());
    page.shownAt = Date.now();
    byId("freshness").textContent = `as of ${clock(page.shownAt)}`;
    banner.hidden = true;
  } catch (error) {
    const since = page.shownAt ? ` What is shown is of ${clock(page.shownAt)}.` : "";
    banner.textContent = `The meta server does not answer as it should: ${error.message}.${since}`;
    banner.hidden = false;
  }
}

async function follow() {
  for (;;) {
    if (!document.hidden) await round();
    await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
  }
}

// The list begins after a name; what is looked for is to be in it. No name has a character above `~`.
function justBefore(text) {
  if (!text) return "";
  const last = text.charCodeAt(text.length - 1);
  return `${text.slice(0, -1)}${String.fromCharCode(last - 1)}~`;
}

function turn(after) {
  page.after = after;
  round();
}

byId("volume-find").addEventListener("submit", (event) => {
  event.preventDefault();
  turn(justBefore(byId("volume-after").value.trim()));
});
byId("volume-first").addEventListener("click", () => {
  byId("volume-after").value = "";
  turn("");
});
byId("volume-next").addEventListener("click", () => page.next && turn(page.next));
document.addEventListener("visibilitychange", () => document.hidden || round());
fill(byId("scale"), scale());
follow();
