// The plots of the last 10 minutes, with events as marks on the time axis.

import { byId, element, setHidden, setText, syncChildren } from "./dom.js";
import { NONE, bitRate, clock, count, grouped, latency } from "./format.js";

const HEIGHT = 148;
const SPAN_SECONDS = 600;
const NEAR_PX = 7;
const { uPlot } = globalThis;

const PLOTS = [
  {
    title: "Viewers",
    isWhole: true,
    format: (value) => grouped(value ?? NaN),
    lines: [{ key: "viewers", label: "viewers", color: "accent", isFilled: true }],
  },
  {
    title: "Requests per second",
    format: count,
    lines: [
      { key: "requests", label: "all", color: "accent", isFilled: true },
      { key: "misses", label: "misses", color: "second" },
      { key: "failures", label: "errors", color: "error" },
    ],
  },
  {
    title: "Throughput",
    format: bitRate,
    // Ticks at round numbers of bits, not of bytes.
    unit: 1 / 8,
    lines: [
      { key: "sent", label: "to viewers", color: "accent", isFilled: true },
      { key: "originBytes", label: "from origins", color: "second" },
    ],
  },
  {
    title: "Origin requests per second",
    note: "mean of 12 s",
    format: count,
    lines: [
      { key: "originRequests", label: "sent", color: "accent", isFilled: true },
      { key: "ideal", label: "ideal cache", color: "second", dash: [4, 4] },
    ],
  },
  {
    title: "Time to first byte, p95",
    format: latency,
    isLogarithmic: true,
    lines: [
      { key: "p95Memory", label: "hits", color: "accent" },
      { key: "p95Origin", label: "through the origin", color: "second" },
    ],
  },
  {
    title: "Late streams",
    format: (value) => grouped(value ?? NaN),
    isWhole: true,
    lines: [{ key: "late", label: "late", color: "warning", isFilled: true, isStepped: true }],
  },
];

/** The smallest of 1, 2, 2.5, 5 × 10ⁿ that is not below the value. */
export function roundCeiling(value, isWhole) {
  if (!(value > 0)) return isWhole ? 4 : 1;
  if (isWhole && value <= 4) return 4;
  const power = 10 ** Math.floor(Math.log10(value));
  const factor = [1, 1.5, 2, 3, 4, 5, 6, 8, 10].find((step) => step * power >= value * 0.999);
  return factor * power;
}

export class Plots {
  #plots = [];
  #colors = {};
  #marks = [];

