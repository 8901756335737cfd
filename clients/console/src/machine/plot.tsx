// A plot over time. uPlot draws it; colours are those of the page.
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import { dark } from "../theme";

export interface Line {
  name: string;
  color: string; // a variable of the page, "--m1"
  values: (number | null)[];
}

interface Props {
  title: string;
  unit: string;
  times: number[]; // s since 1970
  lines: Line[];
  show: (value: number) => string;
  whole?: boolean; // values are counts: no line between them
}

const kHeight = 150;

function options({ lines, show, whole }: Props, box: HTMLElement): uPlot.Options {
  const style = getComputedStyle(box);
  const color = (name: string) => style.getPropertyValue(name).trim();
  const axis = {
    stroke: color("--muted"),
    grid: { stroke: color("--line"), width: 1 },
    ticks: { show: false },
    font: `11px ${style.fontFamily}`,
  };
  return {
    width: box.clientWidth,
    height: kHeight,
    legend: { show: false },
    cursor: { y: false, points: { size: 7 } },
    scales: { y: { range: (_, __, most) => [0, most > 0 ? most * 1.15 : 1] } },
    axes: [
      { ...axis, size: 28, space: 70, values: "{HH}:{mm}:{ss}" as unknown as uPlot.Axis.Values },
      { ...axis, size: 56, values: (_, ticks) => ticks.map((tick) => (whole && !Number.isInteger(tick) ? "" : show(tick))) },
    ],
    series: [
      {},
      ...lines.map((line) => ({
        label: line.name,
        stroke: color(line.color),
        width: 2,
        points: { show: false },
        spanGaps: true,
      })),
    ],
  };
}

export function Plot(props: Props) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const isDark = dark.use();
  const data: uPlot.AlignedData = [props.times, ...props.lines.map(({ values }) => values)];
  const latest = useRef(data);
  latest.current = data;
  useEffect(() => {
    const element = box.current!;
    const made = new uPlot(options(props, element), latest.current, element);
    plot.current = made;
    const observer = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height: kHeight }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      made.destroy();
    };
  }, [isDark]);
  useEffect(() => plot.current?.setData(latest.current));
  const last = (line: Line) => line.values.findLast((value) => value !== null);
  const words = props.lines.map((line) => `${line.name} ${last(line) == null ? "none" : props.show(last(line)!)}`);
  return (
    <figure class="card plot">
      <figcaption>
        <b>{props.title}</b>
        <span class="note">{props.unit}</span>
        <ul class="legend">
          {props.lines.map((line) => (
            <li key={line.name}>
              <i class="swatch" style={{ background: `var(${line.color})` }} aria-hidden="true" />
              {line.name} <b>{last(line) == null ? "–" : props.show(last(line)!)}</b>
            </li>
          ))}
        </ul>
      </figcaption>
      <div ref={box} role="img" aria-label={`${props.title}, now: ${words.join(", ")} ${props.unit}`} />
    </figure>
  );
}
