// The operator's page: what is shown where, and when it is brought up to date. The facts come from
// model.js and diagnosis.js, the requests from connection.js.

import {
  askForToken,
  closeDialog,
  openDrain,
  openPurge,
  openReload,
  setContext,
} from "./actions.js";
import { follow } from "./connection.js";
import { diagnose, pendingText } from "./diagnosis.js";
import { byId, element, setAttribute, setClass, setHidden, setText, syncChildren } from "./dom.js";
import {
  NONE,
  age,
  bitRate,
  bytes,
  clock,
  count,
  grouped,
  latency,
  moment,
  percent,
  plural,
  times,
} from "./format.js";
import { Model, SOURCES } from "./model.js";
import { Plots } from "./plots.js";
import { StreamDetails } from "./stream_details.js";
import { StreamTable } from "./stream_table.js";

const PROBLEMS_MAX = 4;
const EVENTS_AT_FIRST = 12;
const THEME_KEY = "seawall.theme";

const model = new Model();
const link = { isUp: false, lostAtMs: null, retryAtMs: null, reason: "" };
let showsAllEvents = false;
let isRenderDue = false;

// ---- The state in words -------------------------------------------------------------------------

function renderVerdict() {
  if (!model.latest) return;
  if (link.lostAtMs !== null) {
    const text = `What you see is from ${clock(model.latest.at_ms)}.`;
    return showVerdict("unknown", `Disconnected since ${clock(link.lostAtMs)}`, text, []);
  }
  const problems = diagnose(model);
  const [first, ...others] = problems;
  if (!first || first.severity === "info") {
    return showVerdict("none", "All is well", summary(), problems);
  }
  showVerdict(first.severity, first.title, first.text, others, first);
}

function summary() {
  const streams = plural(model.streams.size, "stream");
  const viewers = model.viewers === null ? "" : `, ${plural(model.viewers, "viewer")}`;
  return `${streams}${viewers}. No stream is late, every origin can be reached.`;
}

function showVerdict(severity, title, text, others, target = null) {
  setAttribute(byId("headline"), "data-severity", severity);
  setText(byId("verdict-text"), text);
  const heading = byId("verdict-title");
  if (heading.problem?.title !== title) {
    const follow = target?.stream || target?.section;
    heading.replaceChildren(
      follow
        ? element("button", { type: "button", onclick: () => goTo(heading.problem) }, title)
        : title,
    );
  }
  heading.problem = target ?? { title };
  document.title = severity === "none" ? "Seawall" : `${title} · Seawall`;
  const shown = others.slice(0, PROBLEMS_MAX);
  const rest = others.length - shown.length;
  if (rest > 0)
    shown.push({
      severity: "info",
      title: `and ${plural(rest, "more problem")}`,
      text: others
        .slice(PROBLEMS_MAX)
        .map((each) => each.title)
        .join("; "),
    });
  syncChildren(byId("problems"), shown, {
    key: (problem) => `${problem.stream ?? ""} ${problem.section ?? ""} ${problem.title}`,
    make: makeProblem,
    update: (item, problem) => {
      item.problem = problem;
      setAttribute(item, "data-severity", problem.severity);
      setText(item.querySelector(".problem-text"), problem.text);
    },
  });
  setHidden(byId("problems"), shown.length === 0);
}

function makeProblem(problem) {
  const item = element("li", {});
  const title =
    problem.stream || problem.section
      ? element("button", { type: "button", onclick: () => goTo(item.problem) }, problem.title)
      : element("b", {}, problem.title);
  item.append(title, element("span", { class: "problem-text quiet" }));
  return item;
}

/** Leads to where a problem can be looked at. */
function goTo(problem) {
  if (problem.stream) return openStream(problem.stream);
  const section = byId(`${problem.section}-title`) ?? byId(problem.section);
  section?.scrollIntoView({ block: "start", behavior: "smooth" });
  section?.focus?.({ preventScroll: true });
}

// ---- The connection -----------------------------------------------------------------------------

