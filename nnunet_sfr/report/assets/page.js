// The page from top to bottom: head, bar, sections that have something to show.

const TILE_LETTERS = 36; // a longer fact is a sentence, which no tile can hold
const NAMED = 12; // cases that an alert names

const SECTIONS = [
  {
    id: "cases", title: "Cases", shows: CONTENTS.cases.length > 0, build: buildPool,
    says: "Every unlabelled case in three planes through its target\u2019s centre, empty cases and the lowest confidence first: click a picture to see it large, and look whether the coloured outline follows the organ.",
  },
  {
    id: "annotate", title: "Annotate next", shows: CONTENTS.cases.some((item) => item.annotation_rank !== null), build: buildAnnotation,
    says: "The cases in which a label drawn by hand would help most, the most worthwhile first. The list is varied: a case that is like one above it stands further down. Labels that were drawn come back with sfr_add_labels.",
  },
  {
    id: "mosaics", title: "Mosaics", shows: CONTENTS.sources.some(({ key }) => hasMosaics(key)), build: buildMosaics,
    says: "What SAM looks at: the slices of the patch around the target, stitched side by side into one picture and turned the same way up as the planes above, with the labels drawn in; a label that comes or goes from one slice to the next deserves a look.",
  },
  {
    id: "confidence", title: "Confidence", shows: CONTENTS.sources.some((source) => confidencesOf(source).length), build: buildConfidence,
    says: "How many cases have which confidence, for each source; right of the dashed line a case counts as high, left of it as low.",
  },
  {
    id: "volumes", title: "Volumes", shows: CONTENTS.sources.some(({ key }) => CONTENTS.cases.some((item) => Object.keys(item.results[key]?.volumes_ml ?? {}).length)), build: buildVolumes,
    says: "One dot a case, the line is the median: a diamond marks a volume far from that of the others, which is often a label gone wrong; click it to see the case.",
  },
  {
    id: "disagreement", title: "Disagreement", shows: CONTENTS.cases.some((item) => item.disagreement !== null), build: buildDisagreement,
    says: "How far SAM\u2019s labels and those of the re-trained model differ: 0 means they are the same, 1 that they have nothing in common.",
  },
  {
    id: "training", title: "Training", shows: CONTENTS.trainings.length > 0, build: buildTrainings,
    says: "Every term of the loss while training, and the scores beside it: losses should fall and level off, Dice should rise; a turn for the worse deserves a look.",
  },
  {
    id: "crosscheck", title: "Cross-check", shows: CONTENTS.crosscheck !== null, build: buildCrosscheck,
    says: "Labelled cases that SAM was left without (sfr_crosscheck): how good its labels are where the truth is known, and how far each measure of confidence tells it.",
  },
  {
    id: "rounds", title: "Rounds", shows: CONTENTS.rounds !== null, build: buildRounds,
    says: "The rounds of SFR+ side by side, one column a round: read each row from left to right to see what another round brought.",
  },
  {
    id: "settings", title: "Settings and versions", short: "Settings", shows: CONTENTS.settings.length > 0 || CONTENTS.versions !== null, build: buildSettings,
    says: "The settings of the run beside what planning gives for this data set (values that were edited in the file or chosen with an option are marked), and what made the pseudo-labels and this page.",
  },
];

// The boxes of the pictures take the shape that most pictures have, before any has loaded.
function shapeBoxes() {
  for (const [kind, ratio] of Object.entries(PICTURES.shapes)) document.documentElement.style.setProperty(`--${kind}`, ratio);
}

