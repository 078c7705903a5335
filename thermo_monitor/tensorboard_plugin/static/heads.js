// Layers and heads: a map that a scrubber moves through the run, on one scale for all of it.

import { before, fill, h, number, option, step } from "./dom.js";
import { at, HeadMap, shown, spread } from "./headmap.js";
import { phaseColour, sign } from "./look.js";
import { isSpike, title } from "./phases.js";
import { spark } from "./spark.js";

const SPEED = 12; // seconds that a whole run takes to play

export class Heads {
  constructor(app, place) {
    this.app = app;
    this.index = null; // of the frame; null while it follows the newest
    this.cell = [0, 0];
    this.playing = null;
    this.cursor = null; // of the chart of a head; null when that is to be drawn anew
    this.toolbar = h("div", { class: "toolbar" });
    this.canvas = h("canvas", { tabindex: 0, role: "img" });
    this.legend = h("canvas", { class: "legend", "aria-hidden": "true" });
    this.map = new HeadMap(this.canvas, this.legend);
    this.tip = h("div", { class: "tip", hidden: true });
    this.legendBox = h("div", { class: "legend-box" }, this.legend);
    this.ticks = h("div", { class: "scrub-events" });
    this.slider = h("input", { type: "range", min: 0, value: 0, "aria-label": "Step", oninput: () => this.seek(Number(this.slider.value)) });
    this.play = h("button", { class: "play", onclick: () => this.toggle() }, "▶ Play");
    this.now = h("output", { class: "now" });
    this.scrub = h("div", { class: "scrub" }, this.play, h("div", { class: "track" }, this.ticks, this.slider), this.now);
    this.detail = h("canvas", { role: "img" });
    this.detailHead = h("div", { class: "strip-head" });
    this.root = h(
      "div",
      { class: "heads" },
      this.toolbar,
      h("div", { class: "map" }, this.canvas, this.tip),
      this.legendBox,
      this.scrub,
      h("section", { class: "strip" }, this.detailHead, h("div", { class: "spark" }, this.detail)),
    );
    place.append(this.root);
    this.canvas.addEventListener("mousemove", (e) => this.point(e));
    this.canvas.addEventListener("mouseleave", () => (this.tip.hidden = true));
    this.canvas.addEventListener("click", (e) => this.pick(e));
    this.canvas.addEventListener("keydown", (e) => this.keys(e));
  }

  get choice() {
    const { model, state } = this.app;
    const all = model.run(state.focus)?.heads || [];
    return all.find((one) => one.quantity === state.quantity) || all.find((one) => one.quantity === "attn/specific_heat_norm") || all[0];
  }

  async prepare() {
    const { model, state } = this.app;
    const choice = this.choice;
    const known = choice && model.frames.get(`${state.focus}\0${choice.tag}`);
    this.data = choice ? await model.needFrames(state.focus, choice.tag) : null;
    this.meta = choice;
    return this.data !== known;
  }

  draw() {
    const { model, state } = this.app;
    const run = model.run(state.focus);
    const all = run?.heads || [];
    fill(
      this.toolbar,
      h("h2", {}, state.focus),
      h("span", { class: "grow" }),
      h(
        "select",
        { "aria-label": "Quantity", onchange: (e) => this.app.set({ quantity: e.target.value }) },
        all.map((one) => option(one.quantity, model.words.quantities[one.quantity]?.name || one.quantity, one === this.meta)),
      ),
    );
    const some = this.data?.steps.length > 0;
    for (const part of [this.canvas.parentElement, this.legendBox, this.scrub, this.detail.closest("section")]) part.hidden = !some;
    this.root.querySelector(".hint")?.remove();
    if (!some) {
      const why = run?.monitored
        ? "No layer or head was recorded in this run: either no attention was heard, or the TensorBoard log was not written by the monitor."
        : "This run was not watched by the monitor, and maps of layers and heads come from the monitor alone.";
      this.root.append(h("p", { class: "hint" }, why));
      return;
    }
    if (this.index !== null && this.index >= this.data.steps.length - 1) this.index = null;
    if (this.measured !== this.data) {
      this.range = spread(this.data.values);
      this.measured = this.data;
    }
    this.cell = [Math.min(this.cell[0], this.data.layers - 1), Math.min(this.cell[1], this.data.heads - 1)];
    this.slider.max = this.data.steps.length - 1;
    this.cursor = null;
    this.paint();
    this.map.drawLegend();
    this.drawTicks();
  }

  get at() {
    return this.index ?? this.data.steps.length - 1;
  }

  value(frame, layer, head) {
    return at(this.data, frame, layer, head);
  }

  seek(index) {
    const last = this.data.steps.length - 1;
    this.index = index >= last ? null : Math.max(0, index);
    this.paint();
  }

