// Figures for people.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

function size(bytes) {
  if (bytes === null || bytes === undefined) return "unknown";
  let unit = 0;
  while (bytes >= 1024 && unit < UNITS.length - 1) {
    bytes /= 1024;
    unit += 1;
  }
  return `${bytes >= 100 || unit === 0 || Number.isInteger(bytes) ? Math.round(bytes) : bytes.toFixed(1)} ${UNITS[unit]}`;
}

function count(n) {
  if (n < 10000) return String(n);
  return n < 1e7 ? `${Math.round(n / 1000)} k` : `${Math.round(n / 1e6)} M`;
}

// A latency in microseconds; 0: there were no requests.
function micros(us) {
  if (!us) return "–";
  if (us < 1000) return `${us} µs`;
  return us < 1e6 ? `${(us / 1000).toFixed(us < 10000 ? 1 : 0)} ms` : `${(us / 1e6).toFixed(1)} s`;
}

const percentOf = (part, whole) => (whole > 0 ? Math.round((100 * part) / whole) : 0);
const clock = (ms) => new Date(ms).toLocaleTimeString([], { hour12: false });
// Local, as everything that is shown: only programs want it otherwise.
function moment(ms) {
  const two = (n) => String(n).padStart(2, "0");
  const at = new Date(ms);
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${clock(ms)}`;
}

const plural = (n, one, many) => `${n} ${n === 1 ? one : many}`;
const requests = (load) => load.reads + load.writes;
const bytes = (load) => load.read_bytes + load.write_bytes;
