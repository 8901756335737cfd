// Asks for a key.
import { useState } from "preact/hooks";
import { refusedKey } from "./api";
import { setKey } from "./key";
import { refresh } from "./live";

export function Gate() {
  const [typed, type] = useState("");
  const refused = refusedKey.use();
  const enter = (event: Event) => {
    event.preventDefault();
    if (!typed.trim()) return;
    refusedKey.set("");
    setKey(typed.trim());
    void refresh();
  };
  return (
    <main class="gate">
      <form class="card" onSubmit={enter}>
        <img src="/icon.svg" alt="" width="40" height="40" />
        <h1>Chimera</h1>
        <p>
          This page needs a key of the gateway. The administrator's lies in the file that{" "}
          <code>chimera-gateway</code> names when it starts.
        </p>
        <label>
          Key
          <input
            type="password"
            name="key"
            autocomplete="off"
            spellcheck={false}
            value={typed}
            aria-describedby={refused ? "refused" : undefined}
            aria-invalid={refused ? true : undefined}
            onInput={(event) => type(event.currentTarget.value)}
          />
        </label>
        {refused && (
          <p id="refused" class="problem" role="alert">
            {refused}
          </p>
        )}
        <button class="primary" type="submit">
          Open
        </button>
        <p class="note">It stays in this tab until you close it.</p>
      </form>
    </main>
  );
}