  // The step that is shown; everything else is drawn when the data change.
  paint() {
    const { layers, heads, steps } = this.data;
    if (!this.map.paint({ data: this.data, meta: this.meta, range: this.range, at: this.at, cell: this.cell })) return;
    const name = this.app.model.words.quantities[this.meta.quantity]?.name || this.meta.quantity;
    const value = number(shown(this.meta, this.value(this.at, ...this.cell)));
    this.canvas.setAttribute("aria-label", `${name} over ${layers} layers and ${heads} heads at step ${steps[this.at]}; layer ${this.cell[0]}, head ${this.cell[1]}: ${value}. Arrow keys move.`);
    this.slider.value = this.at;
    this.slider.setAttribute("aria-valuetext", `step ${steps[this.at]}`);
    fill(this.now, `step ${step(steps[this.at])}`, this.index === null ? h("span", { class: "hint" }, " newest") : null);
    this.drawDetail();
  }

  drawTicks() {
    const { steps } = this.data;
    const events = this.app.model.told(this.app.state.focus).filter((e) => !isSpike(e));
    fill(
      this.ticks,
      events.map((event) => {
        const index = Math.max(0, before(steps, event.onset));
        return h(
          "button",
          {
            class: "scrub-event",
            style: { left: `${(100 * index) / Math.max(1, steps.length - 1)}%`, "--phase": phaseColour(event.phase) },
            title: `${title(event)}, onset ${event.onset}`,
            "aria-label": `Go to ${title(event)}, step ${event.onset}`,
            onclick: () => this.seek(index),
          },
          sign(event.phase),
        );
      }),
    );
  }

  // The course of the chosen head.
  drawDetail() {
    const { steps } = this.data;
    const [layer, head] = this.cell;
    const name = this.meta.layers[layer] || `layer ${layer}`;
    const value = shown(this.meta, this.value(this.at, layer, head));
    fill(
      this.detailHead,
      h("span", { class: "strip-title" }, `${name}, head ${head}`),
      this.data.heads > 1 ? h("span", { class: "unit" }, "the other heads of the layer in grey") : null,
      h("span", { class: "values" }, h("span", { class: "value" }, h("b", {}, number(value)))),
    );
    if (this.cursor) return this.cursor(this.at); // only the step is another one
    const course = (k) => steps.map((_, n) => this.value(n, layer, k));
    const others = Array.from({ length: Math.min(this.data.heads, 64) }, (_, k) => k).filter((k) => k !== head);
    const values = course(head);
    const events = this.app.model.told(this.app.state.focus);
    this.cursor = spark(this.detail, { height: 190, steps, lines: [...others.map(course), values], events, format: (v) => shown(this.meta, v) });
    this.cursor?.(this.at);
    this.detail.setAttribute("aria-label", `${name}, head ${head}: ${number(shown(this.meta, values[0]))} at step ${steps[0]}, ${number(shown(this.meta, values[values.length - 1]))} at step ${steps[steps.length - 1]}`);
  }

  point(e) {
    const found = this.data && this.map.cellAt(e);
    this.tip.hidden = !found;
    if (!found) return;
    const v = this.value(this.at, ...found);
    fill(this.tip, h("b", {}, Number.isNaN(v) ? "not measured" : number(shown(this.meta, v))), ` ${this.meta.layers[found[0]] || `layer ${found[0]}`}, head ${found[1]}`);
    this.tip.style.left = `${Math.min(e.offsetX + 14, this.canvas.clientWidth - 180)}px`;
    this.tip.style.top = `${e.offsetY + 14}px`;
  }

  pick(e) {
    const found = this.map.cellAt(e);
    if (!found) return;
    this.cell = found;
    this.cursor = null;
    this.paint();
  }

  keys(e) {
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[e.key];
    if (!move || !this.data) return;
    e.preventDefault();
    this.cursor = null;
    const clamp = (v, top) => Math.max(0, Math.min(top - 1, v));
    this.cell = [clamp(this.cell[0] + move[0], this.data.layers), clamp(this.cell[1] + move[1], this.data.heads)];
    this.paint();
  }

  toggle() {
    if (this.playing) return this.stop();
    const last = this.data.steps.length - 1;
    const from = this.at >= last ? 0 : this.at;
    const started = performance.now();
    fill(this.play, "❚❚ Pause");
    const each = () => {
      const index = Math.floor(from + ((performance.now() - started) / 1000) * Math.max(last / SPEED, 4));
      this.seek(Math.min(index, last));
      if (index >= last) return this.stop();
      this.playing = requestAnimationFrame(each);
    };
    this.playing = requestAnimationFrame(each);
  }

  stop() {
    cancelAnimationFrame(this.playing);
    this.playing = null;
    fill(this.play, "▶ Play");
  }

  jump(event) {
    if (this.data?.steps.length) this.seek(Math.max(0, before(this.data.steps, event.onset)));
  }

  resize() {
    if (this.data?.steps.length) {
      this.cursor = null;
      this.paint();
      this.map.drawLegend();
    }
  }

  theme() {
    this.draw();
  }

  destroy() {
    this.stop();
    this.root.remove();
  }
}
