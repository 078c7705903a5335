// What TensorBoard around us knows: the address, the colour scheme, the title, its reload button. None of it is an
// interface that was promised, so each use may fail and then the page goes on without.

const NAME = "thermo_monitor";
const OURS = `p.${NAME}.`;
const TAB = new URLSearchParams(location.search).get("name") || NAME; // the tab comes first under another name

function attempt(use, otherwise) {
  try {
    return use();
  } catch {
    return otherwise;
  }
}

const hash = () => attempt(() => parent.location.hash.slice(1), "");

export function readUrl() {
  const found = {};
  for (const part of hash().split("&")) {
    if (!part.startsWith(OURS)) continue;
    const cut = part.indexOf("=");
    attempt(() => (found[part.slice(OURS.length, cut)] = decodeURIComponent(part.slice(cut + 1))));
  }
  return found;
}

export function writeUrl(values) {
  const parts = hash().split("&");
  if (parts[0] !== TAB) return; // another tab is shown
  const others = parts.filter((part) => part && !part.startsWith(OURS));
  const ours = Object.entries(values)
    .filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([name, value]) => `${OURS}${name}=${encodeURIComponent(value)}`);
  attempt(() => parent.history.replaceState(parent.history.state, "", `${parent.location.href.split("#")[0]}#${[...others, ...ours].join("&")}`));
}

export const address = () => attempt(() => parent.location.href, location.href);

export function isDark() {
  const media = matchMedia("(prefers-color-scheme: dark)").matches;
  return attempt(() => parent !== window && parent.document.body.classList.contains("dark-mode"), media);
}

export function onTheme(call) {
  attempt(() => {
    const observer = new MutationObserver(call);
    observer.observe(parent.document.body, { attributes: true, attributeFilter: ["class"] });
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", call);
}

let named = null;

export function badge(count) {
  attempt(() => {
    const there = parent.document;
    named ??= there.title.replace(/^\(\d+\) /, "");
    there.title = count ? `(${count}) ${named}` : named;
  });
}

export function remember(name, value) {
  attempt(() => localStorage.setItem(`${NAME}.${name}`, value));
}

export const recall = (name) => attempt(() => localStorage.getItem(`${NAME}.${name}`), null);
