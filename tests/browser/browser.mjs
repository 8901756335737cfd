// The console in Chromium: what the tests share. Nothing here sleeps; everything waits for what it
// wants to see, with patience for busy machines.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

export const base = process.env.BASE;
export const key = process.env.KEY;
export const patience = 60_000 * Number(process.env.CHIMERA_SLOW ?? 1);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

export async function launch() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
  });
}

/** A tab that fails the test for anything that its console says and for every request elsewhere. */
export class Tab {
  static async open(browser, { width = 1280, height = 860, theme = "light" } = {}) {
    const tab = new Tab();
    tab.context = await browser.newContext({ viewport: { width, height }, colorScheme: theme, reducedMotion: "reduce" });
    tab.context.setDefaultTimeout(patience);
    tab.page = await tab.context.newPage();
    tab.said = [];
    tab.elsewhere = [];
    tab.page.on("console", (message) => {
      if (message.type() === "error" || message.type() === "warning") tab.said.push(message.text());
    });
    tab.page.on("pageerror", (error) => tab.said.push(String(error)));
    tab.page.on("request", (request) => {
      if (!request.url().startsWith(base)) tab.elsewhere.push(request.url());
    });
    return tab;
  }

  /** `expected`: what the browser itself says of answers that the test provokes. */
  async close(expected = []) {
    const left = this.said.filter((text) => !expected.some((pattern) => pattern.test(text)));
    assert.deepEqual(left, [], "the console of the page");
    assert.deepEqual(this.elsewhere, [], "requests that left the gateway");
    await this.context.close();
  }

  async enter(view = "chat") {
    await this.page.goto(`${base}/#key=${key}`);
    await this.page.getByRole("heading", { name: "Chat", level: 1 }).waitFor();
    if (view !== "chat") await this.show(view);
  }

  async show(view) {
    const name = view[0].toUpperCase() + view.slice(1);
    await this.page.getByRole("link", { name, exact: true }).click();
    await this.page.getByRole("heading", { name, level: 1 }).waitFor();
  }

  async ask(text, { tokens = 12, temperature = 0 } = {}) {
    const { page } = this;
    const settings = page.locator("details.settings");
    if ((await settings.getAttribute("open")) === null) await settings.locator("summary").click();
    await page.getByLabel("Tokens at most").fill(String(tokens));
    await page.getByLabel("Temperature").fill(String(temperature));
    await page.getByLabel("Seed").fill("7");
    await settings.locator("summary").click();
    await page.getByRole("textbox", { name: "Prompt" }).fill(text);
    await page.getByRole("button", { name: "Send", exact: true }).click();
  }

  answers(state) {
    return this.page.locator(state ? `.answer[data-state="${state}"]` : ".answer");
  }

  /** axe-core finds nothing serious in what is shown. */
  async assertAccessible(what) {
    await this.page.evaluate(axe).catch(() => {}); // what evaluate gives back cannot be copied
    const found = await this.page.evaluate(() => globalThis.axe.run());
    const serious = found.violations.filter(({ impact }) => impact === "serious" || impact === "critical");
    assert.deepEqual(
      serious.map(({ id, nodes }) => `${id}: ${nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`).join("\n")}`),
      [],
      what,
    );
  }

  /** Nothing sticks out sideways. */
  async assertFits(what) {
    const { inner, outer } = await this.page.evaluate(() => ({
      inner: document.documentElement.scrollWidth,
      outer: document.documentElement.clientWidth,
    }));
    assert.ok(inner <= outer, `${what}: ${inner} px wide in ${outer}`);
  }
}

/** A call of the native API, from outside of the browser. */
export async function native(call, fields) {
  const response = await fetch(`${base}/chimera/v1/${call}`, {
    method: fields === undefined ? "GET" : "POST",
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
    ...(fields === undefined ? {} : { body: JSON.stringify(fields) }),
  });
  const body = await response.json();
  assert.ok(response.ok, JSON.stringify(body));
  return body;
}

/** Tells the Python that runs this test to do something to a program, and waits until it has. */
export async function harness(what) {
  const response = await fetch(`${process.env.HARNESS}/${what}`, { method: "POST" });
  assert.equal(response.status, 200, await response.text());
}
