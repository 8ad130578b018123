// What the page knows: rates, ratios and lateness, derived from the counters of the server. Pure:
// it knows nothing of the document, nor of the connection.

const RATE_WINDOW_MS = 10_000;
// A multiple of the usual refresh intervals: 1, 2, 3, 4 and 6 s.
const SMOOTH_WINDOW_MS = 12_000;
const KEPT_MS = 60_000;
const PLOT_MS = 600_000;
const GAP_MS = 3_500;
const PAST_EVENTS_MAX = 200;

const HITS = ["hit", "stale", "stale_error", "stale_missing", "blocking", "coalesced"];
const NOT_HITS = ["miss", "revalidated", "pass", "negative", "failed"];
export const SOURCES = ["memory", "blocking", "origin", "shield"];

const SERIES = [
  "viewers",
  "requests",
  "misses",
  "failures",
  "sent",
  "originBytes",
  "originRequests",
  "ideal",
  "p95Memory",
  "p95Origin",
  "late",
];

const STREAM_COUNTERS = ["requests", "bytes", "origin_requests", "ideal_requests", "errors"];
const [REQUESTS, BYTES, ORIGIN_REQUESTS, IDEAL_REQUESTS, ERRORS] = STREAM_COUNTERS.keys();
const RING_SAMPLES = KEPT_MS / 1000 + 1;
const RING_WIDTH = STREAM_COUNTERS.length + 1;

const sum = (values) => values.reduce((total, value) => total + (value ?? 0), 0);
const ratio = (part, whole) => (whole > 0 ? part / whole : null);

/** The counters of an overview in one flat object; the buckets of a histogram stay an array. */
function countersOf(overview) {
  const requests = overview.requests ?? {};
  const responses = overview.responses ?? {};
  const origin = overview.origin ?? {};
  return {
    requests: sum(Object.values(requests)),
    hits: sum(HITS.map((name) => requests[name])),
    notHits: sum(NOT_HITS.map((name) => requests[name])),
    misses: requests.miss ?? 0,
    failed: requests.failed ?? 0,
    rejected: requests.overload ?? 0,
    serverErrors: responses["5xx"] ?? 0,
    sent: sum(Object.values(overview.sent_bytes ?? {})),
    originBytes: origin.bytes ?? 0,
    originRequests: origin.requests ?? 0,
    ideal: origin.ideal_requests ?? 0,
    head: overview.head_seconds ?? {},
  };
}

/** Samples of counters, oldest first, for as long as the longest window. */
class CounterWindow {
  samples = [];

  push(atMs, counters) {
    this.samples.push({ atMs, counters });
    while (atMs - this.samples[0].atMs > KEPT_MS) this.samples.shift();
  }

  clear() {
    this.samples.length = 0;
  }

  get newest() {
    return this.samples.at(-1);
  }

  /** The newest sample that is at least `ms` old, or the oldest; null without two samples. */
  before(ms) {
    if (this.samples.length < 2) return null;
    const { atMs } = this.newest;
    for (let index = this.samples.length - 2; index > 0; index -= 1) {
      if (atMs - this.samples[index].atMs >= ms) return this.samples[index];
    }
    return this.samples[0];
  }

  /** By how much each counter grew within `ms`, and in how many seconds; null if not known. */
  growth(ms, names) {
    const from = this.before(ms);
    if (!from) return null;
    const seconds = (this.newest.atMs - from.atMs) / 1000;
    if (seconds <= 0) return null;
    const grown = { seconds, from: from.counters, to: this.newest.counters };
    for (const name of names) {
      grown[name] = this.newest.counters[name] - from.counters[name];
    }
    return grown;
  }
}

/**
 * The counters of one stream over the longest window, in a ring of numbers: objects for 500 streams
 * and 60 s would keep the garbage collector busy.
 */
class StreamWindow {
  #ring = new Float64Array(RING_SAMPLES * RING_WIDTH);
  #next = 0;
  #length = 0;

  clear() {
    this.#length = 0;
  }

