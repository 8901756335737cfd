// Pictures of the console, for the README and to be looked at: node screenshots.mjs FOLDER
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { launch, native, Tab } from "./browser.mjs";

const folder = process.argv[2];
mkdirSync(folder, { recursive: true });
const modules = process.env.MODULES;
await native("apply", {
  composition: { top_k: 2, modules: ["legal", "bio"].map((name) => ({ path: `${modules}/${name}` })) },
});
const browser = await launch();
const kSizes = [
  { name: "wide", width: 1280, height: 820 },
  { name: "narrow", width: 390, height: 844 },
];
for (const { name, width, height } of kSizes) {
  for (const theme of ["light", "dark"]) {
    const tab = await Tab.open(browser, { width, height, theme });
    const picture = (what) => tab.page.screenshot({ path: join(folder, `${what}-${name}-${theme}.png`) });
    await tab.enter();
    if (theme === "light") await picture("beginning");
    await tab.page.getByRole("button", { name: "Compare" }).click();
    await tab.ask("The Borrower shall", { tokens: 70, temperature: 0.6 });
    await tab.answers("done").nth(1).waitFor();
    await tab.page.getByRole("button", { name: "Compare" }).click();
    await tab.ask("The patient was given", { tokens: 60, temperature: 0.6 });
    await tab.answers("done").nth(2).waitFor();
    await tab.page.locator(".turns").evaluate((box) => void (box.scrollTop = 0));
    await tab.page.locator('.token[data-module="legal"]').nth(5).hover();
    await picture("chat");
    await tab.show("experts");
    await tab.page.locator(".module").nth(1).waitFor();
    await picture("experts");
    await tab.show("routing");
    await tab.page.getByRole("button", { name: "Since the count began" }).click();
    await tab.page.locator("canvas").waitFor();
    await picture("routing");
    await tab.show("machine");
    await tab.page.locator(".u-wrap").first().waitFor();
    await picture("machine");
    await tab.close();
  }
}
await browser.close();
