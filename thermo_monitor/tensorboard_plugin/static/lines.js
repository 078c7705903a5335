// The lines of a chart: as the columns that uPlot takes, and in words.

import { number } from "./dom.js";
import { isSpike } from "./phases.js";

// The columns that uPlot takes: all steps once, and for each line its values there; "undefined" is passed over.
export function join(lines, logValues) {
  const usable = (v) => Number.isFinite(v) && (!logValues || v > 0);
  const column = (values) => {
    for (let i = 0; i < values.length; i++) if (!usable(values[i])) return Array.from(values, (v) => (usable(v) ? v : null));
    return values;
  };
  const first = lines[0];
  if (!first) return [[]];
  if (lines.every((line) => sameSteps(line.steps, first.steps))) return [first.steps, ...lines.map((l) => column(l.values))];
  const all = new Float64Array(lines.reduce((sum, line) => sum + line.steps.length, 0));
  let at = 0;
  for (const line of lines) {
    all.set(line.steps, at);
    at += line.steps.length;
  }
  all.sort();
  let count = 0;
  for (let i = 0; i < all.length; i++) if (i === 0 || all[i] !== all[count - 1]) all[count++] = all[i];
  const steps = all.subarray(0, count);
  return [
    steps,
    ...lines.map((line) => {
      const out = new Array(count);
      let j = 0;
      for (let i = 0; i < line.steps.length; i++) {
        while (steps[j] < line.steps[i]) j++;
        out[j] = usable(line.values[i]) ? line.values[i] : null;
      }
      return out;
    }),
  ];
}

function sameSteps(a, b) {
  if (a === b) return true;
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

export function describe(o) {
  const lines = o.lines.map((line) => {
    let [least, most] = [Infinity, -Infinity];
    for (const v of line.values) {
      if (v < least && v > -Infinity) least = v;
      if (v > most && v < Infinity) most = v;
    }
    if (least > most) return `${line.name}: no finite value`;
    const ends = `from ${number(line.values[0])} to ${number(line.values[line.values.length - 1])}`;
    return `${line.name}: ${ends}, between ${number(least)} and ${number(most)}`;
  });
  const marks = o.events.filter((e) => !isSpike(e)).map((e) => `${e.phase} at step ${e.onset}`);
  return `${o.title}. ${lines.join("; ")}. ${marks.length ? `Events: ${marks.slice(0, 20).join(", ")}.` : "No events."}`;
}
