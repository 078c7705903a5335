// The map of layers and heads: one frame in colour, on one scale for the whole run.

import { FONT, sized, text } from "./axes.js";
import { inks, viridis } from "./look.js";

const LABELS = 120; // pixels for the names of the layers
const COLOURS = new Uint32Array(256);

export const at = ({ layers, heads, values }, frame, layer, head) => values[(frame * layers + layer) * heads + head];
export const shown = (meta, value) => (meta.scale === "log10" ? 10 ** value : value);

// Limits of finite values.
export function spread(values) {
  let [least, most] = [Infinity, -Infinity];
  for (const v of values) {
    if (v < least) least = v;
    if (v > most) most = v;
  }
  return least <= most ? [least, most] : [0, 1];
}

export class HeadMap {
  constructor(canvas, legend) {
    this.canvas = canvas;
    this.legend = legend;
    this.image = document.createElement("canvas"); // a pixel a head
    const bytes = new Uint8Array(COLOURS.buffer);
    for (let i = 0; i < 256; i++) bytes.set([...viridis(i / 255), 255], 4 * i);
  }

  // What is drawn: {data, meta, range, at: index of the frame, cell: [layer, head] that is chosen}. False while hidden.
  paint(now) {
    this.now = now;
    const { layers, heads } = now.data;
    const cell = Math.max(7, Math.min(layers > 3 ? 40 : 64, Math.floor(520 / layers)));
    const place = sized(this.canvas, layers * cell + 26);
    if (!place) return false;
    const { ctx } = place;
    const ink = inks();
    const wide = Math.max(6, Math.min(3 * cell, Math.floor((place.width - LABELS - 4) / heads)));
    this.grid = { cell, wide };
    const missing = this.colour();
    ctx.imageSmoothingEnabled = false;
    ctx.drawImage(this.image, LABELS, 0, heads * wide, layers * cell);
    if (missing.length) this.hatch(ctx, missing, ink);
    if (cell >= 14) {
      ctx.fillStyle = ink.paper;
      for (let i = 1; i < heads; i++) ctx.fillRect(LABELS + i * wide - 1, 0, 1, layers * cell);
      for (let i = 1; i < layers; i++) ctx.fillRect(LABELS, i * cell - 1, heads * wide, 1);
    }
    ctx.strokeStyle = ink.strong;
    ctx.lineWidth = 2;
    ctx.strokeRect(LABELS + now.cell[1] * wide, now.cell[0] * cell + 1, wide - 1, cell - 2);
    this.names(ctx, ink, wide, cell);
    if (wide >= 52 && cell >= 24) this.numbers(ctx, wide, cell);
    return true;
  }

  // Colours of all heads; those that were not measured.
  colour() {
    const { data, range, at: frame } = this.now;
    const { layers, heads } = data;
    if (this.image.width !== heads || this.image.height !== layers) [this.image.width, this.image.height] = [heads, layers];
    const small = this.image.getContext("2d");
    const pixels = small.createImageData(heads, layers);
    const words = new Uint32Array(pixels.data.buffer);
    const [least, most] = range;
    const missing = [];
    for (let n = 0; n < layers * heads; n++) {
      const v = data.values[frame * layers * heads + n];
      if (Number.isNaN(v)) missing.push([Math.floor(n / heads), n % heads]);
      else words[n] = COLOURS[most > least ? Math.max(0, Math.min(255, Math.round((255 * (v - least)) / (most - least)))) : 128];
    }
    small.putImageData(pixels, 0, 0);
    return missing;
  }

  names(ctx, ink, wide, cell) {
    const { layers, heads } = this.now.data;
    ctx.fillStyle = ink.text;
    ctx.font = FONT;
    ctx.textBaseline = "middle";
    ctx.textAlign = "right";
    const everyRow = Math.ceil(13 / cell);
    for (let l = 0; l < layers; l += everyRow) ctx.fillText(shortened(this.now.meta.layers[l] || `layer ${l}`), LABELS - 8, (l + 0.5) * cell, LABELS - 10);
    ctx.textAlign = "center";
    const everyColumn = Math.ceil(24 / wide);
    for (let k = 0; k < heads; k += everyColumn) ctx.fillText(heads === 1 ? "layer" : `${wide > 60 ? "head " : ""}${k}`, LABELS + (k + 0.5) * wide, layers * cell + 12);
  }

  numbers(ctx, wide, cell) {
    const { data, meta, range: [least, most], at: frame } = this.now;
    for (let l = 0; l < data.layers; l++) {
      for (let k = 0; k < data.heads; k++) {
        const v = at(data, frame, l, k);
        if (Number.isNaN(v)) continue;
        ctx.fillStyle = (v - least) / (most - least || 1) > 0.55 ? "#10161b" : "#ffffff";
        ctx.fillText(text(shown(meta, v)), LABELS + (k + 0.5) * wide, (l + 0.5) * cell);
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
    const [w, t] = [this.now.data.heads * wide, this.now.data.layers * cell];
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
    const { meta, range: [least, most] } = this.now;
    const width = Math.min(320, place.width - LABELS - 20);
    for (let i = 0; i < width; i++) {
      ctx.fillStyle = `rgb(${viridis(i / width).join(",")})`;
      ctx.fillRect(LABELS + i, 2, 1.5, 10);
    }
    ctx.fillStyle = inks().text;
    ctx.font = FONT;
    ctx.textBaseline = "top";
    const unit = meta.unit && meta.unit !== "1" ? ` [${meta.unit}]` : "";
    const write = (words, x, y, align) => {
      ctx.textAlign = align;
      ctx.fillText(words, LABELS + x, y);
    };
    write(text(shown(meta, least)), 0, 16, "left");
    write(text(shown(meta, most)), width, 16, "right");
    write(`${meta.scale === "log10" ? "log scale" : ""}${unit}`, width / 2, 16, "center");
    write("one scale for the whole run; hatched: not measured", width + 16, 2, "left");
  }

  // The head under the pointer.
  cellAt(e) {
    const { cell, wide } = this.grid || {};
    const [l, k] = [Math.floor(e.offsetY / cell), Math.floor((e.offsetX - LABELS) / wide)];
    return l >= 0 && k >= 0 && l < this.now.data.layers && k < this.now.data.heads ? [l, k] : null;
  }
}

const shortened = (name) => (name.length > 18 ? `…${name.slice(-17)}` : name);
