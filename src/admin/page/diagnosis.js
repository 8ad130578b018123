// Says in words what is wrong, the most serious first. Pure: from the model to a list of problems.

import { age, bytes, count, grouped, percent, plural, times } from "./format.js";

const RECENT_MS = 120_000;
const RANK = { error: 0, warning: 1, info: 2 };

/** Problems as `{ severity, title, text, stream?, section? }`; empty if all is well. */
export function diagnose(model) {
  const { latest } = model;
  if (!latest) return [];
  const found = [
    ...unreachableOrigins(latest),
    ...lateStreams(model),
    ...endpointsOut(latest),
    ...failedReload(model),
    ...failures(model),
    ...streamErrors(model),
    ...load(model),
    ...limits(latest),
    ...draining(latest),
    ...pendingRestart(latest),
  ];
  return found.sort((a, b) => RANK[a.severity] - RANK[b.severity]);
}

// A standby counts: it takes over when the others are out.
const isUsable = (endpoint) => endpoint.state !== "out";

function unreachableOrigins(latest) {
  return (latest.origins ?? [])
    .filter(({ endpoints }) => endpoints?.length > 0 && !endpoints.some(isUsable))
    .map((origin) => ({
      severity: "error",
      title: `Origin ${origin.name} has no usable endpoint`,
      text: `${origin.endpoints.map((endpoint) => endpoint.url).join(", ")}. Viewers get what is stored, then errors.`,
      section: "origins",
    }));
}

function lateStreams(model) {
  const late = model.lateStreams.toSorted(byLateness);
  if (late.length === 0) return [];
  const very = late.filter((row) => row.isVeryLate);
  const rows = very.length > 0 ? very : late;
  const viewers = rows.reduce((total, row) => total + (row.viewers ?? 0), 0);
  const title =
    rows.length === 1
      ? `${rows[0].name} is late`
      : `${plural(rows.length, "stream is", "streams are")} late`;
  const audience = viewers > 0 ? `${plural(viewers, "viewer")} affected. ` : "";
  const which = rows.length === 1 ? "" : `Worst is ${rows[0].name}: `;
  return [
    {
      severity: very.length > 0 ? "error" : "warning",
      title,
      text: `${audience}${which}${sentence(rows.length === 1, lateness(rows[0]))} ${cause(rows[0], model.latest.at_ms)}`,
      stream: rows[0].name,
    },
  ];
}

// A stalled one may have no known age: it is worse than any that has one.
const byLateness = (a, b) => (b.intervals ?? Infinity) - (a.intervals ?? Infinity);

const sentence = (isFirst, text) => (isFirst ? text[0].toUpperCase() + text.slice(1) : text);

function lateness(row) {
  if (row.edgeAge === null) return "no new version for three times the usual interval.";
  const expected = row.interval === null ? "" : `, one every ${age(row.interval)} expected`;
  return `newest version is ${age(row.edgeAge)} old${expected}.`;
}

/** Why a stream is late, as far as the overview tells. */
export function cause(row, nowMs) {
  const error = row.lastError;
  if (error && nowMs - error.at_ms < RECENT_MS) {
    const seconds = Math.round((nowMs - error.at_ms) / 1000);
    return `Last error ${seconds < 2 ? "just now" : `${seconds} s ago`}: ${error.text}`;
  }
  if (row.isVeryLate) {
    return "The origin answers without errors, but publishes nothing new: look at the encoder or packager.";
  }
  return "No recent error.";
}

/** Why the refreshes of a stream bring nothing new, from the newest results of each kind. */
export function causeFromRefreshes(refreshes) {
  const newest = refreshes.slice(-8);
  const bad = newest.filter((refresh) => refresh.result !== "new");
  if (newest.length === 0 || bad.length * 2 < newest.length) return null;
  const counts = (result) => bad.filter((refresh) => refresh.result === result);
  const of = (list) => `${list.length} of the last ${newest.length} refreshes`;
  const at = (list) =>
    [...new Set(list.map((refresh) => refresh.endpoint))].filter(Boolean).join(", ");
  const failed = counts("failed");
  if (failed.length > 0) return `${of(failed)} failed${at(failed) && ` at ${at(failed)}`}.`;
  const behind = counts("behind");
  if (behind.length > 0) {
    return `${of(behind)} brought an older version than is stored${at(behind) && `: ${at(behind)} lags behind`}.`;
  }
  return `${of(bad)} brought the same version: the origin answers, but publishes nothing new. Look at the encoder or packager.`;
}