  /** Adds a sample; a counter that fell begins a new window. */
  push(atMs, stream) {
    const last = this.#length > 0 ? this.#offset(0) : -1;
    const slot = this.#next * RING_WIDTH;
    for (let index = 0; index < STREAM_COUNTERS.length; index += 1) {
      const value = stream[STREAM_COUNTERS[index]] ?? 0;
      if (last >= 0 && value < this.#ring[last + 1 + index]) this.#length = 0;
      this.#ring[slot + 1 + index] = value;
    }
    this.#ring[slot] = atMs;
    this.#next = (this.#next + 1) % RING_SAMPLES;
    this.#length = Math.min(this.#length + 1, RING_SAMPLES);
  }

  /** Where the sample before `back` others begins in the ring. */
  #offset(back) {
    return ((this.#next - 1 - back + 2 * RING_SAMPLES) % RING_SAMPLES) * RING_WIDTH;
  }

  /** The sample to compare the newest with: `ms` old, or the oldest; -1 without two samples. */
  from(ms) {
    if (this.#length < 2) return -1;
    const newest = this.#ring[this.#offset(0)];
    for (let back = 1; back < this.#length - 1; back += 1) {
      const offset = this.#offset(back);
      if (newest - this.#ring[offset] >= ms) return offset;
    }
    return this.#offset(this.#length - 1);
  }

  seconds(from) {
    return (this.#ring[this.#offset(0)] - this.#ring[from]) / 1000;
  }

  growth(from, counter) {
    return this.#ring[this.#offset(0) + 1 + counter] - this.#ring[from + 1 + counter];
  }
}

const hasFallen = (before, after, names) => names.some((name) => after[name] < before[name]);

/** The quantile of what a histogram counted between two readings; null if that is nothing. */
export function quantile(bounds, before, after, share) {
  if (!bounds || !after) return null;
  const grown = after.map((value, index) => Math.max(0, value - (before?.[index] ?? 0)));
  const total = sum(grown);
  if (total === 0) return null;
  let rank = share * total;
  for (let index = 0; index < grown.length; index += 1) {
    if (rank > grown[index] || grown[index] === 0) {
      rank -= grown[index];
      continue;
    }
    const lower = index === 0 ? 0 : bounds[index - 1];
    const upper = bounds[index] ?? bounds.at(-1);
    return lower + (upper - lower) * (rank / grown[index]);
  }
  return bounds.at(-1);
}

const TOTALS = [
  "requests",
  "hits",
  "notHits",
  "misses",
  "failed",
  "rejected",
  "serverErrors",
  "sent",
  "originBytes",
  "originRequests",
  "ideal",
];

export class Model {
  latest = null;
  /** Rows of the table by name: the same object as long as the stream is there. */
  streams = new Map();
  /** The sum over the streams; null where no stream says it. */
  viewers = null;
  lateStreams = [];
  events = [];
  series = { at: [], ...Object.fromEntries(SERIES.map((name) => [name, []])) };
  #totals = new CounterWindow();
  #pastEvents = [];

  /** Takes the next overview. True if the server's counters began anew. */
  push(overview) {
    const counters = countersOf(overview);
    const isRestarted = this.#isRestart(overview, counters);
    if (isRestarted) this.#beginAnew(overview.at_ms);
    this.#sample(overview, counters);
    this.latest = overview;
    this.#pushStreams(overview);
    this.#pushEvents(overview);
    this.#plot(overview.at_ms, this.viewers, this.lateStreams.length);
    return isRestarted;
  }

  /** Takes what the server remembers of the time before the page was opened, oldest first. */
  pushHistory(past) {
    for (const overview of past) {
      if (this.latest && overview.at_ms <= this.latest.at_ms) continue;
      const counters = countersOf(overview);
      if (this.#isRestart(overview, counters)) this.#beginAnew(overview.at_ms);
      this.#sample(overview, counters);
      this.latest = overview;
      this.#plot(overview.at_ms, overview.viewers ?? null, overview.late ?? null);
    }
  }

  #isRestart(overview, counters) {
    const before = this.#totals.newest?.counters;
    if (!before || !this.latest) return false;
    return (
      overview.uptime_seconds < this.latest.uptime_seconds || hasFallen(before, counters, TOTALS)
    );
  }

  #beginAnew(atMs) {
    this.#totals.clear();
    for (const row of this.streams.values()) row.window.clear();
    this.#pastEvents = this.events.slice(-PAST_EVENTS_MAX);
    this.#breakLines(atMs - 1);
  }

  #sample(overview, counters) {
    const last = this.#totals.newest?.atMs;
    if (last !== undefined && overview.at_ms - last > GAP_MS) this.#breakLines(last + 1);
    this.#totals.push(overview.at_ms, counters);
  }

  #breakLines(atMs) {
    const { at } = this.series;
    if (at.length === 0 || atMs / 1000 <= at.at(-1)) return;
    at.push(atMs / 1000);
    for (const name of SERIES) this.series[name].push(null);
  }

  #pushStreams(overview) {
    const seen = new Set();
    for (const stream of overview.streams ?? []) {
      seen.add(stream.name);
      let row = this.streams.get(stream.name);
      if (!row) {
        row = { name: stream.name, window: new StreamWindow() };
        this.streams.set(stream.name, row);
      }
      updateStream(row, stream, overview.at_ms);
    }
    for (const name of this.streams.keys()) {
      if (!seen.has(name)) this.streams.delete(name);
    }
    this.viewers = null;
    this.lateStreams = [];
    for (const row of this.streams.values()) {
      if (row.viewers !== null) this.viewers = (this.viewers ?? 0) + row.viewers;
      if (row.isLate) this.lateStreams.push(row);
    }
  }

  #pushEvents(overview) {
    const oldest = overview.events?.[0]?.at_ms ?? Infinity;
    this.#pastEvents = this.#pastEvents.filter((event) => event.at_ms < oldest);
    this.events = [...this.#pastEvents, ...(overview.events ?? [])];
  }

  #plot(atMs, viewers, late) {
    const grown = this.#totals.growth(900, TOTALS);
    const { series } = this;
    if (series.at.length > 0 && atMs / 1000 <= series.at.at(-1)) return;
    const perSecond = (name) => (grown ? grown[name] / grown.seconds : null);
    // Playlists are refreshed every few seconds: single seconds would draw a comb.
    const recent = this.#totals.growth(SMOOTH_WINDOW_MS, TOTALS);
    const smoothed = (name) =>
      recent?.seconds * 1000 >= SMOOTH_WINDOW_MS / 2 ? recent[name] / recent.seconds : null;
    const values = {
      viewers,
      late,
      requests: perSecond("requests"),
      misses: perSecond("misses"),
      failures: perSecond("serverErrors"),
      sent: perSecond("sent"),
      originBytes: perSecond("originBytes"),
      originRequests: smoothed("originRequests"),
      ideal: smoothed("ideal"),
      p95Memory: this.headQuantile("memory", 0.95),
      p95Origin: this.headQuantile("origin", 0.95),
    };
    series.at.push(atMs / 1000);
    for (const name of SERIES) series[name].push(values[name]);
    while ((series.at.at(-1) - series.at[0]) * 1000 > PLOT_MS) {
      series.at.shift();
      for (const name of SERIES) series[name].shift();
    }
  }

