// The unlabelled cases as cards: controls, cards, pages.

const MANY = 60; // cards from which on those outside the window are not laid out

let grid, count, controls, pages;

function buildPool(section) {
  controls = poolControls();
  count = element("p", { class: "count", role: "status" });
  grid = element("div", { class: "grid", id: "cards" });
  pages = element("div", { class: "pages" });
  section.append(controls, legend(), count, grid, pages);
  listeners.push(showPool);
  showPool();
}

function legend() {
  return element("ul", { class: "legend", "aria-label": "Colours of the classes" },
    ...CONTENTS.classes.map((one) => element("li", {}, swatch(one), one.name)));
}

function poolControls() {
  const form = element("form", { class: "controls", onsubmit: (event) => event.preventDefault(), onreset: forget });
  form.append(
    labelled("Sort by", element("select", { name: "sort", onchange: chooseOrder }, ...choices(orders(), state.sort))),
    labelled("Order", select("order", directions())),
    labelled("Name contains", input("text", { type: "search", autocomplete: "off", spellcheck: "false" })),
    labelled("Confidence from", input("from", { type: "number", min: "0", max: "1", step: "any", placeholder: "0" })),
    labelled("to", input("to", { type: "number", min: "0", max: "1", step: "any", placeholder: "1" })),
  );
  if (sides().length) form.append(labelled("Side", select("side", [["", "any"], ...sides()])));
  form.append(element("div", { class: "checks" },
    labelled("volume outliers", check("outliers"), "check"),
    labelled("empty", check("empty"), "check"),
    labelled("worth annotating", check("annotate"), "check"),
    element("button", { type: "reset" }, "Reset")));
  return form;
}

function select(name, entries) {
  return element("select", { name, onchange: (event) => choose({ [name]: event.target.value }) }, ...choices(entries, state[name]));
}

function input(name, attributes) {
  return element("input", { name, ...attributes, oninput: (event) => choose({ [name]: event.target.value }) });
}

function check(name) {
  return element("input", { name, type: "checkbox", onchange: (event) => choose({ [name]: event.target.checked }) });
}

function directions() {
  const texts = state.sort === "name" ? ["A to Z", "Z to A"] : ["lowest first", "highest first"];
  return [["ascending", texts[0]], ["descending", texts[1]]];
}

// Another key comes with the direction that one usually wants.
function chooseOrder(event) {
  const [key, , order] = orders().find(([name]) => name === event.target.value);
  choose({ sort: key, order });
}

function forget(event) {
  event.preventDefault();
  const { source, window, size, ...others } = DEFAULTS;
  choose(others);
}

function showPool() {
  controls.elements.order.replaceChildren(...choices(directions(), state.order));
  for (const control of controls.elements) {
    if (control.type === "checkbox") control.checked = state[control.name];
    else if (control.name && control.value !== state[control.name]) control.value = state[control.name];
  }
  const found = chosenCases();
  const shown = onPage(found, state.page, state.size);
  count.textContent = `${found.length.toLocaleString("en")} of ${counted(CONTENTS.cases.length, "case")}${partOf(found, shown)}`;
  grid.classList.toggle("many", shown.length > MANY);
  grid.replaceChildren(...shown.map(card));
  const sizes = element("select", { onchange: (event) => choose({ size: Number(event.target.value) }) },
    ...choices([...PAGE_SIZES.map((size) => [size, String(size)]), [ALL, "all"]], state.size));
  pages.replaceChildren(...turner(found.length, state.page, state.size, (page) => turn(page)), labelled("Cases on a page", sizes));
  pages.hidden = found.length <= PAGE_SIZES[0];
}

// Which of the cases are on this page, where not all are.
function partOf(found, shown) {
  if (shown.length === found.length) return "";
  const first = found.indexOf(shown[0]) + 1;
  return `, ${first} to ${first + shown.length - 1} on this page`;
}

function turn(page) {
  choose({ page });
  count.scrollIntoView();
}

function onPage(items, page, size) {
  if (size === ALL) return items;
  const start = (Math.min(page, pageCount(items.length, size)) - 1) * size;
  return items.slice(start, start + size);
}

function pageCount(items, size) {
  return size === ALL ? 1 : Math.max(Math.ceil(items / size), 1);
}

// Buttons to the neighbouring pages and what is shown between them.
function turner(items, page, size, onTurn) {
  const last = pageCount(items, size);
  page = Math.min(page, last);
  return [
    element("button", { type: "button", disabled: page === 1, onclick: () => onTurn(page - 1) }, "Previous"),
    element("span", {}, `page ${page} of ${last}`),
    element("button", { type: "button", disabled: page === last, onclick: () => onTurn(page + 1) }, "Next"),
  ];
}

