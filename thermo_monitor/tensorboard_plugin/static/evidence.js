// The evidence of one event in words and numbers, and the list of events.

import { before, h, median, number, step } from "./dom.js";
import { phaseColour, sign } from "./look.js";
import { evidence } from "./model.js";
import { high, interval, isScheduled, isSpike, key, low, title } from "./phases.js";

const WINDOW = 10; // readings on either side that a level is the median of
const ROWS = 9;

// How far each reading moved from before the onset to after the confirmation, the furthest first.
export function moved(model, run, event) {
  const rows = [];
  for (const tag of model.run(run)?.tags || []) {
    if (/^thermo\/(monitor|detect)\//.test(tag) || /(^|\/)(epoch|lr|hp_metric)$/i.test(tag)) continue;
    const curve = model.curve(run, tag);
    if (!curve?.steps.length) continue;
    const a = before(curve.steps, low(event) - 0.5) + 1;
    const b = before(curve.steps, Math.max(event.step, high(event)) - 0.5) + 1;
    const first = Array.from(curve.values.slice(Math.max(0, a - WINDOW), a));
    const second = Array.from(curve.values.slice(b, b + WINDOW));
    if (!first.length || !second.length) continue;
    const log = model.quantity(tag)?.scale === "log" && median(first) > 0 && median(second) > 0;
    const scale = (v) => (log ? Math.log(v) : v);
    const finite = Array.from(curve.values, scale).filter(Number.isFinite);
    const span = finite.reduce((m, v) => Math.max(m, v), -Infinity) - finite.reduce((m, v) => Math.min(m, v), Infinity);
    const [from, to] = [median(first), median(second)];
    const change = scale(to) - scale(from);
    const noise = 1.4826 * median(first.map((v) => Math.abs(scale(v) - scale(from))));
    const stands = Math.abs(change) > Math.max(4 * (noise || 0), 0.03 * span);
    rows.push({ tag, from, to, log, stands, share: span > 0 ? Math.abs(change) / span : 0, up: change > 0 });
  }
  return rows.sort((x, y) => Number(y.stands) - Number(x.stands) || y.share - x.share);
}

export function evidencePanel(app, run, event) {
  const { model } = app;
  const events = model.told(run);
  const at = events.indexOf(event);
  const details = event.details || {};
  const colour = { "--phase": phaseColour(event.phase) };
  const rows = moved(model, run, event);
  const facts = [
    ["onset", interval(event)],
    ["confirmed", `step ${step(event.step)}, ${step(event.step - event.onset)} later`],
    ["kind", `${event.kind}${model.words.kinds[event.kind] ? `: ${model.words.kinds[event.kind]}` : ""}`],
    Number.isFinite(evidence(event)) ? ["evidence", `ln F = ${number(evidence(event), 3)}${details.threshold ? `, alarm at ${number(details.threshold, 3)}` : ""}`] : null,
    details.reason ? ["reason", details.reason] : null,
    details.detected ? ["found", details.detected] : null,
  ].filter(Boolean);
  const sides = model.eventsOf(run).filter((e) => e.details && e.details.part_of && e.details.part_of === event.id);
  return [
    h(
      "div",
      { class: "evidence-nav" },
      h("button", { onclick: () => app.choose(run, null) }, "← All events"),
      h("span", { class: "grow" }),
      h("button", { "aria-label": "Earlier event", disabled: at <= 0 || null, onclick: () => app.choose(run, events[at - 1]) }, "‹"),
      h("button", { "aria-label": "Later event", disabled: at >= events.length - 1 || null, onclick: () => app.choose(run, events[at + 1]) }, "›"),
    ),
    h("h3", { class: "event-title", style: colour }, h("span", { class: "sign" }, sign(event.phase)), title(event), h("span", { class: `level ${event.level}` }, event.level)),
    h("p", { class: "message" }, sentence(event.message)),
    h("dl", { class: "facts" }, facts.flatMap(([name, text]) => [h("dt", {}, name), h("dd", {}, text)])),
    h("h4", {}, "What moved"),
    rows.length ? table(model, rows.slice(0, ROWS), details.shares || {}) : h("p", { class: "hint" }, "The curves around it are not here yet."),
    h("h4", {}, "What it means"),
    h("p", {}, model.words.phases[event.phase] || "", details.why && details.why !== "no rule fits" ? h("span", { class: "hint" }, ` Rule: ${details.why}.`) : ""),
    h("h4", {}, "What to look at next"),
    h("p", {}, event.advice || "Compare before and after."),
    h("h4", {}, "Checkpoint"),
    event.checkpoint
      ? h("p", {}, h("code", {}, event.checkpoint))
      : h("p", { class: "hint" }, "None was saved here. ", h("code", {}, `ThermoMonitor(save_checkpoint_on=["${title(event)}"])`), " saves one at the next."),
    sides.length ? [h("h4", {}, "Other sides of it"), h("ul", { class: "sides" }, sides.map((e) => h("li", {}, sentence(e.message))))] : null,
  ];
}

function table(model, rows, shares) {
  const widest = Math.max(...rows.map((row) => row.share), 1e-12);
  return h(
    "table",
    { class: "moved" },
    h("thead", {}, h("tr", {}, ["reading", "before", "after", "change"].map((name) => h("th", { scope: "col" }, name)))),
    h(
      "tbody",
      {},
      rows.map((row) => {
        const change = row.log ? `×${number(row.to / row.from, 3)}` : `${row.to >= row.from ? "+" : ""}${number(row.to - row.from, 2)}`;
        const share = shares[row.tag.replace("thermo/", "")];
        return h(
          "tr",
          { class: row.stands ? "" : "still" },
          h("th", { scope: "row", title: row.tag }, model.label(row.tag), share ? h("span", { class: "share", title: "share of the evidence" }, ` ${Math.round(share * 100)} %`) : null),
          h("td", {}, number(row.from, 3)),
          h("td", {}, number(row.to, 3)),
          h("td", { class: "change" }, h("span", { class: row.up ? "bar up" : "bar", style: { width: `${(100 * row.share) / widest}%` } }), h("span", {}, change)),
        );
      }),
    ),
  );
}

export function eventList(app, run) {
  const { model, state } = app;
  const found = model.run(run);
  const events = model.told(run);
  const seen = (event) => !app.unseen.has(key(run, event));
  const words = events.length
    ? h(
        "ol",
        { class: "events" },
        [...events].reverse().map((event) =>
          h(
            "li",
            {},
            h(
              "button",
              { class: `event${isSpike(event) || isScheduled(event) ? " quiet" : ""}`, style: { "--phase": phaseColour(event.phase) }, onclick: () => app.choose(run, event) },
              h("span", { class: "sign" }, sign(event.phase)),
              h("span", { class: "what" }, h("b", {}, title(event)), seen(event) ? null : h("span", { class: "new" }, "new"), h("span", { class: "when" }, interval(event)), h("span", { class: "text" }, sentence((event.message || "").split("; looks like")[0]))),
            ),
          ),
        ),
      )
    : h("p", { class: "hint" }, model.looking.has(run) ? "Looking for changes …" : found?.monitored ? "No event so far: nothing changed that stands out of the noise by the minimum effect." : "No change was found in the numbers of this run.");
  return [
    h("h3", {}, "Events", h("span", { class: "count" }, events.length ? ` ${events.length}` : "")),
    found && !found.monitored
      ? h("p", { class: "hint" }, "This run was not watched by the monitor. Changes were looked for in its numbers, as TensorBoard keeps them.")
      : null,
    found?.newer ? h("p", { class: "hint" }, "Written by a newer version than this one reads; something may be missing here.") : null,
    words,
    state.runs.length > 1 ? h("p", { class: "hint" }, "Events and phases are those of the run in bold; click another run to see its own.") : null,
  ];
}

export function sentence(text) {
  const trimmed = (text || "").trim();
  return trimmed ? trimmed[0].toUpperCase() + trimmed.slice(1) + (/[.!?]$/.test(trimmed) ? "" : ".") : "";
}

export const evidenceTags = (model, run) => (model.run(run)?.tags || []).filter((tag) => !tag.startsWith("thermo/monitor/")).slice(0, 64);
