// The admin server that the page is developed and tested against: its endpoints as docs/admin.md
// has them, with a simulated shield behind them.
//
//   node mock.mjs [--port 9099] [--mode calm|trouble|many|failing] [--token SECRET]
//
// With --token, SECRET may write and `reader-SECRET` may only read.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { fileURLToPath } from "node:url";

import { Shield } from "./shield.mjs";

const PAGE = new URL("../../src/admin/page/", import.meta.url);
const POLICY = "default-src 'self'";
export const FILES = {
  "/": "index.html",
  "/page.css": "page.css",
  "/page.js": "page.js",
  "/actions.js": "actions.js",
  "/connection.js": "connection.js",
  "/diagnosis.js": "diagnosis.js",
  "/dom.js": "dom.js",
  "/format.js": "format.js",
  "/model.js": "model.js",
  "/plots.js": "plots.js",
  "/stream_details.js": "stream_details.js",
  "/stream_table.js": "stream_table.js",
  "/icon.svg": "icon.svg",
  "/uplot.js": "uplot.js",
  "/uplot.css": "uplot.css",
};
const TYPES = {
  html: "text/html; charset=utf-8",
  css: "text/css; charset=utf-8",
  js: "text/javascript; charset=utf-8",
  svg: "image/svg+xml",
};
const PURGE_PARAMETERS = new Set(["stream", "url", "prefix", "tag", "all", "soft", "dry_run"]);

export class MockAdmin {
  constructor({
    mode,
    streams,
    token = null,
    tickMs = 1000,
    warmUp = 600,
    hasHistory = true,
  } = {}) {
    this.shield = new Shield({ mode, streams, startMs: Date.now() - warmUp * 1000 });
    this.token = token;
    this.tickMs = tickMs;
    this.hasHistory = hasHistory;
    this.listeners = new Set();
    this.isRefusing = false;
    this.writes = [];
    this.reloadError = null;
    for (let second = 0; second < warmUp; second += 1) this.shield.advance();
  }

  async listen(port = 0) {
    this.server = createServer((request, response) => {
      this.answer(request, response).catch((error) => {
        response.writeHead(500).end(String(error.stack));
      });
    });
    await new Promise((resolve) => this.server.listen(port, "127.0.0.1", resolve));
    this.timer = setInterval(() => this.tick(), this.tickMs);
    return `http://127.0.0.1:${this.server.address().port}`;
  }

  close() {
    clearInterval(this.timer);
    this.dropConnections();
    this.server.closeAllConnections();
    return new Promise((resolve) => this.server.close(resolve));
  }

  tick() {
    this.shield.advance();
    for (const response of this.listeners) this.send(response, this.shield.overview());
  }

  send(response, overview) {
    response.write(`data: ${JSON.stringify(overview)}\n\n`);
  }

  /** Cuts every event stream, as a proxy or a restart in between does. */
  dropConnections() {
    for (const response of this.listeners) response.destroy();
    this.listeners.clear();
  }

  /** While it refuses, each request's connection is closed without an answer. */
  refuseConnections(isRefusing) {
    this.isRefusing = isRefusing;
    if (isRefusing) this.dropConnections();
  }

  roleOf(request) {
    if (this.token === null) return "write";
    const sent = request.headers.authorization ?? "";
    if (sent === `Bearer ${this.token}`) return "write";
    return sent === `Bearer reader-${this.token}` ? "read" : null;
  }

  async answer(request, response) {
    if (this.isRefusing) return void request.socket.destroy();
    const url = new URL(request.url, "http://mock");
    if (request.method === "GET" && FILES[url.pathname]) return this.file(url.pathname, response);
    const role = this.roleOf(request);
    if (role === null) {
      return json(response, 401, { error: "a token is needed: send Authorization: Bearer TOKEN" });
    }
    if (request.method === "GET") return this.read(url, response, role);
    if (role !== "write") {
      return json(response, 403, { error: "the token's role is read: this needs write" });
    }
    return this.write(url, response);
  }

