// Timeline: the readings of a run above one another, its phases, and the evidence for each transition.

import { evidencePanel, evidenceTags, eventList } from "./evidence.js";
import { before, fill, h, number, option, step } from "./dom.js";
import { tagOf } from "./model.js";
import { key } from "./phases.js";
import { plan } from "./plan.js";
import { Strip } from "./plot.js";
import { drawRibbon } from "./ribbon.js";

const DASHES = [undefined, [6, 4], [2, 3], [8, 3, 2, 3]];

export class Timeline {
  constructor(app, place) {
    this.app = app;
    this.strips = [];
    this.toolbar = h("div", { class: "toolbar" });
    this.ribbon = h("div", { class: "ribbon" });
    this.stack = h("div", { class: "stack" });
    this.table = h("details", { class: "as-table" }, h("summary", {}, "The curves as a table"));
    this.table.addEventListener("toggle", () => this.table.open && this.fillTable());
    this.side = h("aside", { class: "evidence", "aria-label": "Evidence" });
    this.root = h("div", { class: "timeline" }, h("div", { class: "main" }, this.toolbar, this.ribbon, this.stack, this.table), this.side);
    place.append(this.root);
    this.signature = "";
  }

  async prepare() {
    const { model, state } = this.app;
    const fresh = await model.need(state.runs, plan(model, state).flatMap((strip) => strip.tags));
    // The evidence looks at every reading of the run, but of no other run.
    const more = state.event ? await model.need([state.focus], evidenceTags(model, state.focus)) : false;
    return fresh || more;
  }

  draw() {
    const { model, state } = this.app;
    this.plan = plan(model, state);
    this.events = model.told(state.focus);
    this.chosen = this.events.find((event) => key(state.focus, event) === state.event) || null;
    this.range = this.extent();
    this.drawToolbar();
    const options = this.plan.map((strip, n) => this.options(strip, n === this.plan.length - 1));
    const signature = JSON.stringify(this.plan.map((strip) => strip.tags));
    if (signature !== this.signature || this.strips.length !== options.length) {
      for (const strip of this.strips) strip.destroy();
      this.strips = options.map((o) => new Strip(this.stack, o));
      this.signature = signature;
    } else this.strips.forEach((strip, n) => strip.update(options[n]));
    queueMicrotask(() => this.above()); // uPlot knows its scales only then
    this.drawSide();
    if (this.table.open) this.fillTable();
    if (!options.length) fill(this.stack, h("p", { class: "hint" }, "This run has no numbers yet."));
  }

  extent() {
    const { model, state } = this.app;
    let [from, to] = [Infinity, -Infinity];
    for (const { tags } of this.plan) {
      for (const tag of tags) {
        for (const run of state.runs) {
          const steps = model.curve(run, tag)?.steps;
          if (!steps?.length) continue;
          from = Math.min(from, steps[0]);
          to = Math.max(to, steps[steps.length - 1]);
        }
      }
    }
    for (const event of this.events) [from, to] = [Math.min(from, event.onset), Math.max(to, event.step)];
    if (!(from <= to)) [from, to] = [0, 1];
    if (from === to) to = from + 1;
    this.whole = state.xlog ? [Math.max(from, 1), Math.max(to, 2)] : [from, to];
    if (!state.zoom) return this.whole;
    const [a, b] = state.zoom;
    return state.xlog ? [Math.max(a, 1), Math.max(b, a + 1)] : [a, b];
  }

