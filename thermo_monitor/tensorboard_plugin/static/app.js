// The page around the views: what is chosen, what is fetched when, and who draws.

import { age, fill, h } from "./dom.js";
import { Heads } from "./heads.js";
import * as host from "./host.js";
import { phaseColour, runColour, setDark, sign } from "./look.js";
import { Live } from "./live.js";
import { Model } from "./model.js";
import { Notices } from "./notices.js";
import { key, summary } from "./phases.js";
import { Portrait } from "./portrait.js";
import { Runs } from "./runs.js";
import { Timeline } from "./timeline.js";
import { ServerError } from "./wire.js";

const VIEWS = { timeline: ["Timeline", Timeline], heads: ["Heads", Heads], portrait: ["Phase portrait", Portrait], runs: ["Runs", Runs], live: ["Live", Live] };
const OVERLAID = 8;
const FEW = 3; // runs that are all shown at first
const OFTEN = 2500; // milliseconds between two looks at the log; TensorBoard itself reads every five seconds
const SELDOM = 30000; // while nobody looks
const PATIENCE = 60000; // at most, while the server is gone
const LISTED = 400; // runs in the list before a filter is asked for

export class App {
  constructor(place) {
    this.model = new Model();
    this.unseen = new Set();
    this.view = null;
    this.error = null;
    this.delay = OFTEN;
    this.filter = "";
    const url = host.readUrl();
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
    this.tabs = h("div", { role: "tablist", class: "tabs", "aria-label": "Views" });
    this.status = h("div", { class: "status" });
    this.picker = h("div", { class: "runs-list" });
    this.search = h("input", { type: "search", placeholder: "Filter runs", "aria-label": "Filter runs", oninput: () => ((this.filter = this.search.value), this.drawPicker()) });
    this.main = h("main", { role: "tabpanel", id: "view" });
    this.toasts = h("div", { class: "toasts", "aria-live": "polite" });
    this.banner = h("div", { class: "banner", role: "status", hidden: true });
    this.help = h("dialog", { class: "help" });
    place.append(
      h("header", {}, this.tabs, h("span", { class: "grow" }), this.status),
      this.banner,
      h("div", { class: "body" }, h("nav", { class: "picker", "aria-label": "Runs" }, this.search, this.picker), this.main),
      this.toasts,
      this.help,
    );
    this.notices = new Notices(this, this.toasts);
    document.addEventListener("keydown", (e) => this.keys(e));
    document.addEventListener("visibilitychange", () => document.hidden || this.soon(0));
    host.onTheme(() => this.theme());
    new ResizeObserver(() => this.resized()).observe(this.main);
    setInterval(() => this.drawStatus(), 1000);
    this.theme();
  }

  async start() {
    this.drawTabs();
    fill(this.main, h("p", { class: "loading" }, "Reading the log …"));
    await this.tick(true);
    document.documentElement.setAttribute("data-ready", "yes");
  }

  // --------------------------------------------------------------------------------------------------- the log
  async tick(first = false) {
    clearTimeout(this.timer);
    if (this.busy) return;
    this.busy = true;
    try {
      const changed = first && !this.model.loaded ? (await this.model.start(), true) : await this.model.refresh();
      this.error = null;
      this.delay = OFTEN;
      if (changed) {
        this.notices.look();
        this.pickRuns();
        await this.show();
      }
    } catch (error) {
      this.delay = Math.min(PATIENCE, this.delay * 2);
      this.failed(error);
    } finally {
      this.busy = false;
      this.checked = Date.now();
      this.drawBanner();
      this.drawStatus();
      this.soon(document.hidden ? Math.max(SELDOM, this.delay) : this.delay);
    }
  }

