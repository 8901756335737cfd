import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import { base, harness, key, launch, native, patience, Tab } from "./browser.mjs";

const modules = process.env.MODULES; // the folder of legal and bio
let browser;
before(async () => void (browser = await launch()));
after(async () => browser?.close());
beforeEach(async () => {
  await native("apply", { composition: { top_k: 2, modules: [{ path: `${modules}/legal` }] } });
});

const kUnreached = [/Failed to load resource: net::ERR_/, /Failed to load resource: the server responded with a status of 503/];

test("a prompt is answered, and every token says which module answered it", async () => {
  const tab = await Tab.open(browser);
  await tab.enter();
  assert.equal(new URL(tab.page.url()).hash, "#chat", "the key is still in the address");
  await tab.page.getByText("no chat template").waitFor();
  await tab.ask("The Borrower shall", { tokens: 12 });
  await tab.answers("done").waitFor();
  const tokens = tab.page.locator(".token");
  assert.ok((await tokens.count()) >= 6);
  const legal = tab.page.locator('.token[data-module="legal"]').first();
  await legal.hover();
  const tip = tab.page.locator(".tip");
  await tip.getByText("legal").waitFor();
  await tip.getByText("backbone").waitFor();
  assert.match(await tip.innerText(), /legal\s+\d+\.\d %/);
  // The same by keyboard, for those who do not see it.
  await tab.page.locator(".tokens").focus();
  await tab.page.keyboard.press("Home");
  await tab.page.locator("[aria-live]").getByText(/“.+”: .*legal \d+ %/).waitFor();
  await tab.assertAccessible("chat");
  await tab.close();
});

test("a long answer is stopped, and made again", async () => {
  const tab = await Tab.open(browser);
  await tab.enter();
  await tab.ask("In the beginning", { tokens: 900, temperature: 1 });
  await tab.page.locator(".token").nth(3).waitFor();
  await tab.page.getByRole("button", { name: "Stop", exact: true }).click();
  await tab.answers("stopped").waitFor();
  // It has ended at the daemon as well, not only on the page.
  await tab.page.waitForFunction(
    async ([address, bearer]) => {
      const answer = await fetch(address, { headers: { authorization: `Bearer ${bearer}` } });
      return (await answer.json()).engine.live === 0;
    },
    [`${base}/chimera/v1/stats`, key],
    { polling: 200 },
  );
  await tab.page.getByRole("button", { name: "Regenerate" }).click();
  await tab.answers("streaming").waitFor();
  await tab.page.getByRole("button", { name: "Stop", exact: true }).click();
  await tab.answers("stopped").waitFor();
  assert.equal(await tab.answers().count(), 1);
  await tab.close();
});

test("two compositions answer one prompt beside one another", async () => {
  const tab = await Tab.open(browser);
  await tab.enter();
  await tab.page.getByRole("button", { name: "Compare" }).click();
  await tab.ask("The Borrower shall", { tokens: 12 });
  await tab.answers("done").nth(1).waitFor();
  assert.ok((await tab.answers().nth(0).locator('[data-module="legal"]').count()) > 0);
  // Side B is the backbone alone until somebody chooses.
  assert.equal(await tab.answers().nth(1).locator('[data-module="legal"]').count(), 0);
  const texts = await tab.page.locator(".tokens").allInnerTexts();
  assert.notEqual(texts[0], texts[1]);
  await tab.assertAccessible("comparison");
  await tab.close();
});

test("an expert is loaded while a chat streams, and the colours change", async () => {
  await native("unload", { name: "legal" });
  const tab = await Tab.open(browser);
  await tab.enter();
  await tab.ask("The Borrower shall", { tokens: 900, temperature: 0.7 });
  await tab.page.locator('.token[data-module="backbone"]').nth(2).waitFor();
  assert.equal(await tab.page.locator('.token[data-module="legal"]').count(), 0);
  await tab.show("experts");
  await tab.page.getByRole("button", { name: "Load an expert" }).click();
  await tab.page.getByLabel("Directory of the module").fill(`${modules}/legal`);
  await tab.page.getByRole("button", { name: "Show the plan" }).click();
  const plan = tab.page.getByRole("dialog");
  await plan.getByText(/Load\s+legal/).waitFor();
  await tab.assertAccessible("plan");
  await plan.getByLabel(/Move streams in progress along/).check();
  await plan.getByRole("button", { name: "Load", exact: true }).click();
  await tab.page.locator('[data-module="legal"].module').waitFor();
  await tab.show("chat");
  await tab.page.locator('.token[data-module="legal"]').first().waitFor();
  if (await tab.answers("streaming").count()) {
    await tab.page.getByRole("button", { name: "Stop", exact: true }).click();
  }
  await tab.close();
});

