// What every part of the page is made of: the contents, elements, numbers as text, pictures.
// Text of the contents reaches the page only as text nodes and attribute values, never as HTML.

const CONTENTS = JSON.parse(document.getElementById("contents").textContent);
const PICTURES = JSON.parse(document.getElementById("pictures").textContent);
const SOURCES = new Map(CONTENTS.sources.map((source) => [source.key, source]));
const CASES = new Map(CONTENTS.cases.map((item) => [item.name, item]));
const MINUS = "\u2212";
const NOTHING = "\u2013";

function element(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function drawn(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "colour") node.style.setProperty("--colour", value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

function withDecimals(value, decimals) {
  return value.toLocaleString("en", { minimumFractionDigits: decimals, maximumFractionDigits: decimals }).replace("-", MINUS);
}

// Three significant digits, and every digit before the point.
function threeDigits(value) {
  if (value === 0) return "0";
  const decimals = 2 - Math.floor(Math.log10(Math.abs(value)));
  return withDecimals(value, Math.min(Math.max(decimals, 0), 6));
}

// At most four decimals, without zeros behind.
const brief = (value) => value.toLocaleString("en", { maximumFractionDigits: 4 });
const asMillilitres = (value) => `${threeDigits(value)} ml`;
const asConfidence = (value) => (value === null || value === undefined ? NOTHING : withDecimals(value, 4));
const counted = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

// An image of a file beside the page (in whose name # and ? may occur), or of what the page holds at its end, behind
// this script: cards are there before their pictures are.
function picture(path, attributes) {
  const image = element("img", { decoding: "sync", ...attributes }); // or a print or a screenshot may come first
  const show = () => { image.src = PICTURES.embedded ? embedded(path) : path.split("/").map(encodeURIComponent).join("/"); };
  if (PICTURES.embedded && document.readyState === "loading") document.addEventListener("DOMContentLoaded", show);
  else show();
  return image;
}

function embedded(path) {
  embedded.known ??= new Map([...document.querySelectorAll("script[data-picture]")].map((one) => [one.dataset.picture, one]));
  return embedded.known.get(path).textContent;
}

// A grey picture and the labels that lie over it, either of which may be missing; the first has the text.
function layers(paths, attributes) {
  const shown = paths.filter(Boolean);
  return element("span", { class: "layers" }, ...shown.map((path, index) => picture(path, { ...attributes, alt: index ? "" : attributes.alt })));
}

function swatch(labelClass) {
  return element("span", { class: "swatch", colour: labelClass.colour });
}

function scrolling(title, ...children) {
  return element("div", { class: "scrolling", tabindex: "0", role: "region", "aria-label": title }, ...children);
}

function labelled(text, control, type = "field") {
  return element("label", { class: type }, ...(type === "check" ? [control, text] : [element("span", {}, text), control]));
}

function choices(entries, chosen) {
  return entries.map(([value, text]) => element("option", { value, selected: value === chosen }, text));
}

function asWords(measure) {
  return measure.replaceAll("_", " ");
}
