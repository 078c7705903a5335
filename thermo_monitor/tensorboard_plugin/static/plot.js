// One strip of curves on the shared step axis, drawn by uPlot, with the events behind and before the curves.

import { FONT, ticks } from "./axes.js";
import { before, fill, h, number } from "./dom.js";
import { describe, join } from "./lines.js";
import { faint, inks, phaseColour } from "./look.js";
import { high, isScheduled, isSpike, low, stretches } from "./phases.js";

// More points than there are pixels: a line of one pixel is drawn twenty times as fast there, a wider one must be filled.
const DENSE = 4000;

export const LEFT = 62; // pixels of the value axis: the same in all strips, so that steps stand above one another
export const RIGHT = 14;

// Options: lines [{name, colour, dash, steps, values}], title, note, unit, log, xlog, range, height, last,
// events, end, chosen; calls: onZoom([low, high] | null), onPick(event).
export class Strip {
  constructor(place, options) {
    this.options = options;
    this.values = h("span", { class: "values" });
    this.head = h("div", { class: "strip-head" });
    this.box = h("div", { class: "plot", role: "img" });
    this.root = h("section", { class: "strip" }, this.head, this.box);
    place.append(this.root);
    this.plot = null;
    this.draw();
  }

  update(options) {
    const was = this.options;
    this.options = { ...was, ...options };
    this.draw();
  }

  draw() {
    const o = this.options;
    fill(
      this.head,
      h("span", { class: "strip-title", title: o.note || null }, o.title),
      o.unit ? h("span", { class: "unit" }, o.unit) : null,
      o.extra || null,
      this.values,
    );
    this.box.setAttribute("aria-label", describe(o));
    this.destroyPlot();
    const width = this.root.clientWidth;
    if (width < 80) return; // hidden: drawn when it is seen again
    this.plot = new window.uPlot(this.uplot(width), join(o.lines, o.log), this.box);
    this.show(null);
  }

  resize() {
    const width = this.root.clientWidth;
    if (width < 80) return;
    if (!this.plot) this.draw();
    else if (Math.abs(this.plot.width - width) > 1) this.plot.setSize({ width, height: this.options.height });
  }

  destroyPlot() {
    if (this.plot) this.plot.destroy();
    this.plot = null;
    this.box.textContent = "";
  }

  destroy() {
    this.destroyPlot();
    this.root.remove();
  }

  zoom([from, to]) {
    if (this.plot) this.plot.setScale("x", { min: from, max: to });
  }

  uplot(width) {
    const o = this.options;
    const ink = inks();
    const axis = { stroke: ink.text, font: FONT, ticks: { show: false } };
    return {
      width,
      height: o.height,
      padding: [6, RIGHT, o.last ? 0 : 6, 0],
      legend: { show: false },
      cursor: {
        sync: { key: "thermo", setSeries: false },
        drag: { x: true, y: false, setScale: false },
        points: { size: 6, width: 1.5, fill: ink.paper },
        y: false,
      },
      scales: {
        x: { time: false, distr: o.xlog ? 3 : 1, range: () => o.range },
        y: { distr: o.log ? 3 : 1, range: (u, min, max) => room(min, max, o.log, o.bounds) },
      },
      axes: [
        {
          ...axis,
          show: Boolean(o.last),
          size: o.last ? 28 : 0,
          label: o.last ? o.xlabel || "optimizer step" : undefined,
          labelSize: 16,
          labelFont: FONT,
          labelGap: 0,
          gap: 4,
          filter: (u, splits) => splits,
          splits: o.xlog ? (u, i, min, max) => ticks(min, max, true, 8) : undefined,
          grid: { stroke: ink.grid, width: 1 },
          values: (u, ticks) => ticks.map((t) => (t === null ? "" : t.toLocaleString("en-US"))),
        },
        {
          ...axis,
          size: LEFT,
          gap: 6,
          filter: (u, splits) => splits,
          splits: (u, i, min, max) => ticks(min, max, o.log, Math.max(2, Math.round((o.height - 40) / 24))),
          grid: { stroke: ink.grid, width: 1 },
          values: (u, ticks) => ticks.map((t) => (t === null ? "" : number(t, 3))),
        },
      ],
      series: [
        {},
        ...o.lines.map((line) => ({
          label: line.name,
          stroke: line.colour,
          width: line.steps.length > DENSE ? 1 : line.width || 1.5,
          dash: line.dash,
          alpha: line.alpha ?? 1,
          points: { show: line.steps.length < 3, size: 5 },
          spanGaps: false,
        })),
      ],
      hooks: {
        drawClear: [(u) => this.behind(u)],
        draw: [(u) => this.over(u)],
        setCursor: [(u) => this.hover(u)],
        setSelect: [
          (u) => {
            if (u.select.width < 4) return;
            const ends = [u.select.left, u.select.left + u.select.width].map((p) => u.posToVal(p, "x"));
            u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
            o.onZoom?.(ends);
          },
        ],
        ready: [
          (u) => {
            u.over.addEventListener("dblclick", () => o.onZoom?.(null));
            u.over.addEventListener("click", (click) => this.pick(u, click));
          },
        ],
      },
    };
  }

