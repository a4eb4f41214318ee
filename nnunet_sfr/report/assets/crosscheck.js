// The cross-check: what it says, Dice by class, the worst cases beside their truth, confidence against Dice.

function buildCrosscheck(section) {
  const { verdict, outdated, tables, worst, calibrations, left_out: leftOut } = CONTENTS.crosscheck;
  if (outdated) section.append(element("p", { class: "outdated" }, outdated));
  section.append(element("p", { class: "verdict" }, verdict));
  for (const table of tables) section.append(element("h3", {}, table.title), tableOf(table));
  if (worst.length) {
    const which = worst.length < leftOut ? `${worst.length} of ${leftOut} cases, those of SAM\u2019s lowest Dice` : "SAM\u2019s lowest Dice first";
    section.append(element("h3", {}, "Worst cases"), element("p", { class: "says" }, `${which}: click a picture to see it large; the up and down keys change between truth and labels.`),
      legend(), leftOutGrid(worst));
  }
  if (calibrations.length) {
    section.append(element("h3", {}, "Confidence against Dice"),
      element("p", { class: "says" }, "One dot a case that was left out: a measure is of use where its dots rise from left to right. On the dashed line a confidence is the Dice itself."),
      element("div", { class: "charts small" }, ...calibrations.map((one) => calibrationChart(one).figure)));
  }
}

function leftOutName(source) {
  return CONTENTS.crosscheck.sources.find(({ key }) => key === source).name;
}

function leftOutLabel(name, source) {
  return `Show ${leftOutName(source)} of ${name} large`;
}

function asDice(value) {
  return withDecimals(value, 3);
}

function leftOutText(result, source) {
  if (result.dice === null) return leftOutName(source);
  const classes = result.classes.length > 1 ? result.classes.map(([name, dice]) => `${name} ${asDice(dice)}`) : [];
  return [`${leftOutName(source)}: Dice ${asDice(result.dice)}`, ...classes].join(" \u00b7 ");
}

// Drawn again when another window is chosen.
function leftOutGrid(worst) {
  const box = element("div", { class: "grid", id: "left-out" });
  const show = () => box.replaceChildren(...worst.map(leftOutCard));
  listeners.push((changed) => { if (changed.includes("window")) show(); });
  show();
  return box;
}

function leftOutCard(item) {
  const pictures = CONTENTS.crosscheck.sources.filter(({ key }) => key in item.results).flatMap(({ key }) => {
    const result = item.results[key];
    return [
      element("button", { type: "button", class: "thumbnail labels", "aria-label": leftOutLabel(item.name, key), onclick: () => openViewer("left-out", item.name, key) },
        layers([imageOf(item), result.labels], { alt: `${leftOutName(key)} of ${item.name}` })),
      element("p", { class: "left-out-text" }, leftOutText(result, key)),
    ];
  });
  return element("article", { class: "card left-out" }, element("h4", {}, item.name), ...pictures);
}

// Confidence and Dice of every case: SAM's as dots, those of the network as diamonds.
function calibrationChart({ measure, meaning, series }) {
  const key = element("ul", { class: "legend" }, ...series.map((one) => element("li", {},
    drawn("svg", { width: 12, height: 12, "aria-hidden": "true" }, marker(6, 6, one.key)),
    `${one.name}: rank correlation ${one.rank_correlation === null ? NOTHING : withDecimals(one.rank_correlation, 2)}`)));
  const made = chart([], 230, (width, height) => calibrationPoints(measure, series, width, height), element("div", {}, element("p", {}, meaning), key));
  made.figure.querySelector("h3").replaceWith(element("h4", {}, asWords(measure)));
  return made;
}

function calibrationPoints(measure, series, width, height) {
  const frame = frameOf(width, height);
  const across = roundAxis(series.flatMap((one) => one.confidences), 4);
  const up = roundAxis(series.flatMap((one) => one.dices), 4);
  const x = linearScale(across.low, across.high, frame.left, frame.right);
  const y = linearScale(up.low, up.high, frame.bottom, frame.top);
  const svg = canvas(width, height, `Dice against ${asWords(measure)} of each case that was left out`);
  leftAxis(svg, up.ticks.map((tick) => [y(tick), up.format(tick)]), frame, "Dice");
  bottomAxis(svg, across.ticks.map((tick) => [x(tick), across.format(tick)]), frame, "confidence");
  const [from, to] = [Math.max(across.low, up.low), Math.min(across.high, up.high)];
  if (from < to) svg.append(drawn("path", { d: `M${x(from)},${y(from)}L${x(to)},${y(to)}`, class: "equal" }));
  const points = series.flatMap((one) => one.cases.map((name, at) => ({
    name, source: one.key, x: x(one.confidences[at]), y: y(one.dices[at]),
    lines: [name, `${one.name}: Dice ${asDice(one.dices[at])}`, `confidence ${asConfidence(one.confidences[at])}`],
  })));
  svg.append(...points.map((point) => marker(point.x, point.y, point.source)));
  hovered(svg, (pointerX, pointerY) => {
    const point = nearestPoint(points, pointerX, pointerY);
    const item = point && CONTENTS.crosscheck.worst.find(({ name, results }) => name === point.name && point.source in results);
    return point && { lines: point.lines, mark: [point.x, point.y], pick: item ? () => openViewer("left-out", point.name, point.source) : null };
  });
  return svg;
}

function marker(x, y, source) {
  return source === "sam"
    ? drawn("path", { d: `M${x - 4.5},${y}a4.5,4.5 0 1 0 9,0a4.5,4.5 0 1 0 -9,0z`, class: "marker marker-0" })
    : drawn("path", { d: `M${x},${y - 6}l6,6l-6,6l-6,-6z`, class: "marker marker-1" });
}
