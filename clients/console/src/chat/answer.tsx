import { count, milliseconds } from "../format";
import { Legend, ShareBar } from "../parts/bar";
import { Problem } from "../parts/problem";
import type { Answer } from "./conversation";
import { Tokens } from "./tokens";

/** Of the whole answer; while it grows, or when it was broken off, the mean of its tokens. */
function sharesOf(answer: Answer): Record<string, number> {
  if (Object.keys(answer.shares).length > 0) {
    return Object.fromEntries(Object.entries(answer.shares).filter(([, share]) => share > 0));
  }
  const sums: Record<string, number> = {};
  let total = 0;
  for (const { shares } of answer.pieces) {
    for (const [name, share] of Object.entries(shares)) {
      sums[name] = (sums[name] ?? 0) + share;
      total += share;
    }
  }
  return Object.fromEntries(Object.entries(sums).map(([name, sum]) => [name, sum / total]));
}

const kEnds: Record<string, string> = {
  length: "at its length limit",
  stop: "complete",
};

export function AnswerBox({ answer, label }: { answer: Answer; label: string }) {
  const shares = sharesOf(answer);
  // Several may come in one packet, so that only their mean says something.
  const gap = answer.tokens > 1 ? (answer.lastMs! - answer.firstMs!) / (answer.tokens - 1) : undefined;
  const busy = answer.state === "waiting" || answer.state === "streaming";
  return (
    <section class="answer" aria-label={label} data-state={answer.state}>
      <Tokens answer={answer} label={label} />
      <Problem error={answer.error} />
      {answer.pieces.length > 0 && (
        <footer>
          <ShareBar shares={shares} />
          <Legend shares={shares} />
          <p class="note">
            {count(answer.tokens)} tokens · epoch {answer.epoch}
            {answer.firstMs !== undefined && ` · first after ${milliseconds(answer.firstMs)}`}
            {gap !== undefined && ` · ${milliseconds(gap)} a token`}
            {answer.state === "stopped" && " · stopped"}
            {answer.state === "done" && ` · ${kEnds[answer.finish ?? ""] ?? answer.finish ?? ""}`}
          </p>
        </footer>
      )}
      <p class="unseen" role="status">
        {busy ? "" : answer.state === "done" ? `Answer of ${answer.tokens} tokens is complete` : `Answer ${answer.state}`}
      </p>
    </section>
  );
}
