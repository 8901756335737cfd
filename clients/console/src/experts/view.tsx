// Modules: what is loaded, how much each is used, and what can be changed about it.
import { useState } from "preact/hooks";
import { blendText, bytes, count, percent } from "../format";
import { live, sampleAgo, sharesBetween } from "../live";
import { ShareBar, Swatch } from "../parts/bar";
import type { Module } from "../types";
import { LoadForm } from "./load";
import { PlanDialog, type Wish } from "./plan";
import { Sparkline } from "./sparkline";
import { Timeline } from "./timeline";

/** The share of a module in up to `points` equal parts of the last hour that the page has seen. */
function history(name: string, points: number): number[] {
  const { samples } = live.get();
  const recent = samples.filter(({ time }) => time > Date.now() - 3_600_000);
  const step = Math.max(1, Math.ceil(recent.length / points));
  const out: number[] = [];
  for (let i = step; i < recent.length; i += step) {
    out.push(sharesBetween(recent[i - step], recent[i])[name] ?? 0);
  }
  return out;
}

function tokensOf(name: string): number {
  const layers = live.get().routing?.layers ?? [];
  return Math.max(0, ...layers.map((layer) => (layer.modules[name]?.experts ?? []).reduce((a, b) => a + b, 0)));
}

export function biasWish(module: { name: string; path?: string }, value: number): Wish {
  return {
    title: `Bias of ${module.name}: ${value.toFixed(1)}`,
    action: "Set bias",
    composition: (now) => ({
      ...now,
      modules: now.modules.map((entry) => (entry.path === module.path ? { ...entry, bias: value } : entry)),
    }),
    call: "bias",
    fields: { name: module.name, value },
  };
}

function without(module: Module, call: "unload" | "revoke"): Wish {
  return {
    title: call === "unload" ? `Unload ${module.name}` : `Revoke ${module.name}`,
    action: call === "unload" ? "Unload" : "Revoke",
    composition: (now) => ({ ...now, modules: now.modules.filter(({ path }) => path !== module.path) }),
    call,
    fields: { name: module.name },
    warning:
      call === "unload"
        ? "Streams in progress finish with it; new ones do without."
        : "It leaves every stream at once, and no rollback brings it back; only loading it again does.",
  };
}

function switched(module: Module): Wish {
  const enabled = !module.enabled;
  return {
    title: enabled ? `Enable ${module.name}` : `Disable ${module.name}`,
    action: enabled ? "Enable" : "Disable",
    composition: (now) => ({
      ...now,
      modules: now.modules.map((entry) => (entry.path === module.path ? { ...entry, enabled } : entry)),
    }),
    call: enabled ? "enable" : "disable",
    fields: { name: module.name },
  };
}

const kTones: Record<string, string> = {
  active: "good", disabled: "idle", loading: "wait", retiring: "wait", restarting: "wait",
};

function BiasKnob({ module, plan }: { module: Module; plan: (wish: Wish) => void }) {
  const [value, set] = useState<number | null>(null);
  const shown = value ?? module.bias;
  return (
    <div class="bias">
      <label>
        Bias
        <input type="range" min="-4" max="4" step="0.1" value={shown} aria-label={`Bias of ${module.name}`}
          onInput={(event) => set(event.currentTarget.valueAsNumber)} />
        <output>{shown.toFixed(1)}</output>
      </label>
      <button type="button" disabled={value === null || value === module.bias}
        onClick={() => (plan(biasWish(module, shown)), set(null))}>
        Set
      </button>
    </div>
  );
}

