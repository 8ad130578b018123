// A simulated shield: the state behind the admin endpoints that the page reads, advanced by hand.
// It knows nothing of HTTP; mock.mjs serves it. Everything random comes from one seed, so that two
// runs show the same.

const HEAD_BOUNDS = [
  0.00005, 0.0001, 0.00025, 0.001, 0.0025, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15,
];
const OUTCOMES = [
  "hit",
  "stale",
  "stale_error",
  "stale_missing",
  "miss",
  "coalesced",
  "blocking",
  "revalidated",
  "pass",
  "negative",
  "local",
  "refused",
  "overload",
  "failed",
  "left",
];
const KINDS = ["hls", "dash", "segment", "init", "decryption_key", "time_server", "other"];
const EVENTS_MAX = 200;
const HISTORY_MAX = 600;

const MATCH_DAY = [
  ["/live/final/main.m3u8", 21400, 2],
  ["/live/final/main-ll.m3u8", 6120, 1],
  ["/live/final/tactical.m3u8", 3280, 2],
  ["/live/final/commentary-2.m3u8", 1790, 2],
  ["/live/final/main.mpd", 9650, 2],
  ["/live/semi-2/replay.m3u8", 410, 4],
  ["/live/studio/pre-match.m3u8", 920, 4],
  ["/news/24h/index.m3u8", 2210, 6],
  ["/news/24h/manifest.mpd", 640, 4],
  ["/radio/one/audio.m3u8", 380, 6],
  ["/radio/sport/audio.m3u8", 1150, 6],
  ["/events/athletics/stadium.m3u8", 76, 4],
];