  /** A quantile of the time to the response head over the last 10 s, in seconds. */
  headQuantile(source, share) {
    const grown = this.#totals.growth(RATE_WINDOW_MS, []);
    if (!grown) return null;
    const { bounds } = grown.to.head;
    return quantile(bounds, grown.from.head[source], grown.to.head[source], share);
  }

  /** Rates per second and ratios over the last 10 s; each is null until it is known. */
  get totals() {
    const grown = this.#totals.growth(RATE_WINDOW_MS, TOTALS);
    if (!grown) return {};
    const perSecond = (name) => grown[name] / grown.seconds;
    return {
      requests: perSecond("requests"),
      misses: perSecond("misses"),
      failures: perSecond("serverErrors"),
      rejected: perSecond("rejected"),
      sent: perSecond("sent"),
      originBytes: perSecond("originBytes"),
      originRequests: perSecond("originRequests"),
      ideal: perSecond("ideal"),
      hitRatio: ratio(grown.hits, grown.hits + grown.notHits),
      byteHitRatio: grown.sent > 0 ? Math.max(0, 1 - grown.originBytes / grown.sent) : null,
      originLoad: ratio(grown.originRequests, grown.ideal),
      failureRatio: ratio(grown.serverErrors, grown.requests),
    };
  }

  /** How old what viewers get is beyond the newest version: the mean over viewers, and the worst. */
  get staleness() {
    let worst = null;
    let total = 0;
    let weights = 0;
    for (const row of this.streams.values()) {
      if (row.staleness === null) continue;
      const weight = Math.max(row.viewers ?? 0, 1);
      total += row.staleness * weight;
      weights += weight;
      if (!worst || row.staleness > worst.staleness) worst = row;
    }
    return { mean: ratio(total, weights), worst };
  }
}

function updateStream(row, stream, atMs) {
  const { window } = row;
  window.push(atMs, stream);
  const recent = window.from(RATE_WINDOW_MS);
  // A stream has a few origin requests in 10 s: their ratio says something only over a minute.
  const minute = window.from(KEPT_MS);
  const rate = (counter) =>
    recent < 0 ? null : window.growth(recent, counter) / window.seconds(recent);
  const age = stream.edge_age_seconds ?? null;
  const interval = stream.interval_seconds ?? null;
  row.viewers = stream.viewers ?? null;
  row.requestRate = rate(REQUESTS);
  row.byteRate = rate(BYTES);
  row.load =
    minute < 0
      ? null
      : ratio(window.growth(minute, ORIGIN_REQUESTS), window.growth(minute, IDEAL_REQUESTS));
  row.errors = minute < 0 ? null : window.growth(minute, ERRORS);
  row.edgeAge = age;
  row.interval = interval;
  row.intervals = age !== null && interval > 0 ? age / interval : null;
  row.isStalled = stream.is_stalled === true;
  row.isVeryLate = row.isStalled || row.intervals > 3;
  row.isLate = row.isVeryLate || row.intervals > 1.5;
  row.staleness = stream.staleness_seconds ?? null;
  row.restarts = stream.restarts ?? null;
  row.skew = stream.skew_segments ?? null;
  row.lastError = stream.last_error ?? null;
  row.severity = row.isVeryLate ? 2 : row.isLate || row.errors > 0 ? 1 : 0;
}
