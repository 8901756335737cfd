// Which experts a side asks: all there are, or some of them beside the backbone.
import { live } from "../live";
import { Swatch } from "../parts/bar";
import { conversation, change, type Choice } from "./conversation";

export function nameOf(choice: Choice): string {
  if (choice === null) return "All experts";
  return choice.length === 0 ? "Backbone alone" : choice.join(" + ");
}

export function CompositionPicker({ side, label }: { side: number; label: string }) {
  const { choices } = conversation.use();
  const { info, modules } = live.use();
  const choice = choices[side]!;
  const listed = modules?.modules ?? info?.modules ?? [];
  const names = listed.filter(({ enabled }) => enabled).map(({ name }) => name);
  const set = (next: Choice) => {
    const both: [Choice, Choice] = [...choices];
    both[side] = next;
    change({ choices: both });
  };
  const flip = (name: string) => {
    const chosen = choice ?? names;
    set(chosen.includes(name) ? chosen.filter((other) => other !== name) : [...chosen, name]);
  };
  // What was chosen and is not there any more is shown as such: to ask for it is an error.
  const gone = (choice ?? []).filter((name) => !names.includes(name));
  return (
    <div class="picker" role="group" aria-label={label}>
      <button type="button" class="chip" aria-pressed={choice === null} onClick={() => set(choice === null ? [] : null)}>
        All
      </button>
      {[...names, ...gone].map((name) => (
        <button
          key={name}
          type="button"
          class={gone.includes(name) ? "chip lost" : "chip"}
          aria-pressed={choice === null || choice.includes(name)}
          title={gone.includes(name) ? "not loaded" : undefined}
          onClick={() => flip(name)}
        >
          <Swatch module={name} />
          {name}
        </button>
      ))}
      {names.length === 0 && <span class="note">no expert is loaded: the backbone answers alone</span>}
    </div>
  );
}
