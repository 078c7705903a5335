// From events to the stretches of a run, and what an event says in a few words.

import { step } from "./dom.js";

export const low = (event) => event.onset_low ?? event.onset;
export const high = (event) => event.onset_high ?? event.onset;
export const isScheduled = (event) => event.phase === "scheduled";
export const isSpike = (event) => event.kind === "excursion";

export function title(event) {
  const byKind = event.phase === "unexplained" || event.kind === "collapse" || event.kind === "divergence";
  return byKind ? event.kind : event.phase;
}

export function interval(event) {
  return low(event) === high(event)
    ? `step ${step(event.onset)}`
    : `step ${step(event.onset)} [${step(low(event))}, ${step(high(event))}]`;
}

export const key = (run, event) => `${run}\n${event.id || `${event.onset} ${event.quantity}`}`;

// Stretches of a run that have a name: from an onset to the next.
export function stretches(events, end) {
  const turns = events.filter(
    (event) => !isScheduled(event) && !isSpike(event) && event.phase !== "unexplained" && event.kind !== "variance",
  );
  return turns.map((event, n) => ({
    event,
    from: event.onset,
    to: n + 1 < turns.length ? turns[n + 1].onset : Math.max(end, event.onset),
  }));
}

// What a run is in, in a few words.
export function summary(events) {
  const named = events.filter((event) => !isScheduled(event) && !isSpike(event));
  const error = named.find((event) => event.level === "error");
  const typed = named.filter((event) => event.phase !== "unexplained");
  const last = error || typed[typed.length - 1] || named[named.length - 1];
  return last ? { event: last, text: `${title(last)} since ${step(last.onset)}` } : null;
}
