// A change, with its plan shown before it is made.
import { useEffect, useState } from "preact/hooks";
import { ApiError, get, post } from "../api";
import { bytes } from "../format";
import { refreshAfter } from "../live";
import { Dialog } from "../parts/dialog";
import { Problem } from "../parts/problem";
import type { Composition, Entry, EpochModule, EpochRecord, Epochs, Modules, Plan } from "../types";

/** Which not every kind of module takes. */
export type Option = "precision" | "weight";

export interface Wish {
  title: string;
  action: string; // of the button
  /** The composition that it makes of the current one; `without` these options of what is replaced. */
  composition: (now: Composition, without: Option[]) => Composition;
  /** What it takes over of what is replaced, where what comes in takes such a thing. */
  inherited?: Option[];
  /** The call that does it. */
  call: string;
  fields: Record<string, unknown>;
  warning?: string;
  /** Whether streams in progress may be moved along. */
  movable?: boolean;
}

/** All that a composition says of a recorded module. */
export function entryOf({ name: _name, version: _version, ...entry }: EpochModule): Entry {
  return entry;
}

/** The youngest last. A record is there before its epoch is published, which may fail. */
export function published({ history, epoch }: Epochs): EpochRecord[] {
  return history.filter((record) => record.epoch <= epoch);
}

/** What is loaded; coefficients and precisions as they are recorded, for `modules` tells those in force. */
export async function currentComposition(): Promise<Composition> {
  const [{ modules, top_k }, epochs] = await Promise.all([get<Modules>("modules"), get<Epochs>("epochs")]);
  const recorded = new Map(published(epochs).at(-1)?.modules.map((module) => [module.name, module]));
  const loaded = modules.filter(({ path }) => path !== undefined);
  return {
    ...(top_k === undefined ? {} : { top_k }),
    modules: loaded.map(({ name, version, path, enabled, bias }) =>
      entryOf({ ...recorded.get(name), name, version, path: path!, enabled, bias })),
  };
}

/** Of which kind a module is the daemon alone knows: its refusal names the option that this kind does not take. */
async function planOf(wish: Wish): Promise<Plan> {
  const now = await currentComposition();
  const without: Option[] = [];
  for (;;) {
    const plan = await post<Plan>("plan", { composition: wish.composition(now, without) });
    const unwanted = wish.inherited?.find((option) => !without.includes(option) &&
      plan.refusals.some(({ message }) => new RegExp(`: ${option}: found \\S+ \\(expected none`).test(message)));
    if (unwanted === undefined) return plan;
    without.push(unwanted);
  }
}

const kWords: Record<string, string> = {
  load: "Load", unload: "Unload", revoke: "Revoke", replace: "Replace", restart: "Restart", enable: "Enable",
  disable: "Disable", bias: "Change the bias of", blend: "Blend", precision: "Change the precision of",
  weight: "Change the weight of", reorder: "Reorder", top_k: "Experts per token",
};

function PlanList({ plan }: { plan: Plan }) {
  return (
    <>
      {plan.changes.length === 0 && plan.accepted && <p>Nothing would change: all is so already.</p>}
      <ul class="plan">
        {plan.changes.map((change) => (
          <li key={change.action + change.module}>
            <b>{kWords[change.action] ?? change.action}</b> {change.module} <span class="note">{change.detail}</span>
          </li>
        ))}
      </ul>
      {plan.memory_bytes > 0 && <p class="note">{bytes(plan.memory_bytes)} more memory while both compositions live.</p>}
      {plan.notes.map((note) => (
        <p class="note" key={note}>{note}</p>
      ))}
      {plan.refusals.map((refusal) => (
        <Problem key={refusal.message} error={new ApiError(422, refusal.code, refusal.message, refusal.hint)} />
      ))}
    </>
  );
}

export function PlanDialog({ wish, onClose }: { wish: Wish; onClose: () => void }) {
  const [plan, show] = useState<Plan | null>(null);
  const [error, fail] = useState<unknown>(null);
  const [busy, work] = useState(false);
  const [move, setMove] = useState(false);
  useEffect(() => {
    let here = true;
    void (async () => {
      try {
        const made = await planOf(wish);
        if (here) show(made);
      } catch (problem) {
        if (here) fail(problem);
      }
    })();
    return () => void (here = false);
  }, [wish]);
  const apply = async () => {
    work(true);
    try {
      await post(wish.call, { ...wish.fields, ...(move ? { in_flight: "restart" } : {}) });
      await refreshAfter();
      onClose();
    } catch (problem) {
      fail(problem);
      work(false);
    }
  };
  return (
    <Dialog title={wish.title} onClose={onClose}>
      {!plan && !error && <p class="thinking" role="status">Making the plan …</p>}
      {plan && <PlanList plan={plan} />}
      {wish.warning && <p class="warning">{wish.warning}</p>}
      {wish.movable && plan?.accepted && (
        <label class="check">
          <input type="checkbox" checked={move} onChange={(event) => setMove(event.currentTarget.checked)} />
          Move streams in progress along, instead of letting them finish on their epoch
        </label>
      )}
      <Problem error={error} />
      <div class="buttons">
        <button type="button" onClick={onClose}>Cancel</button>
        <button type="button" class="primary" disabled={busy || !plan?.accepted} onClick={apply}>
          {busy ? "Working …" : wish.action}
        </button>
      </div>
    </Dialog>
  );
}
