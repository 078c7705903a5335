// What TensorBoard calls once it has opened the frame: styles, the chart library, then the page.

import { App } from "./app.js";

function load(tag, attributes) {
  const element = Object.assign(document.createElement(tag), attributes);
  return new Promise((done, failed) => {
    element.onload = done;
    element.onerror = () => failed(new Error(`${attributes.src || attributes.href} could not be loaded`));
    document.head.append(element);
  });
}

export async function render() {
  document.documentElement.lang = "en";
  document.title = "Thermo";
  await Promise.all([
    load("link", { rel: "stylesheet", href: "./static/uPlot.min.css" }),
    load("link", { rel: "stylesheet", href: "./static/style.css" }),
    load("script", { src: "./static/uPlot.iife.min.js" }),
  ]);
  const place = document.createElement("div");
  place.className = "app";
  document.body.append(place);
  const app = new App(place);
  await app.start();
}
