// Numbers, times and names as the page writes them. Pure: it knows nothing of the document.

export const NONE = "–";

const isKnown = (value) => typeof value === "number" && Number.isFinite(value);

/** 0, 3.4, 27, 940, 12 300, 1.2 M: as many digits as one can compare at a glance. */
export function count(value) {
  if (!isKnown(value)) return NONE;
  if (value >= 1e6) return `${short(value / 1e6)} M`;
  if (value > 0 && value < 10 && !Number.isInteger(value)) return value.toFixed(1);
  return grouped(Math.round(value));
}

/** A whole number with its thousands apart. */
export function grouped(value) {
  if (!isKnown(value)) return NONE;
  return String(Math.round(value)).replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

export function percent(ratio) {
  if (!isKnown(ratio)) return NONE;
  const value = ratio * 100;
  // 99.97 % must not read as 100 %: the rest is what the origin feels.
  if (value > 99 && value < 100) return `${(Math.floor(value * 100) / 100).toFixed(2)} %`;
  return `${value.toFixed(1)} %`;
}

export function times(ratio) {
  if (!isKnown(ratio)) return NONE;
  return `${ratio >= 100 ? grouped(ratio) : ratio.toFixed(2)}×`;
}

export function bytes(value) {
  return scaled(value, 1024, ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]);
}

export function bitRate(bytesPerSecond) {
  if (!isKnown(bytesPerSecond)) return NONE;
  return scaled(bytesPerSecond * 8, 1000, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"]);
}

function scaled(value, base, units) {
  if (!isKnown(value)) return NONE;
  let rest = value;
  let unit = 0;
  while (rest >= base && unit < units.length - 1) {
    rest /= base;
    unit += 1;
  }
  return `${unit === 0 ? Math.round(rest) : short(rest)} ${units[unit]}`;
}

function short(value) {
  if (value >= 100) return String(Math.round(value));
  return value.toFixed(1);
}

/** A time between a hit in memory and minutes: 80 µs, 1.4 ms, 120 ms, 2.5 s. */
export function latency(seconds) {
  if (!isKnown(seconds)) return NONE;
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 0.01) return `${(seconds * 1e3).toFixed(1)} ms`;
  if (seconds < 0.9995) return `${Math.round(seconds * 1e3)} ms`;
  return age(seconds);
}

/** How old something is: 0.4 s, 12 s, 3 min, 5 h, 2 days. */
export function age(seconds) {
  if (!isKnown(seconds)) return NONE;
  if (seconds < 10) return `${Math.max(0, seconds).toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

// Made once: a formatter costs a hundred times what it formats.
const CLOCK = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hourCycle: "h23",
});

export function clock(ms) {
  return isKnown(ms) ? CLOCK.format(ms) : NONE;
}

/** The time of today, or date and time of another day. */
export function moment(ms, nowMs) {
  if (!isKnown(ms)) return NONE;
  const date = new Date(ms);
  if (date.toDateString() === new Date(nowMs).toDateString()) return clock(ms);
  const day = date.toLocaleDateString(undefined, { day: "numeric", month: "short" });
  return `${day}, ${clock(ms)}`;
}

/** `1 stream`, `2 streams`. */
export function plural(value, noun, nouns = `${noun}s`) {
  return `${grouped(value)} ${Math.round(value) === 1 ? noun : nouns}`;
}
