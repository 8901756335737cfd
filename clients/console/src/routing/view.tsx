// How tokens spread over experts, and the knob for it.
import { useState } from "preact/hooks";
import { biasWish } from "../experts/view";
import { PlanDialog, type Wish } from "../experts/plan";
import { clock, count } from "../format";
import { live, sampleAgo } from "../live";
import { Swatch } from "../parts/bar";
import type { Module } from "../types";
import { HeatCanvas } from "./canvas";
import { flagged, heatMap, kOverloaded, kStarved, type Flagged, type HeatMap } from "./cells";

const kSpans = [
  { name: "Last 30 s", seconds: 30 },
  { name: "Last 5 min", seconds: 300 },
  { name: "Since the count began", seconds: Infinity },
];

function Knob({ module, plan }: { module: Module; plan: (wish: Wish) => void }) {
  const step = (by: number) => plan(biasWish(module, Math.round((module.bias + by) * 10) / 10));
  return (
    <span class="knob" role="group" aria-label={`Bias of ${module.name}`}>
      <button type="button" onClick={() => step(-0.5)} aria-label={`Lower the bias of ${module.name}`}>−</button>
      <output>{module.bias.toFixed(1)}</output>
      <button type="button" onClick={() => step(0.5)} aria-label={`Raise the bias of ${module.name}`}>+</button>
    </span>
  );
}

function words({ starved, overloaded }: Flagged): string {
  const out = [];
  if (starved) out.push(`▼ starved in ${starved}`);
  if (overloaded) out.push(`▲ overloaded in ${overloaded}`);
  return out.join(", ") || "even";
}

function ModuleLoads({ list, plan }: { list: Flagged[]; plan: (wish: Wish) => void }) {
  const { modules } = live.use();
  return (
    <ul class="loads">
      {list.map((entry) => {
        const module = modules?.modules.find(({ name, path }) => name === entry.module && path !== undefined);
        const tone = entry.starved + entry.overloaded > 0 ? "bad" : "";
        return (
          <li key={entry.module} data-module={entry.module}>
            <span class="name"><Swatch module={entry.module} /> {entry.module}</span>
            <span class="load">{entry.load.toFixed(2)} ×</span>
            <span class={`verdict ${tone}`}>{words(entry)}</span>
            {module ? <Knob module={module} plan={plan} /> : <span class="note">no bias</span>}
          </li>
        );
      })}
    </ul>
  );
}

function Table({ map }: { map: HeatMap }) {
  return (
    <details class="cells">
      <summary>As a table</summary>
      <div class="scroll" tabIndex={0} role="region" aria-label="Tokens per layer and expert">
        <table>
          <thead>
            <tr>
              <th scope="col">Layer</th>
              {map.columns.map(({ module, expert }) => (
                <th scope="col" key={`${module} ${expert}`}>{module} {expert}</th>
              ))}
            </tr>
          </thead>
          <tbody>
            {map.rows.map((row) => (
              <tr key={row.layer}>
                <th scope="row">{row.layer}</th>
                {row.cells.map((cell, i) => (
                  <td key={i}>{cell ? count(cell.tokens) : ""}</td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </details>
  );
}

export function RoutingView() {
  const { routing, samples, modules } = live.use();
  const [span, choose] = useState(0);
  const [wish, plan] = useState<Wish | null>(null);
  const { seconds } = kSpans[span]!;
  const from = seconds === Infinity ? undefined : sampleAgo(samples, seconds)?.layers;
  const map = heatMap(from, routing?.layers ?? [], (modules?.modules ?? []).map(({ name }) => name));
  const list = flagged(map);
  const tokens = Math.max(0, ...map.rows.map((row) => row.tokens));
  const bad = list.filter(({ starved, overloaded }) => starved + overloaded > 0);
  const label = `${tokens} tokens over ${map.rows.length} layers and ${map.columns.length} experts. ` +
    (bad.map((entry) => `${entry.module}: ${words(entry)}`).join("; ") || "No expert stands out.");
  return (
    <div class="page">
      <div class="title">
        <h1>Routing</h1>
        <div class="actions" role="group" aria-label="Time">
          {kSpans.map(({ name }, i) => (
            <button key={name} type="button" class="chip" aria-pressed={span === i} onClick={() => choose(i)}>{name}</button>
          ))}
        </div>
      </div>
      <p class="note">
        {count(tokens)} tokens{seconds === Infinity && routing ? ` since ${clock(routing.since)}` : ""}. 1 × is the even
        part of an expert; ▼ is below {kStarved} ×, ▲ above {kOverloaded} ×.
      </p>
      <div class="card">
        {map.columns.length > 0 && tokens > 0 ? (
          <HeatCanvas map={map} label={label} />
        ) : (
          <p class="empty">No token passed in this time.</p>
        )}
      </div>
      <div class="card">
        <h2>Load and bias</h2>
        <ModuleLoads list={list} plan={plan} />
        <Table map={map} />
      </div>
      {wish && <PlanDialog wish={wish} onClose={() => plan(null)} />}
    </div>
  );
}
