// The path of a run through two readings, and the events on it.

import { FONT } from "./axes.js";
import { before, step } from "./dom.js";
import { faint, inks, phaseColour, sign, viridisCss } from "./look.js";
import { title } from "./phases.js";

const STROKES = 4000; // more than that are no better to see

// Points [x, y, step] at the steps that both curves have; where they have none, the last value of y holds.
export function paired(a, b) {
  if (!a?.steps.length || !b?.steps.length) return [];
  const out = [];
  for (let i = 0; i < a.steps.length; i++) {
    const j = before(b.steps, a.steps[i]);
    if (j >= 0 && Number.isFinite(a.values[i]) && Number.isFinite(b.values[j])) out.push([a.values[i], b.values[j], a.steps[i]]);
  }
  return out;
}

// `to` gives the place of a point in pixels; the colour is its step, or the logarithm of it.
export function trail(ctx, points, to, log) {
  const n = points.length;
  const [first, last] = [points[0][2], points[n - 1][2]];
  const scale = (s) => (log ? Math.log1p(s - first) / Math.log1p(last - first || 1) : (s - first) / (last - first || 1));
  const colour = (p) => viridisCss(scale(p[2]) * 0.92);
  const each = Math.max(1, Math.ceil(n / STROKES));
  ctx.lineWidth = 1.6;
  ctx.lineCap = "round";
  for (let i = each; i < n; i += each) {
    ctx.strokeStyle = colour(points[i]);
    ctx.beginPath();
    ctx.moveTo(...to(points[i - each]));
    ctx.lineTo(...to(points[i]));
    ctx.stroke();
  }
  const dot = (p, size, fill) => {
    ctx.fillStyle = fill;
    ctx.beginPath();
    ctx.arc(...to(p), size, 0, 7);
    ctx.fill();
  };
  if (n <= 600) for (const p of points) dot(p, 2, colour(p));
  const ink = inks();
  ctx.lineWidth = 2;
  ctx.strokeStyle = ink.strong;
  dot(points[0], 5, ink.paper);
  ctx.stroke();
  dot(points[n - 1], 5, ink.strong);
}

// Signs and names of events [{event, point}], none over another, none beyond `right`.
export function marks(ctx, placed, to, right) {
  const taken = [];
  const ink = inks();
  for (const { event, point } of placed) {
    const [a, b] = to(point);
    const colour = phaseColour(event.phase);
    ctx.fillStyle = ink.paper;
    ctx.strokeStyle = colour;
    ctx.lineWidth = 2;
    ctx.beginPath();
    ctx.arc(a, b, 11, 0, 7);
    ctx.fill();
    ctx.stroke();
    ctx.fillStyle = colour;
    ctx.font = "13px system-ui, sans-serif";
    ctx.textAlign = "center";
    ctx.textBaseline = "middle";
    ctx.fillText(sign(event.phase), a, b + 0.5);
    ctx.font = `600 ${FONT}`;
    const words = `${title(event)} ${step(event.onset)}`;
    const long = ctx.measureText(words).width;
    const left = a + 18 + long > right ? a - 18 - long : a + 18;
    let down = b;
    while (taken.some(([l, t, w]) => Math.abs(t - down) < 15 && left < l + w && l < left + long)) down += 15;
    taken.push([left, down, long]);
    ctx.lineWidth = 3;
    ctx.strokeStyle = faint(ink.paper, 0.85);
    ctx.textAlign = "left";
    ctx.strokeText(words, left, down);
    ctx.fillText(words, left, down);
  }
}
