// Tests of the operator's page in headless Chromium.
//
//   node run.mjs [URL]
//
// Without URL each test has a mock admin server of its own. With one, the tests that only look run
// against the server there; SEAWALL_ADMIN_TOKEN is its token, if it wants one.

import { access } from "node:fs/promises";
import { chromium } from "playwright-core";

import { LOOKING, WITH_MOCK } from "./page_tests.mjs";
import { UNIT } from "./unit_tests.mjs";

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const TEST_MS = 60_000;

const url = process.argv[2] ?? null;
const only = process.env.ONLY ?? "";

try {
  await access(CHROMIUM);
} catch {
  console.error(`there is no ${CHROMIUM}: install the package chromium, or set CHROMIUM`);
  process.exit(2);
}

const browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] });
const tests = url ? LOOKING : [...UNIT, ...LOOKING, ...WITH_MOCK];
let passed = 0;
const failed = [];
for (const { name, run } of tests) {
  if (!name.includes(only)) continue;
  const deadline = new Promise((_, reject) => {
    setTimeout(() => reject(new Error(`not done after ${TEST_MS / 1000} s`)), TEST_MS).unref();
  });
  try {
    await Promise.race([run({ browser, url }), deadline]);
    passed += 1;
    console.log(`ok      ${name}`);
  } catch (error) {
    failed.push(name);
    console.log(`FAILED  ${name}\n${indented(withoutRetries(error.stack))}`);
  }
}
await browser.close();
console.log(`\n${passed} passed, ${failed.length} failed`);
process.exit(failed.length > 0 || passed === 0 ? 1 : 0);

// Playwright tells of each of its many tries to click.
function withoutRetries(text) {
  return text
    .split("\n")
    .filter((line) => !/^\S*\s+(\d+ × )?[-<]/.test(line))
    .join("\n");
}

function indented(text) {
  return text.replace(/^/gm, "        ");
}