  // Phases as bands and onset intervals as shades, behind the curves.
  behind(u) {
    const o = this.options;
    const { ctx, bbox } = u;
    const x = (value) => u.valToPos(value, "x", true);
    const [from, to] = [bbox.left, bbox.left + bbox.width];
    const band = (a, b, colour) => {
      const left = Math.max(from, Math.min(x(a), x(b)));
      const right = Math.min(to, Math.max(x(a), x(b)));
      if (!(right >= from && left <= to)) return;
      ctx.fillStyle = colour;
      ctx.fillRect(left, bbox.top, Math.max(right - left, 0), bbox.height);
    };
    ctx.save();
    for (const { event, from: a, to: b } of stretches(o.events, o.end)) band(a, b, faint(phaseColour(event.phase), 0.07));
    for (const event of o.events) {
      if (isScheduled(event) || isSpike(event)) continue;
      const chosen = event === o.chosen;
      band(low(event), high(event), faint(phaseColour(event.phase), chosen ? 0.32 : 0.2));
    }
    ctx.restore();
  }

  // Onset as a solid line, confirmation as thin dashes, schedule as a thin line, a spike as a tick.
  over(u) {
    const o = this.options;
    const { ctx, bbox } = u;
    const unit = devicePixelRatio;
    const line = (value, colour, width, dash, share = 1) => {
      const at = Math.round(u.valToPos(value, "x", true));
      if (!(at >= bbox.left - 1 && at <= bbox.left + bbox.width + 1)) return;
      ctx.strokeStyle = colour;
      ctx.lineWidth = width * unit;
      ctx.setLineDash(dash.map((d) => d * unit));
      ctx.beginPath();
      ctx.moveTo(at, bbox.top + bbox.height * (1 - share));
      ctx.lineTo(at, bbox.top + bbox.height);
      ctx.stroke();
    };
    ctx.save();
    for (const event of o.events) {
      const colour = phaseColour(event.phase);
      if (isScheduled(event)) line(event.onset, faint(colour, 0.8), 1, [2, 2]);
      else if (isSpike(event)) line(event.onset, faint(colour, 0.9), 1.5, [], 0.18);
      else {
        line(event.step, faint(colour, 0.75), 1, [4, 3]);
        line(event.onset, colour, event === o.chosen ? 3 : 2, []);
      }
    }
    ctx.restore();
  }

  hover(u) {
    const inside = u.cursor.left >= 0 && u.cursor.idx !== null && u.cursor.idx !== undefined;
    const at = inside ? u.posToVal(u.cursor.left, "x") : null;
    this.show(at);
  }

  // Values at a step, or the newest ones.
  show(at) {
    const many = this.options.lines.length > 1;
    fill(
      this.values,
      this.options.lines.map((line) => {
        const index = at === null ? line.steps.length - 1 : before(line.steps, at);
        return h(
          "span",
          { class: "value", style: { "--stroke": line.colour } },
          many ? h("span", { class: line.dash ? "key dashed" : "key" }) : null,
          many ? h("span", { class: "name" }, line.name) : null,
          h("b", {}, number(line.values[index])),
        );
      }),
    );
  }

  // The event whose onset or interval is under the pointer.
  pick(u, click) {
    const at = click.offsetX;
    let best = null;
    for (const event of this.options.events) {
      const x = u.valToPos(event.onset, "x");
      const ends = [u.valToPos(low(event), "x"), u.valToPos(high(event), "x")];
      const far = at >= ends[0] && at <= ends[1] ? 0 : Math.abs(at - x);
      if (far <= 7 && (!best || far < best.far)) best = { far, event };
    }
    if (best) this.options.onPick?.(best.event);
  }
}

function room(min, max, log, bounds) {
  if (bounds) return bounds;
  if (min === null || max === null || !Number.isFinite(min)) return log ? [0.1, 10] : [0, 1];
  if (log) {
    const room = Math.max((max / min) ** 0.06, 1.02);
    return [min / room, max * room];
  }
  const room = Math.max((max - min) * 0.08, Math.abs(max) * 1e-6, 1e-12);
  return [min - room, max + room];
}
