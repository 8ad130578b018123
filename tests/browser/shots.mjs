// Takes screenshots of the page for looking at: `node shots.mjs FOLDER`.

import { mkdir } from "node:fs/promises";
import { chromium } from "playwright-core";

import { MockAdmin } from "./mock.mjs";

const folder = process.argv[2] ?? "shots";
const WIDE = { width: 1440, height: 900 };
const SHOTS = [
  { name: "calm-light", mode: "calm" },
  { name: "calm-dark", mode: "calm", colorScheme: "dark" },
  { name: "trouble-light", mode: "trouble" },
  { name: "trouble-dark", mode: "trouble", colorScheme: "dark" },
  { name: "failing-light", mode: "failing" },
  { name: "failing-dark", mode: "failing", colorScheme: "dark" },
  { name: "many-light", mode: "many" },
  { name: "phone-light", mode: "trouble", viewport: { width: 360, height: 780 } },
  { name: "phone-dark", mode: "calm", viewport: { width: 360, height: 780 }, colorScheme: "dark" },
  { name: "tablet-light", mode: "trouble", viewport: { width: 834, height: 1100 } },
  { name: "stream-light", mode: "trouble", open: "/live/final/tactical.m3u8" },
  { name: "stream-dark", mode: "trouble", open: "/live/semi-2/replay.m3u8", colorScheme: "dark" },
  {
    name: "stream-phone",
    mode: "trouble",
    open: "/live/final/tactical.m3u8",
    viewport: { width: 360, height: 780 },
  },
  { name: "purge-light", mode: "trouble", isPurge: true },
  { name: "opened-light", mode: "calm", hasHistory: false },
  { name: "token-dark", mode: "calm", token: "secret", colorScheme: "dark" },
];

await mkdir(folder, { recursive: true });
const only = process.argv.slice(3);
const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--no-sandbox"],
});
for (const shot of SHOTS) {
  if (only.length > 0 && !only.some((name) => shot.name.includes(name))) continue;
  const mock = new MockAdmin({
    mode: shot.mode,
    token: shot.token ?? null,
    hasHistory: shot.hasHistory,
  });
  const url = await mock.listen();
  const page = await browser.newPage({
    viewport: shot.viewport ?? WIDE,
    colorScheme: shot.colorScheme ?? "light",
    deviceScaleFactor: shot.viewport?.width < 400 ? 2 : 1,
  });
  page.on("console", (message) => console.log(shot.name, message.type(), message.text()));
  page.on("pageerror", (error) => console.log(shot.name, "error", error.stack));
  await page.goto(url);
  if (!shot.token) await page.waitForSelector("#stream-rows tr");
  await page.waitForTimeout(2500);
  if (shot.open) await page.click(`tr[data-name="${shot.open}"] button`);
  if (shot.isPurge) {
    await page.click("#open-purge");
    await page.fill("#purge-value", "/live/final/main.m3u8");
    await page.click("text=Check what would be purged");
  }
  await page.waitForTimeout(shot.open ? 1500 : 300);
  // A window of the page's height, and not a picture beyond the window: rows out of sight are stale.
  const isWhole = !shot.open && !shot.isPurge && !shot.token;
  if (isWhole) {
    const height = await page.evaluate(() => document.documentElement.scrollHeight);
    await page.setViewportSize({ width: (shot.viewport ?? WIDE).width, height });
    await page.waitForTimeout(1200);
  }
  await page.screenshot({ path: `${folder}/${shot.name}.png` });
  await page.close();
  await mock.close();
}
await browser.close();