test("what is loaded is changed by plans, and rolled back", async () => {
  const tab = await Tab.open(browser);
  await tab.enter("experts");
  const card = tab.page.locator('.module[data-module="legal"]');
  await card.getByRole("button", { name: "Disable" }).click();
  const dialog = tab.page.getByRole("dialog");
  await dialog.getByText(/Disable\s+legal/).nth(1).waitFor();
  await dialog.getByRole("button", { name: "Disable", exact: true }).click();
  await tab.page.locator('.module[data-module="legal"][data-enabled="false"]').waitFor();
  assert.equal((await native("modules")).modules[0].enabled, false);

  await tab.page.getByRole("button", { name: /^Roll back to epoch/ }).first().click();
  await dialog.getByText(/Enable\s+legal/).waitFor();
  await dialog.getByRole("button", { name: "Roll back", exact: true }).click();
  await tab.page.locator('.module[data-module="legal"][data-enabled="true"]').waitFor();
  assert.equal((await native("modules")).modules[0].enabled, true);

  // A plan that is refused says why, and cannot be applied.
  await tab.page.getByRole("button", { name: "Load an expert" }).click();
  await tab.page.getByLabel("Directory of the module").fill("/nowhere/at/all");
  await tab.page.getByRole("button", { name: "Show the plan" }).click();
  await dialog.getByText("/nowhere/at/all").waitFor();
  assert.ok(await dialog.getByRole("button", { name: "Load", exact: true }).isDisabled());
  await tab.page.keyboard.press("Escape");
  await dialog.waitFor({ state: "detached" });

  await card.getByRole("button", { name: "Revoke" }).click();
  await dialog.getByText("no rollback brings it back").waitFor();
  await dialog.getByRole("button", { name: "Revoke", exact: true }).click();
  await tab.page.getByText("No expert is loaded").waitFor();
  assert.deepEqual((await native("modules")).modules, []);
  await tab.assertAccessible("experts");
  await tab.close();
});

test("a plan keeps what a module was given, its precision and its coefficients", async () => {
  const mix = { legal: 0.7, "legal-1.0.0": 0.3 };
  await native("apply", { composition: { top_k: 2, modules: [
    { path: process.env.MIX, lambda: mix }, { path: `${modules}/bio`, precision: "q8" }] } });
  const tab = await Tab.open(browser);
  await tab.enter("experts");
  const dialog = tab.page.getByRole("dialog");
  const planned = async () => {
    await dialog.locator(".plan li").first().waitFor();
    return dialog.locator(".plan li b").allInnerTexts();
  };
  const recorded = async () => (await native("epochs")).history.at(-1).modules;
  const card = tab.page.locator('.module[data-module="bio"]');
  await card.getByText("q8").waitFor();
  await tab.page.locator('.module[data-module="legal"]').getByText("legal-1.0.0 0.3").waitFor();
  await card.getByRole("button", { name: "Disable" }).click();
  assert.deepEqual(await planned(), ["Disable"]);
  await dialog.getByRole("button", { name: "Disable", exact: true }).click();
  await tab.page.locator('.module[data-module="bio"][data-enabled="false"]').waitFor();
  await tab.page.getByRole("button", { name: /^Roll back to epoch/ }).first().click();
  assert.deepEqual(await planned(), ["Enable"]);
  await dialog.getByRole("button", { name: "Roll back", exact: true }).click();
  await tab.page.locator('.module[data-module="bio"][data-enabled="true"]').waitFor();
  assert.deepEqual((await recorded()).map(({ lambda, precision }) => lambda ?? precision), [mix, "q8"]);

  // Replaced by itself it stays as it is, until another precision is chosen.
  await card.getByRole("button", { name: "Replace" }).click();
  await tab.page.getByRole("button", { name: "Show the plan" }).click();
  await dialog.getByText("Nothing would change").waitFor();
  await tab.page.keyboard.press("Escape");
  await card.getByRole("button", { name: "Replace" }).click();
  await tab.page.getByLabel("Precision of its experts").selectOption("q4");
  await tab.page.getByRole("button", { name: "Show the plan" }).click();
  assert.deepEqual(await planned(), ["Change the precision of"]);
  await tab.assertAccessible("plan with a precision");
  await dialog.getByRole("button", { name: "Replace", exact: true }).click();
  await card.getByText("q4").waitFor();
  assert.deepEqual((await recorded()).map(({ lambda, precision }) => lambda ?? precision), [mix, "q4"]);
  await tab.page.getByText("bio in q4").waitFor();

  // An adapter takes no precision: it comes in without, as `load` does it.
  await card.getByRole("button", { name: "Replace" }).click();
  await tab.page.getByLabel("Directory of the module").fill(process.env.ADAPTER);
  await tab.page.getByRole("button", { name: "Show the plan" }).click();
  assert.deepEqual((await planned()).slice(0, 1), ["Replace"]);
  await dialog.getByRole("button", { name: "Replace", exact: true }).click();
  await dialog.waitFor({ state: "detached" });
  assert.deepEqual((await recorded()).map(({ path, precision }) => [path, precision]),
    [[process.env.MIX, undefined], [process.env.ADAPTER, undefined]]);
  await tab.close();
});

