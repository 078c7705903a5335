// Timeline: the readings of a run above one another, its phases, and the evidence for each transition.

import { evidencePanel, evidenceTags, eventList } from "./evidence.js";
import { before, fill, h, number, option, step } from "./dom.js";
import { faint, phaseColour, sign } from "./look.js";
import { tagOf } from "./model.js";
import { high, isScheduled, isSpike, key, low, stretches, title } from "./phases.js";
import { LEFT, RIGHT, Strip } from "./plot.js";

const STRIPS = [
  ["loss", ["loss/train"]],
  ["specific heat", ["attn/specific_heat_norm", "attn/specific_heat"]],
  ["temperature", ["attn/reduced_temperature"]],
  ["entropy", ["attn/entropy_fraction"]],
  ["predictive entropy", ["out/predictive_entropy"]],
  ["Fisher information", ["fisher/*"]],
  ["representation entropy", ["repr/representation_entropy"]],
  ["spectral entropy", ["repr/spectral_entropy"]],
  ["gradient norm", ["opt/gradient_norm"]],
  ["weight norm", ["opt/weight_norm"]],
  ["progress towards an alarm", ["detect/score"]],
];
const MOST_EXTRA = 6; // curves of the user's own that are shown without being asked for
const METRIC = /(acc|accuracy|auc|f1|bleu|rouge|reward|score|error|val|valid|eval|test|held)/i;
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

  // The curves that are shown: [{title, tags}], a strip each.
  plan() {
    const { model, state } = this.app;
    const run = model.run(state.focus);
    const all = new Set(state.runs.flatMap((name) => model.run(name)?.tags || []));
    if (!run) return [];
    const plan = [];
    for (const [name, wanted] of STRIPS) {
      const tags = wanted
        .flatMap((q) => (q.endsWith("*") ? [...all].filter((t) => t.startsWith(tagOf(q.slice(0, -1)))) : [tagOf(q)]))
        .filter((tag) => all.has(tag));
      if (tags.length) plan.push({ title: model.quantity(tags[0])?.name || name, tags: tags.slice(0, 1) });
    }
    const own = [...all].filter((tag) => !tag.startsWith("thermo/")).sort();
    const picked = state.more.filter((tag) => all.has(tag));
    const metrics = run.monitored ? own.filter((tag) => METRIC.test(tag)) : firstOwn(own, model.eventsOf(run.name));
    const losses = metrics.filter((tag) => /loss/i.test(tag) && plan.length && plan[0].tags[0] === tagOf("loss/train"));
    if (losses.length) plan[0].tags.push(...losses.slice(0, 2));
    const rest = metrics.filter((tag) => !losses.includes(tag) && !picked.includes(tag));
    const groups = grouped(rest).slice(0, MOST_EXTRA);
    plan.splice(plan.length ? 1 : 0, 0, ...picked.map((tag) => ({ title: model.label(tag), tags: [tag] })), ...groups);
    return plan.filter((strip) => !strip.tags.every((tag) => picked.includes(tag)) || picked.includes(strip.tags[0]));
  }

  async prepare() {
    const { model, state } = this.app;
    await model.wantEvents(state.runs);
    const fresh = await model.need(state.runs, this.plan().flatMap((strip) => strip.tags));
    // The evidence looks at every reading of the run, but of no other run.
    const more = state.event ? await model.need([state.focus], evidenceTags(model, state.focus)) : false;
    return fresh || more;
  }

  draw() {
    const { model, state } = this.app;
    this.plan_ = this.plan();
    this.events = model.told(state.focus);
    this.chosen = this.events.find((event) => key(state.focus, event) === state.event) || null;
    this.range = this.extent();
    this.drawToolbar();
    const options = this.plan_.map((strip, n) => this.options(strip, n === this.plan_.length - 1));
    const signature = JSON.stringify(this.plan_.map((strip) => strip.tags));
    if (signature !== this.signature || this.strips.length !== options.length) {
      for (const strip of this.strips) strip.destroy();
      this.strips = options.map((o) => new Strip(this.stack, o));
      this.signature = signature;
    } else this.strips.forEach((strip, n) => strip.update(options[n]));
    queueMicrotask(() => this.drawRibbon()); // uPlot knows its scales only then
    this.drawSide();
    if (this.table.open) this.fillTable();
    if (!options.length) fill(this.stack, h("p", { class: "hint" }, "This run has no numbers yet."));
  }

  extent() {
    const { model, state } = this.app;
    let [from, to] = [Infinity, -Infinity];
    for (const { tags } of this.plan_) {
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
    const shown = new Set(this.plan_.flatMap((strip) => strip.tags));
    const others = (run?.tags || []).filter((tag) => !shown.has(tag));
    const more = h(
      "select",
      { "aria-label": "Add a curve", onchange: (e) => this.app.set({ more: [...state.more, e.target.value] }) },
      option("", "Add a curve …", true),
      others.map((tag) => option(tag, model.label(tag) === tag ? tag : `${model.label(tag)} (${tag.replace("thermo/", "")})`)),
    );
    const axis = h("div", { class: "segmented", role: "group", "aria-label": "Step axis" });
    for (const [value, name] of [[false, "linear"], [true, "log"]]) {
      axis.append(h("button", { "aria-pressed": String(state.xlog === value), onclick: () => this.app.set({ xlog: value, zoom: null }) }, name));
    }
    fill(
      this.toolbar,
      h("h2", {}, state.focus === "." ? "this run" : state.focus),
      h("span", { class: "grow" }),
      state.zoom ? h("button", { onclick: () => this.app.zoom(null) }, "Whole run") : null,
      state.more.length ? h("button", { onclick: () => this.app.set({ more: [] }) }, "Remove added") : null,
      more,
      axis,
    );
  }

  // Names of the events above the curves, and the phases as a coloured ribbon under the names.
  drawRibbon() {
    const plot = this.strips.find((strip) => strip.plot)?.plot;
    fill(this.ribbon);
    if (!plot) return;
    const width = plot.over.clientWidth;
    const x = (value) => plot.valToPos(value, "x");
    const bar = h("div", { class: "phases", style: { left: `${LEFT}px`, right: `${RIGHT}px` } });
    for (const { event, from, to } of stretches(this.events, this.whole[1])) {
      const a = Math.max(0, x(from));
      const b = Math.min(width, x(to));
      if (b <= 0 || a >= width || b <= a) continue;
      const name = title(event);
      bar.append(
        h(
          "div",
          { class: "phase", title: `${name} from step ${step(from)}`, style: { left: `${a}px`, width: `${b - a}px`, "--phase": phaseColour(event.phase), "--band": faint(phaseColour(event.phase), 0.22) } },
          b - a > name.length * 7 ? name : "",
        ),
      );
    }
    const flags = h("div", { class: "flags", style: { left: `${LEFT}px`, right: `${RIGHT}px` } });
    const visible = this.events.filter((e) => x(e.onset) >= -1 && x(e.onset) <= width + 1 && !isSpike(e));
    const placed = arrange(visible.map((e) => [x(e.onset), isScheduled(e) ? 0 : `${sign(e.phase)} ${title(e)} ${step(e.onset)}`.length * 6.7 + 18]), width + RIGHT);
    visible.forEach((event, n) => {
      const { lane, side } = placed[n];
      flags.append(
        h(
          "button",
          {
            class: `flag ${side}${event === this.chosen ? " chosen" : ""}`,
            style: { left: `${x(event.onset)}px`, bottom: `${lane * 22}px`, "--phase": phaseColour(event.phase), "--stem": `${lane * 22 + 2}px` },
            "data-onset": event.onset,
            "data-phase": event.phase,
            title: event.message,
            "aria-label": `${title(event)}, onset ${event.onset}, between ${low(event)} and ${high(event)}, confirmed at step ${event.step}`,
            onclick: () => this.app.choose(this.app.state.focus, event),
          },
          side === "small" ? sign(event.phase) : `${sign(event.phase)} ${title(event)} ${step(event.onset)}`,
        ),
      );
    });
    const lanes = placed.map((one) => one.lane + 1);
    this.ribbon.style.height = `${Math.max(1, ...lanes) * 22 + 20}px`;
    this.ribbon.append(flags, bar);
  }

  drawSide() {
    const { state } = this.app;
    fill(this.side, this.chosen ? evidencePanel(this.app, state.focus, this.chosen) : eventList(this.app, state.focus));
  }

  resize() {
    for (const strip of this.strips) strip.resize();
    queueMicrotask(() => this.drawRibbon());
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
    queueMicrotask(() => this.drawRibbon());
  }

  fillTable() {
    const { model, state } = this.app;
    const [from, to] = this.range;
    const rows = Array.from({ length: 25 }, (_, n) => from + ((to - from) * n) / 24);
    const columns = this.plan_.flatMap((strip) => strip.tags).map((tag) => [tag, model.curve(state.focus, tag)]);
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

const LANES = 4;

// Lanes for texts [stem, width] in the order of their stems, so that neither a text nor a stem covers another text: from
// the right to the left, so that the text of an early event passes above the stems of later ones. What finds no room is
// small, a sign without words.
export function arrange(texts, end) {
  const out = [];
  const placed = [];
  const fits = (one, strict) =>
    one.left >= -40 && one.right <= end && placed.every((o) => {
      if (o.lane === one.lane) return one.right + 4 <= o.left || o.right + 4 <= one.left;
      if (!strict) return true;
      const [above, below] = o.lane > one.lane ? [o, one] : [one, o];
      return above.stem < below.left - 1 || above.stem > below.right + 1;
    });
  for (let n = texts.length - 1; n >= 0; n--) {
    const [stem, width] = texts[n];
    const lanes = Array.from({ length: width ? LANES : 0 }, (_, lane) => lane);
    const tries = [
      ...lanes.map((lane) => ({ stem, left: stem, right: stem + width, lane, side: "right" })),
      ...lanes.map((lane) => ({ stem, left: stem - width, right: stem, lane, side: "left" })),
    ];
    const small = Array.from({ length: LANES }, (_, lane) => ({ stem, left: stem - 8, right: stem + 8, lane, side: "small" }));
    const found = tries.find((one) => fits(one, true)) || tries.find((one) => fits(one, false)) || small.find((one) => fits(one, false)) || { stem, left: stem, right: stem, lane: 0, side: "small" };
    placed.push(found);
    out[n] = found;
  }
  return out;
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
