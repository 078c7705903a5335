// Above the curves: names of the events, phases as a coloured ribbon, and the steps.

import { ticks } from "./axes.js";
import { fill, h, step } from "./dom.js";
import { faint, phaseColour, sign } from "./look.js";
import { high, isScheduled, isSpike, low, stretches, title } from "./phases.js";
import { LEFT, RIGHT } from "./plot.js";

// `plot` is a chart whose step axis is theirs; `pick` is called with an event.
export function drawRibbon(place, { plot, events, end, range, xlog, chosen, pick }) {
  fill(place);
  if (!plot) return;
  const width = plot.over.clientWidth;
  const x = (value) => plot.valToPos(value, "x");
  const bar = h("div", { class: "phases", style: { left: `${LEFT}px`, right: `${RIGHT}px` } });
  for (const { event, from, to } of stretches(events, end)) {
    const a = Math.max(0, x(from));
    const b = Math.min(width, x(to));
    if (b <= 0 || a >= width || b <= a) continue;
    const name = title(event);
    bar.append(
      h(
        "div",
        { class: "phase", title: `${name} from step ${step(from)}`, style: { left: `${a}px`, width: `${b - a}px`, "--phase": phaseColour(event.phase), "--band": faint(phaseColour(event.phase), 0.22) } },
        b - a > name.length * 7 ? name : "",
      ),
    );
  }
  const flags = h("div", { class: "flags", style: { left: `${LEFT}px`, right: `${RIGHT}px` } });
  const visible = events.filter((e) => x(e.onset) >= -1 && x(e.onset) <= width + 1 && !isSpike(e));
  const placed = arrange(visible.map((e) => [x(e.onset), isScheduled(e) ? 0 : `${sign(e.phase)} ${title(e)} ${step(e.onset)}`.length * 6.7 + 18]), width + RIGHT);
  visible.forEach((event, n) => {
    const { lane, side } = placed[n];
    flags.append(
      h(
        "button",
        {
          class: `flag ${side}${event === chosen ? " chosen" : ""}`,
          style: { left: `${x(event.onset)}px`, bottom: `${lane * 22}px`, "--phase": phaseColour(event.phase), "--stem": `${lane * 22 + 2}px` },
          "data-onset": event.onset,
          "data-phase": event.phase,
          title: event.message,
          "aria-label": `${title(event)}, onset ${event.onset}, between ${low(event)} and ${high(event)}, confirmed at step ${event.step}`,
          onclick: () => pick(event),
        },
        side === "small" ? sign(event.phase) : `${sign(event.phase)} ${title(event)} ${step(event.onset)}`,
      ),
    );
  });
  const lanes = placed.map((one) => one.lane + 1);
  place.style.height = `${Math.max(1, ...lanes) * 22 + 38}px`;
  const marks = ticks(...range, xlog, 8).filter((s) => s >= range[0]);
  const axis = h("div", { class: "steps", style: { left: `${LEFT}px` }, "aria-hidden": "true" }, marks.map((s) => h("span", { style: { left: `${x(s)}px` } }, step(s))));
  place.append(flags, bar, axis);
}

const LANES = 4;

// Lanes for texts [stem, width] in the order of their stems, so that neither a text nor a stem covers another text: from
// the right to the left, so that the text of an early event passes above the stems of later ones. What finds no room is
// small, a sign without words.
function arrange(texts, end) {
  const out = [];
  const placed = [];
  const fits = (one, strict) =>
    one.left >= -40 && one.right <= end && placed.every((o) => {
      if (o.lane === one.lane) return one.right + 4 <= o.left || o.right + 4 <= one.left;
      if (!strict) return true;
      const [above, below] = o.lane > one.lane ? [o, one] : [one, o];
      return above.stem < below.left - 1 || above.stem > below.right + 1;
    });
  for (let n = texts.length - 1; n >= 0; n--) {
    const [stem, width] = texts[n];
    const lanes = Array.from({ length: width ? LANES : 0 }, (_, lane) => lane);
    const tries = [
      ...lanes.map((lane) => ({ stem, left: stem, right: stem + width, lane, side: "right" })),
      ...lanes.map((lane) => ({ stem, left: stem - width, right: stem, lane, side: "left" })),
    ];
    const small = Array.from({ length: LANES }, (_, lane) => ({ stem, left: stem - 8, right: stem + 8, lane, side: "small" }));
    const found = tries.find((one) => fits(one, true)) || tries.find((one) => fits(one, false)) || small.find((one) => fits(one, false)) || { stem, left: stem, right: stem, lane: 0, side: "small" };
    placed.push(found);
    out[n] = found;
  }
  return out;
}
