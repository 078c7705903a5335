// The page around the views: what is chosen, what is fetched when, and who draws.

import { fill, h } from "./dom.js";
import { Frame, OVERLAID } from "./frame.js";
import { Heads } from "./heads.js";
import { isDark, onTheme, readUrl, writeUrl } from "./host.js";
import { runColour, setDark } from "./look.js";
import { Live } from "./live.js";
import { Notices } from "./notices.js";
import { key } from "./phases.js";
import { Portrait } from "./portrait.js";
import { Runs } from "./runs.js";
import { Timeline } from "./timeline.js";
import { ServerError } from "./wire.js";

const VIEWS = { timeline: ["Timeline", Timeline], heads: ["Heads", Heads], portrait: ["Phase portrait", Portrait], runs: ["Runs", Runs], live: ["Live", Live] };
const FEW = 3; // runs that are all shown at first
const OFTEN = 2500; // milliseconds between two looks at the log; TensorBoard itself reads every five seconds
const SELDOM = 30000; // while nobody looks
const PATIENCE = 60000; // at most, while the server is gone

export class App {
  constructor(place, model) {
    this.model = model;
    this.unseen = new Set();
    this.view = null;
    this.shown = false;
    this.error = null;
    this.delay = OFTEN;
    const url = readUrl();
    const list = (text) => (text ? text.split("~").map((part) => decodeURIComponent(part)) : []);
    const pair = (text) => {
      const found = (text || "").split("_").map(Number);
      return found.length === 2 && found.every(Number.isFinite) && found[0] < found[1] ? found : null;
    };
    this.state = {
      view: VIEWS[url.view] ? url.view : "timeline",
      runs: list(url.runs),
      focus: url.run || null,
      event: url.event || null,
      xlog: url.x === "log",
      zoom: pair(url.zoom),
      runsZoom: null,
      more: list(url.more),
      quantity: url.quantity || "",
      px: url.px || "",
      py: url.py || "",
      align: url.align || "",
      compare: list(url.compare),
    };
    this.frame = new Frame(this, place, VIEWS);
    this.main = this.frame.main;
    this.notices = new Notices(this, this.frame.toasts);
    document.addEventListener("keydown", (e) => this.keys(e));
    document.addEventListener("visibilitychange", () => document.hidden || this.soon(0));
    onTheme(() => this.theme());
    new ResizeObserver(() => this.resized()).observe(this.main);
    setInterval(() => this.frame.drawStatus(), 1000);
    this.theme();
  }

  async start(begun) {
    this.begun = begun;
    this.frame.drawTabs();
    fill(this.main, h("p", { class: "loading" }, "Reading the log …"));
    await this.tick();
    document.documentElement.setAttribute("data-ready", "yes");
  }

  // --------------------------------------------------------------------------------------------------- the log
  async tick() {
    clearTimeout(this.timer);
    if (this.busy) return;
    this.busy = true;
    try {
      // The log may be here before the page is: what counts as new is what was not shown yet.
      const changed = this.shown ? await this.model.refresh() : (await (this.begun || this.model.start()), true);
      this.error = null;
      this.delay = OFTEN;
      if (changed) {
        this.notices.look();
        this.pickRuns();
        await this.show();
        this.shown = true;
      }
    } catch (error) {
      this.begun = null;
      this.shown = false; // what came, and was not drawn, is drawn with the next answer
      this.delay = Math.min(PATIENCE, this.delay * 2);
      this.failed(error);
    } finally {
      this.busy = false;
      this.checked = Date.now();
      this.frame.drawBanner();
      this.frame.drawStatus();
      this.soon(document.hidden ? Math.max(SELDOM, this.delay) : this.delay);
    }
  }

