// What each chart shows: confidences, volumes, disagreement, losses.

const BINS_PER_STEP = 5;
const DOT = 6; // pixels
const LOG_FROM = 30; // largest over smallest volume from which on the axis is logarithmic

function confidencesOf(source) {
  return CONTENTS.cases.map((item) => item.results[source.key]?.confidence ?? null).filter((value) => value !== null);
}

// Sources with the same measure share the axis, so that they can be compared.
function confidenceAxis(source) {
  confidenceAxis.known ??= new Map();
  if (!confidenceAxis.known.has(source.measure)) {
    const alike = CONTENTS.sources.filter(({ measure }) => measure === source.measure);
    const thresholds = alike.map(({ threshold }) => threshold).filter((value) => value !== null);
    confidenceAxis.known.set(source.measure, roundAxis([...alike.flatMap(confidencesOf), ...thresholds]));
  }
  return confidenceAxis.known.get(source.measure);
}

function buildConfidence(section) {
  const found = CONTENTS.sources.filter((source) => confidencesOf(source).length);
  section.append(element("div", { class: "charts" }, ...found.map((source) => confidenceChart(source).figure)));
}

function confidenceChart(source) {
  const values = confidencesOf(source);
  const withoutConfidence = CONTENTS.cases.filter((item) => item.results[source.key]?.confidence === null).length;
  const facts = [asWords(source.measure)];
  if (source.threshold !== null) {
    const high = values.filter((value) => value >= source.threshold).length;
    facts.push(`threshold ${brief(source.threshold)}: ${high} at or above, ${values.length - high} below`);
  }
  if (withoutConfidence) facts.push(`${counted(withoutConfidence, "case")} without confidence (nothing found)`);
  return chart([source.name], 230, (width, height) => histogram(source, values, width, height), element("p", {}, facts.join(" \u00b7 ")));
}

function binned(values, axis, threshold) {
  const size = axis.step / BINS_PER_STEP;
  const bins = Array.from({ length: (axis.ticks.length - 1) * BINS_PER_STEP }, (_, index) =>
    ({ from: axis.low + index * size, to: axis.low + (index + 1) * size, high: 0, low: 0 }));
  for (const value of values) {
    const bin = bins[Math.min(Math.floor((value - axis.low) / size + 1e-6), bins.length - 1)];
    bin[threshold !== null && value < threshold ? "low" : "high"] += 1;
  }
  return bins;
}

function histogram(source, values, width, height) {
  const axis = confidenceAxis(source);
  const bins = binned(values, axis, source.threshold);
  const frame = frameOf(width, height);
  const most = roundAxis([0, Math.max(...bins.map((bin) => bin.high + bin.low))], 4);
  const counts = axisOf(0, Math.max(most.high, 1), Math.max(most.step, 1));
  const x = linearScale(axis.low, axis.high, frame.left, frame.right);
  const y = linearScale(0, counts.high, frame.bottom, frame.top);
  const svg = canvas(width, height, `Histogram of the confidences of ${source.name}`);
  leftAxis(svg, counts.ticks.map((tick) => [y(tick), counts.format(tick)]), frame, "cases");
  for (const bin of bins) {
    const place = { x: x(bin.from) + 0.5, width: Math.max(x(bin.to) - x(bin.from) - 1, 1) };
    const kind = source.threshold === null ? "plain" : "high";
    if (bin.high) svg.append(drawn("rect", { ...place, y: y(bin.high), height: y(0) - y(bin.high), class: kind }));
    if (bin.low) svg.append(drawn("rect", { ...place, y: y(bin.high + bin.low), height: y(0) - y(bin.low), class: "low" }));
  }
  bottomAxis(svg, axis.ticks.map((tick) => [x(tick), axis.format(tick)]), frame, "confidence");
  if (source.threshold !== null) thresholdLine(svg, x(source.threshold), frame);
  hovered(svg, (pointerX) => hoveredBin(source, bins.find((bin) => pointerX >= x(bin.from) && pointerX < x(bin.to)), axis));
  return svg;
}

function thresholdLine(svg, x, frame) {
  svg.append(drawn("path", { d: `M${x},${frame.top - 8}V${frame.bottom}`, class: "threshold" }));
}

function hoveredBin(source, bin, axis) {
  const number = bin ? bin.high + bin.low : 0;
  if (!number) return null;
  const [from, to] = [bin.from, bin.to].map((value) => value.toFixed(axis.decimals + 1));
  return {
    lines: [`${from} to ${to}: ${counted(number, "case")}`, "click to see them"],
    pick: () => {
      const { window, size, sort, order, ...filters } = DEFAULTS;
      choose({ ...filters, source: source.key, from, to });
      goTo("cases");
    },
  };
}

// Whoever shows something of the chosen source draws it again when another one is chosen.
function onSource(listener) {
  listeners.push((changed) => { if (changed.includes("source")) listener(); });
}

