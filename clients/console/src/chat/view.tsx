// The chat: a prompt for one composition, or for two beside one another.
import { useEffect, useRef, useState } from "preact/hooks";
import { live } from "../live";
import { icons } from "../parts/icons";
import { AnswerBox } from "./answer";
import { CompositionPicker, nameOf } from "./composition";
import {
  change, conversation, isRunning, lacksTemplate, regenerate, send, startAnew, stop, type Turn,
} from "./conversation";

const kExamples = ["The Borrower shall", "The patient was given", "In the beginning"];

function TurnBox({ turn, number }: { turn: Turn; number: number }) {
  const { choices, compare } = conversation.use();
  const sides = turn.answers.length;
  return (
    <article class="turn" aria-label={`Turn ${number}`}>
      <p class="prompt">
        <span class="unseen">You: </span>
        {turn.prompt}
      </p>
      <div class={sides > 1 ? "answers two" : "answers"}>
        {turn.answers.map((answers, side) => (
          <AnswerBox
            key={side}
            answer={answers.at(-1)!}
            label={sides > 1 || compare ? `Answer ${"AB"[side]} ${nameOf(choices[side]!)}` : "Answer"}
          />
        ))}
      </div>
    </article>
  );
}

function Settings() {
  const { settings } = conversation.use();
  const set = (part: Partial<typeof settings>) => change({ settings: { ...settings, ...part } });
  const number = (event: Event) => (event.currentTarget as HTMLInputElement).valueAsNumber;
  return (
    <details class="settings">
      <summary>
        <icons.sliders /> Sampling
      </summary>
      <div class="fields">
        <label>
          Tokens at most
          <input type="number" min="1" max="100000" value={settings.maxTokens} name="max-tokens"
            onChange={(event) => number(event) >= 1 && set({ maxTokens: Math.round(number(event)) })} />
        </label>
        <label>
          Temperature
          <input type="number" min="0" max="5" step="0.1" value={settings.temperature} name="temperature"
            onChange={(event) => number(event) >= 0 && set({ temperature: number(event) })} />
        </label>
        <label>
          Seed
          <input type="number" min="0" step="1" value={settings.seed} name="seed" placeholder="random"
            onChange={(event) => set({ seed: event.currentTarget.value })} />
        </label>
      </div>
    </details>
  );
}

function Composer() {
  const [text, type] = useState("");
  const field = useRef<HTMLTextAreaElement>(null);
  const busy = isRunning();
  const submit = (event?: Event) => {
    event?.preventDefault();
    if (busy || !text.trim()) return;
    send(text);
    type("");
    field.current!.focus();
  };
  return (
    <form class="composer" onSubmit={submit}>
      <textarea
        ref={field}
        rows={2}
        value={text}
        aria-label="Prompt"
        placeholder={lacksTemplate() ? "A text to continue" : "A message"}
        onInput={(event) => type(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event);
        }}
      />
      {busy ? (
        <button type="button" class="round" onClick={stop} aria-label="Stop" title="Stop">
          <icons.stop />
        </button>
      ) : (
        <button type="submit" class="round" disabled={!text.trim()} aria-label="Send" title="Send (Enter)">
          <icons.send />
        </button>
      )}
    </form>
  );
}

/** Stays at the end while it grows, unless somebody scrolled up to read. */
function useFollowing(version: unknown) {
  const box = useRef<HTMLDivElement>(null);
  const following = useRef(true);
  useEffect(() => {
    if (following.current) box.current!.scrollTop = box.current!.scrollHeight;
  }, [version]);
  const onScroll = () => {
    const { scrollTop, scrollHeight, clientHeight } = box.current!;
    following.current = scrollHeight - scrollTop - clientHeight < 40;
  };
  return { box, onScroll };
}

function Beginning() {
  const busy = isRunning();
  return (
    <div class="beginning">
      <h2>Ask, and see who answers</h2>
      <p>
        Every token takes the colour of the expert module that answered it; grey is the backbone. Point at one, or
        focus an answer and use the arrow keys, to read its shares.
      </p>
      <div class="examples">
        {kExamples.map((example) => (
          <button key={example} type="button" class="chip" disabled={busy} onClick={() => send(example)}>
            {example} …
          </button>
        ))}
      </div>
    </div>
  );
}

export function ChatView() {
  const now = conversation.use();
  live.use(); // the template, and which modules there are
  const { box, onScroll } = useFollowing(now);
  const busy = isRunning();
  return (
    <div class="chat">
      <div class="chathead">
        <h1>Chat</h1>
        <div class="actions">
          <button type="button" class="chip" aria-pressed={now.compare} disabled={busy}
            onClick={() => change({ compare: !now.compare })}>
            <icons.compare /> Compare
          </button>
          <button type="button" class="chip" disabled={busy || now.turns.length === 0} onClick={regenerate}>
            <icons.again /> Regenerate
          </button>
          <button type="button" class="chip" disabled={now.turns.length === 0} onClick={startAnew}>
            <icons.fresh /> New
          </button>
        </div>
        <div class={now.compare ? "pickers two" : "pickers"}>
          {(now.compare ? [0, 1] : [0]).map((side) => (
            <div class="sidehead" key={side}>
              {now.compare && <b>{"AB"[side]}</b>}
              <CompositionPicker side={side} label={now.compare ? `Experts of side ${"AB"[side]}` : "Experts"} />
            </div>
          ))}
        </div>
        {lacksTemplate() && (
          <p class="note template">
            This checkpoint has no chat template: each prompt is continued as plain text, on its own.
          </p>
        )}
      </div>
      <div class="turns" ref={box} onScroll={onScroll} tabIndex={0} role="region" aria-label="Conversation">
        {now.turns.length === 0 && <Beginning />}
        {now.turns.map((turn, i) => (
          <TurnBox key={i} turn={turn} number={i + 1} />
        ))}
      </div>
      <div class="ask">
        <Composer />
        <Settings />
      </div>
    </div>
  );
}