  soon(delay) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.tick(!this.model.loaded), delay);
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
    this.drawTabs();
    this.drawPicker();
    host.writeUrl({
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
    if (!this.model.runs.length) return this.empty();
    const [, View] = VIEWS[state.view];
    if (!(this.view instanceof View)) {
      this.view?.destroy();
      fill(this.main);
      this.view = new View(this, this.main);
    }
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
    this.drawBanner();
  }

  zoom(range) {
    this.state.zoom = range;
    if (this.view instanceof Timeline) this.view.zoomed();
    host.writeUrl({ ...host.readUrl(), zoom: range ? range.map((v) => Math.round(v)).join("_") : null });
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

  // ----------------------------------------------------------------------------------------------------- the frame
  drawTabs() {
    fill(
      this.tabs,
      Object.entries(VIEWS).map(([name, [label]]) =>
        h("button", { role: "tab", id: `tab-${name}`, "aria-controls": "view", "aria-selected": String(name === this.state.view), tabindex: name === this.state.view ? 0 : -1, onclick: () => this.set({ view: name }) }, label),
      ),
    );
    this.main.setAttribute("aria-labelledby", `tab-${this.state.view}`);
  }

  drawPicker() {
    const { model, state } = this;
    const words = this.filter.toLowerCase();
    const found = model.runs.filter((run) => run.name.toLowerCase().includes(words));
    const rank = (run) => (state.runs.includes(run.name) ? 0 : 1);
    const shown = found.slice(0, LISTED).sort((a, b) => rank(a) - rank(b));
    this.search.hidden = model.runs.length < 8;
    fill(
      this.picker,
      shown.map((run) => {
        const on = state.runs.includes(run.name);
        const told = summary(model.told(run.name));
        const focus = run.name === state.focus;
        return h(
          "div",
          { class: `run${on ? " on" : ""}${focus ? " focus" : ""}`, style: { "--run": on ? this.colour(run.name) : "transparent" } },
          h("input", { type: "checkbox", checked: on || null, "aria-label": `Show ${run.name}`, onchange: () => this.toggle(run.name) }),
          h(
            "button",
            { onclick: () => this.focus(run.name), "aria-current": focus ? "true" : null },
            h("span", { class: "run-name" }, run.name),
            h("span", { class: "run-state", style: told ? { "--phase": phaseColour(told.event.phase) } : {} }, told ? [h("span", { class: "sign" }, sign(told.event.phase)), ` ${told.text}`] : run.monitored ? "no event" : "plain log"),
          ),
        );
      }),
      found.length > LISTED ? h("p", { class: "hint" }, `${found.length - LISTED} more: filter by name.`) : null,
      state.runs.length >= OVERLAID ? h("p", { class: "hint" }, `${OVERLAID} runs at most are shown together.`) : null,
    );
  }

  focus(name) {
    const { state } = this;
    const runs = state.runs.includes(name) ? state.runs : state.runs.length > 1 ? [...state.runs.slice(0, OVERLAID - 1), name] : [name];
    this.set({ runs, focus: name, event: null, zoom: null });
  }

  toggle(name) {
    const { state } = this;
    const on = state.runs.includes(name);
    if (!on && state.runs.length >= OVERLAID) return this.drawPicker();
    const runs = on ? state.runs.filter((run) => run !== name) : [...state.runs, name];
    if (!runs.length) return this.drawPicker();
    this.set({ runs, focus: runs.includes(state.focus) ? state.focus : runs[0], zoom: runs.includes(state.focus) ? state.zoom : null });
  }

  drawStatus() {
    const { model } = this;
    const newest = model.runs.reduce((most, run) => Math.max(most, run.wall), 0);
    const old = newest ? Date.now() / 1000 - newest : NaN;
    const [mood, words] = this.error ? ["gone", "server gone"] : old < 120 ? ["live", `live, ${age(Math.max(0, old))} old`] : newest ? ["still", `data ${age(old)} old`] : ["still", "no data"];
    const unseen = this.unseen.size;
    if (!this.statusParts) {
      this.statusParts = { words: h("span", { class: "live-state" }), unseen: h("span", { class: "unseen" }) };
      fill(
        this.status,
        this.statusParts.unseen,
        this.statusParts.words,
        h("button", { onclick: (e) => this.copy(e.currentTarget) }, "Copy link"),
        h("button", { "aria-label": "Keys and help", onclick: () => this.openHelp() }, "?"),
      );
    }
    this.statusParts.words.className = `live-state ${mood}`;
    if (this.statusParts.words.textContent !== words) this.statusParts.words.textContent = words;
    this.statusParts.unseen.textContent = unseen ? `${unseen} new` : "";
  }

  async copy(button) {
    try {
      await navigator.clipboard.writeText(host.address());
      button.textContent = "Copied";
    } catch {
      button.textContent = "Copy the address above";
    }
    setTimeout(() => (button.textContent = "Copy link"), 2000);
  }

  drawBanner() {
    const newer = this.model.runs.some((run) => run.newer);
    const words = this.error ? `${this.error} Trying again in ${Math.round(this.delay / 1000)} s.` : newer ? "Some runs were written by a newer thermo-monitor than this one reads; something may be missing." : "";
    this.banner.hidden = !words;
    fill(this.banner, words);
  }

  empty() {
    this.view?.destroy();
    this.view = null;
    fill(
      this.main,
      h(
        "div",
        { class: "empty card" },
        h("h2", {}, "Nothing to show yet"),
        h("p", {}, "No run with numbers was found in ", h("code", {}, this.model.logdir || "the log directory"), ". This page looks again every few seconds."),
        h("h3", {}, "Add the callback"),
        h("pre", {}, 'from lightning import Trainer\nfrom thermo_monitor.lightning import ThermoMonitor\n\ntrainer = Trainer(callbacks=[ThermoMonitor()])\ntrainer.fit(model, data)'),
        h("h3", {}, "Or try the demo"),
        h("pre", {}, "thermo-monitor demo --dir runs/demo\ntensorboard --logdir runs"),
        h("p", { class: "hint" }, "Logs without the callback work as well: changes are then looked for in whatever numbers they hold."),
      ),
    );
    this.main.dataset.view = "empty";
  }

  openHelp() {
    const keys = [["1 … 5", "views"], ["n, p", "next, previous event"], ["l", "linear or logarithmic steps"], ["Esc", "whole run, no event"], ["drag", "zoom into steps"], ["double click", "whole run"], ["arrows", "choose a head; move the scrubber"]];
    fill(
      this.help,
      h("h2", {}, "Keys"),
      h("dl", { class: "facts" }, keys.flatMap(([name, what]) => [h("dt", {}, h("kbd", {}, name)), h("dd", {}, what)])),
      h("h2", {}, "What the marks mean"),
      h("p", {}, "A solid line is the onset of a change, the shade around it the interval that the onset may be in, thin dashes the step at which it was confirmed, and the colour of a stretch its phase. Dotted grey lines were scheduled; short ticks are spikes that came back."),
      h("dl", { class: "facts" }, Object.entries(this.model.words.phases).flatMap(([name, what]) => [h("dt", { style: { color: phaseColour(name) } }, `${sign(name)} ${name}`), h("dd", {}, what)])),
      h("p", { class: "hint" }, `thermo-monitor ${this.model.words.version}`),
      h("button", { onclick: () => this.help.close() }, "Close"),
    );
    this.help.showModal();
  }

  keys(e) {
    if (e.ctrlKey || e.metaKey || e.altKey || this.help.open || /^(INPUT|SELECT|TEXTAREA)$/.test(e.target.tagName)) return;
    const names = Object.keys(VIEWS);
    if (e.key >= "1" && e.key <= "5") this.set({ view: names[Number(e.key) - 1] });
    else if (e.target.role === "tab" && (e.key === "ArrowRight" || e.key === "ArrowLeft")) {
      const next = (names.indexOf(this.state.view) + (e.key === "ArrowRight" ? 1 : names.length - 1)) % names.length;
      this.set({ view: names[next] });
      this.tabs.children[next].focus();
    } else if (e.key === "n" || e.key === "p") this.walk(e.key === "n" ? 1 : -1);
    else if (e.key === "l") this.set({ xlog: !this.state.xlog, zoom: null });
    else if (e.key === "Escape") this.choose(this.state.focus, null, this.state.view);
    else if (e.key === "?") this.openHelp();
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
    const dark = host.isDark();
    setDark(dark);
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    if (this.view && this.main.dataset.drawn) {
      this.drawPicker();
      this.view.theme();
    }
  }

  resized() {
    cancelAnimationFrame(this.resizing);
    this.resizing = requestAnimationFrame(() => this.view && this.main.dataset.drawn && this.main.clientWidth > 80 && this.view.resize());
  }
}
