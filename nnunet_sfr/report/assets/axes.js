// Charts are SVG drawn at the width of their box, so that text keeps its size: scales, axes, boxes, the tip.

const MARGIN = { top: 10, right: 14, bottom: 42, left: 52 };
const NEAR = 14; // pixels within which the pointer finds a dot
const CROWD = 200; // dots from which on they are drawn smaller
const tip = document.getElementById("tip");

function linearScale(low, high, start, end) {
  return (value) => start + ((value - low) / (high - low || 1)) * (end - start);
}

function roundStep(span, count) {
  const rough = span / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
}

// An axis over all values that begins and ends at a tick.
function roundAxis(values, count = 5) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) [low, high] = [0, 1];
  if (low === high) [low, high] = [low - (Math.abs(low) || 1) * 0.05, high + (Math.abs(high) || 1) * 0.05];
  const step = roundStep(high - low, count);
  return axisOf(Math.floor(low / step + 1e-6) * step, Math.ceil(high / step - 1e-6) * step, step);
}

function axisOf(low, high, step) {
  const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-6));
  const ticks = Array.from({ length: Math.round((high - low) / step) + 1 }, (_, index) => Number((low + index * step).toFixed(decimals)));
  const useful = decimals > 5 || high >= 1e6;
  const format = (value) => (useful ? value.toExponential(1).replace("-", MINUS) : withDecimals(value, decimals));
  return { low: ticks[0], high: ticks.at(-1), step, decimals, ticks, format };
}

// Whole powers of ten and, where those are few, 2 and 5 times them.
function logTicks(low, high) {
  const factors = Math.log10(high / low) > 3 ? [1] : [1, 2, 5];
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    for (const factor of factors) ticks.push(factor * 10 ** power);
  }
  return ticks.filter((tick) => tick >= low * 0.999 && tick <= high * 1.001);
}

// A box that holds one chart of a fixed height and is drawn again when its width changes.
function chart(title, height, draw, note = null) {
  const box = element("div", { class: "chart-box" });
  box.style.height = `${height}px`;
  const figure = element("figure", { class: "chart" }, element("figcaption", {}, element("h3", {}, ...title), note), box);
  let width = 0;
  const redraw = () => { if (width) box.replaceChildren(draw(width, height)); };
  new ResizeObserver(([entry]) => {
    const now = Math.floor(entry.contentRect.width);
    if (now && now !== width) { width = now; redraw(); }
  }).observe(box);
  return { figure, redraw };
}

function canvas(width, height, description) {
  return drawn("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": description });
}

function text(content, attributes) {
  return drawn("text", attributes, content);
}

// Ticks below the chart. `ticks` are [position, text]; a tick without room beside the last one stays unnamed.
function bottomAxis(svg, ticks, frame, title) {
  const group = drawn("g", { class: "axis" });
  group.append(drawn("path", { d: `M${frame.left},${frame.bottom}H${frame.right}` }));
  let free = -Infinity;
  for (const [x, name] of ticks) {
    group.append(drawn("path", { d: `M${x},${frame.bottom}v5` }));
    const half = name.length * 3.8;
    if (x - half < free) continue;
    group.append(text(name, { x: Math.min(x, frame.right + MARGIN.right - half), y: frame.bottom + 18, "text-anchor": "middle" }));
    free = x + half + 6;
  }
  group.append(text(title, { x: (frame.left + frame.right) / 2, y: frame.bottom + 36, "text-anchor": "middle", class: "axis-title" }));
  svg.append(group);
}

function leftAxis(svg, ticks, frame, title) {
  const group = drawn("g", { class: "axis" });
  for (const [y, name] of ticks) {
    group.append(drawn("path", { d: `M${frame.left},${y}H${frame.right}`, class: "rule" }), text(name, { x: frame.left - 6, y: y + 4, "text-anchor": "end" }));
  }
  const middle = (frame.top + frame.bottom) / 2;
  group.append(text(title, { transform: `translate(13,${middle}) rotate(-90)`, "text-anchor": "middle", class: "axis-title" }));
  svg.append(group);
}

function frameOf(width, height, margin = MARGIN) {
  return { left: margin.left, right: width - margin.right, top: margin.top, bottom: height - margin.bottom };
}

// Many dots as one path: a dot is a line of no length with round ends.
function dots(points) {
  return drawn("path", { class: points.length > CROWD ? "dots crowd" : "dots", d: points.map(({ x, y }) => `M${x.toFixed(1)},${y.toFixed(1)}h0`).join("") });
}

function showTip(event, lines) {
  tip.replaceChildren(...lines.map((line) => element("div", {}, line)));
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const x = Math.min(event.clientX + 14, document.documentElement.clientWidth - width - 4);
  const y = event.clientY + height + 24 > innerHeight ? event.clientY - height - 10 : event.clientY + 16;
  tip.style.transform = `translate(${Math.max(x, 4)}px, ${Math.max(y, 4)}px)`;
}

function hideTip() {
  tip.hidden = true;
}

// Say what is under the pointer: `find` gives null or {lines, mark: [x, y] or none, pick: on click or none}.
function hovered(svg, find) {
  const ring = drawn("circle", { r: 6, class: "ring", visibility: "hidden" });
  svg.append(ring);
  const at = (event) => {
    const rect = svg.getBoundingClientRect();
    return find(event.clientX - rect.left, event.clientY - rect.top);
  };
  svg.addEventListener("pointermove", (event) => {
    const found = at(event);
    ring.setAttribute("visibility", found?.mark ? "visible" : "hidden");
    svg.classList.toggle("pickable", Boolean(found?.pick));
    if (!found) return hideTip();
    if (found.mark) fill(ring, { cx: found.mark[0], cy: found.mark[1] }, []);
    showTip(event, found.lines);
  });
  svg.addEventListener("pointerleave", () => { ring.setAttribute("visibility", "hidden"); hideTip(); });
  svg.addEventListener("click", (event) => { const found = at(event); if (found?.pick) { hideTip(); found.pick(); } });
}

function nearestPoint(points, x, y) {
  let best = null, distance = NEAR;
  for (const point of points) {
    const now = Math.hypot(point.x - x, point.y - y);
    if (now < distance) [best, distance] = [point, now];
  }
  return best;
}

// Dots that tell their case and go to it.
function hoveredCases(svg, points) {
  hovered(svg, (x, y) => {
    const point = nearestPoint(points, x, y);
    return point && { lines: point.lines, mark: [point.x, point.y], pick: () => showCase(point.name) };
  });
}
