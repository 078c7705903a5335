// Phase portrait: one reading against another, the step as colour, the events where they happened.

import { FONT, limits, scale, sized, text, ticks } from "./axes.js";
import { before, fill, h, number, option, step } from "./dom.js";
import { inks } from "./look.js";
import { tagOf } from "./model.js";
import { isScheduled, isSpike, title } from "./phases.js";
import { marks, paired, trail } from "./trail.js";

const PAIRS = [
  ["T against C", "attn/reduced_temperature", "attn/specific_heat"],
  ["U against S of attention", "attn/energy_gap", "attn/entropy"],
  ["S against C", "attn/entropy_fraction", "attn/specific_heat_norm"],
  ["U against S of the outputs", "loss/train", "out/predictive_entropy"], // of the training's free energy F = U - TS
  ["loss against representation entropy", "loss/train", "repr/representation_entropy"],
];
const PAD = { left: 66, right: 24, top: 16, bottom: 44 };

export class Portrait {
  constructor(app, place) {
    this.app = app;
    this.toolbar = h("div", { class: "toolbar" });
    this.canvas = h("canvas", { role: "img" });
    this.tip = h("div", { class: "tip", hidden: true });
    this.map = h("div", { class: "map card" }, this.canvas, this.tip);
    this.legend = h("div", { class: "gradient" });
    this.foot = h("div", { class: "foot" });
    this.root = h("div", { class: "portrait" }, this.toolbar, this.map, this.foot);
    place.append(this.root);
    this.canvas.addEventListener("mousemove", (e) => this.point(e));
    this.canvas.addEventListener("mouseleave", () => this.leave());
    this.canvas.addEventListener("click", (e) => this.pick(e));
  }

