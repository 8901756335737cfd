// Asks which module to load.
import { useState } from "preact/hooks";
import { live } from "../live";
import { Dialog } from "../parts/dialog";
import type { Entry, Module } from "../types";
import type { Wish } from "./plan";

/** Paths that modules had in earlier epochs and that are not loaded now. */
function knownPaths(): string[] {
  const { epochs, modules } = live.get();
  const loaded = new Set((modules?.modules ?? []).map(({ path }) => path));
  const all = (epochs?.history ?? []).flatMap((record) => record.modules.map(({ path }) => path));
  return [...new Set(all)].filter((path) => !loaded.has(path));
}

/** `precision` "": as the one of its name has it now, else as its manifest or the deployment says. */
function wishOf(path: string, bias: number, precision: string, replaces?: Module): Wish {
  const chosen = precision === "" ? {} : { precision };
  return {
    title: replaces ? `Replace ${replaces.name}` : "Load an expert",
    action: replaces ? "Replace" : "Load",
    inherited: precision === "" ? ["precision", "weight"] : ["weight"],
    composition: (now, without) => {
      const at = now.modules.findIndex((other) => other.path === (replaces?.path ?? path));
      const next = [...now.modules];
      // As `load` does: what is replaced stays enabled or not, and in its precision and of its weight
      // where what comes in takes one; an assembly begins with the coefficients of its recipe.
      const { lambda: _, ...kept }: Omit<Entry, "path" | "bias"> = next[at] ?? { enabled: true };
      for (const option of without) delete kept[option];
      const entry = { ...kept, ...chosen, path, bias };
      if (at >= 0) next[at] = entry;
      else next.push(entry);
      return { ...now, modules: next };
    },
    call: "load",
    fields: { path, bias, ...chosen, ...(replaces ? { name: replaces.name } : {}) },
    movable: true,
  };
}

export function LoadForm(props: { replaces?: Module; onClose: () => void; onPlan: (wish: Wish) => void }) {
  const { replaces } = props;
  const [path, setPath] = useState(replaces?.path ?? "");
  const [bias, setBias] = useState(replaces?.bias ?? 0);
  const [precision, setPrecision] = useState("");
  const absolute = path.trim().startsWith("/");
  const known = knownPaths();
  return (
    <Dialog title={replaces ? `Replace ${replaces.name}` : "Load an expert"} onClose={props.onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (absolute) props.onPlan(wishOf(path.trim().replace(/(.)\/+$/, "$1"), bias, precision, replaces));
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
        <label>
          Precision of its experts
          <select name="precision" value={precision} onChange={(event) => setPrecision(event.currentTarget.value)}>
            <option value="">{replaces ? "as it is" : "as the module or the deployment says"}</option>
            {["f32", "bf16", "q8", "q4"].map((one) => <option key={one} value={one}>{one}</option>)}
          </select>
        </label>
        <div class="buttons">
          <button type="button" onClick={props.onClose}>Cancel</button>
          <button type="submit" class="primary" disabled={!absolute}>Show the plan</button>
        </div>
      </form>
    </Dialog>
  );
}