  options(strip, last) {
    const { model, state } = this.app;
    const lines = [];
    const overlaid = state.runs.length > 1;
    strip.tags.forEach((tag, n) => {
      for (const run of state.runs) {
        const curve = model.curve(run, tag);
        if (!curve?.steps.length) continue;
        const focus = run === state.focus;
        lines.push({
          name: [overlaid ? run : "", strip.tags.length > 1 ? short(model.label(tag)) : ""].filter(Boolean).join(" · "),
          colour: this.app.colour(run),
          dash: DASHES[n % DASHES.length],
          width: focus ? 1.8 : 1.3,
          alpha: focus ? 1 : 0.75,
          steps: curve.steps,
          values: curve.values,
        });
      }
    });
    const tag = strip.tags[0];
    const logs = lines.length > 0 && strip.tags.some((t) => model.isLog(t)) && lines.some((l) => wide(l.values));
    return {
      title: strip.title,
      note: model.quantity(tag) ? `${model.quantity(tag).meaning} (${model.quantity(tag).formula})` : tag,
      unit: [model.quantity(tag)?.symbol, model.unit(tag)].filter(Boolean).join(" · "),
      lines,
      log: logs,
      xlog: state.xlog,
      range: this.range,
      bounds: tag === tagOf("detect/score") ? [0, 1.05] : undefined,
      height: last ? 128 : 94,
      last,
      events: this.events,
      end: this.whole[1],
      chosen: this.chosen,
      onZoom: (zoom) => this.app.zoom(zoom),
      onPick: (event) => this.app.choose(state.focus, event),
    };
  }

  drawToolbar() {
    const { state, model } = this.app;
    const run = model.run(state.focus);
    const shown = new Set(this.plan.flatMap((strip) => strip.tags));
    const others = (run?.tags || []).filter((tag) => !shown.has(tag));
    const more = h(
      "select",
      { "aria-label": "Add a curve", onchange: (e) => this.app.set({ more: [...state.more, e.target.value] }) },
      option("", "Add a curve …", true),
      others.map((tag) => option(tag, model.label(tag) === tag ? tag : `${model.label(tag)} (${tag.replace("thermo/", "")})`)),
    );
    fill(
      this.toolbar,
      h("h2", {}, state.focus === "." ? "this run" : state.focus),
      h("span", { class: "grow" }),
      state.zoom ? h("button", { onclick: () => this.app.zoom(null) }, "Whole run") : null,
      state.more.length ? h("button", { onclick: () => this.app.set({ more: [] }) }, "Remove added") : null,
      more,
      this.app.axisChoice("Step axis"),
    );
  }

  above() {
    const { events, chosen, range } = this;
    const plot = this.strips.find((strip) => strip.plot)?.plot;
    const pick = (event) => this.app.choose(this.app.state.focus, event);
    drawRibbon(this.ribbon, { plot, events, chosen, range, end: this.whole[1], xlog: this.app.state.xlog, pick });
  }

  drawSide() {
    const { state } = this.app;
    fill(this.side, this.chosen ? evidencePanel(this.app, state.focus, this.chosen) : eventList(this.app, state.focus));
  }

  resize() {
    for (const strip of this.strips) strip.resize();
    queueMicrotask(() => this.above());
  }

  theme() {
    this.draw();
  }

  // Zoom without drawing everything anew.
  zoomed() {
    this.range = this.extent();
    for (const strip of this.strips) {
      strip.options.range = this.range;
      strip.zoom(this.range);
    }
    this.drawToolbar();
    queueMicrotask(() => this.above());
  }

  fillTable() {
    const { model, state } = this.app;
    const [from, to] = this.range;
    const rows = Array.from({ length: 25 }, (_, n) => from + ((to - from) * n) / 24);
    const columns = this.plan.flatMap((strip) => strip.tags).map((tag) => [tag, model.curve(state.focus, tag)]);
    const known = columns.filter(([, curve]) => curve?.steps.length);
    const table = h(
      "table",
      {},
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "step"), known.map(([tag]) => h("th", { scope: "col" }, model.label(tag))))),
      h(
        "tbody",
        {},
        rows.map((at) => h("tr", {}, h("th", { scope: "row" }, step(at)), known.map(([, c]) => h("td", {}, number(c.values[before(c.steps, at)]))))),
      ),
    );
    this.table.querySelector("div")?.remove();
    this.table.append(h("div", { class: "scroll", tabindex: 0 }, table));
  }

  destroy() {
    for (const strip of this.strips) strip.destroy();
    this.root.remove();
  }
}

const short = (tag) => tag.split("/").pop().replaceAll("_", " ");

function wide(values) {
  let [least, most] = [Infinity, 0];
  for (const v of values) {
    if (!(v > 0)) continue;
    if (v < least) least = v;
    if (v > most) most = v;
  }
  return most > 8 * least;
}
