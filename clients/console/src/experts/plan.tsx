// A change, with its plan shown before it is made.
import { useEffect, useState } from "preact/hooks";
import { ApiError, get, post } from "../api";
import { bytes } from "../format";
import { refreshAfter } from "../live";
import { Dialog } from "../parts/dialog";
import { Problem } from "../parts/problem";
import type { Composition, Modules, Plan } from "../types";

export interface Wish {
  title: string;
  action: string; // of the button
  /** The composition that it makes of the current one. */
  composition: (now: Composition) => Composition;
  /** The call that does it. */
  call: string;
  fields: Record<string, unknown>;
  warning?: string;
  /** Whether streams in progress may be moved along. */
  movable?: boolean;
}

export async function currentComposition(): Promise<Composition> {
  const { modules, top_k } = await get<Modules>("modules");
  const loaded = modules.filter(({ path }) => path !== undefined);
  return {
    ...(top_k === undefined ? {} : { top_k }),
    modules: loaded.map(({ path, enabled, bias }) => ({ path: path!, enabled, bias })),
  };
}

const kWords: Record<string, string> = {
  load: "Load", unload: "Unload", revoke: "Revoke", replace: "Replace", restart: "Restart", enable: "Enable",
  disable: "Disable", bias: "Change the bias of", reorder: "Reorder", top_k: "Experts per token",
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
        const made = await post<Plan>("plan", { composition: wish.composition(await currentComposition()) });
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
