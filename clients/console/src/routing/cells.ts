// How tokens were spread over the experts of every layer, from two samples.
import type { Layer } from "../types";

export interface Column {
  module: string;
  expert: number;
}

export interface Cell {
  tokens: number;
  /** Of what the expert would get if all got the same: 1. */
  load: number;
}

export interface HeatMap {
  columns: Column[];
  rows: { layer: number; tokens: number; cells: (Cell | null)[] }[]; // null: no such expert in the layer
}

/** An expert gets less than this of its even part: it is starved; more than that: overloaded. */
export const kStarved = 0.25;
export const kOverloaded = 2.5;
/** Fewer tokens in a layer say nothing about any of its experts. */
const kEnough = 20;

export type Verdict = "starved" | "overloaded" | null;

export const verdictOf = (cell: Cell, tokens: number): Verdict =>
  tokens < kEnough ? null : cell.load < kStarved ? "starved" : cell.load > kOverloaded ? "overloaded" : null;

/** `order`: of the modules behind the backbone; others follow. */
export function heatMap(from: Layer[] | undefined, to: Layer[], order: string[]): HeatMap {
  const sizes = new Map<string, number>();
  for (const layer of to) {
    for (const [name, { experts }] of Object.entries(layer.modules)) {
      sizes.set(name, Math.max(sizes.get(name) ?? 0, experts.length));
    }
  }
  const place = (name: string) => (name === "backbone" ? -1 : order.includes(name) ? order.indexOf(name) : order.length);
  const names = [...sizes.keys()].sort((a, b) => place(a) - place(b) || (a < b ? -1 : 1));
  const columns = names.flatMap((module) =>
    Array.from({ length: sizes.get(module)! }, (_, expert) => ({ module, expert })),
  );
  const rows = to.map((layer, i) => {
    const before = from?.[i];
    const counts = columns.map(({ module, expert }) => {
      const now = layer.modules[module]?.experts[expert];
      return now === undefined ? null : now - (before?.modules[module]?.experts[expert] ?? 0);
    });
    const there = counts.filter((count) => count !== null);
    const fair = there.reduce((sum, count) => sum + count, 0) / Math.max(1, there.length);
    return {
      layer: layer.layer,
      tokens: layer.tokens - (before?.tokens ?? 0),
      cells: counts.map((tokens) => (tokens === null ? null : { tokens, load: fair > 0 ? tokens / fair : 0 })),
    };
  });
  return { columns, rows };
}

export interface Flagged {
  module: string;
  starved: number; // cells
  overloaded: number;
  load: number; // mean over its cells
}

export function flagged(map: HeatMap): Flagged[] {
  const out = new Map<string, Flagged & { cells: number }>();
  for (const row of map.rows) {
    row.cells.forEach((cell, i) => {
      if (!cell) return;
      const { module } = map.columns[i]!;
      const entry = out.get(module) ?? { module, starved: 0, overloaded: 0, load: 0, cells: 0 };
      const verdict = verdictOf(cell, row.tokens);
      if (verdict) ++entry[verdict];
      entry.load += cell.load;
      ++entry.cells;
      out.set(module, entry);
    });
  }
  return [...out.values()].map((entry) => ({ ...entry, load: entry.load / entry.cells }));
}
