// Live: where a run is now, how fast it goes, how far it is from an alarm, and what was told last.

import { eventList } from "./evidence.js";
import { age, fill, h, number, step } from "./dom.js";
import { phaseColour, sign } from "./look.js";
import { tagOf } from "./model.js";
import { summary } from "./phases.js";
import { spark } from "./spark.js";

const TILES = [
  "loss/train", "attn/specific_heat_norm", "attn/reduced_temperature", "attn/entropy_fraction", "out/predictive_entropy",
  "repr/representation_entropy", "repr/spectral_entropy", "fisher/gradient_coherence", "opt/gradient_norm",
  "opt/weight_norm", "monitor/overhead",
];
const RECENT = 200; // points of a tile's curve

export class Live {
  constructor(app, place) {
    this.app = app;
    this.state = h("div", { class: "now-card card" });
    this.tiles = h("div", { class: "tiles" });
    this.side = h("aside", { class: "evidence", "aria-label": "Events" });
    this.notify = h("div", { class: "card notify" });
    this.root = h("div", { class: "live" }, h("div", { class: "main" }, this.state, this.tiles), h("div", {}, this.notify, this.side));
    place.append(this.root);
    this.clock = setInterval(() => this.drawState(), 1000);
  }

  tags() {
    const tags = this.app.model.run(this.app.state.focus)?.tags || [];
    const ours = TILES.map(tagOf).filter((tag) => tags.includes(tag));
    return ours.length ? ours : tags.filter((tag) => !/(^|\/)epoch$/.test(tag)).slice(0, 10);
  }

  async prepare() {
    const { model, state } = this.app;
    return model.need([state.focus], [...this.tags(), tagOf("detect/score")]);
  }

  draw() {
    this.drawState();
    this.drawNotify();
    const { model, state } = this.app;
    this.shown = [];
    fill(
      this.tiles,
      this.tags().map((tag) => {
        const curve = model.curve(state.focus, tag);
        const canvas = h("canvas", { role: "img" });
        const last = curve?.steps.length ? curve.values[curve.values.length - 1] : NaN;
        this.shown.push({ canvas, curve, tag });
        return h(
          "div",
          { class: "tile card", title: model.quantity(tag)?.meaning || tag },
          h("div", { class: "strip-head" }, h("span", { class: "strip-title" }, model.label(tag)), h("span", { class: "unit" }, model.unit(tag))),
          h("div", { class: "big" }, number(last)),
          h("div", { class: "spark" }, canvas),
        );
      }),
    );
    this.paint();
    fill(this.side, eventList(this.app, state.focus));
  }

  drawState() {
    const { model, state } = this.app;
    const run = model.run(state.focus);
    if (!run) return;
    const told = summary(model.told(run.name));
    const score = model.curve(run.name, tagOf("detect/score"));
    const now = score?.steps.length ? score.values[score.values.length - 1] : null;
    const speed = this.speed(run);
    const old = Date.now() / 1000 - run.wall;
    fill(
      this.state,
      h("h2", {}, run.name),
      h("p", { class: "regime", style: told ? { "--phase": phaseColour(told.event.phase) } : {} }, told ? [h("span", { class: "sign" }, sign(told.event.phase)), ` ${told.text}`] : "no event so far"),
      h(
        "dl",
        { class: "facts wide" },
        h("dt", {}, "step"),
        h("dd", {}, step(run.step)),
        h("dt", {}, "speed"),
        h("dd", {}, Number.isFinite(speed) ? `${number(speed, 3)} steps/s` : "–"),
        h("dt", {}, "newest data"),
        h("dd", {}, old > 120 ? `${age(old)} ago; the run has probably ended` : `${age(Math.max(0, old))} ago`),
        h("dt", {}, "towards an alarm"),
        h("dd", {}, now === null ? "–" : [h("meter", { min: 0, max: 1, value: now, "aria-label": "progress towards an alarm" }), ` ${Math.round(100 * now)} %`]),
      ),
    );
  }

  speed(run) {
    const tag = this.tags()[0];
    const curve = tag && this.app.model.curve(run.name, tag);
    const n = curve?.steps.length || 0;
    if (n < 3) return NaN;
    const from = Math.max(0, n - 50);
    return (curve.steps[n - 1] - curve.steps[from]) / (curve.walls[n - 1] - curve.walls[from]);
  }

  drawNotify() {
    const { notices } = this.app;
    const possible = notices.possible();
    const on = notices.on();
    fill(
      this.notify,
      h("h3", {}, "Being told"),
      h("p", {}, "A new event shows as a note in this tab and as a number in the title of the page."),
      h("button", { "aria-pressed": String(on), disabled: possible ? null : true, onclick: () => notices.toggle().then(() => this.drawNotify()) }, on ? "Browser notifications are on" : "Switch browser notifications on"),
      possible ? null : h("p", { class: "hint" }, "This browser does not allow notifications here."),
      h("p", { class: "hint" }, "For mail, chat and phones give the callback addresses: ", h("code", {}, 'ThermoMonitor(alerts=["slack://…"])'), "."),
    );
  }

  paint() {
    const { model, state } = this.app;
    const events = model.told(state.focus);
    for (const { canvas, curve, tag } of this.shown || []) {
      if (!curve?.steps.length) continue;
      const steps = Array.from(curve.steps.slice(-RECENT));
      const values = Array.from(curve.values.slice(-RECENT));
      const log = model.isLog(tag) && values.every((v) => v > 0);
      spark(canvas, { height: 54, steps, lines: [log ? values.map(Math.log) : values], events });
      canvas.setAttribute("aria-label", `${model.label(tag)} from ${number(values[0])} at step ${steps[0]} to ${number(values[values.length - 1])}`);
    }
  }

  resize() {
    this.paint();
  }

  theme() {
    this.draw();
  }

  destroy() {
    clearInterval(this.clock);
    this.root.remove();
  }
}
