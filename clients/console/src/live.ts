// What is served, looked at again and again while somebody sees the page.
import { ApiError, get } from "./api";
import { key } from "./key";
import { store } from "./store";
import type { Epochs, Info, Layer, Modules, Routing, Stats } from "./types";

const kEvery = 1500; // ms between looks
const kKept = 2400; // samples: an hour of them

/** Sums since the daemon's start (or the last reset of its counts) at one moment. */
export interface Sample {
  time: number;
  mass: Record<string, number>; // gate mass by module, over all layers
  layers: Layer[];
  engine: Record<string, number>;
  used: number; // bytes of memory
}

export interface Live {
  state: "starting" | "ok" | "forbidden" | "daemon gone" | "gateway gone";
  problem: string;
  info?: Info;
  modules?: Modules;
  epochs?: Epochs;
  stats?: Stats;
  routing?: Routing;
  samples: Sample[];
}

export const live = store<Live>({ state: "starting", problem: "", samples: [] });

function massOf(layers: Layer[]): Record<string, number> {
  const out: Record<string, number> = {};
  for (const layer of layers) {
    for (const [name, { share }] of Object.entries(layer.modules)) {
      out[name] = (out[name] ?? 0) + share * layer.tokens;
    }
  }
  return out;
}

async function look(): Promise<void> {
  const before = live.get();
  try {
    const [modules, stats, routing, epochs] = await Promise.all([
      get<Modules>("modules"),
      get<Stats>("stats"),
      get<Routing>("routing"),
      get<Epochs>("epochs"),
    ]);
    const known = before.info && before.state === "ok" && before.info.epoch === modules.epoch;
    const info = known ? before.info : await get<Info>("info");
    const sample: Sample = {
      time: Date.now(),
      mass: massOf(routing.layers),
      layers: routing.layers,
      engine: stats.engine,
      used: stats.memory.used_bytes,
    };
    // Counts that go down are those of another daemon, or were reset: they begin anew.
    const last = before.samples.at(-1);
    const anew = last && (last.engine.steps! > stats.engine.steps! || before.routing?.since !== routing.since);
    const samples = anew ? [sample] : [...before.samples.slice(1 - kKept), sample];
    live.set({ state: "ok", problem: "", info: info!, modules, stats, routing, epochs, samples });
  } catch (problem) {
    if (!(problem instanceof ApiError)) throw problem;
    const state = problem.status === 0 ? "gateway gone" : problem.status === 403 ? "forbidden" : "daemon gone";
    if (problem.status !== 401) live.set({ ...before, state, problem: problem.message });
  }
}

let looking: Promise<void> | null = null;
let timer = 0;

/** Looks now, and from then on regularly. */
export function refresh(): Promise<void> {
  clearTimeout(timer);
  if (!key.get()) return Promise.resolve();
  looking ??= look().finally(() => {
    looking = null;
    clearTimeout(timer);
    if (!document.hidden) timer = window.setTimeout(refresh, kEvery);
  });
  return looking;
}

/** Looks after whatever is being looked at now: what it tells is of after the call. */
export async function refreshAfter(): Promise<void> {
  await looking;
  await refresh();
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) void refresh();
});

/** Shares of the gate's mass between two samples; empty when nothing was computed. */
export function sharesBetween(from: Sample | undefined, to: Sample | undefined): Record<string, number> {
  if (!from || !to) return {};
  const out: Record<string, number> = {};
  let total = 0;
  for (const [name, mass] of Object.entries(to.mass)) {
    const more = mass - (from.mass[name] ?? 0);
    if (more <= 1e-9) continue;
    out[name] = more;
    total += more;
  }
  for (const name of Object.keys(out)) out[name]! /= total;
  return out;
}

/** The youngest sample that is at least `seconds` old, else the oldest. */
export function sampleAgo(samples: Sample[], seconds: number): Sample | undefined {
  const limit = Date.now() - seconds * 1000;
  for (let i = samples.length - 1; i >= 0; --i) {
    if (samples[i]!.time <= limit) return samples[i];
  }
  return samples[0];
}
