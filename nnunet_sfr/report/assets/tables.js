// Tables, the cases to annotate next, and their CSV file.

const UNKNOWN = "unknown"; // what planning gives, where the page could not compute it

function tableOf(table, rowClass = () => null) {
  const head = element("tr", {}, ...table.columns.map((name) => element("th", { scope: "col" }, name)));
  const rows = table.rows.map((row) => element("tr", { class: rowClass(row) },
    ...row.map((cell, index) => (index ? element("td", { "data-mark": CONTENTS.settings_mark }, cell) : element("th", { scope: "row" }, cell)))));
  return scrolling(table.title, element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows)));
}

function buildRounds(section) {
  section.append(tableOf(CONTENTS.rounds));
}

// Rows are name, value, and what planning gives.
function isEdited([, value, planned]) {
  return planned !== UNKNOWN && value !== planned;
}

function editsOf(table) {
  if (table.rows.every(([, , planned]) => planned === UNKNOWN)) return "not compared: what planning gives is unknown";
  const edited = table.rows.filter(isEdited).length;
  return edited ? `${edited} ${CONTENTS.settings_mark}` : "as planned";
}

function buildSettings(section) {
  for (const table of CONTENTS.settings) {
    section.append(folded(table, editsOf(table), (row) => (isEdited(row) ? "edited" : null)));
  }
  if (CONTENTS.versions) section.append(folded(CONTENTS.versions, "", () => null));
}

function folded(table, note, rowClass) {
  return element("details", {}, element("summary", {}, element("h3", {}, table.title), element("span", { class: "muted" }, note)), tableOf(table, rowClass));
}

function worthAnnotating() {
  return CONTENTS.cases.filter((item) => item.annotation_rank !== null).sort((a, b) => a.annotation_rank - b.annotation_rank);
}

function buildAnnotation(section) {
  const rows = worthAnnotating().map((item) => element("tr", {},
    element("td", { class: "number" }, String(item.annotation_rank)),
    element("th", { scope: "row" }, element("button", { type: "button", class: "link", onclick: () => showCase(item.name) }, item.name)),
    element("td", {}, item.annotation_reasons.join("; "))));
  const head = element("tr", {}, ...["Rank", "Case", "Why"].map((name) => element("th", { scope: "col" }, name)));
  section.append(
    element("p", {}, element("button", { type: "button", id: "csv", onclick: saveCsv }, "Save as CSV")),
    scrolling("Cases to annotate next", element("table", { class: "annotate" }, element("thead", {}, head), element("tbody", {}, ...rows))));
}

function csvOf(items) {
  const sources = CONTENTS.sources;
  const head = ["rank", "case", "reasons", "disagreement", ...sources.map(({ key }) => `confidence_${key}`)];
  const rows = items.map((item) => [item.annotation_rank, item.name, item.annotation_reasons.join("; "), item.disagreement,
    ...sources.map(({ key }) => item.results[key]?.confidence)]);
  return [head, ...rows].map((row) => row.map(csvCell).join(",")).join("\r\n") + "\r\n";
}

function csvCell(value) {
  const content = String(value ?? "");
  return /[",\r\n]/.test(content) ? `"${content.replaceAll('"', '""')}"` : content;
}

function saveCsv() {
  const url = URL.createObjectURL(new Blob([csvOf(worthAnnotating())], { type: "text/csv" }));
  element("a", { href: url, download: `${CONTENTS.dataset}_annotate_next.csv` }).click();
  setTimeout(() => URL.revokeObjectURL(url));
}
