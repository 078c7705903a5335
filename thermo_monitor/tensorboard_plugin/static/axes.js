// Ticks for the hand-drawn charts.

import { number } from "./dom.js";

export function scale(min, max, log, from, to) {
  const f = log ? Math.log : (v) => v;
  const [a, b] = [f(min), f(max)];
  return (v) => from + ((f(v) - a) / (b - a || 1)) * (to - from);
}

export function ticks(min, max, log, count = 6) {
  if (log) {
    const found = logTicks(min, max, count);
    if (found) return found;
  }
  const raw = (max - min) / count;
  if (!(raw > 0)) return [min];
  const power = 10 ** Math.floor(Math.log10(raw));
  const unit = [1, 2, 5, 10].find((m) => m * power >= raw) * power;
  const out = [];
  for (let v = Math.ceil(min / unit) * unit; v <= max + unit * 1e-9; v += unit) out.push(Math.abs(v) < unit * 1e-9 ? 0 : v);
  return out;
}

// Powers of ten, or parts of them where there are few; null where linear ticks are better.
function logTicks(min, max, count) {
  const [from, to] = [Math.floor(Math.log10(min)), Math.ceil(Math.log10(max))];
  const grid = (units, every) => {
    const out = [];
    for (let e = Math.ceil(from / every) * every; e <= to; e += every) {
      for (const m of units) if (m * 10 ** e >= min * 0.999 && m * 10 ** e <= max * 1.001) out.push(m * 10 ** e);
    }
    return out;
  };
  const fine = grid([1, 2, 5], 1);
  if (fine.length > 1 && fine.length <= count + 1) return fine;
  for (let every = Math.max(1, Math.ceil((to - from) / (count + 1))); every >= 1; every--) {
    const out = grid([1], every);
    if (out.length > 1) return out;
  }
  return fine.length > 1 ? fine : null;
}

// Limits with some room around finite values.
export function limits(values, log) {
  let [least, most] = [Infinity, -Infinity];
  for (const v of values) {
    if (!Number.isFinite(v) || (log && v <= 0)) continue;
    if (v < least) least = v;
    if (v > most) most = v;
  }
  if (least > most) return log ? [0.1, 10] : [0, 1];
  if (log) {
    const room = Math.max((most / least) ** 0.05, 1.02);
    return [least / room, most * room];
  }
  const room = (most - least) * 0.06 || Math.abs(most) * 0.01 || 1;
  return [least - room, most + room];
}

export const text = (v) => number(v, 3);

// A canvas as wide as its place, with a context in CSS pixels; null while it is hidden.
export function sized(canvas, height) {
  const width = canvas.parentElement?.clientWidth || 0;
  if (width < 80) return null;
  const unit = devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * unit) || canvas.height !== Math.round(height * unit)) {
    canvas.width = Math.round(width * unit);
    canvas.height = Math.round(height * unit);
    canvas.style.height = `${height}px`;
    canvas.style.width = `${width}px`;
  }
  const ctx = canvas.getContext("2d");
  ctx.setTransform(unit, 0, 0, unit, 0, 0);
  ctx.clearRect(0, 0, width, height);
  return { ctx, width, height };
}

export const FONT = '11px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif';