function buildVolumes(section) {
  const box = element("div", { class: "charts" });
  const show = () => box.replaceChildren(...CONTENTS.classes.map((one) => volumeChart(one)?.figure).filter(Boolean));
  section.append(box);
  onSource(show);
  show();
}

function volumePoints(one) {
  const key = String(one.value);
  return CONTENTS.cases.filter((item) => resultOf(item)?.volumes_ml[key] !== undefined).map((item) => {
    const view = resultOf(item);
    return { name: item.name, volume: view.volumes_ml[key], isOutlier: view.outliers.includes(key) };
  });
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

function volumeChart(one) {
  const points = volumePoints(one);
  if (!points.length) return null;
  const facts = [`median ${asMillilitres(median(points.map(({ volume }) => volume)))}`, counted(points.filter(({ isOutlier }) => isOutlier).length, "outlier")];
  const absent = points.filter(({ volume }) => volume === 0).length;
  if (absent) facts.push(`absent in ${counted(absent, "case")}`);
  return chart([swatch(one), one.name], 150, (width, height) => volumeStrip(one, points, width, height), element("p", {}, facts.join(" \u00b7 ")));
}

// Volume to the right; the height of a dot says nothing and keeps dots apart.
function volumeStrip(one, points, width, height) {
  const frame = frameOf(width, height, { ...MARGIN, left: 18 });
  const { place, ticks } = volumeScale(points.map(({ volume }) => volume), frame);
  const lane = frame.bottom - frame.top - 2 * DOT;
  const placed = points.map((point, index) => ({
    ...point,
    x: place(point.volume),
    y: frame.top + DOT + lane * ((index * 0.618034) % 1),
    lines: [point.name, `${one.name}: ${asMillilitres(point.volume)}${point.isOutlier ? ", outlier" : ""}`],
  }));
  const svg = canvas(width, height, `Volume of ${one.name} in each case`);
  const middle = place(median(points.map(({ volume }) => volume)));
  svg.append(drawn("path", { d: `M${middle},${frame.top}V${frame.bottom}`, class: "median" }));
  svg.append(dots(placed.filter(({ isOutlier }) => !isOutlier)));
  for (const { x, y } of placed.filter(({ isOutlier }) => isOutlier)) {
    svg.append(drawn("path", { d: `M${x},${y - 6}l6,6l-6,6l-6,-6z`, class: "outlier" }));
  }
  bottomAxis(svg, ticks.map(([value, name]) => [place(value), name]), frame, "volume (ml)");
  hoveredCases(svg, placed);
  return svg;
}

// Logarithmic where the span is large; then zero has a place of its own on the left.
function volumeScale(volumes, frame) {
  const positive = volumes.filter((volume) => volume > 0);
  const [least, most] = [positive.reduce((a, b) => Math.min(a, b), Infinity), positive.reduce((a, b) => Math.max(a, b), 0)];
  if (most / least < LOG_FROM || !positive.length) {
    const axis = roundAxis([0, ...volumes], 6);
    return { place: linearScale(axis.low, axis.high, frame.left, frame.right), ticks: axis.ticks.map((tick) => [tick, axis.format(tick)]) };
  }
  const zeros = volumes.length > positive.length ? 34 : 0;
  const scale = linearScale(Math.log(least * 0.9), Math.log(most * 1.1), frame.left + zeros, frame.right);
  const ticks = logTicks(least * 0.9, most * 1.1).map((tick) => [tick, tick.toLocaleString("en", { maximumSignificantDigits: 3 })]);
  return { place: (volume) => (volume > 0 ? scale(Math.log(volume)) : frame.left), ticks: zeros ? [[0, "0"], ...ticks] : ticks };
}

function disagreeing() {
  return CONTENTS.cases.filter((item) => item.disagreement !== null).sort((a, b) => b.disagreement - a.disagreement);
}

function buildDisagreement(section) {
  const box = element("div", { class: "charts" });
  const show = () => box.replaceChildren(rankedChart().figure, scatterChart().figure);
  section.append(box);
  onSource(show);
  show();
}

function rankedChart() {
  return chart(["Every case, most disagreement first"], 300, (width, height) => {
    const cases = disagreeing();
    const frame = frameOf(width, height);
    const axis = roundAxis([0, cases[0].disagreement]);
    const room = (frame.right - frame.left) / cases.length;
    const thick = Math.min(room * 0.8, 36);
    const y = linearScale(0, axis.high, frame.bottom, frame.top);
    const svg = canvas(width, height, "Disagreement of every case, as bars");
    leftAxis(svg, axis.ticks.map((tick) => [y(tick), axis.format(tick)]), frame, "disagreement (1 \u2212 Dice)");
    const bars = cases.map((item, index) => `M${frame.left + room * (index + 0.5) - thick / 2},${frame.bottom}V${y(item.disagreement)}h${thick}V${frame.bottom}z`);
    svg.append(drawn("path", { d: bars.join(""), class: "plain" }));
    const numbers = roundAxis([0, cases.length], 5).ticks.filter((tick) => tick >= 1 && tick <= cases.length && Number.isInteger(tick));
    bottomAxis(svg, [1, ...numbers.filter((tick) => tick > 1)].map((tick) => [frame.left + room * (tick - 0.5), String(tick)]), frame, "place");
    hovered(svg, (x) => {
      const item = cases[Math.floor((x - frame.left) / room)];
      return item ? { lines: [item.name, `disagreement ${withDecimals(item.disagreement, 3)}`], pick: () => showCase(item.name) } : null;
    });
    return svg;
  }, element("p", {}, "Click a bar to see the case."));
}

function scatterChart() {
  const source = SOURCES.get(state.source);
  return chart(["Against confidence"], 300, (width, height) => {
    const frame = frameOf(width, height);
    const cases = disagreeing().filter((item) => (resultOf(item)?.confidence ?? null) !== null);
    const across = confidenceAxis(source);
    const up = roundAxis([0, ...cases.map((item) => item.disagreement)]);
    const x = linearScale(across.low, across.high, frame.left, frame.right);
    const y = linearScale(0, up.high, frame.bottom, frame.top);
    const points = cases.map((item) => ({
      name: item.name, x: x(resultOf(item).confidence), y: y(item.disagreement),
      lines: [item.name, `confidence ${asConfidence(resultOf(item).confidence)}`, `disagreement ${withDecimals(item.disagreement, 3)}`],
    }));
    const svg = canvas(width, height, `Disagreement against the confidence of ${source.name}`);
    leftAxis(svg, up.ticks.map((tick) => [y(tick), up.format(tick)]), frame, "disagreement (1 \u2212 Dice)");
    bottomAxis(svg, across.ticks.map((tick) => [x(tick), across.format(tick)]), frame, "confidence");
    if (source.threshold !== null) thresholdLine(svg, x(source.threshold), frame);
    svg.append(dots(points));
    hoveredCases(svg, points);
    return svg;
  }, element("p", {}, `Confidence of ${source.name}. Cases at the top right have a high confidence and are disputed all the same: look at them first.`));
}

function buildTrainings(section) {
  for (const training of CONTENTS.trainings) {
    const panels = training.panels.filter((panel) => panel.curves.some((curve) => curve.x.length));
    section.append(element("h3", {}, training.name),
      element("div", { class: "charts small" }, ...panels.map((panel) => curveChart(panel, training.x_label).figure)));
  }
}

function curveChart(panel, label) {
  const curves = panel.curves.filter((curve) => curve.x.length);
  const key = element("ul", { class: "legend" }, ...curves.map((curve, index) =>
    element("li", {}, drawn("svg", { width: 26, height: 10, "aria-hidden": "true" }, drawn("path", { d: "M1,5h24", class: `curve curve-${index % 6}` })), curve.name)));
  const made = chart([panel.title], 220, (width, height) => curveLines(curves, panel.title, label, width, height), curves.length > 1 ? key : null);
  made.figure.querySelector("h3").replaceWith(element("h4", {}, panel.title));
  return made;
}

function curveLines(curves, title, label, width, height) {
  const frame = frameOf(width, height, { ...MARGIN, left: 62 });
  const across = spanOf(curves.flatMap((curve) => curve.x));
  const up = roundAxis(curves.flatMap((curve) => curve.y), 4);
  const x = linearScale(across.low, across.high, frame.left, frame.right);
  const y = linearScale(up.low, up.high, frame.bottom, frame.top);
  const svg = canvas(width, height, `${title} by ${label}`);
  leftAxis(svg, up.ticks.map((tick) => [y(tick), up.format(tick)]), frame, "");
  bottomAxis(svg, across.ticks.map((tick) => [x(tick), across.format(tick)]), frame, label);
  curves.forEach((curve, index) => {
    const path = curve.x.map((value, at) => `${at ? "L" : "M"}${x(value).toFixed(1)},${y(curve.y[at]).toFixed(1)}`).join("");
    if (curve.x.length === 1) svg.append(dots([{ x: x(curve.x[0]), y: y(curve.y[0]) }]));
    svg.append(drawn("path", { d: path, class: `curve curve-${index % 6}` }));
  });
  const points = curves.flatMap((curve) => curve.x.map((value, at) => ({
    x: x(value), y: y(curve.y[at]), lines: [`${label} ${value}`, `${curve.name}: ${threeDigits(curve.y[at])}`],
  })));
  hovered(svg, (pointerX, pointerY) => {
    const point = nearestPoint(points, pointerX, pointerY);
    return point && { lines: point.lines, mark: [point.x, point.y] };
  });
  return svg;
}

// From the first to the last value itself, with ticks at round whole numbers between.
function spanOf(values) {
  const low = values.reduce((a, b) => Math.min(a, b), Infinity);
  const high = values.reduce((a, b) => Math.max(a, b), -Infinity);
  const round = roundAxis([low, high], 4);
  return { ...round, low, high: high > low ? high : low + 1, ticks: round.ticks.filter((tick) => tick >= low && tick <= high && Number.isInteger(tick)) };
}
