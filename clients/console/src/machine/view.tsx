// How fast it is, what waits, and where memory goes.
import { bytes, count, milliseconds, rate } from "../format";
import { live, type Sample } from "../live";
import type { MemoryPart } from "../types";
import { quantile, readHistogram, total, useMetrics } from "./histograms";
import { Plot } from "./plot";

const kShown = 400; // samples: ten minutes

function rates(samples: Sample[], field: string): (number | null)[] {
  return samples.map((sample, i) => {
    const before = samples[i - 1];
    if (!before) return null;
    return (sample.engine[field]! - before.engine[field]!) / ((sample.time - before.time) / 1000);
  });
}

function Tile({ name, value, note }: { name: string; value: string; note?: string }) {
  return (
    <div class="tile">
      <dt>{name}</dt>
      <dd>{value}</dd>
      {note && <dd class="note">{note}</dd>}
    </div>
  );
}

const kLatencies = [
  ["Time to first token", "gen_ai_server_time_to_first_token_seconds"],
  ["Between tokens", "gen_ai_server_time_per_output_token_seconds"],
  ["In the queue", "chimera_queue_seconds"],
  ["Reading the prompt", "chimera_prefill_seconds"],
  ["Whole answer", "gen_ai_server_request_duration_seconds"],
] as const;

function Latencies() {
  const { stats } = live.use();
  const metrics = useMetrics();
  const engine = stats?.engine ?? {};
  return (
    <div class="card">
      <h2>Latency</h2>
      <div class="scroll" tabIndex={0} role="region" aria-label="Latencies">
        <table>
          <thead>
            <tr>
              <th scope="col">What</th><th scope="col">p50</th><th scope="col">p95</th><th scope="col">p99</th>
              <th scope="col">of</th>
            </tr>
          </thead>
          <tbody>
            {kLatencies.map(([name, metric]) => {
              const histogram = readHistogram(metrics, metric);
              const at = (part: number) => {
                const value = quantile(histogram, part);
                return milliseconds(value === undefined ? undefined : value * 1000);
              };
              return (
                <tr key={name}>
                  <th scope="row">{name}</th>
                  {[0.5, 0.95, 0.99].map((part) => <td key={part}>{at(part)}</td>)}
                  <td>{count(total(histogram))}</td>
                </tr>
              );
            })}
            <tr>
              <th scope="row">Step of the engine</th>
              <td>{milliseconds(engine.step_ms_p50)}</td><td>–</td>
              <td>{milliseconds(engine.step_ms_p99)}</td><td>{count(Math.min(1000, engine.steps ?? 0))}</td>
            </tr>
          </tbody>
        </table>
      </div>
      <p class="note">Of all answers since the gateway started, from its histograms; steps are the last thousand.</p>
    </div>
  );
}

const kUses: Record<string, string> = {
  backbone: "Backbone", experts: "Experts of the checkpoint", scratch: "Scratch", tables: "Routing tables",
  queues: "Queues", key_value: "KV cache", module: "Module", prefixes: "Prefixes",
};

function Memory() {
  const { stats } = live.use();
  const memory = stats?.memory;
  if (!memory) return null;
  const parts = [...memory.parts].sort((a, b) => b.bytes - a.bytes);
  const name = (part: MemoryPart) => [kUses[part.use] ?? part.use, part.name].filter(Boolean).join(" ");
  return (
    <div class="card">
      <h2>Memory</h2>
      <p class="note">
        {bytes(memory.used_bytes)} held of a budget of {bytes(memory.budget_bytes)} ({memory.source})
      </p>
      <ul class="parts">
        {parts.map((part) => (
          <li key={name(part)}>
            <span>{name(part)}</span>
            <i class="track" aria-hidden="true">
              <i style={{ width: `${(part.bytes / parts[0]!.bytes) * 100}%` }} />
            </i>
            <b>{bytes(part.bytes)}</b>
          </li>
        ))}
      </ul>
    </div>
  );
}

export function MachineView() {
  const { samples, stats, info } = live.use();
  const shown = samples.slice(-kShown);
  const times = shown.map(({ time }) => time / 1000);
  const engine = stats?.engine ?? {};
  const generated = rates(shown, "generated_tokens");
  const of = (field: string) => shown.map((sample) => sample.engine[field] ?? null);
  const used = engine.kv_blocks_total! - engine.kv_blocks_free!;
  return (
    <div class="page">
      <h1>Machine</h1>
      <dl class="tiles">
        <Tile name="Tokens/s" value={rate(generated.at(-1) ?? 0)} note="generated" />
        <Tile name="Streams" value={`${engine.live ?? 0} / ${info?.max_sequences ?? "–"}`} note={`${engine.waiting ?? 0} waiting`} />
        <Tile name="KV blocks" value={stats ? `${count(used)} / ${count(engine.kv_blocks_total!)}` : "–"} note={`${bytes(engine.kv_bytes_cached ?? 0)} of prefixes`} />
        <Tile name="Step" value={milliseconds(engine.step_ms_p50)} note={`p99 ${milliseconds(engine.step_ms_p99)}`} />
        <Tile name="Finished" value={count(engine.finished ?? 0)} note={`${count(engine.failed ?? 0)} failed, ${count(engine.rejected ?? 0)} rejected`} />
        <Tile name="Memory" value={bytes(stats?.memory.used_bytes ?? 0)} note={`${bytes(stats?.memory.free_bytes ?? 0)} free`} />
      </dl>
      <div class="plots">
        <Plot title="Throughput" unit="tokens/s" times={times} show={rate} lines={[
          { name: "generated", color: "--m1", values: generated },
          { name: "prompt", color: "--m2", values: rates(shown, "prompt_tokens") },
        ]} />
        <Plot title="Sequences" unit="at once" whole times={times} show={(value) => String(Math.round(value))} lines={[
          { name: "live", color: "--m1", values: of("live") },
          { name: "waiting", color: "--m2", values: of("waiting") },
        ]} />
        <Plot title="Step of the engine" unit="time" times={times} show={milliseconds} lines={[
          { name: "p50", color: "--m1", values: of("step_ms_p50") },
          { name: "p99", color: "--m2", values: of("step_ms_p99") },
        ]} />
        <Plot title="KV cache" unit="memory" times={times} show={bytes} lines={[
          { name: "streams", color: "--m1", values: of("kv_bytes_used") },
          { name: "prefixes", color: "--m2", values: of("kv_bytes_cached") },
        ]} />
      </div>
      <div class="halves">
        <Latencies />
        <Memory />
      </div>
    </div>
  );
}
