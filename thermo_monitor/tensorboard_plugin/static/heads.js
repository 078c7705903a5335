// Layers and heads: a map that a scrubber moves through the run, on one scale for all of it.

import { FONT, sized, text } from "./axes.js";
import { before, fill, h, number, option, step } from "./dom.js";
import { inks, phaseColour, sign, viridis } from "./look.js";
import { isSpike, title } from "./phases.js";
import { spark } from "./spark.js";

const LABELS = 120;
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
    this.tip = h("div", { class: "tip", hidden: true });
    this.legend = h("canvas", { class: "legend", "aria-hidden": "true" });
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
    this.drawLegend();
    this.drawTicks();
  }

  get at() {
    return this.index ?? this.data.steps.length - 1;
  }

  value(frame, layer, head) {
    const { layers, heads, values } = this.data;
    return values[(frame * layers + layer) * heads + head];
  }

  shown(value) {
    return this.meta.scale === "log10" ? 10 ** value : value;
  }

  seek(index) {
    const last = this.data.steps.length - 1;
    this.index = index >= last ? null : Math.max(0, index);
    this.paint();
  }

  // The map at one step; everything else is drawn when the data changes.
  paint() {
    const { layers, heads, steps } = this.data;
    const cell = Math.max(7, Math.min(layers > 3 ? 40 : 64, Math.floor(520 / layers)));
    const place = sized(this.canvas, layers * cell + 26);
    if (!place) return;
    const { ctx } = place;
    const ink = inks();
    const wide = Math.max(6, Math.min(3 * cell, Math.floor((place.width - LABELS - 4) / heads)));
    this.grid = { cell, wide };
    const image = document.createElement("canvas");
    image.width = heads;
    image.height = layers;
    const small = image.getContext("2d");
    const pixels = small.createImageData(heads, layers);
    const [least, most] = this.range;
    const missing = [];
    for (let layer = 0; layer < layers; layer++) {
      for (let head = 0; head < heads; head++) {
        const v = this.value(this.at, layer, head);
        const p = 4 * (layer * heads + head);
        if (Number.isNaN(v)) missing.push([layer, head]);
        else pixels.data.set([...viridis(most > least ? (v - least) / (most - least) : 0.5), 255], p);
      }
    }
    small.putImageData(pixels, 0, 0);
    ctx.imageSmoothingEnabled = false;
    ctx.drawImage(image, LABELS, 0, heads * wide, layers * cell);
    if (missing.length) this.hatch(ctx, missing, ink);
    if (cell >= 14) {
      ctx.fillStyle = ink.paper;
      for (let i = 1; i < heads; i++) ctx.fillRect(LABELS + i * wide - 1, 0, 1, layers * cell);
      for (let i = 1; i < layers; i++) ctx.fillRect(LABELS, i * cell - 1, heads * wide, 1);
    }
    ctx.strokeStyle = ink.strong;
    ctx.lineWidth = 2;
    ctx.strokeRect(LABELS + this.cell[1] * wide, this.cell[0] * cell + 1, wide - 1, cell - 2);
    ctx.fillStyle = ink.text;
    ctx.font = FONT;
    ctx.textBaseline = "middle";
    ctx.textAlign = "right";
    const everyRow = Math.ceil(13 / cell);
    for (let l = 0; l < layers; l += everyRow) ctx.fillText(shortened(this.meta.layers[l] || `layer ${l}`), LABELS - 8, (l + 0.5) * cell, LABELS - 10);
    ctx.textAlign = "center";
    const everyColumn = Math.ceil(24 / wide);
    for (let k = 0; k < heads; k += everyColumn) ctx.fillText(heads === 1 ? "layer" : `${wide > 60 ? "head " : ""}${k}`, LABELS + (k + 0.5) * wide, layers * cell + 12);
    if (wide >= 52 && cell >= 24) this.writeValues(ctx, wide, cell);
    const name = this.app.model.words.quantities[this.meta.quantity]?.name || this.meta.quantity;
    const value = number(this.shown(this.value(this.at, ...this.cell)));
    this.canvas.setAttribute("aria-label", `${name} over ${layers} layers and ${heads} heads at step ${steps[this.at]}; layer ${this.cell[0]}, head ${this.cell[1]}: ${value}. Arrow keys move.`);
    this.slider.value = this.at;
    this.slider.setAttribute("aria-valuetext", `step ${steps[this.at]}`);
    fill(this.now, `step ${step(steps[this.at])}`, this.index === null ? h("span", { class: "hint" }, " newest") : null);
    this.drawDetail();
  }

  writeValues(ctx, wide, cell) {
    const [least, most] = this.range;
    for (let l = 0; l < this.data.layers; l++) {
      for (let k = 0; k < this.data.heads; k++) {
        const v = this.value(this.at, l, k);
        if (Number.isNaN(v)) continue;
        ctx.fillStyle = (v - least) / (most - least || 1) > 0.55 ? "#10161b" : "#ffffff";
        ctx.fillText(text(this.shown(v)), LABELS + (k + 0.5) * wide, (l + 0.5) * cell);
      }
    }
  }

  hatch(ctx, cells, ink) {
    const { cell, wide } = this.grid;
    ctx.save();
    ctx.beginPath();
    for (const [l, k] of cells) ctx.rect(LABELS + k * wide, l * cell, wide, cell);
    ctx.fillStyle = ink.grid;
    ctx.fill();
    ctx.clip();
    ctx.strokeStyle = ink.axis;
    ctx.lineWidth = 1;
    const [w, t] = [this.data.heads * wide, this.data.layers * cell];
    ctx.beginPath();
    for (let x = -t; x < w; x += 5) {
      ctx.moveTo(LABELS + x, t);
      ctx.lineTo(LABELS + x + t, 0);
    }
    ctx.stroke();
    ctx.restore();
  }

  drawLegend() {
    const place = sized(this.legend, 34);
    if (!place) return;
    const { ctx } = place;
    const ink = inks();
    const width = Math.min(320, place.width - LABELS - 20);
    for (let i = 0; i < width; i++) {
      ctx.fillStyle = `rgb(${viridis(i / width).join(",")})`;
      ctx.fillRect(LABELS + i, 2, 1.5, 10);
    }
    const [least, most] = this.range;
    ctx.fillStyle = ink.text;
    ctx.font = FONT;
    ctx.textBaseline = "top";
    ctx.textAlign = "left";
    ctx.fillText(text(this.shown(least)), LABELS, 16);
    ctx.textAlign = "right";
    ctx.fillText(text(this.shown(most)), LABELS + width, 16);
    ctx.textAlign = "center";
    const unit = this.meta.unit && this.meta.unit !== "1" ? ` [${this.meta.unit}]` : "";
    ctx.fillText(`${this.meta.scale === "log10" ? "log scale" : ""}${unit}`, LABELS + width / 2, 16);
    ctx.textAlign = "left";
    ctx.fillText("one scale for the whole run; hatched: not measured", LABELS + width + 16, 2);
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
    const value = this.shown(this.value(this.at, layer, head));
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
    this.cursor = spark(this.detail, { height: 190, steps, lines: [...others.map(course), values], events, format: (v) => this.shown(v) });
    this.cursor?.(this.at);
    this.detail.setAttribute("aria-label", `${name}, head ${head}: ${number(this.shown(values[0]))} at step ${steps[0]}, ${number(this.shown(values[values.length - 1]))} at step ${steps[steps.length - 1]}`);
  }

  cellAt(e) {
    const { cell, wide } = this.grid || {};
    const [l, k] = [Math.floor(e.offsetY / cell), Math.floor((e.offsetX - LABELS) / wide)];
    return l >= 0 && k >= 0 && l < this.data.layers && k < this.data.heads ? [l, k] : null;
  }

  point(e) {
    const found = this.data && this.cellAt(e);
    this.tip.hidden = !found;
    if (!found) return;
    const v = this.value(this.at, ...found);
    fill(this.tip, h("b", {}, Number.isNaN(v) ? "not measured" : number(this.shown(v))), ` ${this.meta.layers[found[0]] || `layer ${found[0]}`}, head ${found[1]}`);
    this.tip.style.left = `${Math.min(e.offsetX + 14, this.canvas.clientWidth - 180)}px`;
    this.tip.style.top = `${e.offsetY + 14}px`;
  }

  pick(e) {
    const found = this.cellAt(e);
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
      this.drawLegend();
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

const shortened = (name) => (name.length > 18 ? `…${name.slice(-17)}` : name);

function spread(values) {
  let [least, most] = [Infinity, -Infinity];
  for (const v of values) {
    if (v < least) least = v;
    if (v > most) most = v;
  }
  return least <= most ? [least, most] : [0, 1];
}
