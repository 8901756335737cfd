import { ApiError } from "../api";

/** What went wrong, in the gateway's words. */
export function Problem({ error }: { error: unknown }) {
  if (!error) return null;
  const hint = error instanceof ApiError ? error.hint : "";
  return (
    <div class="problem" role="alert">
      <p>{error instanceof Error ? error.message : String(error)}</p>
      {hint && <p class="hint">{hint}</p>}
    </div>
  );
}
