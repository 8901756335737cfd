// Which colour a module has: it is given when the module is first seen and stays, whatever comes
// and goes, so that answers of a while ago still mean the same. Grey is the backbone.

const kSlots = 8; // --m1 … --m8 of style.css
const given = new Map<string, number>();

export function colorOf(module: string): string {
  if (module === "backbone") return "var(--m0)";
  let slot = given.get(module);
  if (slot === undefined) {
    slot = given.size % kSlots;
    given.set(module, slot);
  }
  return `var(--m${slot + 1})`;
}

/** By share, the backbone last. */
export function bySize(shares: Record<string, number>): [string, number][] {
  return Object.entries(shares).sort(([a, x], [b, y]) =>
    a === "backbone" ? 1 : b === "backbone" ? -1 : y - x,
  );
}
