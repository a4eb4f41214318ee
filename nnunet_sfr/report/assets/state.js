// What the reader chose (source, order, filters, page), kept in the address so that a link shows the same.

const PAGE_SIZES = [24, 60, 240];
const ALL = 0;
const DEFAULTS = {
  source: CONTENTS.sources.at(-1)?.key ?? "",
  window: CONTENTS.windows[0]?.key ?? "",
  sort: "confidence",
  order: "ascending",
  text: "",
  side: "",
  from: "",
  to: "",
  outliers: false,
  empty: false,
  annotate: false,
  page: 1,
  size: PAGE_SIZES[0],
};
const state = { ...DEFAULTS };
const listeners = [];
const naturally = new Intl.Collator("en", { numeric: true }).compare;

// Change what was chosen; whoever listens is told the names that changed.
function choose(changes) {
  if (!("page" in changes)) changes = { ...changes, page: 1 };
  Object.assign(state, changes);
  history.replaceState(null, "", `#${chosenAsText()}`);
  for (const listener of listeners) listener(Object.keys(changes));
}

function chosenAsText() {
  const different = Object.entries(state).filter(([name, value]) => value !== DEFAULTS[name]);
  return new URLSearchParams(different.map(([name, value]) => [name, String(value)])).toString();
}

// Read the address; what it does not say, or says wrongly, is as it is by default.
function readAddress() {
  Object.assign(state, DEFAULTS);
  for (const [name, text] of new URLSearchParams(location.hash.slice(1))) {
    const value = parsed(name, text);
    if (value !== undefined) state[name] = value;
  }
}

function parsed(name, text) {
  switch (name) {
    case "source": return SOURCES.has(text) ? text : undefined;
    case "window": return CONTENTS.windows.some(({ key }) => key === text) ? text : undefined;
    case "sort": return orders().some(([key]) => key === text) ? text : undefined;
    case "order": return ["ascending", "descending"].includes(text) ? text : undefined;
    case "side": return sides().some(([key]) => key === text) ? text : undefined;
    case "from": case "to": return Number.isFinite(Number(text)) ? text : undefined;
    case "text": return text;
    case "outliers": case "empty": case "annotate": return text === "true";
    case "page": return /^[1-9]\d*$/.test(text) ? Number(text) : undefined;
    case "size": return [...PAGE_SIZES, ALL].map(String).includes(text) ? Number(text) : undefined;
    default: return undefined;
  }
}

// The cases' orders that there are data for: key, text, and the direction that one usually wants.
function orders() {
  const found = [["confidence", "confidence", "ascending"], ["name", "name", "ascending"]];
  for (const { value, name } of CONTENTS.classes) found.push([`volume-${value}`, `volume of ${name}`, "ascending"]);
  if (CONTENTS.cases.some((item) => item.disagreement !== null)) {
    found.push(["disagreement", "disagreement with SAM", "descending"]);
  }
  if (CONTENTS.cases.some((item) => item.annotation_rank !== null)) {
    found.push(["rank", "worth annotating", "ascending"]);
  }
  return found;
}

function sides() {
  const rounds = new Set(CONTENTS.cases.flatMap((item) => Object.keys(item.sides)));
  return [...rounds].sort(naturally).flatMap((round) =>
    ["high", "low"].map((side) => [`${round}-${side}`, `${side} in round ${round}`]));
}

// The cases that pass the filters, in the chosen order.
function chosenCases() {
  return CONTENTS.cases.filter(passes).sort(before);
}

function resultOf(item, source = state.source) {
  return item.results[source] ?? null;
}

// Of label maps that others made, classes without a voxel are not listed.
function isEmpty(view) {
  return Object.values(view.volumes_ml).every((volume) => volume === 0);
}

function passes(item) {
  const view = resultOf(item);
  if (!item.name.toLowerCase().includes(state.text.trim().toLowerCase())) return false;
  if (state.side) {
    const [round, side] = state.side.split("-");
    if (item.sides[round] !== side) return false;
  }
  if (state.outliers && !view?.outliers.length) return false;
  if (state.empty && !(view && isEmpty(view))) return false;
  if (state.annotate && item.annotation_rank === null) return false;
  return isWithin(view?.confidence ?? null, state.from, state.to);
}

function isWithin(value, from, to) {
  if (from === "" && to === "") return true;
  return value !== null && (from === "" || value >= Number(from)) && (to === "" || value <= Number(to));
}

// Cases without a value come last in either direction, but one in which nothing was found has the lowest confidence.
function before(first, second) {
  if (state.sort === "name") return direction() * naturally(first.name, second.name);
  const [a, b] = [sortValue(first), sortValue(second)];
  if (a === b) return naturally(first.name, second.name);
  if (a === null || b === null) return a === null ? 1 : -1;
  return direction() * (a < b ? -1 : 1);
}

function direction() {
  return state.order === "ascending" ? 1 : -1;
}

function sortValue(item) {
  const view = resultOf(item);
  if (state.sort === "disagreement") return item.disagreement;
  if (state.sort === "rank") return item.annotation_rank;
  if (view === null) return null;
  if (state.sort === "confidence") return isEmpty(view) ? -Infinity : view.confidence ?? -1;
  return view.volumes_ml[state.sort.slice("volume-".length)] ?? null;
}