test("routing and machine show what happens", async () => {
  const tab = await Tab.open(browser);
  await tab.enter();
  await tab.ask("The Borrower shall", { tokens: 40 });
  await tab.answers("done").waitFor();
  await tab.show("routing");
  await tab.page.getByRole("button", { name: "Since the count began" }).click();
  await tab.page.getByRole("img", { name: /tokens over 6 layers/ }).waitFor();
  await tab.page.getByText("As a table").click();
  assert.ok((await tab.page.locator(".cells tbody tr").count()) === 6);
  await tab.assertAccessible("routing");
  await tab.page.getByRole("button", { name: "Raise the bias of legal" }).click();
  const dialog = tab.page.getByRole("dialog");
  await dialog.getByRole("button", { name: "Set bias" }).click();
  await tab.page.getByRole("group", { name: "Bias of legal" }).getByText("0.5").waitFor();
  assert.equal((await native("modules")).modules[0].bias, 0.5);
  await tab.show("machine");
  await tab.page.getByRole("img", { name: /^Throughput/ }).waitFor();
  await tab.page.getByRole("rowheader", { name: "Time to first token" }).waitFor();
  await tab.assertAccessible("machine");
  await tab.close();
});

test("without a key, and with a wrong one, the page asks", async () => {
  const tab = await Tab.open(browser);
  await tab.page.goto(base);
  await tab.page.getByLabel("Key").waitFor();
  await tab.assertAccessible("gate");
  await tab.page.getByLabel("Key").fill("chimera-of-nobody");
  await tab.page.getByRole("button", { name: "Open" }).click();
  await tab.page.getByRole("alert").getByText("does not know this key").waitFor();
  await tab.page.getByLabel("Key").fill(key);
  await tab.page.getByRole("button", { name: "Open" }).click();
  await tab.page.getByRole("heading", { name: "Chat", level: 1 }).waitFor();
  await tab.page.reload();
  await tab.page.getByRole("heading", { name: "Chat", level: 1 }).waitFor();
  await tab.page.getByRole("button", { name: "Forget the key" }).click();
  await tab.page.getByLabel("Key").waitFor();
  await tab.close([/status of 401/]);
});

test("a page of another origin reads nothing and changes nothing", async () => {
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(process.env.FOREIGN);
  const tried = await page.evaluate(
    async ([address, bearer]) => {
      const attempt = async (options) => {
        try {
          return (await fetch(`${address}/chimera/v1/unload`, options)).status;
        } catch (error) {
          return error.name;
        }
      };
      const body = JSON.stringify({ name: "legal" });
      return [
        // With the key, which asks first; and as a form would send it, which does not.
        await attempt({ method: "POST", body, headers: { authorization: `Bearer ${bearer}`, "content-type": "application/json" } }),
        await attempt({ method: "POST", body, mode: "no-cors" }),
        await new Promise((told) => {
          const frame = document.createElement("iframe");
          frame.src = address;
          frame.onload = () => told(frame.contentDocument === null ? "closed" : "open");
          document.body.append(frame);
        }),
      ];
    },
    [base, key],
  );
  assert.equal(tried[0], "TypeError");
  assert.equal(tried[2], "closed");
  for (const frame of page.frames()) {
    assert.equal(await frame.locator("#console").count(), 0, "the page shows in a frame");
  }
  assert.equal((await native("modules")).modules.length, 1);
  await context.close();
});

test("the page outlives the gateway and the daemon", async () => {
  const tab = await Tab.open(browser);
  await tab.enter("experts");
  await tab.page.locator(".module").waitFor();
  await harness("gateway/stop");
  await tab.page.getByText("The gateway is not there.").waitFor();
  await harness("gateway/start");
  await tab.page.getByText("The gateway is not there.").waitFor({ state: "detached" });
  await harness("daemon/kill");
  await tab.page.getByText("The daemon is not there.").waitFor();
  await tab.show("chat");
  await tab.ask("The Borrower shall");
  await tab.answers("failed").waitFor();
  await harness("daemon/start");
  await tab.page.getByText("The daemon is not there.").waitFor({ state: "detached" });
  await tab.page.getByRole("button", { name: "Regenerate" }).click();
  await tab.answers("done").waitFor();
  await tab.close(kUnreached);
});

test("everything fits on a telephone, in the dark", async () => {
  const tab = await Tab.open(browser, { width: 390, height: 844, theme: "dark" });
  await tab.enter();
  await tab.ask("The Borrower shall", { tokens: 20 });
  await tab.answers("done").waitFor({ timeout: patience });
  for (const view of ["chat", "experts", "routing", "machine"]) {
    await tab.show(view);
    await tab.assertFits(view);
    await tab.assertAccessible(`${view}, dark`);
  }
  await tab.close();
});
