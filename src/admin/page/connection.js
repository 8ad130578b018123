// Requests to the admin server: the stream of overviews with its reconnects, reads and writes. It
// keeps the token for as long as the tab is open.

const TOKEN_KEY = "seawall.token";
const RETRY_SECONDS = [1, 2, 4, 8, 10];
// The server sends an overview each second. A connection that is silent for longer is dead, even
// where nothing has closed it: a laptop that slept, a proxy that forgot it.
const SILENCE_MS = 6_000;
const ANSWER_MS = 30_000;

let token = sessionStorage.getItem(TOKEN_KEY);

export function setToken(text) {
  token = text;
  if (text === null) sessionStorage.removeItem(TOKEN_KEY);
  else sessionStorage.setItem(TOKEN_KEY, text);
}

export const hasToken = () => token !== null;

const headers = () => (token === null ? {} : { Authorization: `Bearer ${token}` });

/** What the server answered instead of what was asked for. */
export class AnswerError extends Error {
  constructor(status, body) {
    super(body?.error ?? `The server answered with status ${status}`);
    this.status = status;
    this.body = body ?? {};
  }
}

async function answer(path, options) {
  const signal = AbortSignal.timeout(ANSWER_MS);
  const response = await fetch(path, { ...options, headers: headers(), cache: "no-store", signal });
  const body = await response.json().catch(() => null);
  if (!response.ok) throw new AnswerError(response.status, body);
  return body ?? {};
}

export const read = (path) => answer(path, { method: "GET" });

export const write = (path) => answer(path, { method: "POST" });

/**
 * Follows the overviews for ever. `onOverview` gets each; `onBreak` the second until the next try
 * and the reason; `onTokenNeeded` is asked for a token, and resolves when there is one to try.
 */
export async function follow({ onOverview, onBreak, onTokenNeeded }) {
  let failures = 0;
  for (;;) {
    let reason = "the server closed the connection";
    try {
      await readEvents((overview) => {
        failures = 0;
        onOverview(overview);
      });
    } catch (error) {
      if (error instanceof AnswerError && error.status === 401) {
        await onTokenNeeded(hasToken());
        continue;
      }
      reason = reasonOf(error);
    }
    const seconds = RETRY_SECONDS[Math.min(failures, RETRY_SECONDS.length - 1)];
    failures += 1;
    onBreak({ reason, retryAtMs: Date.now() + seconds * 1000 });
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  }
}

function reasonOf(error) {
  if (error instanceof AnswerError) return error.message;
  if (error.name === "AbortError") return "the server has been silent";
  return "the server cannot be reached";
}

async function readEvents(onOverview) {
  const watchdog = new AbortController();
  let timer = setTimeout(() => watchdog.abort(), SILENCE_MS);
  try {
    const response = await fetch("/overview/events", {
      headers: headers(),
      cache: "no-store",
      signal: watchdog.signal,
    });
    if (!response.ok) {
      throw new AnswerError(response.status, await response.json().catch(() => null));
    }
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let buffer = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(() => watchdog.abort(), SILENCE_MS);
      const parts = (buffer + value).split(/\r?\n\r?\n/);
      buffer = parts.pop();
      for (const part of parts) {
        const data = dataOf(part);
        if (data) onOverview(JSON.parse(data));
      }
    }
  } finally {
    clearTimeout(timer);
  }
}

/** The payload of one event; empty for a comment that only keeps the connection open. */
function dataOf(text) {
  const lines = text.split(/\r?\n/).filter((line) => line.startsWith("data:"));
  return lines.map((line) => line.slice(5).trimStart()).join("\n");
}
