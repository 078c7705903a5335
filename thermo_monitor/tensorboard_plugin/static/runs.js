// Runs: several runs over one another, from step zero or around an event, and the table of their events.

import { before, fill, h, number, option, step } from "./dom.js";
import { phaseColour, sign } from "./look.js";
import { evidence, tagOf } from "./model.js";
import { high, isScheduled, isSpike, low, title } from "./phases.js";
import { Strip } from "./plot.js";

const FIRST = ["loss/train", "attn/specific_heat_norm", "repr/representation_entropy"];

export class Runs {
  constructor(app, place) {
    this.app = app;
    this.toolbar = h("div", { class: "toolbar" });
    this.stack = h("div", { class: "stack" });
    this.tables = h("div", { class: "tables" });
    this.root = h("div", { class: "runs" }, this.toolbar, this.stack, this.tables);
    this.strips = [];
    this.sort = { column: "onset", up: true };
    place.append(this.root);
  }

  tags() {
    const { model, state } = this.app;
    return [...new Set(state.runs.flatMap((name) => model.run(name)?.tags || []))].filter((tag) => !/^thermo\/monitor\//.test(tag)).sort();
  }

  chosen() {
    const { state } = this.app;
    const tags = this.tags();
    const wanted = state.compare.filter((tag) => tags.includes(tag));
    if (wanted.length) return wanted;
    const usual = FIRST.map(tagOf).filter((tag) => tags.includes(tag));
    return usual.length ? usual : tags.filter((tag) => /loss|acc/i.test(tag)).slice(0, 3).concat(tags.slice(0, 1)).slice(0, 3);
  }

  async prepare() {
    const { model, state } = this.app;
    const loss = this.tags().find((tag) => tag === tagOf("loss/train"));
    return model.need(state.runs, [...this.chosen(), ...(loss ? [loss] : [])]);
  }

  // The step that is the zero of a run; null for a run without such an event.
  zero(run) {
    const { model, state } = this.app;
    if (!state.align) return 0;
    const events = model.told(run).filter((event) => !isSpike(event) && !isScheduled(event));
    const event = state.align === "first" ? events[0] : events.find((e) => title(e) === state.align);
    return event ? event.onset : null;
  }

  draw() {
    const { model, state } = this.app;
    const tags = this.tags();
    const chosen = this.chosen();
    const names = [...new Set(state.runs.flatMap((run) => model.told(run).filter((e) => !isSpike(e) && !isScheduled(e)).map(title)))].sort();
    fill(
      this.toolbar,
      h("h2", {}, `${state.runs.length} run${state.runs.length === 1 ? "" : "s"}`),
      h("span", { class: "grow" }),
      h("label", {}, "align at ", h("select", { onchange: (e) => this.app.set({ align: e.target.value }) }, option("", "step zero", !state.align), option("first", "first event", state.align === "first"), names.map((name) => option(name, `first ${name}`, state.align === name)))),
      h(
        "label",
        {},
        "curve ",
        h(
          "select",
          { onchange: (e) => this.app.set({ compare: e.target.value ? [e.target.value] : [] }) },
          option("", "the usual ones", !state.compare.length),
          tags.map((tag) => option(tag, model.label(tag), state.compare.length === 1 && chosen[0] === tag)),
        ),
      ),
    );
    this.drawStrips(chosen);
    this.drawTables();
  }

  drawStrips(tags) {
    const { model, state } = this.app;
    const shifted = state.runs.map((run) => [run, this.zero(run)]).filter(([, zero]) => zero !== null);
    const lines = tags.map((tag) =>
      shifted.flatMap(([run, zero]) => {
        const curve = model.curve(run, tag);
        return curve?.steps.length ? [{ name: run, colour: this.app.colour(run), width: run === state.focus ? 2 : 1.4, steps: zero ? Float64Array.from(curve.steps, (s) => s - zero) : curve.steps, values: curve.values }] : [];
      }),
    );
    let [from, to] = [Infinity, -Infinity];
    for (const line of lines.flat()) [from, to] = [Math.min(from, line.steps[0]), Math.max(to, line.steps[line.steps.length - 1])];
    if (!(from < to)) [from, to] = [0, 1];
    const events = shifted.flatMap(([run, zero]) =>
      model.told(run).filter((e) => !isSpike(e) && !isScheduled(e)).map((e) => ({ ...e, run, onset: e.onset - zero, step: e.step - zero, onset_low: low(e) - zero, onset_high: high(e) - zero, whole: e })),
    );
    for (const strip of this.strips) strip.destroy();
    this.strips = tags.map((tag, n) => {
      const last = n === tags.length - 1;
      return new Strip(this.stack, {
        title: model.label(tag),
        note: model.quantity(tag)?.meaning || tag,
        unit: [model.quantity(tag)?.symbol, model.unit(tag)].filter(Boolean).join(" · "),
        lines: lines[n],
        log: model.isLog(tag),
        range: state.runsZoom || [from, to],
        height: last ? 190 : 156,
        last,
        xlabel: state.align ? `steps from ${state.align === "first" ? "the first event" : `the first ${state.align}`}` : "optimizer step",
        events: events.filter((event) => event.run === state.focus),
        end: to,
        onZoom: (zoom) => this.app.set({ runsZoom: zoom }),
        onPick: (event) => this.app.choose(event.run, event.whole, "timeline"),
      });
    });
    this.missing = state.runs.filter((run) => !shifted.some(([name]) => name === run));
    this.stack.querySelector(".hint")?.remove();
    if (this.missing.length) this.stack.append(h("p", { class: "hint" }, `Without such an event, and so not shown: ${this.missing.join(", ")}.`));
  }

  rows() {
    const { model, state } = this.app;
    return state.runs.flatMap((run) =>
      model.told(run).map((event) => ({
        run,
        event,
        onset: event.onset,
        low: low(event),
        high: high(event),
        confirmed: event.step,
        delay: event.step - event.onset,
        what: title(event),
        quantity: model.words.quantities[event.quantity]?.name || event.quantity,
        direction: event.direction === "none" ? "" : event.direction,
        evidence: evidence(event),
        lossBefore: this.lossAt(run, low(event) - 1),
        lossAfter: this.lossAt(run, event.step),
        level: event.level,
      })),
    );
  }

  lossAt(run, at) {
    const curve = this.app.model.curve(run, tagOf("loss/train"));
    if (!curve?.steps.length) return NaN;
    return curve.values[Math.max(0, before(curve.steps, at))];
  }

  drawTables() {
    const { state } = this.app;
    const columns = [
      ["run", "run"],
      ["what", "event"],
      ["onset", "onset"],
      ["low", "interval"],
      ["confirmed", "confirmed"],
      ["delay", "delay"],
      ["quantity", "reading"],
      ["direction", ""],
      ["evidence", "evidence"],
      ["lossBefore", "loss before"],
      ["lossAfter", "loss after"],
      ["level", "level"],
    ];
    const { column, up } = this.sort;
    const rows = this.rows().sort((a, b) => {
      const [x, y] = [a[column], b[column]];
      const order = typeof x === "number" ? (Number.isNaN(x) ? 1 : Number.isNaN(y) ? -1 : x - y) : String(x).localeCompare(String(y));
      return up ? order : -order;
    });
    const csv = `./events.csv?q=${encodeURIComponent(JSON.stringify({ runs: state.runs }))}`;
    fill(
      this.tables,
      h("div", { class: "toolbar" }, h("h3", {}, "Events", h("span", { class: "count" }, ` ${rows.length}`)), h("span", { class: "grow" }), h("a", { class: "button", href: csv, download: "thermo-events.csv" }, "Download CSV")),
      rows.length
        ? h(
            "div",
            { class: "scroll", tabindex: 0 },
            h(
              "table",
              { class: "sortable" },
              h(
                "thead",
                {},
                h(
                  "tr",
                  {},
                  columns.map(([name, label]) =>
                    h("th", { scope: "col", "aria-sort": column === name ? (up ? "ascending" : "descending") : "none" }, h("button", { onclick: () => this.sortBy(name) }, label || name, column === name ? (up ? " ▴" : " ▾") : "")),
                  ),
                ),
              ),
              h(
                "tbody",
                {},
                rows.map((row) =>
                  h(
                    "tr",
                    { class: row.event.level === "info" ? "quiet" : "", onclick: () => this.app.choose(row.run, row.event, "timeline") },
                    h("th", { scope: "row" }, h("span", { class: "swatch", style: { background: this.app.colour(row.run) } }), row.run),
                    h("td", {}, h("button", { class: "link", style: { "--phase": phaseColour(row.event.phase) }, onclick: () => this.app.choose(row.run, row.event, "timeline") }, h("span", { class: "sign" }, sign(row.event.phase)), row.what)),
                    h("td", { class: "n" }, step(row.onset)),
                    h("td", { class: "n" }, row.low === row.high ? "" : `${step(row.low)} – ${step(row.high)}`),
                    h("td", { class: "n" }, step(row.confirmed)),
                    h("td", { class: "n" }, step(row.delay)),
                    h("td", {}, row.quantity),
                    h("td", {}, row.direction),
                    h("td", { class: "n" }, number(row.evidence, 3)),
                    h("td", { class: "n" }, number(row.lossBefore, 3)),
                    h("td", { class: "n" }, number(row.lossAfter, 3)),
                    h("td", {}, row.level),
                  ),
                ),
              ),
            ),
          )
        : h("p", { class: "hint" }, "No event in these runs."),
    );
  }

  sortBy(column) {
    this.sort = { column, up: this.sort.column === column ? !this.sort.up : true };
    this.drawTables();
  }

  resize() {
    for (const strip of this.strips) strip.resize();
  }

  theme() {
    this.draw();
  }

  destroy() {
    for (const strip of this.strips) strip.destroy();
    this.root.remove();
  }
}