function endpointsOut(latest) {
  return (latest.origins ?? []).flatMap((origin) => {
    const endpoints = origin.endpoints ?? [];
    const out = endpoints.filter((endpoint) => endpoint.state === "out");
    if (out.length === 0 || !endpoints.some(isUsable)) return [];
    return {
      severity: "warning",
      title: `${plural(out.length, "endpoint")} of origin ${origin.name} out of use`,
      text: `${out.map((endpoint) => `${endpoint.url} (breaker ${endpoint.breaker ?? "unknown"})`).join(", ")}. The others take its requests.`,
      section: "origins",
    };
  });
}

function failedReload(model) {
  const last = model.events.filter((event) => event.kind === "reload").at(-1);
  if (last?.severity !== "error") return [];
  const title = "The last reload failed: the configuration before it is in use";
  return [{ severity: "error", title, text: last.text, section: "events" }];
}

function failures(model) {
  const { failures, failureRatio, rejected } = model.totals;
  const found = [];
  if (failureRatio > 0.001) {
    found.push({
      severity: failureRatio > 0.01 ? "error" : "warning",
      title: `${percent(failureRatio)} of responses are errors`,
      text: `${count(failures)} responses with 5xx per second.`,
      section: "plots",
    });
  }
  if (rejected > 0) {
    found.push({
      severity: "error",
      title: `${count(rejected)} requests per second are refused: overload`,
      text: "A limit of the shield is reached. See connections, memory and the queues of the origins.",
      section: "origins",
    });
  }
  return found;
}

function streamErrors(model) {
  const rows = [...model.streams.values()].filter((row) => row.errors > 0 && !row.isLate);
  if (rows.length === 0) return [];
  const worst = rows.reduce((a, b) => (b.errors > a.errors ? b : a));
  const title =
    rows.length === 1
      ? `${worst.name} had ${plural(worst.errors, "error")} in the last minute`
      : `${plural(rows.length, "stream")} had errors in the last minute`;
  return [{ severity: "warning", title, text: worst.lastError?.text ?? "", stream: worst.name }];
}

function load(model) {
  const { originLoad, originRequests, ideal } = model.totals;
  const found = [];
  if (originLoad > 1.5 && originRequests - ideal > 5) {
    found.push({
      severity: "warning",
      title: `The origin gets ${times(originLoad)} the requests of an ideal cache`,
      text: `${count(originRequests)} requests per second, ${count(ideal)} would do.`,
      section: "plots",
    });
  }
  for (const origin of model.latest.origins ?? []) {
    if (!(origin.queued > 0)) continue;
    found.push({
      severity: "warning",
      title: `${plural(origin.queued, "request waits", "requests wait")} for origin ${origin.name}`,
      text: `${grouped(origin.active)} of ${grouped(origin.permits)} permits are in use.`,
      section: "origins",
    });
  }
  return found;
}

function limits(latest) {
  const { memory, connections } = latest;
  const found = [];
  if (memory?.used_bytes > 0.95 * memory?.max_bytes) {
    found.push({
      severity: "warning",
      title: `Memory is ${percent(memory.used_bytes / memory.max_bytes)} full`,
      text: `${bytes(memory.used_bytes)} of ${bytes(memory.max_bytes)}: older objects make room for new ones.`,
      section: "tiles",
    });
  }
  if (connections?.open > 0.9 * connections?.max) {
    found.push({
      severity: connections.open >= connections.max ? "error" : "warning",
      title: `${grouped(connections.open)} of ${grouped(connections.max)} connections are open`,
      text: "Viewers beyond the limit are refused.",
      section: "tiles",
    });
  }
  return found;
}

function draining(latest) {
  if (!latest.drain || latest.drain === "serving") return [];
  const title = "The server drains: it takes no new viewers, and then stops";
  return [{ severity: "warning", title, text: `Step: ${latest.drain}.`, section: "events" }];
}

function pendingRestart(latest) {
  const pending = latest.config?.pending_restart ?? [];
  if (pending.length === 0) return [];
  const title = `${plural(pending.length, "change")} of the configuration ${pending.length === 1 ? "needs" : "need"} a restart`;
  return [
    { severity: "info", title, text: pending.map(pendingText).join(", "), section: "config" },
  ];
}

export const pendingText = (change) =>
  typeof change === "string" ? change : (change.text ?? JSON.stringify(change));
