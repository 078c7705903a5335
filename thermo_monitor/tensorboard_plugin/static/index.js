// What TensorBoard calls once it has opened the frame: styles, the chart library, then the page.

import { App } from "./app.js";
import { Model } from "./model.js";

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
  const model = new Model();
  const begun = model.start(); // while the rest is loaded
  begun.catch(() => {}); // the page says so
  await Promise.all([
    load("link", { rel: "stylesheet", href: "./static/uPlot.min.css" }),
    load("link", { rel: "stylesheet", href: "./static/style.css" }),
    load("script", { src: "./static/uPlot.iife.min.js" }),
  ]);
  const place = document.createElement("div");
  place.className = "app";
  document.body.append(place);
  await new App(place, model).start(begun);
}
