// Shares of modules as one bar, and as a legend in words.
import { bySize, colorOf } from "../colors";
import { percent } from "../format";

export function ShareBar({ shares }: { shares: Record<string, number> }) {
  return (
    <div class="sharebar" aria-hidden="true">
      {bySize(shares).map(([name, share]) => (
        <i key={name} style={{ "flex-grow": share, background: colorOf(name) }} />
      ))}
    </div>
  );
}

export function Swatch({ module }: { module: string }) {
  return <i class="swatch" style={{ background: colorOf(module) }} aria-hidden="true" />;
}

export function Legend({ shares }: { shares: Record<string, number> }) {
  return (
    <ul class="legend">
      {bySize(shares).map(([name, share]) => (
        <li key={name}>
          <Swatch module={name} />
          {name} <b>{percent(share)}</b>
        </li>
      ))}
    </ul>
  );
}