function seededRandom(seed) {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

export class Shield {
  constructor({ mode = "calm", streams = mode === "many" ? 500 : 0, startMs = Date.now() } = {}) {
    this.mode = mode;
    this.random = seededRandom(20260715);
    this.wanted = streams;
    this.nowMs = startMs;
    this.eventNumber = 0;
    this.events = [];
    this.history = [];
    this.drain = "serving";
    this.config = {
      path: "/etc/seawall/seawall.toml",
      sha256: "9f4c1e7a52d08b36c1d94e02bb7735ad1f60c2e98a45d3710be6f8829c4d1a07",
      generation: 7,
      loaded_at_ms: this.nowMs - 5 * 3600e3,
      pending_restart: [],
    };
    this.start();
  }

  /** Begins as a new process does: every counter at zero. */
  start() {
    this.uptime = this.mode === "new" ? 0 : 5 * 3600;
    this.requests = Object.fromEntries(OUTCOMES.map((name) => [name, 0]));
    this.responses = { "1xx": 0, "2xx": 0, "3xx": 0, "4xx": 0, "5xx": 0, other: 0 };
    this.sent = Object.fromEntries(KINDS.map((name) => [name, 0]));
    this.origin = { requests: 0, bytes: 0, ideal_requests: 0 };
    this.head = Object.fromEntries(
      ["memory", "blocking", "origin", "shield"].map((source) => [
        source,
        new Array(HEAD_BOUNDS.length + 1).fill(0),
      ]),
    );
    this.streams = this.makeStreams();
    this.origins = [
      this.makeOrigin("main", ["http://10.20.0.11:8080", "http://10.20.0.12:8080"], 256),
      this.makeOrigin("news", ["http://10.20.4.7:8080"], 64),
    ];
    this.origins[0].endpoints.push({
      ...this.makeEndpoint("http://10.40.0.11:8080"),
      state: "standby",
    });
    this.memory = { used_bytes: 5.1e9, max_bytes: 8 * 2 ** 30, objects: 48210 };
    this.event("start", "info", "Seawall 0.9.0 started, process 4127");
  }

  /** A later process in place of this one, with counters from zero. */
  restart() {
    this.start();
    this.uptime = 0;
  }

  makeStreams() {
    const rows = this.wanted > 0 ? [] : MATCH_DAY;
    for (let index = 0; index < this.wanted; index += 1) {
      const number = String(index + 1).padStart(3, "0");
      const audience = Math.round(12000 / (index + 1) + 40 * this.random());
      rows.push([`/live/channel-${number}/index.m3u8`, audience, [2, 4, 6][index % 3]]);
    }
    return rows.map(([name, viewers, interval]) => ({
      name,
      viewers,
      interval,
      phase: this.random() * interval,
      late: 0,
      fault: null,
      bitRate: 2.4e6 + this.random() * 3.2e6,
      requests: 0,
      bytes: 0,
      origin_requests: 0,
      ideal_requests: 0,
      restarts: 0,
      skew_segments: 0,
      errors: 0,
      last_error: null,
      sequence: 48000 + Math.floor(this.random() * 2000),
      refreshes: [],
    }));
  }

  makeOrigin(name, urls, permits) {
    return { name, queued: 0, active: 2, permits, endpoints: urls.map(this.makeEndpoint) };
  }

  makeEndpoint(url) {
    return {
      url,
      state: "in_use",
      breaker: "closed",
      failures: 0,
      requests: 0,
      response_seconds: 0.021,
    };
  }

  event(kind, severity, text) {
    this.eventNumber += 1;
    const at_ms = Math.round(this.nowMs);
    this.events.push({ number: this.eventNumber, at_ms, kind, severity, text });
    if (this.events.length > EVENTS_MAX) this.events.shift();
  }

  stream(name) {
    return this.streams.find((stream) => stream.name === name);
  }

  /** Stops the packager of a stream: the origin goes on answering with the same version. */
  makeLate(name) {
    this.stream(name).fault = "same";
  }

  /** Each refresh of the stream fails. */
  makeFailing(name) {
    this.stream(name).fault = "failed";
  }

  mend(name) {
    const stream = this.stream(name);
    stream.fault = null;
    stream.late = 0;
  }

  openBreaker(originName = "main", index = 0) {
    const origin = this.origins.find((origin) => origin.name === originName);
    const endpoint = origin.endpoints[index];
    Object.assign(endpoint, { state: "out", breaker: "open" });
    const why = `breaker opened after 5 failures: ${endpoint.url} did not answer within 2 s`;
    this.event("breaker", "error", `${originName}: ${why}`);
  }

  closeBreaker(originName = "main", index = 0) {
    const origin = this.origins.find((origin) => origin.name === originName);
    const endpoint = origin.endpoints[index];
    Object.assign(endpoint, { state: "in_use", breaker: "closed" });
    this.event("breaker", "info", `${originName}: breaker closed, ${endpoint.url} is in use`);
  }

  /** What happens by itself in each mode, by the second since the start of the simulation. */
  followScript(second) {
    const at = (when, act) => second === when && act();
    if (this.mode === "trouble") {
      at(150, () =>
        this.event("reload", "info", "reloaded: routes.live.ttl, origins.main.endpoints"),
      );
      at(330, () =>
        this.event(
          "purge",
          "info",
          "purged /radio/one/audio.m3u8: 214 objects, 88 MB, by token deploy",
        ),
      );
      at(430, () => this.openBreaker("main", 1));
      at(432, () => this.makeFailing("/live/final/tactical.m3u8"));
      at(540, () => this.makeLate("/live/semi-2/replay.m3u8"));
    }
    if (this.mode === "failing") {
      at(420, () => {
        this.openBreaker("main", 0);
        this.openBreaker("main", 1);
        this.origins[0].endpoints[2].state = "out";
        for (const stream of this.streams.slice(0, 7)) stream.fault = "failed";
      });
      at(425, () =>
        this.event(
          "error",
          "error",
          "main: no endpoint is in use; 412 requests were answered stale",
        ),
      );
    }
    if (this.mode === "many") {
      at(200, () => this.event("reload", "info", "reloaded: origins.main.permits"));
      at(470, () => this.makeLate("/live/channel-037/index.m3u8"));
      at(480, () => this.makeFailing("/live/channel-212/index.m3u8"));
    }
  }

  /** Lets one second pass. */
  advance() {
    this.second = (this.second ?? 0) + 1;
    this.nowMs += 1000;
    this.uptime += 1;
    this.followScript(this.second);
    const kickOff = 1 + 0.25 * Math.sin(this.second / 90) + 0.03 * this.random();
    for (const stream of this.streams) this.advanceStream(stream, kickOff);
    this.advanceOrigins();
    this.keepHistory();
  }

  advanceStream(stream, kickOff) {
    const audience = Math.round(stream.viewers * kickOff);
    stream.audience = audience;
    const requests = Math.round(
      ((audience * 2.2) / stream.interval) * (0.97 + 0.06 * this.random()),
    );
    const bytes = Math.round(((audience * stream.bitRate) / 8) * (0.97 + 0.06 * this.random()));
    stream.requests += requests;
    stream.bytes += bytes;
    stream.phase += 1;
    let fetched = 0;
    while (stream.phase >= stream.interval) {
      stream.phase -= stream.interval;
      fetched += this.refresh(stream);
    }
    if (stream.fault) stream.late += 1;
    this.count(stream, requests, bytes, fetched);
  }

  /** One refresh of a stream's manifest; returns the requests that the origin got. */
  refresh(stream) {
    const endpoints = this.originOf(stream).endpoints;
    const inUse = endpoints.filter((endpoint) => endpoint.state === "in_use");
    const endpoint = inUse[stream.sequence % inUse.length] ?? endpoints[0];
    const result = stream.fault ?? "new";
    const tookMs = result === "failed" ? 2000 : Math.round(12 + 26 * this.random());
    stream.refreshes.push({
      at_ms: Math.round(this.nowMs),
      manifest: stream.name,
      took_ms: tookMs,
      result,
      endpoint: endpoint.url,
    });
    if (stream.refreshes.length > 120) stream.refreshes.shift();
    if (result === "failed") {
      stream.errors += 1;
      endpoint.failures += 1;
      const text = `GET ${endpoint.url}${stream.name}: no response head within 2 s`;
      stream.last_error = { at_ms: Math.round(this.nowMs), text };
      return 1;
    }
    endpoint.requests += 5;
    if (result === "same") return 1;
    stream.sequence += 1;
    stream.ideal_requests += 5;
    return 5 + (this.random() < 0.04 ? 1 : 0);
  }

  originOf(stream) {
    return this.origins[stream.name.startsWith("/news") ? 1 : 0];
  }

  count(stream, requests, bytes, fetched) {
    const failed = stream.fault === "failed";
    const isDash = stream.name.endsWith(".mpd");
    const blocking = stream.interval === 1 ? Math.round(requests * 0.3) : 0;
    const coalesced = Math.round(fetched * 3 * this.random());
    const misses = stream.fault === "same" ? 0 : fetched;
    const stale = failed ? Math.round(requests * 0.4) : 0;
    const broken = failed ? Math.round(requests * 0.02) : 0;
    const hits = Math.max(0, requests - blocking - coalesced - misses - stale - broken);
    this.requests.hit += hits;
    this.requests.stale_error += stale;
    this.requests.failed += broken;
    this.requests.blocking += blocking;
    this.requests.coalesced += coalesced;
    this.requests.miss += misses;
    this.responses["2xx"] += requests - broken;
    this.responses["5xx"] += broken;
    this.observe("memory", hits + stale, 0.00012);
    this.observe("blocking", blocking, 0.18);
    this.observe("origin", misses + coalesced + broken, failed ? 2.2 : 0.024);
    this.sent[isDash ? "dash" : "hls"] += Math.round(bytes * 0.004);
    this.sent.segment += Math.round(bytes * 0.995);
    this.sent.init += Math.round(bytes * 0.001);
    stream.origin_requests += fetched;
    this.origin.requests += fetched;
    this.origin.ideal_requests += stream.fault ? 0 : fetched > 0 ? 5 : 0;
    this.origin.bytes += failed ? 0 : Math.round((fetched * stream.bitRate * stream.interval) / 40);
  }

  /** Spreads `count` observations around a typical time. */
  observe(source, count, typical) {
    const shares = [0.5, 0.32, 0.13, 0.05];
    let rest = count;
    shares.forEach((share, index) => {
      const part = index === shares.length - 1 ? rest : Math.min(rest, Math.round(count * share));
      rest -= part;
      const seconds = typical * 2 ** index * (0.8 + 0.4 * this.random());
      let bucket = HEAD_BOUNDS.findIndex((bound) => seconds <= bound);
      if (bucket < 0) bucket = HEAD_BOUNDS.length;
      this.head[source][bucket] += part;
    });
  }

  advanceOrigins() {
    for (const origin of this.origins) {
      const isDown = origin.endpoints.every((endpoint) => endpoint.state !== "in_use");
      origin.active = isDown ? origin.permits : Math.round(3 + 6 * this.random());
      origin.queued = isDown ? Math.round(40 + 30 * this.random()) : 0;
      for (const endpoint of origin.endpoints) {
        if (endpoint.state === "in_use") endpoint.response_seconds = 0.018 + 0.01 * this.random();
        if (endpoint.state === "out") endpoint.response_seconds = null;
      }
    }
  }

  overview() {
    const streams = this.streams.map((stream) => this.streamRow(stream));
    const open = streams.reduce((sum, stream) => sum + stream.viewers, 0);
    return {
      at_ms: Math.round(this.nowMs),
      uptime_seconds: this.uptime,
      version: "0.9.0",
      host: "shield-1",
      drain: this.drain,
      requests: { ...this.requests },
      responses: { ...this.responses },
      sent_bytes: { ...this.sent },
      origin: { ...this.origin },
      head_seconds: {
        bounds: HEAD_BOUNDS,
        ...Object.fromEntries(Object.entries(this.head).map(([name, row]) => [name, [...row]])),
      },
      connections: { open: Math.round(open * 1.1), max: 200000 },
      memory: { ...this.memory },
      streams,
      streams_left_out: this.mode === "many" ? 12 : 0,
      origins: structuredClone(this.origins),
      events: [...this.events],
      config: { ...this.config },
    };
  }

  streamRow(stream) {
    const age = stream.fault ? stream.phase + stream.late : stream.phase + 0.1;
    return {
      name: stream.name,
      viewers: stream.audience ?? stream.viewers,
      requests: stream.requests,
      bytes: stream.bytes,
      origin_requests: stream.origin_requests,
      ideal_requests: stream.ideal_requests,
      edge_age_seconds: age,
      interval_seconds: stream.interval,
      is_stalled: stream.fault !== null && stream.late > 3 * stream.interval,
      restarts: stream.restarts,
      skew_segments: stream.skew_segments,
      staleness_seconds: stream.fault ? stream.late / 2 : 0.08,
      errors: stream.errors,
      last_error: stream.last_error,
    };
  }

  /** What the page draws of the time before it was opened: overviews without streams and events. */
  keepHistory() {
    const { streams, events, origins, config, ...counters } = this.overview();
    const viewers = streams.reduce((sum, stream) => sum + stream.viewers, 0);
    const late = streams.filter((s) => s.edge_age_seconds > 1.5 * s.interval_seconds).length;
    this.history.push({ ...counters, viewers, late });
    if (this.history.length > HISTORY_MAX) this.history.shift();
  }

  details(name) {
    const stream = this.stream(name);
    if (!stream) return null;
    const row = this.streamRow(stream);
    const folder = name.slice(0, name.lastIndexOf("/") + 1);
    const isLowLatency = stream.interval === 1;
    const manifest = (path, isMultivariant) => ({
      path,
      is_refreshed: !isMultivariant,
      is_stalled: row.is_stalled && !isMultivariant,
      is_multivariant: isMultivariant,
      idle_seconds: 0.2,
      next_poll_seconds: isMultivariant ? null : Math.max(0, stream.interval - stream.phase),
      last_sequence: isMultivariant ? null : stream.sequence,
      parts: isLowLatency && !isMultivariant ? 24 : null,
      target_seconds: isMultivariant ? null : stream.interval,
      age_seconds: isMultivariant ? 5400 : row.edge_age_seconds,
      versions: isMultivariant ? 1 : 6,
      is_low_latency: isLowLatency,
    });
    const renditions = name.endsWith(".mpd")
      ? []
      : ["1080p", "720p", "480p", "audio"].map((r) => manifest(`${folder}${r}.m3u8`, false));
    const refreshes = stream.refreshes.map((refresh, index) => ({
      ...refresh,
      manifest: renditions[index % Math.max(1, renditions.length)]?.path ?? name,
    }));
    return {
      name,
      manifests: [manifest(name, renditions.length > 0), ...renditions],
      refreshes,
    };
  }

  /** The objects that a purge selects. */
  select(parameters) {
    if (parameters.has("all"))
      return { objects: this.memory.objects, bytes: this.memory.used_bytes };
    const text =
      parameters.get("stream") ??
      parameters.get("url") ??
      parameters.get("prefix") ??
      parameters.get("tag");
    const matching = this.streams.filter(
      (stream) =>
        text.includes(stream.name) ||
        (parameters.has("prefix") &&
          new RegExp(`^(https?://[^/]+)?${text.replace(/^https?:\/\/[^/]+/, "")}`).test(
            stream.name,
          )),
    );
    if (parameters.has("url")) return { objects: matching.length, bytes: matching.length * 4210 };
    if (parameters.has("tag")) return { objects: 318, bytes: 412e6 };
    return { objects: matching.length * 214, bytes: matching.length * 88.4e6 };
  }
}