function Figures({ module }: { module: Module }) {
  const { samples } = live.use();
  const now = sharesBetween(sampleAgo(samples, 30), samples.at(-1));
  const hour = sharesBetween(sampleAgo(samples, 3600), samples.at(-1));
  const minutes = samples.length > 1 ? (Date.now() - samples[0]!.time) / 60_000 : 0;
  const library = module.library;
  return (
    <dl class="figures">
      <div><dt>Share, 30 s</dt><dd>{module.name in now ? percent(now[module.name]!) : "–"}</dd></div>
      <div>
        <dt>{minutes >= 59 ? "Share, 1 h" : `Share, ${Math.max(1, Math.round(minutes))} min`}</dt>
        <dd>{module.name in hour ? percent(hour[module.name]!) : "–"}</dd>
      </div>
      <div><dt>Tokens</dt><dd>{count(tokensOf(module.name))}</dd></div>
      <div><dt>Memory</dt><dd>{bytes(module.resident_bytes)}</dd></div>
      <div><dt>Experts</dt><dd>{module.experts}</dd></div>
      {module.precision && <div><dt>Precision</dt><dd>{module.precision}</dd></div>}
      {module.lambda && <div><dt>Parents</dt><dd>{blendText(module.lambda)}</dd></div>}
      <div>
        <dt>Isolation</dt>
        <dd>{library ? `${library.isolation}, ${library.state}` : "no code"}</dd>
      </div>
      <div><dt>Errors</dt><dd>{library ? `${library.failures} of ${count(library.calls)} calls` : "0"}</dd></div>
      {library && <div><dt>Restarts</dt><dd>{library.restarts}</dd></div>}
    </dl>
  );
}

function ModuleCard({ module, plan, replace }: {
  module: Module;
  plan: (wish: Wish) => void;
  replace: (module: Module) => void;
}) {
  const fixed = module.path === undefined; // on its way in or out
  return (
    <li class="card module" data-module={module.name} data-enabled={module.enabled}>
      <header>
        <h3>
          <Swatch module={module.name} />
          {module.name} <span class="version">{module.version}</span>
        </h3>
        <span class={`state ${kTones[module.state] ?? "bad"}`}>{module.state}</span>
      </header>
      <p class="about">{module.description || module.domain}</p>
      <Sparkline values={history(module.name, 60)} module={module.name} />
      <Figures module={module} />
      {module.library?.last_error && <p class="problem">{module.library.last_error}</p>}
      <p class="path" title={module.digest}>{module.path ?? ""}</p>
      {!fixed && (
        <>
          <BiasKnob module={module} plan={plan} />
          <div class="actions">
            <button type="button" onClick={() => plan(switched(module))}>{module.enabled ? "Disable" : "Enable"}</button>
            <button type="button" onClick={() => replace(module)}>Replace</button>
            <button type="button" onClick={() => plan(without(module, "unload"))}>Unload</button>
            <button type="button" class="danger" onClick={() => plan(without(module, "revoke"))}>Revoke</button>
          </div>
        </>
      )}
    </li>
  );
}

function Now() {
  const { samples, info } = live.use();
  const shares = sharesBetween(sampleAgo(samples, 30), samples.at(-1));
  const quiet = Object.keys(shares).length === 0;
  return (
    <div class="now">
      <ShareBar shares={quiet ? { backbone: 1 } : shares} />
      <p class="note">
        {quiet
          ? "Nothing was computed in the last 30 s."
          : Object.entries(shares).sort(([, a], [, b]) => b - a).map(([name, s]) => `${name} ${percent(s)}`).join(" · ")}
        {info && ` · ${info.top_k} experts a token`}
      </p>
    </div>
  );
}

export function ExpertsView() {
  const { modules, state } = live.use();
  const [wish, plan] = useState<Wish | null>(null);
  const [loading, load] = useState<{ replaces?: Module } | null>(null);
  const list = modules?.modules ?? [];
  return (
    <div class="page">
      <div class="title">
        <h1>Experts</h1>
        <button type="button" class="primary" onClick={() => load({})} disabled={state !== "ok"}>
          Load an expert
        </button>
      </div>
      <Now />
      <h2 class="unseen">Modules</h2>
      {modules && list.length === 0 && (
        <p class="empty">No expert is loaded: the backbone answers alone.</p>
      )}
      <ul class="modules">
        {list.map((module) => (
          <ModuleCard key={`${module.name} ${module.state}`} module={module} plan={plan}
            replace={(replaces) => load({ replaces })} />
        ))}
      </ul>
      <Timeline plan={plan} />
      {loading && (
        <LoadForm
          {...(loading.replaces ? { replaces: loading.replaces } : {})}
          onClose={() => load(null)}
          onPlan={(next) => (load(null), plan(next))}
        />
      )}
      {wish && <PlanDialog wish={wish} onClose={() => plan(null)} />}
    </div>
  );
}
