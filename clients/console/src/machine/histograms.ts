// The gateway's histograms (docs/metrics.md), read out of its text for Prometheus.
import { useEffect, useState } from "preact/hooks";
import { ApiError, request } from "../api";
import { live } from "../live";

/** Upper bounds in seconds, and how many were at most that long. */
export type Histogram = [bound: number, count: number][];

/** Of all labels together. */
export function readHistogram(text: string, name: string): Histogram {
  const sums = new Map<number, number>();
  const line = new RegExp(`^${name}_bucket\\{.*le="([^"]+)".*\\} (\\S+)`, "gm");
  for (const [, bound, count] of text.matchAll(line)) {
    const at = bound === "+Inf" ? Infinity : Number(bound);
    sums.set(at, (sums.get(at) ?? 0) + Number(count));
  }
  return [...sums].sort(([a], [b]) => a - b);
}

export const total = (histogram: Histogram): number => histogram.at(-1)?.[1] ?? 0;

/** As Prometheus' histogram_quantile: even within a bucket; the last bound for what is beyond. */
export function quantile(histogram: Histogram, fraction: number): number | undefined {
  const rank = fraction * total(histogram);
  if (rank === 0) return undefined;
  let [from, below] = [0, 0];
  for (const [bound, count] of histogram) {
    if (count >= rank) {
      if (bound === Infinity) return from;
      return from + (bound - from) * ((rank - below) / (count - below));
    }
    [from, below] = [bound, count];
  }
  return from;
}

/** The text of /metrics, read again whenever the page looks at the daemon. */
export function useMetrics(): string {
  const { samples } = live.use();
  const [text, set] = useState("");
  useEffect(() => {
    let here = true;
    void (async () => {
      try {
        const read = await (await request("/metrics")).text();
        if (here) set(read);
      } catch (problem) {
        if (!(problem instanceof ApiError)) throw problem; // the frame tells of those
      }
    })();
    return () => void (here = false);
  }, [samples]);
  return text;
}
