// Which curves the timeline shows, and in which order: the readings, then what the user logged.

import { tagOf } from "./model.js";

const STRIPS = [
  ["loss", ["loss/train"]],
  ["specific heat", ["attn/specific_heat_norm", "attn/specific_heat"]],
  ["temperature", ["attn/reduced_temperature"]],
  ["entropy", ["attn/entropy_fraction"]],
  ["predictive entropy", ["out/predictive_entropy"]],
  ["gradient coherence", ["fisher/gradient_coherence"]],
  ["Fisher information", ["fisher/trace*"]],
  ["representation entropy", ["repr/representation_entropy"]],
  ["spectral entropy", ["repr/spectral_entropy"]],
  ["gradient norm", ["opt/gradient_norm"]],
  ["weight norm", ["opt/weight_norm"]],
  ["progress towards an alarm", ["detect/score"]],
];
const MOST_EXTRA = 6; // curves of the user's own that are shown without being asked for
const METRIC = /(acc|accuracy|auc|f1|bleu|rouge|reward|score|error|val|valid|eval|test|held)/i;

// Strips of a run: [{title, tags}].
export function plan(model, state) {
  const run = model.run(state.focus);
  const all = new Set(state.runs.flatMap((name) => model.run(name)?.tags || []));
  if (!run) return [];
  const strips = [];
  for (const [name, wanted] of STRIPS) {
    const tags = wanted
      .flatMap((q) => (q.endsWith("*") ? [...all].filter((t) => t.startsWith(tagOf(q.slice(0, -1)))) : [tagOf(q)]))
      .filter((tag) => all.has(tag));
    if (tags.length) strips.push({ title: model.quantity(tags[0])?.name || name, tags: tags.slice(0, 1) });
  }
  const own = [...all].filter((tag) => !tag.startsWith("thermo/")).sort();
  const picked = state.more.filter((tag) => all.has(tag));
  const metrics = run.monitored ? own.filter((tag) => METRIC.test(tag)) : firstOwn(own, model.eventsOf(run.name));
  const losses = metrics.filter((tag) => /loss/i.test(tag) && strips.length && strips[0].tags[0] === tagOf("loss/train"));
  if (losses.length) strips[0].tags.push(...losses.slice(0, 2));
  const rest = metrics.filter((tag) => !losses.includes(tag) && !picked.includes(tag));
  const groups = grouped(rest).slice(0, MOST_EXTRA);
  strips.splice(strips.length ? 1 : 0, 0, ...picked.map((tag) => ({ title: model.label(tag), tags: [tag] })), ...groups);
  return strips.filter((strip) => !strip.tags.every((tag) => picked.includes(tag)) || picked.includes(strip.tags[0]));
}

// Tags that differ in their last part only, such as accuracy/train and accuracy/held_out, share a strip.
function grouped(tags) {
  const groups = new Map();
  for (const tag of tags) {
    const name = tag.includes("/") ? tag.slice(0, tag.lastIndexOf("/")) : tag;
    groups.set(name, [...(groups.get(name) || []), tag]);
  }
  return [...groups].flatMap(([name, members]) =>
    members.length > 1 && members.length <= 3 ? [{ title: name, tags: members }] : members.map((tag) => ({ title: tag, tags: [tag] })),
  );
}

// What an unmonitored run shows first: the curves that changed, then losses, then the others.
function firstOwn(tags, events) {
  const changed = new Set(events.flatMap((e) => [e.quantity, ...((e.details || {}).also || [])]));
  const rank = (tag) => (changed.has(tag) ? 0 : 2) - (/loss/i.test(tag) ? 1 : 0) + (/epoch|lr$|learning_rate|hp_metric/i.test(tag) ? 9 : 0);
  return [...tags].sort((a, b) => rank(a) - rank(b)).filter((tag) => rank(tag) < 8).slice(0, 8);
}