function renderLink() {
  const text = byId("link-text");
  setClass(byId("link"), "is-down", link.lostAtMs !== null);
  if (link.isUp) return setText(text, `Live, up ${age(model.latest.uptime_seconds)}`);
  if (link.lostAtMs === null) return;
  const seconds = Math.max(0, Math.ceil((link.retryAtMs - Date.now()) / 1000));
  const again = seconds > 0 ? `next try in ${seconds} s` : "trying again";
  setText(text, `Disconnected since ${clock(link.lostAtMs)}: ${link.reason}, ${again}`);
}

function onOverview(overview) {
  if (overview.history && model.series.at.length === 0) model.pushHistory(overview.history);
  model.push(overview);
  setContext(overview);
  Object.assign(link, { isUp: true, lostAtMs: null });
  scheduleRender();
}

function onBreak({ reason, retryAtMs }) {
  const lostAtMs = link.lostAtMs ?? Date.now();
  Object.assign(link, { isUp: false, lostAtMs, retryAtMs, reason });
  if (!model.latest) showVerdict("unknown", "No connection to the server", `${reason}.`, []);
  scheduleRender();
}

async function onTokenNeeded(wasRefused) {
  link.isUp = false;
  setText(byId("verdict-title"), "A token is needed");
  setText(byId("link-text"), "Not signed in");
  await askForToken(wasRefused);
  closeDialog();
}

// ---- Tiles --------------------------------------------------------------------------------------

const TILES = [
  {
    title: "Viewers",
    value: () => grouped(model.viewers ?? NaN),
    note: () => {
      const { open, max } = model.latest.connections ?? {};
      return `${grouped(open ?? NaN)} of ${grouped(max ?? NaN)} connections`;
    },
  },
  {
    title: "Requests/s",
    value: (totals) => count(totals.requests),
    note: (totals) => `${count(totals.failures)} errors/s`,
    severity: (totals) => byLimits(totals.failureRatio, 0.001, 0.01),
  },
  {
    title: "Hit ratio",
    value: (totals) => percent(totals.hitRatio),
    note: (totals) => `${count(totals.misses)} misses/s`,
  },
  {
    title: "Byte hit ratio",
    value: (totals) => percent(totals.byteHitRatio),
    note: (totals) => `${bitRate(totals.sent)} sent, ${bitRate(totals.originBytes)} fetched`,
  },
  {
    title: "Origin load",
    value: (totals) => times(totals.originLoad),
    note: (totals) => `${count(totals.originRequests)} requests/s, ideal ${count(totals.ideal)}`,
    severity: (totals) =>
      totals.originRequests - totals.ideal > 5 ? byLimits(totals.originLoad, 1.5, Infinity) : null,
  },
  {
    title: "Staleness",
    value: () => age(model.staleness.mean),
    note: () => {
      const { worst } = model.staleness;
      return worst ? `worst ${age(worst.staleness)}: ${worst.name}` : "";
    },
  },
  {
    title: "Memory",
    value: () => {
      const { used_bytes: used, max_bytes: max } = model.latest.memory ?? {};
      return percent(max > 0 ? used / max : NaN);
    },
    note: () => {
      const { max_bytes: max, objects } = model.latest.memory ?? {};
      return `of ${bytes(max)}, ${grouped(objects ?? NaN)} objects`;
    },
    severity: () => {
      const { used_bytes: used, max_bytes: max } = model.latest.memory ?? {};
      return byLimits(max > 0 ? used / max : null, 0.95, Infinity);
    },
  },
];

const SOURCE_NAMES = { memory: "Hit", blocking: "Blocking", origin: "Origin", shield: "Shield" };
const SOURCE_HINTS = {
  memory: "Answered at once from memory",
  blocking: "Waited for the object to be published",
  origin: "Waited for the origin",
  shield: "Answered by Seawall itself",
};

const byLimits = (value, warning, error) =>
  value > error ? "error" : value > warning ? "warning" : null;

let latencyCells = null;

