// One picture large: arrow keys go to the next case and to the next source, H hides the labels, Escape closes.

const viewer = document.getElementById("viewer");
let looking = null;

function openViewer(kind, name) {
  const source = kind === "mosaic" ? mosaicSource() : state.source;
  const cases = chosenCases().filter((item) => picturePath(item, kind, source));
  looking = { kind, cases, index: cases.findIndex((item) => item.name === name), source, labels: true };
  showLarge();
  viewer.showModal();
  viewer.focus();
}

function picturePath(item, kind, source) {
  const view = viewOf(item, source);
  return kind === "mosaic" ? view?.mosaic : view?.picture ?? item.plain_picture;
}

function buildViewer() {
  viewer.addEventListener("keydown", (event) => {
    const actions = { ArrowRight: () => step(1), ArrowLeft: () => step(-1), ArrowDown: () => stepSource(1), ArrowUp: () => stepSource(-1), h: toggleLabels, H: toggleLabels };
    if (!(event.key in actions) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    actions[event.key]();
  });
  viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
  viewer.addEventListener("close", () => { looking = null; });
}

function step(by) {
  const { cases } = looking;
  looking.index = (looking.index + by + cases.length) % cases.length;
  showLarge();
}

function stepSource(by) {
  const { cases, index, kind } = looking;
  const possible = sourcesOf(cases[index], kind);
  const now = possible.findIndex((source) => source.key === looking.source);
  looking.source = possible[(now + by + possible.length) % possible.length]?.key ?? looking.source;
  showLarge();
}

function sourcesOf(item, kind) {
  return CONTENTS.sources.filter(({ key }) => viewOf(item, key)?.[kind]);
}

function toggleLabels() {
  looking.labels = !looking.labels;
  showLarge();
}

function showLarge() {
  const { kind, cases, index, source, labels } = looking;
  const item = cases[index];
  const view = viewOf(item, source);
  const canHide = kind === "picture" && item.plain_picture !== null && Boolean(view?.picture);
  const path = canHide && !labels ? item.plain_picture : picturePath(item, kind, source) ?? item.plain_picture;
  const focused = viewer.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  viewer.replaceChildren(
    element("div", { class: "viewer-head" },
      element("h2", { id: "viewer-title" }, item.name),
      element("span", { class: "muted" }, `${index + 1} of ${cases.length}`),
      element("button", { type: "button", "data-key": "close", onclick: () => viewer.close() }, "Close")),
    element("div", { class: "viewer-picture" }, path ? picture(path, { alt: pictureText(item, kind) }) : "no picture"),
    element("p", { class: "viewer-text" }, viewerText(item, view, source)),
    element("div", { class: "viewer-buttons" },
      viewerButton("previous", "\u2190 Previous", () => step(-1)),
      viewerButton("next", "Next \u2192", () => step(1)),
      canHide ? viewerButton("labels", labels ? "Hide labels (H)" : "Show labels (H)", toggleLabels) : null,
      ...sourcesOf(item, kind).map(({ key, name }) => viewerButton(key, name, () => { looking.source = key; showLarge(); }, key === source))));
  const again = [...viewer.querySelectorAll("[data-key]")].find((node) => node.dataset.key === focused);
  if (viewer.open) (again ?? viewer).focus(); // whoever pressed a button can press it again; keys go to the viewer
}

function viewerButton(key, text, onclick, pressed = null) {
  return element("button", { type: "button", "data-key": key, "aria-pressed": pressed === null ? null : String(pressed), onclick }, text);
}

function viewerText(item, view, source) {
  const name = SOURCES.get(source)?.name;
  if (!view) return name ? `not labelled by ${name}` : "";
  const volumes = CONTENTS.classes.filter(({ value }) => value in view.volumes_ml)
    .map((one) => `${one.name} ${asMillilitres(view.volumes_ml[one.value])}${view.outliers.includes(String(one.value)) ? " (outlier)" : ""}`);
  return [`${name}: confidence ${asConfidence(view.confidence)}`, ...volumes].join(" \u00b7 ");
}
