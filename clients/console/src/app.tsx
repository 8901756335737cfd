// The frame: navigation, where the connection stands, and one of the views.
import { useEffect, useState } from "preact/hooks";
import { ChatView } from "./chat/view";
import { ExpertsView } from "./experts/view";
import { Gate } from "./gate";
import { forgetKey, key, takeKeyFromAddress } from "./key";
import { live, refresh } from "./live";
import { MachineView } from "./machine/view";
import { icons } from "./parts/icons";
import { RoutingView } from "./routing/view";
import { dark, switchTheme } from "./theme";

const kViews = [
  { id: "chat", name: "Chat", view: ChatView, needs: false },
  { id: "experts", name: "Experts", view: ExpertsView, needs: true },
  { id: "routing", name: "Routing", view: RoutingView, needs: true },
  { id: "machine", name: "Machine", view: MachineView, needs: true },
] as const;

function useView() {
  const find = (): (typeof kViews)[number] => kViews.find(({ id }) => location.hash === `#${id}`) ?? kViews[0];
  const [view, show] = useState(find);
  useEffect(() => {
    const changed = () => {
      if (takeKeyFromAddress()) void refresh();
      show(find());
    };
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  useEffect(() => {
    document.title = `${view.name} · Chimera`;
  }, [view]);
  return view;
}

const kStates = {
  starting: ["wait", "Connecting"],
  ok: ["good", "Serving"],
  forbidden: ["good", "Connected"],
  "daemon gone": ["bad", "Daemon gone"],
  "gateway gone": ["bad", "Gateway gone"],
};

function Connection() {
  const { state, info, stats } = live.use();
  const [tone, name] = stats?.server.draining && state === "ok" ? ["wait", "Draining"] : kStates[state];
  return (
    <div class="connection">
      <span class={`state ${tone}`} role="status">
        {name}
      </span>
      {info && state === "ok" && (
        <span class="what">
          {info.model_type} · {info.precision} · epoch {info.epoch}
        </span>
      )}
    </div>
  );
}

/** Says that what is shown is old, and why. */
function Gone() {
  const { state, problem } = live.use();
  if (state !== "daemon gone" && state !== "gateway gone") return null;
  return (
    <div class="gone" role="alert">
      <b>{state === "daemon gone" ? "The daemon is not there." : "The gateway is not there."}</b> {problem} The
      page goes on by itself when it is back.
    </div>
  );
}

function NotPermitted({ name }: { name: string }) {
  return (
    <div class="page">
      <h1>{name}</h1>
      <p class="empty">
        This key may not look at what is loaded. A key with the right <code>observe</code> may.
      </p>
    </div>
  );
}

export function App() {
  const known = key.use();
  const view = useView();
  const isDark = dark.use();
  const { state } = live.use();
  if (!known) return <Gate />;
  const View = view.view;
  return (
    <div class="frame">
      <a class="skip" href="#main" onClick={(event) => {
        event.preventDefault();
        document.getElementById("main")!.focus();
      }}>
        Skip to the content
      </a>
      <header class="side">
        <div class="brand">
          <img src="/icon.svg" alt="" width="28" height="28" />
          <span>Chimera</span>
        </div>
        <nav aria-label="Views">
          {kViews.map(({ id, name }) => {
            const Icon = icons[id];
            return (
              <a key={id} href={`#${id}`} aria-current={view.id === id ? "page" : undefined}>
                <Icon />
                {name}
              </a>
            );
          })}
        </nav>
        <div class="foot">
          <Connection />
          <div class="tools">
            <button type="button" class="quiet" onClick={switchTheme} title={isDark ? "Light" : "Dark"}
              aria-label={isDark ? "Change to light colours" : "Change to dark colours"}>
              {isDark ? <icons.sun /> : <icons.moon />}
            </button>
            <button type="button" class="quiet" onClick={forgetKey} title="Forget the key" aria-label="Forget the key">
              <icons.leave />
            </button>
          </div>
        </div>
      </header>
      <main id="main" tabIndex={-1}>
        <Gone />
        {view.needs && state === "forbidden" ? <NotPermitted name={view.name} /> : <View />}
      </main>
    </div>
  );
}