  soon(delay) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.tick(), delay);
  }

  // Runs that are gone are dropped; where none is left, those with events come first.
  pickRuns() {
    const { model, state } = this;
    state.runs = state.runs.filter((name) => model.run(name)).slice(0, OVERLAID);
    if (!state.runs.length && model.runs.length) {
      const weight = (run) => (model.told(run.name).length ? 2 : 0) + (run.monitored ? 1 : 0);
      const best = [...model.runs].sort((a, b) => weight(b) - weight(a) || b.wall - a.wall);
      state.runs = best.slice(0, best.length <= FEW ? FEW : 1).map((run) => run.name);
    }
    if (!state.runs.includes(state.focus)) state.focus = state.runs[0] ?? null;
  }

  // ------------------------------------------------------------------------------------------------- what is shown
  async show() {
    const { state } = this;
    this.frame.drawTabs();
    this.frame.drawPicker();
    writeUrl({
      view: state.view === "timeline" ? null : state.view,
      runs: state.runs.map(encodeURIComponent).join("~"),
      run: state.focus,
      event: state.event,
      x: state.xlog ? "log" : null,
      zoom: state.zoom ? state.zoom.map((v) => Math.round(v)).join("_") : null,
      more: state.more.map(encodeURIComponent).join("~"),
      quantity: state.quantity,
      px: state.px,
      py: state.py,
      align: state.align,
      compare: state.compare.map(encodeURIComponent).join("~"),
    });
    document.body.classList.toggle("empty", !this.model.runs.length);
    if (!this.model.runs.length) {
      this.view?.destroy();
      this.view = null;
      return this.frame.empty();
    }
    const [, View] = VIEWS[state.view];
    if (!(this.view instanceof View)) {
      this.view?.destroy();
      fill(this.main);
      this.view = new View(this, this.main);
    }
    this.model.wantEvents(state.runs).then((came) => came && this.show()).catch((error) => this.failed(error));
    const asked = (this.asked = Symbol(state.view));
    this.main.setAttribute("aria-busy", "true");
    await this.view.prepare();
    if (this.asked !== asked) return; // something else was chosen meanwhile
    const started = performance.now();
    this.view.draw();
    await null; // uPlot draws in a microtask
    this.main.removeAttribute("aria-busy");
    this.main.dataset.drawn = (performance.now() - started).toFixed(1);
    performance.mark("first-view");
    requestAnimationFrame(() => (this.main.dataset.painted = (performance.now() - started).toFixed(1)));
    this.main.dataset.view = state.view;
  }

  set(changes) {
    Object.assign(this.state, changes);
    this.show().catch((error) => this.failed(error));
  }

  failed(error) {
    this.error = error instanceof ServerError ? error.message : "TensorBoard does not answer.";
    if (!(error instanceof ServerError) && !(error instanceof TypeError)) console.error(error);
    this.frame.drawBanner();
  }

  zoom(range) {
    this.state.zoom = range;
    if (this.view instanceof Timeline) this.view.zoomed();
    writeUrl({ ...readUrl(), zoom: range ? range.map((v) => Math.round(v)).join("_") : null });
  }

  // Two buttons: steps as they are, or their logarithm.
  axisChoice(label) {
    const button = (value, name) => h("button", { "aria-pressed": String(this.state.xlog === value), onclick: () => this.set({ xlog: value, zoom: null }) }, name);
    return h("div", { class: "segmented", role: "group", "aria-label": label, title: label }, button(false, "linear"), button(true, "log"));
  }

  // An event is chosen: the timeline shows it large, other views go to its step.
  choose(run, event, view) {
    if (event) {
      this.unseen.delete(key(run, event));
      const from = event.onset_low ?? event.onset;
      const room = Math.max(4 * (event.step - from), 0.06 * (this.model.run(run)?.step || 0), 20);
      this.state.zoom = [Math.max(0, from - room), Math.max(event.step, event.onset_high ?? 0) + room];
    } else this.state.zoom = null;
    const runs = this.state.runs.includes(run) ? this.state.runs : [run, ...this.state.runs].slice(0, OVERLAID);
    this.set({ runs, focus: run, event: event ? key(run, event) : null, view: view || (this.state.view === "live" ? "timeline" : this.state.view) });
    if (event && this.view instanceof Heads) this.view.jump(event);
  }

  colour(run) {
    return runColour(Math.max(0, this.state.runs.indexOf(run)));
  }

  // ---------------------------------------------------------------------------------------------- what the user does
  focus(name) {
    const { state } = this;
    const runs = state.runs.includes(name) ? state.runs : state.runs.length > 1 ? [...state.runs.slice(0, OVERLAID - 1), name] : [name];
    this.set({ runs, focus: name, event: null, zoom: null });
  }

  toggle(name) {
    const { state } = this;
    const on = state.runs.includes(name);
    if (!on && state.runs.length >= OVERLAID) return this.frame.drawPicker();
    const runs = on ? state.runs.filter((run) => run !== name) : [...state.runs, name];
    if (!runs.length) return this.frame.drawPicker();
    this.set({ runs, focus: runs.includes(state.focus) ? state.focus : runs[0], zoom: runs.includes(state.focus) ? state.zoom : null });
  }

  keys(e) {
    if (e.ctrlKey || e.metaKey || e.altKey || this.frame.help.open || /^(INPUT|SELECT|TEXTAREA)$/.test(e.target.tagName)) return;
    const names = Object.keys(VIEWS);
    if (e.key >= "1" && e.key <= "5") this.set({ view: names[Number(e.key) - 1] });
    else if (e.target.role === "tab" && (e.key === "ArrowRight" || e.key === "ArrowLeft")) {
      const next = (names.indexOf(this.state.view) + (e.key === "ArrowRight" ? 1 : names.length - 1)) % names.length;
      this.set({ view: names[next] });
      this.frame.tabs.children[next].focus();
    } else if (e.key === "n" || e.key === "p") this.walk(e.key === "n" ? 1 : -1);
    else if (e.key === "l") this.set({ xlog: !this.state.xlog, zoom: null });
    else if (e.key === "Escape") this.choose(this.state.focus, null, this.state.view);
    else if (e.key === "?") this.frame.openHelp();
  }

  walk(by) {
    const { state, model } = this;
    const events = model.told(state.focus);
    if (!events.length) return;
    const at = events.findIndex((event) => key(state.focus, event) === state.event);
    const next = at < 0 ? (by > 0 ? 0 : events.length - 1) : Math.min(events.length - 1, Math.max(0, at + by));
    this.choose(state.focus, events[next]);
  }

  theme() {
    const dark = isDark();
    setDark(dark);
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    if (this.view && this.main.dataset.drawn) {
      this.frame.drawPicker();
      this.view.theme();
    }
  }

  resized() {
    cancelAnimationFrame(this.resizing);
    this.resizing = requestAnimationFrame(() => this.view && this.main.dataset.drawn && this.main.clientWidth > 80 && this.view.resize());
  }
}
