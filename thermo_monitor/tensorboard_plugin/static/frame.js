// What stands around the views: their tabs, the list of runs, how old the data are, help, and the page without data.

import { age, fill, h } from "./dom.js";
import { address } from "./host.js";
import { phaseColour, sign } from "./look.js";
import { summary } from "./phases.js";

export const OVERLAID = 8; // runs that are shown together
const LISTED = 400; // runs in the list before a filter is asked for

export class Frame {
  constructor(app, place, views) {
    this.app = app;
    this.views = views;
    this.filter = "";
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
  }

  drawTabs() {
    fill(
      this.tabs,
      Object.entries(this.views).map(([name, [label]]) =>
        h("button", { role: "tab", id: `tab-${name}`, "aria-controls": "view", "aria-selected": String(name === this.app.state.view), tabindex: name === this.app.state.view ? 0 : -1, onclick: () => this.app.set({ view: name }) }, label),
      ),
    );
    this.main.setAttribute("aria-labelledby", `tab-${this.app.state.view}`);
  }

  drawPicker() {
    const { model, state } = this.app;
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
          { class: `run${on ? " on" : ""}${focus ? " focus" : ""}`, style: { "--run": on ? this.app.colour(run.name) : "transparent" } },
          h("input", { type: "checkbox", checked: on || null, "aria-label": `Show ${run.name}`, onchange: () => this.app.toggle(run.name) }),
          h(
            "button",
            { onclick: () => this.app.focus(run.name), "aria-current": focus ? "true" : null },
            h("span", { class: "run-name" }, run.name),
            h("span", { class: "run-state", style: told ? { "--phase": phaseColour(told.event.phase) } : {} }, told ? [h("span", { class: "sign" }, sign(told.event.phase)), ` ${told.text}`] : run.monitored ? "no event" : "plain log"),
          ),
        );
      }),
      found.length > LISTED ? h("p", { class: "hint" }, `${found.length - LISTED} more: filter by name.`) : null,
      state.runs.length >= OVERLAID ? h("p", { class: "hint" }, `${OVERLAID} runs at most are shown together.`) : null,
    );
  }

  drawStatus() {
    const { model } = this.app;
    const newest = model.runs.reduce((most, run) => Math.max(most, run.wall), 0);
    const old = newest ? Date.now() / 1000 - newest : NaN;
    const [mood, words] = this.app.error ? ["gone", "server gone"] : old < 120 ? ["fresh", `live, ${age(Math.max(0, old))} old`] : newest ? ["still", `data ${age(old)} old`] : ["still", "no data"];
    const unseen = this.app.unseen.size;
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
      await navigator.clipboard.writeText(address());
      button.textContent = "Copied";
    } catch {
      button.textContent = "Copy the address above";
    }
    setTimeout(() => (button.textContent = "Copy link"), 2000);
  }

  drawBanner() {
    const newer = this.app.model.runs.some((run) => run.newer);
    const words = this.app.error ? `${this.app.error} Trying again in ${Math.round(this.app.delay / 1000)} s.` : newer ? "Some runs were written by a newer thermo-monitor than this one reads; something may be missing." : "";
    this.banner.hidden = !words;
    fill(this.banner, words);
  }

  empty() {
    const { callback, demo, plain } = this.app.model.words.start;
    fill(
      this.main,
      h(
        "div",
        { class: "empty card" },
        h("h2", {}, "Nothing to show yet"),
        h("p", {}, "No run with numbers was found in ", h("code", {}, this.app.model.logdir || "the log directory"), ". This page looks again every few seconds."),
        h("h3", {}, "Add the callback"),
        h("pre", {}, callback),
        h("h3", {}, "Or try the demo"),
        h("pre", {}, demo),
        h("p", { class: "hint" }, plain),
      ),
    );
    this.main.dataset.view = "empty";
  }

  openHelp() {
    const { keys, marks, phases, version } = this.app.model.words;
    fill(
      this.help,
      h("h2", {}, "Keys"),
      h("dl", { class: "facts" }, keys.flatMap(([name, what]) => [h("dt", {}, h("kbd", {}, name)), h("dd", {}, what)])),
      h("h2", {}, "What the marks mean"),
      h("p", {}, marks),
      h("dl", { class: "facts" }, Object.entries(phases).flatMap(([name, what]) => [h("dt", { style: { color: phaseColour(name) } }, `${sign(name)} ${name}`), h("dd", {}, what)])),
      h("p", { class: "hint" }, `thermo-monitor ${version}`),
      h("button", { onclick: () => this.help.close() }, "Close"),
    );
    this.help.showModal();
  }
}
