// Epochs, the youngest first, and the way back to each.
import { Swatch } from "../parts/bar";
import { blendText, clock, day } from "../format";
import { live } from "../live";
import type { EpochModule, EpochRecord } from "../types";
import { entryOf, published, type Wish } from "./plan";

function rollback(record: EpochRecord): Wish {
  return {
    title: `Roll back to epoch ${record.epoch}`,
    action: "Roll back",
    composition: () => ({
      ...(record.top_k === undefined ? {} : { top_k: record.top_k }),
      modules: record.modules.map(entryOf),
    }),
    call: "rollback",
    fields: { epoch: record.epoch },
    warning: "It becomes a new epoch; the history stays.",
  };
}

const blendOf = ({ lambda }: EpochModule): string => (lambda ? blendText(lambda) : "as its recipe says");

/** What came with a record, in words. */
function changes(record: EpochRecord, before: EpochRecord | undefined): string {
  if (!before) return "the beginning of what is remembered";
  const out: string[] = [];
  const old = new Map(before.modules.map((module) => [module.name, module]));
  for (const module of record.modules) {
    const was = old.get(module.name);
    old.delete(module.name);
    if (!was) out.push(`+ ${module.name} ${module.version}`);
    else if (was.version !== module.version || was.path !== module.path) out.push(`${module.name} ${was.version} → ${module.version}`);
    else if (was.enabled !== module.enabled) out.push(`${module.name} ${module.enabled ? "enabled" : "disabled"}`);
    else if (blendOf(was) !== blendOf(module)) out.push(`${module.name} blended: ${blendOf(module)}`);
    else if (was.precision !== module.precision) out.push(`${module.name} in ${module.precision ?? "the deployment's precision"}`);
    else if (was.weight !== module.weight) out.push(`${module.name} weight ${module.weight ?? "as its manifest says"}`);
    else if (was.bias !== module.bias) out.push(`${module.name} bias ${was.bias} → ${module.bias}`);
  }
  const revoked = new Set(record.revoked);
  for (const name of old.keys()) out.push(revoked.has(name) ? `${name} revoked` : `− ${name}`);
  if (record.top_k !== before.top_k) out.push(`top_k ${before.top_k ?? "as fitted"} → ${record.top_k ?? "as fitted"}`);
  return out.join(", ") || "the same again, after a restart or a rollback";
}

export function Timeline({ plan }: { plan: (wish: Wish) => void }) {
  const { epochs } = live.use();
  if (!epochs) return null;
  const history = published(epochs);
  const streams = new Map(epochs.live.map((epoch) => [epoch.epoch, epoch]));
  return (
    <section class="timeline" aria-labelledby="epochs">
      <h2 id="epochs">Epochs</h2>
      <ol>
        {[...history].reverse().map((record, i) => {
          const current = i === 0;
          const before = history[history.length - 2 - i];
          const holds = streams.get(record.epoch)?.sequences ?? 0;
          return (
            <li key={record.epoch} class={current ? "current" : ""} data-epoch={record.epoch}>
              <div class="when">
                <b>{record.epoch}</b>
                <span class="note">{day(record.time)} {clock(record.time)}</span>
              </div>
              <div class="what">
                <p>{changes(record, before)}</p>
                <p class="with">
                  {record.modules.length === 0 && <span class="note">backbone alone</span>}
                  {record.modules.map(({ name, version, enabled }) => (
                    <span key={name} class={enabled ? "tag" : "tag off"}>
                      <Swatch module={name} /> {name} {version}
                    </span>
                  ))}
                  {holds > 0 && <span class="note">{holds} {holds === 1 ? "stream" : "streams"}</span>}
                </p>
              </div>
              {current ? (
                <span class="state good">current</span>
              ) : (
                <button type="button" onClick={() => plan(rollback(record))} aria-label={`Roll back to epoch ${record.epoch}`}>
                  Roll back
                </button>
              )}
            </li>
          );
        })}
      </ol>
    </section>
  );
}
