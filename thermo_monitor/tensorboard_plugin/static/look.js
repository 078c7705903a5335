// Colours and signs. A phase is never told by its colour alone: each has a sign and its name.

// Okabe and Ito (2008), which the colour-blind can tell apart; lighter ones on a dark ground.
const LIGHT = {
  memorization: "#0072b2",
  generalization: "#00855f",
  reorganization: "#b4558f",
  instability: "#c94f00",
  unexplained: "#9a6a00",
  scheduled: "#767676",
};
const DARK = {
  memorization: "#5ab4ea",
  generalization: "#2fc596",
  reorganization: "#e39cc8",
  instability: "#ff8a4c",
  unexplained: "#e5ab3f",
  scheduled: "#9aa3ad",
};
export const SIGN = {
  memorization: "●",
  generalization: "★",
  reorganization: "◆",
  instability: "▲",
  unexplained: "?",
  scheduled: "┆",
};
const RUNS_LIGHT = ["#20262d", "#2b6cb0", "#a8650b", "#6b46a8", "#0e7c7b", "#a3305a", "#5c6b12", "#7b4b2a"];
const RUNS_DARK = ["#e8ebee", "#7fb2ec", "#e5b062", "#b9a0ea", "#5fc7c3", "#ee8fae", "#b7c765", "#d3a283"];
const INKS = {
  light: { text: "#4a535d", grid: "#eceeef", axis: "#b9c0c6", paper: "#ffffff", strong: "#20262d" },
  dark: { text: "#a4adb7", grid: "#262c33", axis: "#47515b", paper: "#191e23", strong: "#e8ebee" },
};

let dark = false;
export const setDark = (value) => (dark = value);
export const inks = () => (dark ? INKS.dark : INKS.light);
export const phaseColour = (phase) => (dark ? DARK : LIGHT)[phase] || (dark ? DARK : LIGHT).unexplained;
export const sign = (phase) => SIGN[phase] || SIGN.unexplained;
export const runColour = (index) => (dark ? RUNS_DARK : RUNS_LIGHT)[index % 8];
export const faint = (colour, alpha) => colour + Math.round(alpha * 255).toString(16).padStart(2, "0");

// Viridis at 9 even places (S. van der Walt and N. Smith, public domain): monotone in lightness.
const VIRIDIS = "440154 472d7b 3b528b 2c728e 21918c 28ae80 5ec962 addc30 fde725"
  .split(" ")
  .map((c) => [0, 2, 4].map((i) => parseInt(c.slice(i, i + 2), 16)));

export function viridis(share) {
  const at = Math.min(1, Math.max(0, share)) * 8;
  const low = Math.min(7, Math.floor(at));
  return VIRIDIS[low].map((v, i) => Math.round(v + (at - low) * (VIRIDIS[low + 1][i] - v)));
}

export const viridisCss = (share) => `rgb(${viridis(share).join(",")})`;