function buildHead() {
  const made = CONTENTS.created.replace("T", " ").slice(0, "2026-01-01 00:00".length);
  const short = CONTENTS.facts.filter(([, value]) => value.length <= TILE_LETTERS);
  const long = CONTENTS.facts.filter(([, value]) => value.length > TILE_LETTERS);
  document.title = `${CONTENTS.dataset} \u2013 SFR report`;
  document.getElementById("top").append(
    element("p", { class: "muted" }, "SFR report"),
    element("h1", {}, CONTENTS.dataset),
    element("dl", { class: "origin" }, ...[["Configuration", CONTENTS.configuration], ["Plans", CONTENTS.plans], ["Fold", CONTENTS.fold], ["Made", made]].map(pair)),
    alerts(),
    element("dl", { class: "tiles" }, ...short.map(pair)));
  if (long.length) {
    document.getElementById("top").append(element("details", {}, element("summary", {}, "How this was measured"), element("dl", { class: "facts" }, ...long.map(pair))));
  }
  if (CONTENTS.missing.length) {
    document.getElementById("top").append(element("div", { class: "missing" }, element("h2", {}, "Not shown"),
      element("ul", {}, ...CONTENTS.missing.map((line) => element("li", {}, line)))));
  }
}

// Classes and cases in which nothing was found, before everything else.
function alerts() {
  if (!CONTENTS.alerts.length) return "";
  return element("div", { class: "alerts", role: "region", "aria-labelledby": "alerts-title" },
    element("h2", { id: "alerts-title" }, "Look at this first"),
    element("ul", {}, ...CONTENTS.alerts.map((alert) => element("li", {}, alert.text, caseLinks(alert)))));
}

// The first cases of an alert and, for all of them, the filter; with the labels that it is about.
function caseLinks({ cases, source }) {
  if (!cases.length) return "";
  const link = (text, onclick) => element("button", { type: "button", class: "link", onclick: () => { choose({ source }); onclick(); } }, text);
  const links = cases.slice(0, NAMED).map((name) => link(name, () => showCase(name)));
  const { window, size, ...others } = DEFAULTS;
  const all = link(`show ${cases.length === 1 ? "it" : `all ${cases.length}`}`, () => { choose({ ...others, source, empty: true }); goTo("cases"); });
  return element("span", { class: "links" }, ...links, all);
}

function pair([what, value]) {
  return element("div", {}, element("dt", {}, what), element("dd", {}, value));
}

function buildBar(sections) {
  const links = sections.map(({ id, title, short }) => element("a", { href: `#${id}`, onclick: (event) => { event.preventDefault(); goTo(id); } }, short ?? title));
  const bar = document.getElementById("bar");
  bar.append(element("nav", { "aria-label": "Sections" }, ...links));
  if (CONTENTS.sources.length > 1) bar.append(chooser("source", "Labels by", CONTENTS.sources));
  if (CONTENTS.windows.length > 1) bar.append(chooser("window", "Window", CONTENTS.windows));
}

// A list of which one is chosen for the whole page.
function chooser(what, title, entries) {
  const control = element("select", { id: what, onchange: (event) => choose({ [what]: event.target.value, page: state.page }) }, ...choices(entries.map(({ key, name }) => [key, name]), state[what]));
  listeners.push(() => { control.value = state[what]; });
  return labelled(title, control);
}

// Links within the page leave the address alone, which holds what was chosen.
function goTo(id) {
  const heading = document.getElementById(id).querySelector("h2");
  heading.scrollIntoView();
  heading.focus({ preventScroll: true });
}

function buildSections(sections) {
  const content = document.getElementById("content");
  for (const { id, title, says, build } of sections) {
    const section = element("section", { id, "aria-labelledby": `${id}-title` },
      element("h2", { id: `${id}-title`, tabindex: "-1" }, title), element("p", { class: "says" }, says));
    content.append(section);
    build(section);
  }
}

// The link before everything else, which works without JavaScript too, leaves the address alone as well.
function keepAddressOnSkip() {
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    document.getElementById("content").focus();
  });
}

function start() {
  const sections = SECTIONS.filter(({ shows }) => shows);
  shapeBoxes();
  readAddress();
  keepAddressOnSkip();
  buildHead();
  buildBar(sections);
  buildSections(sections);
  buildViewer();
  const asked = location.hash.slice(1);
  if (sections.some(({ id }) => id === asked)) goTo(asked);
  addEventListener("hashchange", () => {
    readAddress();
    for (const listener of listeners) listener(Object.keys(state));
  });
  addEventListener("beforeprint", () => { for (const one of document.querySelectorAll("details")) one.open = true; });
}

start();
