// Latencies of volumes over time, as colours and, for those who do not see them, as words.

// From which 99th percentile on, microseconds, each colour but the first stands.
const STEPS = [1, 500, 1000, 2000, 5000, 20000, 100000];

const heat = (point) => (point && point.p99_us ? STEPS.filter((step) => point.p99_us >= step).length : 0);

function scale() {
  const item = (level, text) => el("li", el(`i.h${level}`), text);
  const upTo = STEPS.slice(1).map((step, i) => item(i + 1, `< ${micros(step)}`));
  return [item(0, "idle"), ...upTo, item(STEPS.length, `≥ ${micros(STEPS[STEPS.length - 1])}`)];
}

function heatmap({ history }) {
  if (!history.volumes.length) return [el("p.quiet", "No volume has been busy yet; the first moments come ten seconds after a leader begins to lead.")];
  const times = history.moments.map((at, i) => {
    const cell = el("th", i % 6 === 0 ? clock(at).slice(0, 5) : "");
    cell.scope = "col";
    if (i % 6 !== 0) cell.setAttribute("aria-label", clock(at));
    return cell;
  });
  const rows = history.volumes.map((volume) => {
    const name = titled(el("th", volume.volume), volume.volume);
    name.scope = "row";
    const cells = volume.points.map((point, i) => {
      const cell = el(`td.h${heat(point)}`);
      const what = point && point.requests ? `${count(point.requests)} requests/s, p50 ${micros(point.p50_us)}, p99 ${micros(point.p99_us)}` : "idle";
      cell.title = `${volume.volume}, ${clock(history.moments[i])}: ${what}`;
      return cell;
    });
    return el("tr", name, ...cells);
  });
  return [el("table.heat", el("thead", el("tr", el("td"), ...times)), el("tbody", ...rows))];
}
