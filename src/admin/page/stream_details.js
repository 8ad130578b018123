// One stream, opened: its state in words, its numbers, its manifests, and how their refreshes went.

import { AnswerError, read } from "./connection.js";
import { cause, causeFromRefreshes } from "./diagnosis.js";
import { element, setHidden, setText, svg } from "./dom.js";
import { NONE, age, bitRate, clock, count, grouped, latency, times } from "./format.js";
import { stateWord } from "./stream_table.js";

const LANES_MAX = 8;
const SPAN_MS = 60_000;
const LIST_MAX = 8;

const FIGURES = [
  ["Viewers", (row) => grouped(row.viewers ?? NaN)],
  ["Requests/s", (row) => count(row.requestRate)],
  ["Bit rate", (row) => bitRate(row.byteRate)],
  ["Live-edge age", (row) => age(row.edgeAge)],
  ["Usual interval", (row) => age(row.interval)],
  ["Staleness", (row) => age(row.staleness)],
  ["Origin load", (row) => times(row.load)],
  ["Errors, last minute", (row) => count(row.errors ?? NaN)],
  ["Skew of renditions", (row) => (row.skew === null ? NONE : `${grouped(row.skew)} segments`)],
  ["Timeline restarts", (row) => grouped(row.restarts ?? NaN)],
];

const RESULTS = {
  new: { word: "new version", height: 18 },
  same: { word: "same version", height: 7 },
  behind: { word: "older version", height: 12 },
  failed: { word: "failed", height: 18 },
};

export class StreamDetails {
  #panel;
  #onClose;
  #name = null;
  #parts = null;
  #body = null;
  #isReading = false;

  constructor(panel, { onClose, onPurge }) {
    this.#panel = panel;
    this.#onClose = onClose;
    this.onPurge = onPurge;
  }

  get name() {
    return this.#name;
  }

