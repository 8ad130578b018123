// Tests of what the page derives, without a browser.

import assert from "node:assert/strict";
import { readFile, readdir } from "node:fs/promises";

import { causeFromRefreshes, diagnose } from "../../src/admin/page/diagnosis.js";
import * as format from "../../src/admin/page/format.js";
import { Model, quantile } from "../../src/admin/page/model.js";
import { FILES } from "./mock.mjs";
import { Shield } from "./shield.mjs";

const PAGE = new URL("../../src/admin/page/", import.meta.url);

/** A model that has followed a shield for some seconds. */
function follow(shield, seconds, model = new Model()) {
  for (let second = 0; second < seconds; second += 1) {
    shield.advance();
    model.push(structuredClone(shield.overview()));
  }
  return model;
}

const problemsOf = (model) => diagnose(model).map((problem) => problem.title);

export const UNIT = [
  {
    name: "the page has no file that is not served, and the vendored library is the published one",
    async run() {
      const folder = (await readdir(PAGE)).filter((name) => name !== "uplot.LICENSE");
      assert.deepEqual(folder.sort(), Object.values(FILES).sort());
      const published = (path) => readFile(new URL(`node_modules/uplot/${path}`, import.meta.url));
      for (const [ours, theirs] of [
        ["uplot.js", "dist/uPlot.iife.min.js"],
        ["uplot.css", "dist/uPlot.min.css"],
        ["uplot.LICENSE", "LICENSE"],
      ]) {
        assert.ok((await readFile(new URL(ours, PAGE))).equals(await published(theirs)), ours);
      }
    },
  },
  {
    name: "numbers are written with the digits that matter",
    run() {
      const cases = [
        [format.percent(0.99967), "99.96 %"],
        [format.percent(1), "100.0 %"],
        [format.percent(null), "–"],
        [format.latency(0.00008), "80 µs"],
        [format.latency(0.9999), "1.0 s"],
        [format.bytes(84.3 * 2 ** 20), "84.3 MiB"],
        [format.bitRate(125e6), "1.0 Gbit/s"],
        [format.count(2.44), "2.4"],
        [format.grouped(48210), "48\u202f210"],
        [format.age(150), "3 min"],
        [format.times(undefined), "–"],
        [format.plural(1, "stream"), "1 stream"],
      ];
      for (const [written, expected] of cases) assert.equal(written, expected);
    },
  },
  {
    name: "a quantile is that of what was counted in between",
    run() {
      const bounds = [0.1, 0.2, 0.4];
      const before = [100, 0, 0, 5];
      assert.equal(quantile(bounds, before, before, 0.5), null, "nothing was counted");
      assert.equal(quantile(bounds, before, [100, 10, 0, 5], 0.5).toFixed(3), "0.150");
      assert.equal(quantile(bounds, before, [100, 0, 0, 9], 0.5), 0.4, "beyond all bounds");
    },
  },
  {
    name: "rates are per second over 10 s, and ratios are those of the contract",
    run() {
      const at = (second, hit, miss) => ({
        at_ms: second * 1000,
        uptime_seconds: 100 + second,
        requests: { hit, miss, refused: 1000 * second },
        responses: { "5xx": 0 },
        sent_bytes: { segment: second * 1000 },
        origin: { requests: second * 6, bytes: second * 10, ideal_requests: second * 4 },
      });
      const model = new Model();
      for (let second = 0; second <= 30; second += 1) {
        const late = Math.max(0, second - 20);
        model.push(at(second, second * 3 + late * 6, second));
      }
      const { totals } = model;
      assert.equal(totals.requests, 1010, "9 hits, 1 miss and 1000 refused each second");
      assert.equal(totals.hitRatio, 0.9, "refused requests are neither hits nor misses");
      assert.equal(totals.byteHitRatio, 0.99);
      assert.equal(totals.originLoad, 1.5);
    },
  },
  {
    name: "counters that begin anew make no negative rate and no spike",
    run() {
      const shield = new Shield({ mode: "calm" });
      const model = follow(shield, 20);
      const before = model.totals.requests;
      shield.restart();
      follow(shield, 1, model);
      assert.deepEqual(model.totals, {}, "one reading gives no rate");
      follow(shield, 4, model);
      assert.ok(Math.abs(model.totals.requests / before - 1) < 0.2);
      const drawn = model.series.requests.filter((value) => value !== null);
      assert.ok(drawn.every((value) => value >= 0 && value < before * 2));
      assert.ok(model.series.requests.includes(null), "the line is broken at the restart");
      const row = model.streams.get("/live/final/main.m3u8");
      assert.ok(row.requestRate > 0);
      assert.equal(model.events.filter((event) => event.kind === "start").length, 2);
    },
  },
  {
    name: "the counters of one stream may begin anew while the server goes on",
    run() {
      const shield = new Shield({ mode: "calm" });
      const model = follow(shield, 20);
      const row = model.streams.get("/live/final/main.m3u8");
      const before = row.requestRate;
      Object.assign(shield.stream(row.name), {
        requests: 0,
        bytes: 0,
        origin_requests: 0,
        ideal_requests: 0,
      });
      follow(shield, 1, model);
      assert.equal(row.requestRate, null, "one reading gives no rate");
      follow(shield, 3, model);
      assert.ok(Math.abs(row.requestRate / before - 1) < 0.2);
      assert.ok(model.totals.requests > 0, "those of the server go on");
    },
  },
  {
    name: "says what is wrong, the most serious first, and all is well otherwise",
    run() {
      const shield = new Shield({ mode: "calm" });
      const model = follow(shield, 15);
      assert.deepEqual(problemsOf(model), []);
      shield.openBreaker("main", 1);
      follow(shield, 1, model);
      assert.deepEqual(problemsOf(model), ["1 endpoint of origin main out of use"]);
      shield.makeFailing("/live/final/tactical.m3u8");
      follow(shield, 20, model);
      const titles = problemsOf(model);
      assert.equal(titles[0], "/live/final/tactical.m3u8 is late");
      assert.match(diagnose(model)[0].text, /viewers affected.*no response head within 2 s/);
      assert.ok(titles.includes("1 endpoint of origin main out of use"));
      shield.openBreaker("news", 0);
      follow(shield, 1, model);
      assert.equal(problemsOf(model)[0], "Origin news has no usable endpoint");
    },
  },
  {
    name: "says that a reload failed until one succeeds",
    run() {
      const shield = new Shield({ mode: "calm" });
      const isTold = (model) => problemsOf(model).some((title) => title.includes("reload failed"));
      shield.event("reload", "error", "reload failed: line 14");
      const model = follow(shield, 3);
      assert.ok(isTold(model));
      shield.event("reload", "info", "reloaded: nothing");
      follow(shield, 1, model);
      assert.ok(!isTold(model));
    },
  },
  {
    name: "says why the refreshes of a stream bring nothing",
    run() {
      const of = (result, count = 8) =>
        Array.from({ length: count }, () => ({ result, endpoint: "http://a:80" }));
      assert.equal(causeFromRefreshes([]), null);
      assert.equal(causeFromRefreshes(of("new")), null);
      assert.equal(causeFromRefreshes([...of("new", 6), ...of("same", 2)]), null);
      assert.match(causeFromRefreshes(of("same")), /publishes nothing new/);
      assert.match(
        causeFromRefreshes(of("failed")),
        /8 of the last 8 refreshes failed at http:\/\/a:80/,
      );
      assert.match(causeFromRefreshes(of("behind")), /http:\/\/a:80 lags behind/);
    },
  },
  {
    name: "fields that are absent or null are not known, and nothing breaks",
    run() {
      const model = new Model();
      model.push({ at_ms: 1000 });
      model.push({
        at_ms: 2000,
        streams: [{ name: "/a" }],
        origins: [{ name: "o" }],
        events: null,
      });
      model.push({
        at_ms: 3000,
        streams: [{ name: "/a", edge_age_seconds: null }],
        requests: null,
      });
      assert.equal(model.viewers, null);
      assert.equal(model.streams.get("/a").isLate, false);
      assert.equal(model.totals.hitRatio, null);
      assert.deepEqual(problemsOf(model), []);
    },
  },
];
