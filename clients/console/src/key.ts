// The key of this tab. It comes with the address, behind the "#", which browsers send to nobody, or
// is typed in; it is kept until the tab is closed and leaves the address at once.
import { store } from "./store";

const kName = "chimera.key";

export const key = store<string | null>(sessionStorage.getItem(kName));

export function setKey(value: string): void {
  sessionStorage.setItem(kName, value);
  key.set(value);
}

export function forgetKey(): void {
  sessionStorage.removeItem(kName);
  key.set(null);
}

/** Takes the key out of "#key=…"; true when there was one. */
export function takeKeyFromAddress(): boolean {
  const found = /^#key=(.+)$/.exec(location.hash);
  if (!found) return false;
  history.replaceState(null, "", location.pathname + "#chat");
  setKey(decodeURIComponent(found[1]!));
  return true;
}