function card(item) {
  const view = resultOf(item);
  return element("article", { class: "card", tabindex: "-1", "data-case": item.name },
    thumbnail(item, "labels", [imageOf(item), view?.labels]),
    element("h3", {}, item.name),
    view === null ? element("p", { class: "muted" }, "not labelled by this source") : confidenceBar(view.confidence),
    view === null ? null : volumeList(view),
    flags(item, view),
    item.annotation_reasons.length ? element("p", { class: "reasons" }, item.annotation_reasons.join("; ")) : null);
}

// The grey planes of a case in the chosen window.
function imageOf(item) {
  return item.images[state.window] ?? null;
}

// Pictures on top of each other in a box whose size is known before they load; opens large.
function thumbnail(item, kind, paths) {
  if (!paths.some(Boolean)) return element("div", { class: `thumbnail ${kind} none` }, "no picture");
  return element("button", { type: "button", class: `thumbnail ${kind}`, "aria-label": largeLabel(item.name), onclick: () => openViewer(kind, item.name) },
    layers(paths, { alt: pictureText(item, kind) }));
}

function largeLabel(name) {
  return `Show ${name} large`;
}

function pictureText(item, kind) {
  const what = kind === "mosaic" ? "Stitched mosaic" : "Three planes";
  return `${what} of ${item.name}`;
}

// Where a confidence lies on the axis of its chart, with the threshold as a mark.
function confidenceBar(confidence) {
  const source = SOURCES.get(state.source);
  const value = element("span", { class: "value" }, confidence === null ? "none: nothing found" : asConfidence(confidence));
  const line = element("div", { class: "confidence" }, element("span", {}, `Confidence (${asWords(source.measure)})`), value);
  if (confidence === null) return line;
  const { low, high } = confidenceAxis(source);
  const place = (number) => `${(100 * (number - low)) / (high - low)}%`;
  const track = element("div", { class: "track", title: `from ${low} to ${high}`, "aria-hidden": "true" }, mark("dot", place(confidence)));
  if (source.threshold !== null) {
    track.append(mark("threshold", place(source.threshold)));
    track.classList.add(confidence >= source.threshold ? "high" : "low");
  }
  return element("div", {}, line, track, element("div", { class: "ends", "aria-hidden": "true" }, element("span", {}, String(low)), element("span", {}, String(high))));
}

function mark(type, left) {
  const node = element("i", { class: type });
  node.style.left = left;
  return node;
}

function volumeList(view) {
  const rows = CONTENTS.classes.filter(({ value }) => value in view.volumes_ml).map((one) => {
    const volume = view.volumes_ml[one.value];
    const isOutlier = view.outliers.includes(String(one.value));
    return element("li", { class: isOutlier ? "outlier" : null }, swatch(one), element("span", { class: "name" }, one.name),
      element("span", { class: "value" }, volume === 0 ? "none" : asMillilitres(volume)),
      isOutlier ? element("span", { class: "hidden" }, "(outlier)") : null);
  });
  return element("ul", { class: "volumes", "aria-label": "Volumes" }, ...rows);
}

function flags(item, view) {
  const chips = Object.keys(item.sides).sort(naturally).map((round) =>
    element("li", { class: `chip ${item.sides[round]}` }, `round ${round}: ${item.sides[round]}`));
  if (view && isEmpty(view)) chips.push(element("li", { class: "chip bad" }, "empty"));
  if (view?.outliers.length) chips.push(element("li", { class: "chip bad" }, "volume outlier"));
  if (item.disagreement !== null) chips.push(element("li", { class: "chip" }, `disagreement ${withDecimals(item.disagreement, 2)}`));
  if (item.annotation_rank !== null) chips.push(element("li", { class: "chip rank" }, `annotate: no. ${item.annotation_rank}`));
  return chips.length ? element("ul", { class: "chips" }, ...chips) : null;
}

// Go to a case's card, without the filters that hide it.
function showCase(name) {
  if (!chosenCases().some((item) => item.name === name)) {
    const { source, window, size, sort, order, ...filters } = DEFAULTS;
    Object.assign(state, filters);
  }
  const index = chosenCases().findIndex((item) => item.name === name);
  choose({ page: state.size === ALL ? 1 : Math.floor(index / state.size) + 1 });
  const found = [...grid.children].find((node) => node.dataset.case === name);
  found.scrollIntoView({ block: "center" });
  found.focus({ preventScroll: true });
}
