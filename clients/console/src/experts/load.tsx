// Asks which module to load.
import { useState } from "preact/hooks";
import { live } from "../live";
import { Dialog } from "../parts/dialog";
import type { Module } from "../types";
import type { Wish } from "./plan";

/** Paths that modules had in earlier epochs and that are not loaded now. */
function knownPaths(): string[] {
  const { epochs, modules } = live.get();
  const loaded = new Set((modules?.modules ?? []).map(({ path }) => path));
  const all = (epochs?.history ?? []).flatMap((record) => record.modules.map(({ path }) => path));
  return [...new Set(all)].filter((path) => !loaded.has(path));
}

function wishOf(path: string, bias: number, replaces?: Module): Wish {
  const entry = { path, enabled: true, bias };
  return {
    title: replaces ? `Replace ${replaces.name}` : "Load an expert",
    action: replaces ? "Replace" : "Load",
    composition: (now) => {
      const at = now.modules.findIndex((other) => other.path === (replaces?.path ?? path));
      const next = [...now.modules];
      if (at >= 0) next[at] = { ...next[at]!, ...entry };
      else next.push(entry);
      return { ...now, modules: next };
    },
    call: "load",
    fields: { path, bias, ...(replaces ? { name: replaces.name } : {}) },
    movable: true,
  };
}

export function LoadForm(props: { replaces?: Module; onClose: () => void; onPlan: (wish: Wish) => void }) {
  const { replaces } = props;
  const [path, setPath] = useState(replaces?.path ?? "");
  const [bias, setBias] = useState(replaces?.bias ?? 0);
  const absolute = path.trim().startsWith("/");
  const known = knownPaths();
  return (
    <Dialog title={replaces ? `Replace ${replaces.name}` : "Load an expert"} onClose={props.onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (absolute) props.onPlan(wishOf(path.trim().replace(/(.)\/+$/, "$1"), bias, replaces));
        }}
      >
        <label>
          Directory of the module
          <input type="text" name="path" list="known" value={path} spellcheck={false} autocomplete="off"
            placeholder="/srv/chimera/modules/legal" aria-describedby="path-note"
            onInput={(event) => setPath(event.currentTarget.value)} />
        </label>
        <datalist id="known">
          {known.map((one) => <option key={one} value={one} />)}
        </datalist>
        <p class="note" id="path-note">An absolute path on the machine of the daemon.</p>
        <label>
          Bias
          <input type="number" name="bias" min="-100" max="100" step="0.1" value={bias}
            onChange={(event) => Number.isFinite(event.currentTarget.valueAsNumber) && setBias(event.currentTarget.valueAsNumber)} />
        </label>
        <div class="buttons">
          <button type="button" onClick={props.onClose}>Cancel</button>
          <button type="submit" class="primary" disabled={!absolute}>Show the plan</button>
        </div>
      </form>
    </Dialog>
  );
}