  tags() {
    const { model, state } = this.app;
    return (model.run(state.focus)?.tags || []).filter((tag) => !/^thermo\/(monitor)\//.test(tag) && !/(^|\/)epoch$/.test(tag));
  }

  pairs() {
    const has = new Set(this.tags());
    return PAIRS.map(([name, x, y]) => [name, tagOf(x), tagOf(y)]).filter(([, x, y]) => has.has(x) && has.has(y));
  }

  axes() {
    const { state } = this.app;
    const tags = this.tags();
    const [, x, y] = this.pairs()[0] || [null, tags[0], tags[1] || tags[0]];
    return [tags.includes(state.px) ? state.px : x, tags.includes(state.py) ? state.py : y];
  }

  async prepare() {
    const { model, state } = this.app;
    return model.need([state.focus], this.axes().filter(Boolean));
  }

  draw() {
    const { model, state } = this.app;
    const [x, y] = this.axes();
    const choose = (name, now) =>
      h("label", {}, `${name === "px" ? "across" : "up"} `, h("select", { onchange: (e) => this.app.set({ [name]: e.target.value }) }, this.tags().map((tag) => option(tag, model.label(tag), tag === now))));
    fill(
      this.toolbar,
      h("h2", {}, state.focus),
      h("span", { class: "grow" }),
      this.pairs().map(([name, a, b]) => h("button", { "aria-pressed": String(a === x && b === y), onclick: () => this.app.set({ px: a, py: b }) }, name)),
      choose("px", x),
      choose("py", y),
    );
    fill(this.foot, this.legend, h("span", { class: "grow" }), "colour", this.app.axisChoice("Steps by colour"));
    this.points = x && y ? paired(model.curve(state.focus, x), model.curve(state.focus, y)) : [];
    this.names = [x, y];
    this.paint();
  }

  paint(near = null) {
    const { model, state } = this.app;
    const place = sized(this.canvas, 560);
    if (!place) return;
    const { ctx, width, height } = place;
    const ink = inks();
    const [xt, yt] = this.names;
    if (!this.points.length) {
      ctx.fillStyle = ink.text;
      ctx.font = FONT;
      ctx.fillText("These two readings have no steps in common.", PAD.left, 40);
      fill(this.legend);
      return;
    }
    const logs = [xt, yt].map((tag, n) => model.isLog(tag) && this.points.every((p) => p[n] > 0));
    const [xs, ys] = [0, 1].map((n) => limits(this.points.map((p) => p[n]), logs[n]));
    const x = scale(...xs, logs[0], PAD.left, width - PAD.right);
    const y = scale(...ys, logs[1], height - PAD.bottom, PAD.top);
    this.to = (p) => [x(p[0]), y(p[1])];
    ctx.font = FONT;
    ctx.lineWidth = 1;
    ctx.textAlign = "center";
    ctx.textBaseline = "top";
    for (const t of ticks(...xs, logs[0], 8)) {
      ctx.fillStyle = ink.grid;
      ctx.fillRect(x(t), PAD.top, 1, height - PAD.top - PAD.bottom);
      ctx.fillStyle = ink.text;
      ctx.fillText(text(t), x(t), height - PAD.bottom + 7);
    }
    ctx.textAlign = "right";
    ctx.textBaseline = "middle";
    for (const t of ticks(...ys, logs[1], 7)) {
      ctx.fillStyle = ink.grid;
      ctx.fillRect(PAD.left, y(t), width - PAD.left - PAD.right, 1);
      ctx.fillStyle = ink.text;
      ctx.fillText(text(t), PAD.left - 7, y(t));
    }
    const name = (tag) => model.label(tag) + (model.unit(tag) ? ` [${model.unit(tag)}]` : "");
    ctx.fillStyle = ink.strong;
    ctx.textAlign = "center";
    ctx.fillText(name(xt), (PAD.left + width - PAD.right) / 2, height - 10);
    ctx.save();
    ctx.translate(13, (PAD.top + height - PAD.bottom) / 2);
    ctx.rotate(-Math.PI / 2);
    ctx.fillText(name(yt), 0, 0);
    ctx.restore();
    trail(ctx, this.points, this.to, this.app.state.xlog);
    marks(ctx, this.placed(), this.to, width - PAD.right);
    if (near) {
      const [a, b] = this.to(near);
      ctx.strokeStyle = ink.strong;
      ctx.lineWidth = 2;
      ctx.beginPath();
      ctx.arc(a, b, 6, 0, 7);
      ctx.stroke();
    }
    const [first, last] = [this.points[0], this.points[this.points.length - 1]];
    fill(this.legend, h("span", {}, `step ${step(first[2])}`), h("span", { class: "ramp" }), h("span", {}, `${step(last[2])}${this.app.state.xlog ? ", log" : ""}`), h("span", { class: "hint" }, " ○ first, ● last point; signs are events at their onset"));
    const events = this.placed().map(({ event }) => `${title(event)} at step ${event.onset}`);
    this.canvas.setAttribute("aria-label", `${name(yt)} against ${name(xt)} in run ${state.focus}: from (${number(first[0])}, ${number(first[1])}) at step ${first[2]} to (${number(last[0])}, ${number(last[1])}) at step ${last[2]}. ${events.length ? `Events: ${events.join(", ")}.` : ""}`);
  }

  // Events with the point that the run was at then.
  placed() {
    const steps = this.points.map((p) => p[2]);
    return this.app.model
      .told(this.app.state.focus)
      .filter((event) => !isSpike(event) && !isScheduled(event))
      .map((event) => ({ event, point: this.points[Math.max(0, before(steps, event.onset))] }))
      .filter(({ point }) => point);
  }

  nearest(e) {
    let best = null;
    for (const p of this.points || []) {
      const [a, b] = this.to(p);
      const far = (a - e.offsetX) ** 2 + (b - e.offsetY) ** 2;
      if (!best || far < best.far) best = { far, p };
    }
    return best && best.far < 900 ? best.p : null;
  }

  point(e) {
    const p = this.points?.length ? this.nearest(e) : null;
    this.tip.hidden = !p;
    this.paint(p);
    if (!p) return;
    const [x, y] = this.names.map((tag) => this.app.model.label(tag));
    fill(this.tip, h("b", {}, `step ${step(p[2])}`), h("br"), `${x} ${number(p[0])}`, h("br"), `${y} ${number(p[1])}`);
    this.tip.style.left = `${Math.min(e.offsetX + 16, this.canvas.clientWidth - 200)}px`;
    this.tip.style.top = `${e.offsetY + 12}px`;
  }

  leave() {
    this.tip.hidden = true;
    this.paint();
  }

  pick(e) {
    const hit = this.points?.length && this.placed().find(({ point }) => {
      const [a, b] = this.to(point);
      return (a - e.offsetX) ** 2 + (b - e.offsetY) ** 2 < 200;
    });
    if (hit) this.app.choose(this.app.state.focus, hit.event, "timeline");
  }

  resize() {
    if (this.points) this.paint();
  }

  theme() {
    this.draw();
  }

  destroy() {
    this.root.remove();
  }
}
