// Telling about new events: a note in the tab, a number in the title of the page, a browser notification where wanted.

import { h } from "./dom.js";
import { badge, recall, remember } from "./host.js";
import { phaseColour, sign } from "./look.js";
import { key, title } from "./phases.js";

const SHOWN = 4; // notes at a time
const LASTS = 12000; // milliseconds

export class Notices {
  constructor(app, place) {
    this.app = app;
    this.place = place;
    this.known = null; // keys of all events so far; null before the first look
    this.count = 0;
    document.addEventListener("visibilitychange", () => document.hidden || this.clear());
    document.addEventListener("pointerdown", () => this.clear());
  }

  possible() {
    return typeof Notification !== "undefined" && Notification.permission !== "denied";
  }

  on() {
    return this.possible() && Notification.permission === "granted" && recall("notify") === "yes";
  }

  async toggle() {
    if (this.on()) return remember("notify", "no");
    if ((await Notification.requestPermission()) === "granted") remember("notify", "yes");
  }

  // Looks for events that were not there before, and tells of those that matter.
  look() {
    const { model } = this.app;
    const all = new Map();
    for (const [run, events] of model.events) {
      if (!model.run(run)?.monitored) continue; // found now, but not new
      for (const event of events) if (!event.details || !("part_of" in event.details)) all.set(key(run, event), [run, event]);
    }
    const fresh = this.known === null ? [] : [...all].filter(([id]) => !this.known.has(id));
    this.known = new Set(all.keys());
    for (const [id, [run, event]] of fresh) {
      if (event.phase === "scheduled" || event.kind === "excursion") continue;
      this.app.unseen.add(id);
      this.tell(run, event);
    }
  }

  tell(run, event) {
    this.count += 1;
    badge(this.count);
    const open = () => {
      note.remove();
      this.app.choose(run, event, "timeline");
    };
    const note = h(
      "div",
      { class: `toast ${event.level}`, style: { "--phase": phaseColour(event.phase) } },
      h("button", { class: "toast-main", onclick: open }, h("span", { class: "sign" }, sign(event.phase)), h("span", {}, h("b", {}, `${title(event)} in ${run}`), h("span", { class: "text" }, event.message))),
      h("button", { class: "close", "aria-label": "Dismiss", onclick: () => note.remove() }, "×"),
    );
    this.place.append(note);
    while (this.place.children.length > SHOWN) this.place.firstElementChild.remove();
    setTimeout(() => note.remove(), LASTS);
    if (this.on() && document.hidden) {
      try {
        new Notification(`${title(event)} in ${run}`, { body: event.message, tag: key(run, event) });
      } catch {
        // Denied in a frame of another site: the note and the title remain.
      }
    }
  }

  clear() {
    this.count = 0;
    badge(0);
  }
}
