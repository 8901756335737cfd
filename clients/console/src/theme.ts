// Light or dark: as the system has it, until somebody chooses.
import { store } from "./store";

const kName = "chimera.theme";
const system = matchMedia("(prefers-color-scheme: dark)");
const chosen = () => localStorage.getItem(kName);

export const dark = store((chosen() ?? (system.matches ? "dark" : "light")) === "dark");

const show = () => {
  document.documentElement.dataset.theme = dark.get() ? "dark" : "light";
};
show();
system.addEventListener("change", () => {
  if (!chosen()) dark.set(system.matches), show();
});

export function switchTheme(): void {
  dark.set(!dark.get());
  localStorage.setItem(kName, dark.get() ? "dark" : "light");
  show();
}