  constructor(parent) {
    this.#readColors();
    for (const spec of PLOTS) this.#plots.push(this.#make(parent, spec));
    const resize = new ResizeObserver(() => this.#resize());
    resize.observe(parent);
  }

  update(model) {
    const { series } = model;
    const end = series.at.at(-1);
    if (end === undefined) return;
    this.#setMarks(model.events, end);
    for (const { plot, spec, values } of this.#plots) {
      plot.setData([series.at, ...spec.lines.map((line) => series[line.key])], false);
      plot.setScale("x", { min: end - SPAN_SECONDS, max: end });
      if (plot.cursor.idx === null || plot.cursor.left < 0) {
        this.#setValues(plot, spec, values, series.at.length - 1);
      }
    }
  }

  /** Draws again in the colours of the theme. */
  recolor() {
    this.#readColors();
    for (const { plot } of this.#plots) plot.redraw(false, true);
  }

  #readColors() {
    // A canvas wants the colour that the theme resolves to, not the expression.
    const probe = element("span", { hidden: true });
    document.body.append(probe);
    for (const name of [
      "accent",
      "second",
      "warning",
      "error",
      "grid",
      "quiet",
      "fill",
      "warning-fill",
    ]) {
      probe.style.color = `var(--${name})`;
      this.#colors[name] = getComputedStyle(probe).color;
    }
    probe.remove();
  }

  #color = (name) => () => this.#colors[name];

  #make(parent, spec) {
    const values = spec.lines.map(() => element("b", {}, NONE));
    const legend = spec.lines.map((line, index) =>
      element(
        "span",
        { class: `key key-${line.color}${line.dash ? " dashed" : ""}` },
        line.label,
        " ",
        values[index],
      ),
    );
    const time = element("span", { class: "plot-time" });
    const canvas = element("div", { class: "plot-canvas", "aria-hidden": "true" });
    const caption = element(
      "figcaption",
      {},
      element(
        "span",
        { class: "plot-title" },
        spec.title,
        spec.note ? element("span", { class: "quiet" }, `, ${spec.note}`) : null,
      ),
      time,
      element("span", { class: "legend" }, ...legend),
    );
    parent.append(element("figure", { class: "card plot" }, caption, canvas));
    const note = element("div", { class: "mark-note", hidden: true });
    const made = { spec, values, time, canvas, note };
    made.plot = new uPlot(this.#options(spec, made), [[], ...spec.lines.map(() => [])], canvas);
    made.plot.over.append(note);
    return made;
  }

  #options(spec, made) {
    return {
      width: 320,
      height: HEIGHT,
      padding: [8, 16, 0, 0],
      legend: { show: false },
      cursor: {
        sync: { key: "seawall" },
        y: false,
        drag: { x: false, y: false },
        points: { size: 6 },
      },
      scales: {
        x: { time: true },
        y: spec.isLogarithmic
          ? { distr: 3, range: (_, min, max) => decades(min, max) }
          : { range: (_, __, max) => [0, this.#top(spec, max)] },
      },
      axes: [this.#timeAxis(), this.#valueAxis(spec)],
      series: [{}, ...spec.lines.map((line) => this.#line(line))],
      hooks: {
        drawClear: [(plot) => this.#drawMarks(plot)],
        setCursor: [(plot) => this.#pointAt(plot, made)],
      },
    };
  }

  #top(spec, max) {
    const unit = spec.unit ?? 1;
    return roundCeiling((max ?? 0) / unit, spec.isWhole) * unit;
  }

  #line(line) {
    const isWarning = line.color === "warning";
    return {
      stroke: this.#color(line.color),
      width: 1.5,
      dash: line.dash,
      fill: line.isFilled ? this.#color(isWarning ? "warning-fill" : "fill") : undefined,
      points: { show: false },
      paths: line.isStepped ? uPlot.paths.stepped({ align: 1 }) : undefined,
      scale: "y",
    };
  }

  #timeAxis() {
    return {
      stroke: this.#color("quiet"),
      font: AXIS_FONT,
      size: 24,
      gap: 4,
      space: 46,
      grid: { show: false },
      ticks: { show: false },
      incrs: [60, 120, 300],
      // A label at the left edge would run into the zero of the value axis.
      filter: (plot, splits) => splits.map((at) => (plot.valToPos(at, "x") < 20 ? null : at)),
      values: (_, splits) =>
        splits.map((at) => (at === null ? null : clock(at * 1000).slice(0, 5))),
    };
  }

  #valueAxis(spec) {
    return {
      stroke: this.#color("quiet"),
      font: AXIS_FONT,
      size: 66,
      gap: 6,
      grid: { stroke: this.#color("grid"), width: 1 },
      ticks: { show: false },
      splits: (plot) => {
        const { min, max } = plot.scales.y;
        return spec.isLogarithmic ? powers(min, max) : [0, max / 2, max];
      },
      filter: (_, splits) => splits,
      values: (_, splits) => splits.map((value) => (value === 0 ? "0" : spec.format(value))),
    };
  }

  #setMarks(events, end) {
    const visible = events.filter((event) => event.at_ms / 1000 > end - SPAN_SECONDS);
    this.#marks = visible.map((event) => ({ at: event.at_ms / 1000, event }));
    const worst = new Set(visible.map((event) => event.severity));
    const kinds = ["info", "warning", "error"].filter((severity) => worst.has(severity));
    syncChildren(byId("marks-legend"), kinds, {
      key: (severity) => severity,
      make: (severity) =>
        element("li", { class: `mark-key mark-${severity}` }, MARK_LABELS[severity]),
      update: () => {},
    });
  }

  #drawMarks(plot) {
    const { ctx } = plot;
    const ratio = devicePixelRatio;
    const { top, height } = plot.bbox;
    ctx.save();
    for (const { at, event } of this.#marks) {
      const x = Math.round(plot.valToPos(at, "x", true));
      ctx.strokeStyle = ctx.fillStyle = this.#colors[MARK_COLORS[event.severity] ?? "quiet"];
      ctx.lineWidth = ratio;
      ctx.setLineDash([3 * ratio, 3 * ratio]);
      ctx.beginPath();
      ctx.moveTo(x, top);
      ctx.lineTo(x, top + height);
      ctx.stroke();
      ctx.beginPath();
      ctx.arc(x, top, 2.5 * ratio, 0, 2 * Math.PI);
      ctx.fill();
    }
    ctx.restore();
  }

  #pointAt(plot, made) {
    const { idx, left } = plot.cursor;
    const isOff = idx === null || idx === undefined || left < 0;
    const at = plot.data[0];
    this.#setValues(plot, made.spec, made.values, isOff ? at.length - 1 : idx);
    setText(made.time, isOff ? "" : clock(at[idx] * 1000));
    this.#setNote(plot, made.note, isOff ? null : left);
  }

  #setValues(plot, spec, values, index) {
    spec.lines.forEach((_, line) => {
      const value = plot.data[line + 1]?.[index];
      setText(values[line], spec.format(value ?? NaN));
    });
  }

  #setNote(plot, note, left) {
    const isNear = (mark) => Math.abs(plot.valToPos(mark.at, "x") - left) <= NEAR_PX;
    const near = left === null || !plot.over.matches(":hover") ? [] : this.#marks.filter(isNear);
    setHidden(note, near.length === 0);
    if (near.length === 0) return;
    const texts = near.slice(-3).map(({ event }) => `${clock(event.at_ms)} ${event.text}`);
    setText(note, texts.join("\n"));
    const isRight = left > plot.over.clientWidth / 2;
    note.style.left = isRight ? "" : `${left + 10}px`;
    note.style.right = isRight ? `${plot.over.clientWidth - left + 10}px` : "";
  }

  #resize() {
    for (const { plot, canvas } of this.#plots) {
      const width = Math.floor(canvas.clientWidth);
      if (width > 0 && width !== plot.width) plot.setSize({ width, height: HEIGHT });
    }
  }
}

const AXIS_FONT = "11px system-ui, sans-serif";
const MARK_COLORS = { info: "quiet", warning: "warning", error: "error" };
const MARK_LABELS = { info: "change", warning: "warning", error: "error" };

const decades = (min, max) =>
  min > 0 && max > 0
    ? [10 ** Math.floor(Math.log10(min)), 10 ** Math.ceil(Math.log10(max) + 1e-9)]
    : [1e-4, 1];

function powers(min, max) {
  const list = [];
  for (let value = min; value <= max * 1.001; value *= 10) list.push(value);
  // Every second one, where there is no room for all.
  return list.length > 4 ? list.filter((_, index) => index % 2 === 0) : list;
}
