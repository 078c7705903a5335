// A small hand-drawn chart of one quantity: the tiles of "Live" and the course of a head.

import { FONT, limits, sized, text, ticks } from "./axes.js";
import { faint, inks, phaseColour } from "./look.js";
import { isScheduled, isSpike, stretches } from "./phases.js";

// Lines share the steps; the last one is the one that counts. With `format` there are axes, with `at` a cursor.
export function spark(canvas, { height, steps, lines, events, format, at }) {
  const place = sized(canvas, height);
  if (!place || !steps.length) return;
  const { ctx, width } = place;
  const ink = inks();
  const [left, right, floor] = format ? [62, 14, height - 22] : [2, 6, height - 4];
  const [least, most] = limits(lines.flat(), false);
  const [first, last] = [steps[0], steps[steps.length - 1]];
  const x = (s) => left + ((Math.max(s, first) - first) / (last - first || 1)) * (width - left - right);
  const y = (v) => floor - ((v - least) / (most - least || 1)) * (floor - 6);
  ctx.font = FONT;
  ctx.textBaseline = "middle";
  if (format) {
    for (const t of ticks(least, most, false, 3)) {
      ctx.fillStyle = ink.grid;
      ctx.fillRect(left, y(t), width - left - right, 1);
      ctx.fillStyle = ink.text;
      ctx.textAlign = "right";
      ctx.fillText(text(format(t)), left - 6, y(t));
    }
    ctx.textAlign = "center";
    for (const t of ticks(first, last, false, 7)) ctx.fillText(t.toLocaleString("en-US"), x(t), height - 9);
  }
  for (const { event, from, to } of stretches(events, last)) {
    if (to < first) continue;
    ctx.fillStyle = faint(phaseColour(event.phase), 0.08);
    ctx.fillRect(x(from), 0, x(Math.min(to, last)) - x(from), floor);
  }
  for (const event of events) {
    if (isSpike(event) || isScheduled(event) || event.onset < first || event.onset > last) continue;
    ctx.fillStyle = phaseColour(event.phase);
    ctx.fillRect(x(event.onset) - 1, 0, 2, floor);
  }
  lines.forEach((values, n) => {
    const main = n === lines.length - 1;
    ctx.strokeStyle = main ? ink.strong : faint(ink.text, 0.4);
    ctx.lineWidth = main ? 1.6 : 1;
    ctx.beginPath();
    let pen = false;
    for (let i = 0; i < steps.length; i++) {
      const finite = Number.isFinite(values[i]);
      if (finite) ctx[pen ? "lineTo" : "moveTo"](x(steps[i]), y(values[i]));
      pen = finite;
    }
    ctx.stroke();
  });
  const here = at ?? steps.length - 1;
  const value = lines[lines.length - 1][here];
  ctx.fillStyle = ink.strong;
  if (at !== undefined) ctx.fillRect(x(steps[here]) - 0.5, 0, 1, floor);
  if (!Number.isFinite(value)) return;
  ctx.beginPath();
  ctx.arc(x(steps[here]), y(value), 3.5, 0, 7);
  ctx.fill();
}
