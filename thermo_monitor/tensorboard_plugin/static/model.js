// What is known of the log, and nothing about how it is shown. Curves are fetched when a view needs them.

import { arrays, ask, state } from "./wire.js";

const PREFIX = "thermo/";

export class Model {
  constructor() {
    this.token = null;
    this.logdir = "";
    this.runs = []; // {name, tags: [name], heads, monitored, newer, step, wall}
    this.events = new Map(); // run -> events, by onset
    this.words = { phases: {}, kinds: {}, quantities: {}, keys: [], version: "" };
    this.curves = new Map(); // run, tag -> {steps, walls, values, mark}
    this.frames = new Map();
    this.asked = new Set(); // unmonitored runs whose events are wanted
    this.looking = new Set(); // those of them that have no answer yet
  }

  async start() {
    [this.words] = await Promise.all([ask("words"), this.refresh()]);
  }

  run(name) {
    return this.runs.find((run) => run.name === name);
  }

  // Whether anything changed.
  async refresh() {
    const found = await state(this.token);
    if (found.unchanged) return false;
    this.runs = found.runs.map((run) => ({ ...run, tags: run.tags.map((n) => found.tags[n]) }));
    this.logdir = found.logdir;
    await this.refreshEvents();
    this.token = found.token;
    return true;
  }

  async refreshEvents() {
    const answer = await ask("events", { runs: [...this.asked].filter((name) => this.run(name)) });
    this.events = new Map(Object.entries(answer.events));
  }

  // Events of unmonitored runs are only looked for when somebody looks at the run. That takes a while: nobody waits.
  async wantEvents(names) {
    const fresh = names.filter((name) => this.run(name) && !this.run(name).monitored && !this.asked.has(name));
    if (!fresh.length) return false;
    for (const name of fresh) this.asked.add(name) && this.looking.add(name);
    try {
      await this.refreshEvents();
    } catch (error) {
      for (const name of fresh) this.asked.delete(name);
      throw error;
    } finally {
      for (const name of fresh) this.looking.delete(name);
    }
    return true;
  }

  eventsOf(name) {
    return this.events.get(name) || [];
  }

  // Without those that are another side of one of them.
  told(name) {
    return this.eventsOf(name).filter((event) => !event.details || !("part_of" in event.details));
  }

  curve(run, tag) {
    return this.curves.get(`${run}\0${tag}`);
  }

  // Fetches the curves of some runs and tags that are missing or have grown; whether any came.
  async need(names, tags) {
    const runs = names.map((name) => this.run(name)).filter(Boolean);
    const stale = [];
    const wanted = new Set();
    for (const run of runs) {
      const mark = `${run.step} ${run.wall}`;
      const missing = tags.filter((tag) => run.tags.includes(tag) && this.curve(run.name, tag)?.mark !== mark);
      if (missing.length) {
        stale.push(run);
        for (const tag of missing) wanted.add(tag);
      }
    }
    if (!stale.length) return false;
    const answer = await arrays("series", { runs: stale.map((run) => run.name), tags: [...wanted] });
    const marks = new Map(stale.map((run) => [run.name, `${run.step} ${run.wall}`]));
    answer.curves.forEach(({ run, tag }, n) => {
      const [steps, walls, values] = answer.arrays.slice(3 * n, 3 * n + 3).map((array) => array.data);
      this.curves.set(`${run}\0${tag}`, { steps, walls, values, mark: marks.get(run) });
    });
    for (const run of stale) {
      for (const tag of wanted) {
        // A tag that was listed and gave nothing is not asked for again until the run grows.
        const key = `${run.name}\0${tag}`;
        if (run.tags.includes(tag) && this.curves.get(key)?.mark !== marks.get(run.name)) {
          this.curves.set(key, { steps: [], walls: [], values: [], mark: marks.get(run.name) });
        }
      }
    }
    return true;
  }

  async needFrames(name, tag) {
    const run = this.run(name);
    const key = `${name}\0${tag}`;
    const known = this.frames.get(key);
    if (!run || known?.mark === `${run.step} ${run.wall}`) return known;
    const mark = `${run.step} ${run.wall}`;
    const after = known?.steps.length ? known.steps[known.steps.length - 1] : null;
    const answer = await arrays("frames", { run: name, tag, after });
    const [steps, grid] = answer.arrays;
    const [count, layers, heads] = grid.shape;
    let held = { steps: Array.from(steps.data), values: grid.data, layers, heads, mark };
    if (known && (count === 0 || (layers === known.layers && heads === known.heads))) {
      const values = new Float32Array(known.values.length + grid.data.length);
      values.set(known.values);
      values.set(grid.data, known.values.length);
      held = { ...known, steps: [...known.steps, ...steps.data], values, mark };
    }
    this.frames.set(key, held);
    return held;
  }

  quantity(tag) {
    return tag.startsWith(PREFIX) ? this.words.quantities[tag.slice(PREFIX.length)] : undefined;
  }

  label(tag) {
    return this.quantity(tag)?.name || tag;
  }

  unit(tag) {
    const unit = this.quantity(tag)?.unit;
    return !unit || unit === "1" ? "" : unit;
  }

  isLog(tag) {
    const known = this.quantity(tag);
    return known ? known.scale === "log" : /(^|[/_])(loss|perplexity)($|[/_])/i.test(tag);
  }
}

export const tagOf = (quantity) => PREFIX + quantity;

// Numbers in an event may be infinite, which JSON has as a word.
export const evidence = (event) =>
  event.evidence === "Infinity" ? Infinity : typeof event.evidence === "number" ? event.evidence : NaN;
