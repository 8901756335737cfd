// An answer, token by token, each in the colour of the module that answered it.
//
// Below every token is a bar of its shares, behind it the colour of the module (not the backbone)
// that had most, the stronger the more it had. Point at a token, or go through them with the arrow
// keys, to read its shares.
import { Component } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { bySize, colorOf } from "../colors";
import { percent } from "../format";
import { Swatch } from "../parts/bar";
import type { Answer, Piece } from "./conversation";

const kRun = 40; // tokens drawn as one, so that a new one does not draw all of them again

function bar(shares: Record<string, number>): string {
  let at = 0;
  const stops = bySize(shares).map(([name, share]) => {
    const from = at;
    at += share * 100;
    return `${colorOf(name)} ${from.toFixed(1)}% ${at.toFixed(1)}%`;
  });
  return `linear-gradient(90deg, ${stops.join(", ")})`;
}

function Token({ piece, index, marked }: { piece: Piece; index: number; marked: boolean }) {
  const [top] = bySize(piece.shares);
  const module = top && top[0] !== "backbone" ? top : undefined;
  return (
    <span
      class={marked ? "token marked" : "token"}
      data-at={index}
      data-module={module?.[0] ?? "backbone"}
      style={{
        "--bar": top ? bar(piece.shares) : "none",
        "--tint": module ? colorOf(module[0]) : "transparent",
        "--weight": (module?.[1] ?? 0).toFixed(3),
      }}
    >
      {piece.text}
    </span>
  );
}

interface RunProps {
  pieces: Piece[];
  from: number;
  length: number;
  marked: number; // -1: none of these
}

class Run extends Component<RunProps> {
  override shouldComponentUpdate(next: RunProps) {
    const now = this.props;
    return next.pieces !== now.pieces || next.length !== now.length || next.marked !== now.marked;
  }
  override render({ pieces, from, length, marked }: RunProps) {
    return (
      <>
        {pieces.slice(from, from + length).map((piece, i) => (
          <Token key={from + i} piece={piece} index={from + i} marked={marked === from + i} />
        ))}
      </>
    );
  }
}

function inWords(piece: Piece): string {
  const shares = bySize(piece.shares).map(([name, share]) => `${name} ${percent(share)}`);
  return `“${piece.text.trim() || "space"}”: ${shares.join(", ") || "no shares known"}, epoch ${piece.epoch}`;
}

function Tip({ piece, at }: { piece: Piece; at: DOMRect }) {
  const tip = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const box = tip.current!.getBoundingClientRect();
    const left = Math.max(8, Math.min(at.left + at.width / 2 - box.width / 2, innerWidth - box.width - 8));
    const above = at.top - box.height - 8;
    tip.current!.style.left = `${left}px`;
    tip.current!.style.top = `${above > 4 ? above : at.bottom + 8}px`;
  });
  return (
    <div class="tip" ref={tip} aria-hidden="true">
      <code>{piece.text.replaceAll("\n", "⏎").replaceAll(" ", "·")}</code>
      <ul>
        {bySize(piece.shares).map(([name, share]) => (
          <li key={name}>
            <Swatch module={name} /> {name} <b>{(share * 100).toFixed(1)} %</b>
          </li>
        ))}
      </ul>
      <span class="note">epoch {piece.epoch}</span>
    </div>
  );
}

export function Tokens({ answer, label }: { answer: Answer; label: string }) {
  const box = useRef<HTMLDivElement>(null);
  const [at, go] = useState(-1);
  const [rect, place] = useState<DOMRect | null>(null);
  const { pieces } = answer;
  const show = (index: number) => {
    const token = box.current!.querySelector(`[data-at="${index}"]`);
    go(token ? index : -1);
    place(token ? token.getClientRects()[0] ?? null : null);
  };
  const hide = () => show(-1);
  const keys = (event: KeyboardEvent) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
    if (event.key === "Escape") hide();
    if (step === undefined || pieces.length === 0) return;
    event.preventDefault();
    show(Math.max(0, Math.min(pieces.length - 1, at + step)));
  };
  const runs = [];
  for (let from = 0; from < pieces.length; from += kRun) {
    const within = at >= from && at < from + kRun;
    runs.push(
      <Run key={from} pieces={pieces} from={from} length={Math.min(kRun, pieces.length - from)} marked={within ? at : -1} />,
    );
  }
  const piece = at >= 0 ? pieces[at] : undefined;
  return (
    <>
      <div
        ref={box}
        class="tokens"
        role="group"
        tabIndex={0}
        aria-label={`${label}; arrow keys read the shares of each token`}
        onKeyDown={keys}
        onBlur={hide}
        onPointerOver={(event) => {
          const token = (event.target as Element).closest<HTMLElement>(".token");
          if (token) show(Number(token.dataset.at));
        }}
        onPointerLeave={hide}
      >
        {runs}
        {answer.state === "waiting" && <span class="thinking">…</span>}
        {answer.state === "streaming" && <span class="caret" aria-hidden="true" />}
      </div>
      <div class="unseen" aria-live="polite">
        {piece && document.activeElement === box.current ? inWords(piece) : ""}
      </div>
      {piece && rect && <Tip piece={piece} at={rect} />}
    </>
  );
}
