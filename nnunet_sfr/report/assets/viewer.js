// One picture large: arrow keys go to the next case and to the next source, H hides the labels, W takes the next
// window, Escape closes. Kinds of pictures are "labels" and "mosaic" of unlabelled cases, and "left-out" of labelled
// ones, whose sources are those of the cross-check.

const viewer = document.getElementById("viewer");
let looking = null;

function openViewer(kind, name, source = kind === "mosaic" ? mosaicSource() : state.source) {
  const candidates = kind === "left-out" ? CONTENTS.crosscheck.worst : chosenCases();
  const cases = candidates.filter((item) => picturesOf(item, kind, source).some(Boolean));
  looking = { kind, cases, index: cases.findIndex((item) => item.name === name), source, labels: true };
  showLarge();
  viewer.showModal();
  viewer.focus();
}

// The grey picture and its labels.
function picturesOf(item, kind, source) {
  const view = resultOf(item, source);
  return kind === "mosaic" ? [view?.mosaic?.image, view?.mosaic?.labels] : [imageOf(item), view?.labels];
}

function buildViewer() {
  viewer.addEventListener("keydown", (event) => {
    const actions = { ArrowRight: () => step(1), ArrowLeft: () => step(-1), ArrowDown: () => stepSource(1), ArrowUp: () => stepSource(-1), h: toggleLabels, H: toggleLabels, w: stepWindow, W: stepWindow };
    if (!(event.key in actions) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    actions[event.key]();
  });
  viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
  viewer.addEventListener("close", () => {
    const { kind, cases, index, source } = looking;
    looking = null;
    focusPicture(kind, cases[index].name, source);
  });
}

// Back to the picture of the case that was shown last; another window has drawn the cards again.
function focusPicture(kind, name, source) {
  const box = { labels: "#cards", mosaic: ".mosaics", "left-out": "#left-out" }[kind];
  const label = kind === "left-out" ? leftOutLabel(name, source) : largeLabel(name);
  [...document.querySelectorAll(`${box} .thumbnail`)].find((one) => one.getAttribute("aria-label") === label)?.focus();
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
  if (kind === "left-out") return CONTENTS.crosscheck.sources.filter(({ key }) => key in item.results);
  return CONTENTS.sources.filter(({ key }) => resultOf(item, key)?.[kind]);
}

function toggleLabels() {
  looking.labels = !looking.labels;
  showLarge();
}

// Mosaics are drawn in one window.
function stepWindow() {
  const { windows } = CONTENTS;
  if (looking.kind === "mosaic" || windows.length < 2) return;
  const now = windows.findIndex(({ key }) => key === state.window);
  choose({ window: windows[(now + 1) % windows.length].key, page: state.page });
  showLarge();
}

function showLarge() {
  const { kind, cases, index, source, labels } = looking;
  const item = cases[index];
  const view = resultOf(item, source);
  const [image, overlay] = picturesOf(item, kind, source);
  const canHide = Boolean(image && overlay);
  const shown = [image, canHide && !labels ? null : overlay];
  const window = CONTENTS.windows.find(({ key }) => key === state.window);
  const focused = viewer.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  viewer.replaceChildren(
    element("div", { class: "viewer-head" },
      element("h2", { id: "viewer-title" }, item.name),
      element("span", { class: "muted" }, `${index + 1} of ${cases.length}`),
      element("button", { type: "button", "data-key": "close", onclick: () => viewer.close() }, "Close")),
    element("div", { class: "viewer-picture" }, shown.some(Boolean) ? layers(shown, { alt: pictureText(item, kind) }) : "no picture"),
    element("p", { class: "viewer-text" }, kind === "left-out" ? leftOutText(view, source) : viewerText(item, view, source)),
    element("div", { class: "viewer-buttons" },
      viewerButton("previous", "\u2190 Previous", () => step(-1)),
      viewerButton("next", "Next \u2192", () => step(1)),
      kind !== "mosaic" && CONTENTS.windows.length > 1 ? viewerButton("window", `Window: ${window.name} (W)`, stepWindow) : null,
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
