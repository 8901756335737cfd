// The heat map: layers downwards, experts to the right, the darker the more tokens.
import { useEffect, useRef, useState } from "preact/hooks";
import { dark } from "../theme";
import { colorOf } from "../colors";
import { verdictOf, type HeatMap } from "./cells";

const kLeft = 34; // for the numbers of layers
const kTop = 26; // for the names of modules
const kMostLoad = 4; // the darkest

interface Geometry {
  width: number;
  cell: number; // width
  height: number; // of a cell
}

function geometry(map: HeatMap, room: number): Geometry {
  const cell = Math.max(6, Math.min(180, (room - kLeft) / Math.max(1, map.columns.length)));
  return { width: kLeft + cell * map.columns.length, cell, height: map.rows.length > 40 ? 10 : 26 };
}

function variable(element: Element, color: string): string {
  const name = /var\((--[\w-]+)\)/.exec(color)?.[1];
  return name ? getComputedStyle(element).getPropertyValue(name).trim() : color;
}

function mark(context: CanvasRenderingContext2D, x: number, y: number, size: number, up: boolean): void {
  const half = size / 2;
  context.beginPath();
  context.moveTo(x - half, y + (up ? half : -half) * 0.8);
  context.lineTo(x + half, y + (up ? half : -half) * 0.8);
  context.lineTo(x, y + (up ? -half : half) * 0.8);
  context.fill();
}

function draw(canvas: HTMLCanvasElement, map: HeatMap, { width, cell, height }: Geometry): void {
  const total = kTop + map.rows.length * height;
  const scale = devicePixelRatio;
  canvas.width = width * scale;
  canvas.height = total * scale;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${total}px`;
  const context = canvas.getContext("2d")!;
  context.scale(scale, scale);
  const ink = variable(canvas, "var(--ink)");
  const soft = variable(canvas, "var(--muted)");
  const low = variable(canvas, "var(--heat-low)");
  const high = variable(canvas, "var(--heat-high)");
  const font = getComputedStyle(canvas).fontFamily;
  context.font = `12px ${font}`;
  context.textBaseline = "middle";
  let begin = 0;
  map.columns.forEach((column, i) => {
    if (map.columns[i + 1]?.module === column.module) return;
    const x = kLeft + begin * cell;
    const wide = (i + 1 - begin) * cell;
    context.fillStyle = variable(canvas, colorOf(column.module));
    context.fillRect(x, kTop - 6, wide - 2, 3);
    context.fillStyle = ink;
    context.save();
    context.beginPath();
    context.rect(x, 0, wide - 4, kTop);
    context.clip();
    context.fillText(column.module, x, 9);
    context.restore();
    begin = i + 1;
  });
  map.rows.forEach((row, at) => {
    const y = kTop + at * height;
    context.fillStyle = soft;
    context.textAlign = "right";
    if (height > 12 || at % 4 === 0) context.fillText(String(row.layer), kLeft - 8, y + height / 2);
    context.textAlign = "left";
    row.cells.forEach((entry, i) => {
      if (!entry) return;
      const x = kLeft + i * cell;
      const heat = Math.min(1, entry.load / kMostLoad);
      context.fillStyle = low;
      context.fillRect(x, y, cell - 2, height - 2);
      context.globalAlpha = heat;
      context.fillStyle = high;
      context.fillRect(x, y, cell - 2, height - 2);
      context.globalAlpha = 1;
      const verdict = verdictOf(entry, row.tokens);
      if (!verdict || height < 12) return;
      context.fillStyle = heat > 0.45 ? variable(canvas, "var(--on-heat)") : ink;
      mark(context, x + (cell - 2) / 2, y + (height - 2) / 2, Math.min(9, cell - 3), verdict === "overloaded");
    });
  });
}

export function HeatCanvas({ map, label }: { map: HeatMap; label: string }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const box = useRef<HTMLDivElement>(null);
  const [pointed, point] = useState<string>("");
  const [room, measure] = useState(600);
  const isDark = dark.use();
  useEffect(() => {
    const element = box.current!;
    const observer = new ResizeObserver(() => measure(element.clientWidth));
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  useEffect(() => draw(canvas.current!, map, geometry(map, room)), [map, room, isDark]);
  const look = (event: PointerEvent) => {
    const { cell, height } = geometry(map, room);
    const column = Math.floor((event.offsetX - kLeft) / cell);
    const row = map.rows[Math.floor((event.offsetY - kTop) / height)];
    const entry = row?.cells[column];
    const where = map.columns[column];
    if (!row || !entry || !where) return point("");
    point(`Layer ${row.layer}, ${where.module} expert ${where.expert}: ${entry.tokens} tokens, ${entry.load.toFixed(2)} of an even load`);
  };
  return (
    <div class="heat" ref={box}>
      <div class="scroll" tabIndex={0} role="region" aria-label="Heat map">
        <canvas ref={canvas} role="img" aria-label={label} onPointerMove={look} onPointerLeave={() => point("")} />
      </div>
      <p class="note pointed">{pointed || "Point at a cell to read it; the table below has them all."}</p>
    </div>
  );
}