  async file(path, response) {
    const name = FILES[path];
    const body = await readFile(new URL(name, PAGE));
    response.writeHead(200, {
      "Content-Type": TYPES[name.split(".").at(-1)],
      "Content-Security-Policy": POLICY,
      "X-Content-Type-Options": "nosniff",
      "Cache-Control": "no-store",
    });
    response.end(body);
  }

  read(url, response) {
    if (url.pathname === "/overview") return json(response, 200, this.shield.overview());
    if (url.pathname === "/overview/events") return this.events(response);
    if (url.pathname === "/overview/stream") {
      const details = this.shield.details(url.searchParams.get("name"));
      return details
        ? json(response, 200, details)
        : json(response, 404, { error: "no such stream" });
    }
    return json(response, 404, { error: "there is no such path" });
  }

  events(response) {
    response.writeHead(200, {
      "Content-Type": "text/event-stream",
      "Cache-Control": "no-store",
    });
    const first = this.shield.overview();
    if (this.hasHistory) first.history = this.shield.history.slice(0, -1);
    this.send(response, first);
    this.listeners.add(response);
    response.on("close", () => this.listeners.delete(response));
  }

  write(url, response) {
    this.writes.push(`${url.pathname}${url.search}`);
    if (url.pathname === "/purge") return this.purge(url.searchParams, response);
    if (url.pathname === "/drain") {
      this.shield.drain = "draining";
      this.shield.event("drain", "warning", "drain begun: no new connections are accepted");
      return json(response, 202, { state: "leaving" });
    }
    if (url.pathname === "/reload") return this.reload(response);
    return json(response, 404, { error: "there is no such path" });
  }

  purge(parameters, response) {
    const unknown = [...parameters.keys()].find((name) => !PURGE_PARAMETERS.has(name));
    if (unknown) return json(response, 400, { error: `there is no parameter \`${unknown}\`` });
    const isDryRun = parameters.has("dry_run");
    const { objects, bytes } = this.shield.select(parameters);
    if (objects === 0 && parameters.has("stream")) {
      return json(response, 404, { error: "the stream is not known", objects: 0, bytes: 0 });
    }
    if (!isDryRun) {
      const what =
        parameters.get("stream") ??
        parameters.get("url") ??
        parameters.get("prefix") ??
        parameters.get("tag") ??
        "everything";
      this.shield.event("purge", "info", `purged ${what}: ${objects} objects, by token deploy`);
    }
    return json(response, 200, {
      purged: objects > 0 && !isDryRun,
      dry_run: isDryRun,
      soft: parameters.has("soft"),
      objects,
      bytes,
      complete: true,
    });
  }

  reload(response) {
    const { config } = this.shield;
    if (this.reloadError) {
      this.shield.event("reload", "error", `reload failed: ${this.reloadError}`);
      return json(response, 409, {
        error: this.reloadError,
        problems: [
          { line: 14, column: 3, text: "unknown key `endpoint`: did you mean `endpoints`?" },
        ],
      });
    }
    config.generation += 1;
    config.loaded_at_ms = Math.round(this.shield.nowMs);
    this.shield.event("reload", "info", "reloaded: routes.live.ttl");
    return json(response, 200, {
      generation: config.generation,
      hash: config.sha256,
      loaded_at: config.loaded_at_ms / 1000,
      changes: [{ text: "routes.live.ttl: 1s -> 2s", effect: "live" }],
      needs_restart: 0,
      warnings: [],
    });
  }
}

function json(response, status, value) {
  response.writeHead(status, { "Content-Type": "application/json" });
  response.end(`${JSON.stringify(value)}\n`);
}

function option(name, otherwise) {
  const index = process.argv.indexOf(`--${name}`);
  return index < 0 ? otherwise : process.argv[index + 1];
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const mock = new MockAdmin({ mode: option("mode", "trouble"), token: option("token", null) });
  const url = await mock.listen(Number(option("port", 9099)));
  console.log(`the page is at ${url}/`);
}