function buildTiles() {
  for (const tile of TILES) {
    tile.valueElement = element("dd", { class: "tile-value" }, NONE);
    tile.noteElement = element("dd", { class: "tile-note quiet" }, "\u00a0");
    tile.element = element(
      "dl",
      { class: "card tile" },
      element("dt", {}, tile.title),
      tile.valueElement,
      tile.noteElement,
    );
    byId("tiles").append(tile.element);
  }
  latencyCells = SOURCES.map(() => [element("td", {}, NONE), element("td", {}, NONE)]);
  const rows = SOURCES.map((source, index) =>
    element(
      "tr",
      {},
      element("th", { scope: "row", title: SOURCE_HINTS[source] }, SOURCE_NAMES[source]),
      ...latencyCells[index],
    ),
  );
  const head = ["Time to first byte", "p50", "p95"].map((title) =>
    element("th", { scope: "col" }, title),
  );
  byId("tiles").append(
    element(
      "div",
      { class: "card tile" },
      element(
        "table",
        { class: "latencies" },
        element("thead", {}, element("tr", {}, ...head)),
        element("tbody", {}, ...rows),
      ),
    ),
  );
}

function renderTiles() {
  const { totals } = model;
  for (const tile of TILES) {
    setText(tile.valueElement, tile.value(totals));
    const note = tile.note(totals);
    setText(tile.noteElement, note);
    setAttribute(tile.noteElement, "title", note);
    setAttribute(tile.element, "data-severity", tile.severity?.(totals) ?? null);
  }
  SOURCES.forEach((source, index) => {
    const [p50, p95] = latencyCells[index];
    setText(p50, latency(model.headQuantile(source, 0.5)));
    setText(p95, latency(model.headQuantile(source, 0.95)));
  });
}

// ---- Origins ------------------------------------------------------------------------------------

const ENDPOINT_STATES = { in_use: "in use", out: "out", standby: "standby" };

function renderOrigins() {
  syncChildren(byId("origins"), model.latest.origins ?? [], {
    key: (origin) => origin.name,
    make: makeOrigin,
    update: updateOrigin,
  });
}

function makeOrigin(origin) {
  const use = element("span", { class: "quiet" });
  const queue = element("span", { class: "queue" });
  const head = ["Endpoint", "State", "Breaker", "Response", "Failures"].map((title, index) =>
    element("th", { scope: "col", class: index > 2 ? "number" : null }, title),
  );
  const rows = element("tbody");
  const card = element(
    "div",
    { class: "card origin" },
    element("div", { class: "origin-head" }, element("h3", {}, origin.name), use, queue),
    element(
      "div",
      {
        class: "scroll",
        tabindex: "0",
        role: "region",
        "aria-label": `Endpoints of ${origin.name}`,
      },
      element("table", { class: "small" }, element("thead", {}, element("tr", {}, ...head)), rows),
    ),
  );
  card.parts = { use, queue, rows };
  return card;
}

function updateOrigin(card, origin) {
  const { use, queue, rows } = card.parts;
  setText(
    use,
    `${grouped(origin.active ?? NaN)} of ${grouped(origin.permits ?? NaN)} requests in progress`,
  );
  setText(queue, origin.queued > 0 ? `${grouped(origin.queued)} queued` : "");
  syncChildren(rows, origin.endpoints ?? [], {
    key: (endpoint) => endpoint.url,
    make: makeEndpoint,
    update: updateEndpoint,
  });
}

function makeEndpoint(endpoint) {
  const state = element("span", { class: "endpoint-state" });
  const cells = [0, 1, 2].map((index) => element("td", { class: index > 0 ? "number" : null }));
  const row = element(
    "tr",
    {},
    element("th", { scope: "row" }, endpoint.url),
    element("td", {}, state),
    ...cells,
  );
  row.parts = { state, cells };
  return row;
}

function updateEndpoint(row, endpoint) {
  const { state, cells } = row.parts;
  setAttribute(row, "data-state", endpoint.state ?? "unknown");
  setText(state, ENDPOINT_STATES[endpoint.state] ?? endpoint.state ?? NONE);
  setText(cells[0], (endpoint.breaker ?? NONE).replaceAll("_", " "));
  setText(cells[1], latency(endpoint.response_seconds));
  setText(cells[2], grouped(endpoint.failures ?? NaN));
}

// ---- Events and configuration -------------------------------------------------------------------