  open(name, model) {
    this.#name = name;
    this.#body = null;
    this.#build(name);
    setHidden(this.#panel, false);
    this.update(model);
    this.#parts.close.focus();
  }

  close() {
    if (this.#name === null) return;
    const name = this.#name;
    this.#name = null;
    setHidden(this.#panel, true);
    this.#panel.replaceChildren();
    this.#onClose(name);
  }

  update(model) {
    if (this.#name === null) return;
    const row = model.streams.get(this.#name);
    this.#showRow(row, model.latest.at_ms);
    this.#read(model);
  }

  #build(name) {
    const close = element(
      "button",
      {
        type: "button",
        class: "icon",
        "aria-label": "Close",
        title: "Close (Escape)",
        onclick: () => this.close(),
      },
      "✕",
    );
    const state = element("p", { class: "stream-state" });
    const why = element("p", { class: "stream-cause" });
    const figures = FIGURES.map(() => element("dd", {}, NONE));
    const manifests = element("div");
    const timeline = element("div");
    const purge = element(
      "button",
      { type: "button", onclick: () => this.onPurge(this.#body?.url ?? name) },
      "Purge this stream…",
    );
    const history = element("div", {}, element("h3", {}, "Refreshes, last minute"), timeline);
    this.#parts = { close, state, why, figures, manifests, history, timeline };
    this.#panel.replaceChildren(
      element(
        "div",
        { class: "details-head" },
        element("h2", { id: "details-title" }, name),
        close,
      ),
      element(
        "div",
        { class: "details-body" },
        element("div", { class: "details-state" }, state, why),
        element(
          "dl",
          { class: "figures" },
          ...FIGURES.map(([title], index) =>
            element("div", {}, element("dt", {}, title), figures[index]),
          ),
        ),
        history,
        element("h3", {}, "Manifests"),
        manifests,
        element("div", { class: "details-actions" }, purge),
      ),
    );
  }

  #showRow(row, nowMs) {
    const { state, why, figures } = this.#parts;
    if (!row) {
      setText(state, "This stream is no longer listed");
      setText(why, "Nobody has watched it for a while, or the server has restarted.");
      state.parentElement.dataset.severity = "unknown";
      return;
    }
    const words = { stalled: "Stalled", "very late": "Very late", late: "Late" };
    const errors = row.errors > 0 ? "On time, with errors" : "On time";
    setText(
      state,
      words[stateWord(row)] ??
        (row.edgeAge === null ? "Not live, or its live edge is not known" : errors),
    );
    const known = this.#body?.refreshes ? causeFromRefreshes(this.#body.refreshes) : null;
    const isBad = row.isLate || row.errors > 0;
    const told = isBad ? cause(row, nowMs) : "";
    setText(why, isBad && known ? `${known} ${row.lastError ? told : ""}` : told);
    state.parentElement.dataset.severity = ["none", "warning", "error"][row.severity];
    FIGURES.forEach(([, text], index) => setText(figures[index], text(row)));
  }

  async #read(model) {
    if (this.#isReading) return;
    this.#isReading = true;
    const name = this.#name;
    try {
      const body = await read(`/overview/stream?name=${encodeURIComponent(name)}`);
      if (this.#name !== name) return;
      this.#body = body;
      this.#showBody(body, model.latest.at_ms);
      this.#showRow(model.streams.get(name), model.latest.at_ms);
    } catch (error) {
      if (this.#name !== name) return;
      const text = error instanceof AnswerError ? error.message : "The details cannot be read.";
      if (!this.#body)
        this.#parts.manifests.replaceChildren(element("p", { class: "quiet" }, text));
    } finally {
      this.#isReading = false;
    }
  }

  #showBody(body, nowMs) {
    this.#parts.manifests.replaceChildren(manifestTable(body.manifests ?? []));
    const refreshes = (body.refreshes ?? []).filter((each) => nowMs - each.at_ms <= SPAN_MS);
    this.#parts.history.hidden = !body.refreshes;
    this.#parts.timeline.replaceChildren(
      refreshes.length > 0
        ? timelineOf(refreshes, nowMs)
        : element("p", { class: "quiet" }, "None in the last minute."),
      refreshList(refreshes),
    );
  }
}

const lastPart = (path) => path.split("/").at(-1) || path;

function manifestTable(manifests) {
  if (manifests.length === 0) return element("p", { class: "quiet" }, "None is stored.");
  const number = (text) => element("td", { class: "number" }, text);
  const rows = manifests.map((manifest) =>
    element(
      "tr",
      {},
      element(
        "th",
        { scope: "row", title: manifest.path },
        lastPart(manifest.path),
        element("span", { class: "quiet flags" }, flags(manifest)),
      ),
      number(age(manifest.age_seconds ?? NaN)),
      number(age(manifest.target_seconds ?? NaN)),
      number(grouped(manifest.last_sequence ?? NaN)),
      number(grouped(manifest.versions ?? NaN)),
      number(age(manifest.next_poll_seconds ?? NaN)),
    ),
  );
  const heads = ["Manifest", "Age", "Target", "Last segment", "Versions", "Next refresh"];
  const head = heads.map((title, index) =>
    element("th", { scope: "col", class: index > 0 ? "number" : null }, title),
  );
  return element(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": "Manifests" },
    element(
      "table",
      { class: "small" },
      element("thead", {}, element("tr", {}, ...head)),
      element("tbody", {}, ...rows),
    ),
  );
}

function flags(manifest) {
  return [
    manifest.is_stalled && "stalled",
    manifest.is_multivariant && "multivariant",
    manifest.is_low_latency &&
      (manifest.parts ? `low latency, ${grouped(manifest.parts)} parts` : "low latency"),
    manifest.is_refreshed === false && !manifest.is_multivariant && "not refreshed",
  ]
    .filter(Boolean)
    .join(", ");
}

/** A lane per manifest; a bar per refresh: tall for a new version, short for the same. */
function timelineOf(refreshes, nowMs) {
  const lanes = [...new Set(refreshes.map((refresh) => refresh.manifest))]
    .sort()
    .slice(0, LANES_MAX);
  const width = 440;
  const laneHeight = 34;
  const left = 92;
  const picture = svg("svg", {
    viewBox: `0 0 ${width} ${lanes.length * laneHeight + 16}`,
    class: "timeline",
    "aria-hidden": "true",
  });
  lanes.forEach((lane, index) => {
    const base = index * laneHeight + 26;
    const label = svg("text", { x: 0, y: base - 2, class: "lane" });
    label.textContent = lastPart(lane).slice(0, 15);
    picture.append(label, svg("line", { x1: left, x2: width, y1: base, y2: base, class: "base" }));
    for (const refresh of refreshes.filter((each) => each.manifest === lane)) {
      const { height } = RESULTS[refresh.result] ?? RESULTS.same;
      const x = left + (1 - (nowMs - refresh.at_ms) / SPAN_MS) * (width - left - 4);
      picture.append(
        svg("rect", {
          x: x.toFixed(1),
          y: base - height,
          width: 3,
          height,
          rx: 1,
          class: `refresh refresh-${refresh.result}`,
        }),
      );
    }
  });
  const foot = lanes.length * laneHeight + 12;
  for (const [x, text, anchor] of [
    [left, "1 min ago", "start"],
    [width, "now", "end"],
  ]) {
    const label = svg("text", { x, y: foot, class: "lane", "text-anchor": anchor });
    label.textContent = text;
    picture.append(label);
  }
  const keys = Object.entries(RESULTS).map(([result, { word }]) =>
    element("li", { class: `refresh-key key-${result}` }, word),
  );
  return element("div", {}, picture, element("ul", { class: "refresh-keys" }, ...keys));
}

function refreshList(refreshes) {
  const newest = refreshes.slice(-LIST_MAX).reverse();
  return element(
    "ol",
    { class: "refresh-list" },
    ...newest.map((refresh) =>
      element(
        "li",
        { "data-result": refresh.result },
        element("span", { class: "time" }, clock(refresh.at_ms)),
        element("span", { class: "path", title: refresh.manifest }, lastPart(refresh.manifest)),
        element("span", { class: "word" }, RESULTS[refresh.result]?.word ?? refresh.result),
        element("span", { class: "took" }, latency(refresh.took_ms / 1000)),
        element(
          "span",
          { class: "path endpoint quiet", title: refresh.endpoint ?? "" },
          refresh.endpoint ?? "",
        ),
      ),
    ),
  );
}
