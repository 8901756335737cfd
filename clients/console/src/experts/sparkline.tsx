import { colorOf } from "../colors";

/** Shares over time, 0 to 1 from bottom to top. */
export function Sparkline({ values, module }: { values: number[]; module: string }) {
  const x = (i: number) => (values.length > 1 ? (i / (values.length - 1)) * 200 : 0);
  const y = (value: number) => 31 - value * 30;
  const line = values.map((value, i) => `${i === 0 ? "M" : "L"}${x(i).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  return (
    <svg class="spark" viewBox="0 0 200 32" preserveAspectRatio="none" aria-hidden="true"
      style={{ color: colorOf(module) }}>
      <path class="ground" d="M0 31.500H200" />
      {values.length > 1 && (
        <>
          <path class="area" d={`${line}L200 31L0 31Z`} />
          <path class="line" d={line} />
        </>
      )}
    </svg>
  );
}