function renderEvents() {
  const newest = model.events.slice().reverse();
  const shown = showsAllEvents ? newest : newest.slice(0, EVENTS_AT_FIRST);
  syncChildren(byId("events"), shown, {
    key: (event) => `${event.at_ms} ${event.number}`,
    make: (event) =>
      element(
        "li",
        { "data-severity": event.severity },
        element(
          "time",
          { datetime: new Date(event.at_ms).toISOString() },
          moment(event.at_ms, Date.now()),
        ),
        element("span", { class: "kind" }, event.kind),
        element("span", { class: "text" }, event.text),
      ),
    update: () => {},
  });
  setHidden(byId("events-empty"), newest.length > 0);
  setHidden(byId("events-more"), newest.length <= EVENTS_AT_FIRST);
  setText(
    byId("show-events"),
    showsAllEvents ? `Show the newest ${EVENTS_AT_FIRST}` : `Show all ${grouped(newest.length)}`,
  );
}

const CONFIG = [
  ["File", (config) => config.path ?? NONE],
  ["Generation", (config) => grouped(config.generation ?? NaN)],
  ["Loaded", (config) => moment(config.loaded_at_ms, model.latest.at_ms)],
  ["SHA-256", (config) => config.sha256 ?? NONE],
  [
    "Needs a restart",
    (config) => (config.pending_restart ?? []).map(pendingText).join(", ") || "nothing",
  ],
  ["Version", () => model.latest.version ?? NONE],
];

function buildConfig() {
  for (const row of CONFIG) {
    row.value = element("dd", {});
    byId("config").append(element("div", {}, element("dt", {}, row[0]), row.value));
  }
}

function renderConfig() {
  const config = model.latest.config ?? {};
  for (const row of CONFIG) setText(row.value, row[1](config));
}

// ---- Everything ---------------------------------------------------------------------------------

const details = new StreamDetails(byId("details"), {
  onClose: (name) => {
    setClass(document.body, "has-details", false);
    table.focusRow(name);
  },
  onPurge: openPurge,
});

const table = new StreamTable(
  {
    heads: byId("stream-heads"),
    body: byId("stream-rows"),
    search: byId("search"),
    count: byId("streams-count"),
    empty: byId("streams-empty"),
    more: byId("streams-more"),
    showAll: byId("show-all"),
  },
  openStream,
);

function openStream(name) {
  setClass(document.body, "has-details", true);
  details.open(name, model);
}

let plots = null;

function render() {
  isRenderDue = false;
  performance.mark("render-start");
  if (model.latest) {
    setText(byId("host"), model.latest.host ?? "");
    renderVerdict();
    renderTiles();
    plots.update(model);
    table.update(model);
    renderOrigins();
    renderEvents();
    renderConfig();
    details.update(model);
  }
  renderLink();
  performance.clearMeasures("render");
  performance.measure("render", "render-start");
  performance.clearMarks("render-start");
}

/** Draws once a frame at most, and not at all while the tab is in the background. */
function scheduleRender() {
  if (isRenderDue) return;
  isRenderDue = true;
  requestAnimationFrame(render);
}

function useTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  plots?.recolor();
}

function toggleTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  const now = document.documentElement.dataset.theme ?? system;
  const next = now === "dark" ? "light" : "dark";
  localStorage.setItem(THEME_KEY, next);
  useTheme(next);
}

function onKey(event) {
  if (event.key === "Escape" && !byId("dialog").open) {
    if (document.activeElement === byId("search") && byId("search").value) return;
    return details.close();
  }
  const isTyping = event.target.closest("input, textarea, select, [contenteditable]");
  if (event.key !== "/" || isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  if (byId("dialog").open) return;
  event.preventDefault();
  byId("search").focus();
  byId("search").select();
}

function start() {
  useTheme(localStorage.getItem(THEME_KEY));
  buildTiles();
  buildConfig();
  plots = new Plots(byId("plots"));
  byId("open-purge").addEventListener("click", () => openPurge());
  byId("open-reload").addEventListener("click", openReload);
  byId("open-drain").addEventListener("click", openDrain);
  byId("theme").addEventListener("click", toggleTheme);
  byId("show-events").addEventListener("click", () => {
    showsAllEvents = !showsAllEvents;
    renderEvents();
  });
  document.addEventListener("keydown", onKey);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => useTheme(null));
  // The seconds until the next try go by without an overview.
  setInterval(() => link.isUp || scheduleRender(), 1000);
  follow({ onOverview, onBreak, onTokenNeeded });
}

start();
