// A small hand-drawn chart of one quantity: the tiles of "Live" and the course of a head.

import { FONT, limits, sized, text, ticks } from "./axes.js";
import { faint, inks, phaseColour } from "./look.js";
import { isScheduled, isSpike, stretches } from "./phases.js";

// Lines share the steps; the last one is the one that counts. With `format` there are axes. Returns what draws a cursor
// at an index, over the same picture each time: a scrubber moves faster than many lines are drawn.
export function spark(canvas, { height, steps, lines, events, format }) {
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
  const main = lines[lines.length - 1];
  const dot = (here) => {
    ctx.fillStyle = ink.strong;
    if (!Number.isFinite(main[here])) return;
    ctx.beginPath();
    ctx.arc(x(steps[here]), y(main[here]), 3.5, 0, 7);
    ctx.fill();
  };
  if (!format) return dot(steps.length - 1);
  const picture = document.createElement("canvas");
  [picture.width, picture.height] = [canvas.width, canvas.height];
  picture.getContext("2d").drawImage(canvas, 0, 0);
  return (here) => {
    ctx.clearRect(0, 0, width, height);
    ctx.drawImage(picture, 0, 0, width, height);
    ctx.fillStyle = ink.strong;
    ctx.fillRect(x(steps[here]) - 0.5, 0, 1, floor);
    dot(here);
  };
}
