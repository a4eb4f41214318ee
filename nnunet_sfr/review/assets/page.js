// The page: one case at a time in the viewer, and what is done with it.

import * as api from "./api.js";
import { CaseList } from "./cases.js";
import { Done } from "./done.js";
import { Drafts } from "./drafts.js";
import { Drawing, inPlane, same } from "./drawing.js";
import { byId, choice, element, swatch } from "./elements.js";
import { KEYS, listen } from "./keys.js";
import { LAYOUTS, Viewer } from "./viewer.js";

const EDITED = "edited", DIFFERENCE = "difference";
const DIFFERENCES = [[253, "#e66100"], [254, "#1a85ff"], [255, "#d41159"]]; // first alone, second alone, another class
const PENS = [["move", "Move", "M"], ["brush", "Brush", "B"], ["eraser", "Eraser", "E"], ["outline", "Outline", "O"], ["fill", "Fill", "F"]];
const PLANES = ["sagittal", "coronal", "axial"];
const NARROW = matchMedia("(max-width: 45rem)");

class Page {
  constructor() {
    Object.assign(this, { name: null, drawing: null, sourceLabels: new Map(), shown: EDITED, pen: "move", value: 1, plane: 2, layout: null, hidden: false, outline: [], stroke: null, loadNumber: 0, busy: false, ended: false });
    this.drafts = new Drafts(api.putDraft, (name, standing) => this.stands(name, standing), (error) => this.fail(error));
  }

  async start() {
    const session = api.getSession(); // while the viewer starts
    session.catch(() => {});
    try {
      this.viewer = new Viewer(byId("view"), () => this.showPlace());
      await this.viewer.start();
    } catch (error) {
      this.say(`this browser cannot show volumes: WebGL 2 is missing or switched off (${error.message})`, true);
      return;
    }
    await this.openSession(session);
    this.buildTools();
    this.listenToPointer();
    listen(this.keyActions(), byId("view"));
    this.done = new Done(() => this.drafts.flush(), () => this.openSession());
    await this.openFirst();
  }

  async openSession(session = api.getSession()) {
    this.session = await session;
    document.title = `${this.session.dataset} \u2013 SFR review`;
    byId("title").textContent = this.session.dataset;
    this.cases = new CaseList(this.session.cases, (name) => this.open(name));
    this.tally();
    if (this.name && !this.cases.get(this.name)) await this.openFirst();
    else if (this.name) {
      this.cases.mark(this.name);
      this.showHead();
    }
  }

  async openFirst() {
    const asked = decodeURIComponent(location.hash.slice(1));
    const first = this.cases.get(asked) ? asked : this.cases.nextOpen(null) ?? this.cases.cases[0]?.name;
    if (first) await this.open(first);
  }

  get sources() { return this.session.sources.filter(({ key }) => this.cases.get(this.name).sources.includes(key)); }

  // One case, and nothing of an earlier one that comes late.
  async open(name) {
    do {
      this.finishStroke();
      await this.drafts.flush();
      if (this.drafts.waiting) return; // it could not be kept, and the message says why
    } while (this.stroke); // one that was begun meanwhile
    const number = ++this.loadNumber;
    const isLate = () => number !== this.loadNumber;
    this.name = name;
    this.drawing = null;
    this.sourceLabels = new Map();
    this.outline = [];
    history.replaceState(null, "", `#${encodeURIComponent(name)}`);
    byId("cases").classList.remove("open");
    this.cases.mark(name);
    this.showHead();
    this.loading(`Reading ${name}\u2026`);
    try {
      const about = await api.getCase(name);
      const channel = Number(byId("channel").value || 0);
      const [image, labels] = await Promise.all([
        api.getImage(name, channel), about.start ? api.getLabels(name, about.start) : new Uint8Array(about.shape.reduce((a, b) => a * b)),
      ]);
      if (isLate()) return;
      // before the image: 3D of a large one takes long without a graphics card
      if (!this.layout || Viewer.isFlat(about.shape) !== this.wasFlat) this.setLayout(Viewer.firstLayout(about.shape, NARROW.matches));
      this.wasFlat = Viewer.isFlat(about.shape);
      await this.viewer.showImage(image, about.shape, this.chosenWindow());
      if (isLate()) return;
      this.drawing = new Drawing(labels, about.shape, about.spacing);
      this.stands(name, about);
      this.showWindow();
      this.show(EDITED);
      this.goToLabels();
      this.loading("");
      this.say(about.note || this.greeting(about), Boolean(about.note));
      document.body.dataset.ready = name;
      await this.readBehind(name, about, isLate);
    } catch (error) {
      if (isLate()) return;
      this.loading("");
      this.fail(error);
    }
    this.showButtons();
  }

  // The labels that were started from, for the way back to them; then the next case, so that it is there when it is asked for.
  async readBehind(name, about, isLate) {
    const [first] = this.sources;
    if (about.start === "current" && first) {
      const before = await this.labelsOf(first.key);
      if (isLate()) return;
      this.drawing.cameFrom(before);
    } else if (first) {
      this.sourceLabels.set(first.key, this.drawing.labels.slice());
    }
    const next = this.cases.nextOpen(name);
    if (next && next !== name) await api.prepareCase(next).catch(() => {}); // its own opening will say what is wrong
  }

  greeting(about) {
    if (about.has_draft) return "What you drew last is here again; it is not saved yet.";
    if (about.state !== "open") return `This case is ${about.state}.`;
    if (!this.sources.length) return "This case has no pseudo-label: draw its labels and save them, or skip it.";
    return `Labels of ${this.sources[0].name}. Draw what is wrong, or accept them.`;
  }

  async labelsOf(key) {
    if (!this.sourceLabels.has(key)) this.sourceLabels.set(key, await api.getLabels(this.name, key));
    return this.sourceLabels.get(key);
  }

  stands(name, standing) {
    const { state, changed_voxels, has_draft, is_deleted } = standing;
    this.cases.update(name, { state, changed_voxels, has_draft, is_deleted });
    this.tally();
    if (name === this.name) this.showButtons();
  }

  // Where the cross is, in voxels from the patient's left, back and foot, and what is drawn there.
  showPlace() {
    if (!this.drawing || !this.viewer.hasImage) return;
    const { labels, shape } = this.drawing;
    const [x, y, z] = this.viewer.cross;
    const value = labels[x + shape[0] * (y + shape[1] * z)];
    const name = this.session.classes.find((one) => one.value === value)?.name ?? "background";
    byId("place").textContent = `${x} ${y} ${z}: ${name}`;
  }

  tally() { byId("tally").textContent = this.cases.tally(); }

  showHead() {
    const one = this.cases.get(this.name);
    byId("case").textContent = `${one.name} (${this.cases.index(one.name) + 1} of ${this.cases.cases.length})`;
    byId("reasons").textContent = one.reasons.join("; ");
  }

  loading(text) {
    byId("loading").textContent = text;
    byId("loading").hidden = !text;
    if (text) delete document.body.dataset.ready;
  }

  say(text, isProblem = false) {
    byId("message").textContent = text;
    byId("message").classList.toggle("problem", isProblem);
  }

  fail(error) {
    if (error instanceof api.Unreachable) {
      this.ended = true; // what would be drawn from here on could not be kept
      this.showButtons();
    }
    this.say(error.message, true);
  }

  // --- tools ---------------------------------------------------------------------------------------------------------

  buildTools() {
    const { classes, sources, channels } = this.session;
    this.value = classes[0].value;
    this.viewer.setColours([...classes.map(({ value, colour, name }) => [value, colour, name]), ...DIFFERENCES.map(([value, colour]) => [value, colour, "difference"])]);
    this.pressLayout = choice(byId("layouts"), LAYOUTS.map(({ key, name }) => ({ key, content: [name], title: "V: the next" })), (key) => this.setLayout(key));
    const shown = [[EDITED, "Edited"], ...sources.map(({ key, short }) => [key, short]), ...(sources.length > 1 ? [[DIFFERENCE, "Difference"]] : [])];
    this.shownKeys = shown.map(([key]) => key);
    this.pressShown = choice(byId("shown"), shown.map(([key, name]) => ({ key, content: [name], title: "L: the next" })), (key) => this.show(key));
    this.pressPen = choice(byId("pens"), PENS.map(([key, name, letter]) => ({ key, content: [name, " ", element("kbd", {}, letter)] })), (key) => this.setPen(key));
    this.pressClass = choice(byId("classes"), classes.map((one, index) => ({ key: one.value, content: this.classContent(one, index) })), (key) => this.setClass(Number(key)));
    byId("again").append(...sources.map(({ key, short }) => element("button", { type: "button", title: "in the place of what was drawn; undo brings that back", onclick: () => this.startFrom(key) }, short)));
    byId("again").hidden = !sources.length;
    if (sources.length > 1) this.buildLegend(sources);
    this.buildSliders(channels);
    this.setPen("move");
    this.setClass(this.value);
    for (const [id, action] of [["previous", () => this.step(-1)], ["next", () => this.step(1)], ["undo", () => this.undo()], ["redo", () => this.redo()], ["save", () => this.save()], ["accept", () => this.accept()], ["skip", () => this.skip()]]) byId(id).onclick = action;
    byId("open-list").onclick = () => byId("cases").classList.toggle("open");
    byId("close-list").onclick = () => byId("cases").classList.remove("open");
    byId("open-help").onclick = () => byId("help").showModal();
    byId("open-done").onclick = () => this.done.open();
    byId("keys").append(...KEYS.flatMap(([keys, what]) => [element("dt", {}, element("kbd", {}, keys)), element("dd", {}, what)]));
  }

  classContent(one, index) {
    const notes = [...(one.ignored ? ["nothing is learnt from it"] : []), ...(one.regions.length ? [`part of ${one.regions.join(", ")}`] : [])];
    return [swatch(one.colour), element("span", { class: "name" }, one.name, notes.length ? element("small", {}, notes.join("; ")) : null), index < 9 ? element("kbd", {}, String(index + 1)) : null];
  }

  buildLegend(sources) {
    const [first, second] = sources.map(({ short }) => short);
    const texts = [`${first} alone`, `${second} alone`, "both, another class"];
    byId("difference").append(...DIFFERENCES.map(([, colour], index) => element("li", {}, swatch(colour), texts[index])));
  }

  buildSliders(channels) {
    const redraw = () => this.drawing && this.viewer.setOpacity(this.hidden ? 0 : byId("opacity").value / 100, byId("outline").checked && !this.hidden);
    this.applyOpacity = () => { byId("opacity-value").textContent = `${byId("opacity").value} %`; redraw(); };
    byId("opacity").oninput = byId("outline").onchange = () => this.applyOpacity();
    byId("size").oninput = () => { byId("size-value").textContent = `${byId("size").value} voxels`; };
    byId("size").oninput();
    byId("level").oninput = byId("width").oninput = () => this.applyWindow();
    if (channels.some((channel) => channel.is_ct)) {
      byId("preset").append(...this.session.windows.map(({ name, low, high }) => element("option", { value: `${low} ${high}` }, `${name} (${low} to ${high} HU)`)));
      byId("preset").onchange = () => this.applyPreset();
    }
    if (channels.length > 1) {
      byId("channels").hidden = false;
      byId("channel").append(...channels.map(({ name }, index) => element("option", { value: index }, name)));
      byId("channel").onchange = () => this.showChannel();
    }
  }

  showWindow() {
    const { low, high } = this.viewer.window;
    const span = high - low;
    Object.assign(byId("level"), { min: low - 2 * span, max: high + 2 * span, value: (low + high) / 2 });
    Object.assign(byId("width"), { min: span / 100, max: 5 * span, value: span });
    this.nameWindow();
    byId("presets").hidden = !this.isCT;
  }

  get isCT() { return this.session.channels[Number(byId("channel").value || 0)].is_ct; }

  // Of CT, also what was chosen for an earlier case.
  chosenWindow() { return this.isCT ? byId("preset").value.split(" ").map(Number) : null; }

  nameWindow() {
    for (const id of ["level", "width"]) byId(`${id}-value`).textContent = Number(Number(byId(id).value).toPrecision(3));
  }

  applyWindow() {
    if (!this.viewer.hasImage) return;
    this.nameWindow();
    const [level, width] = ["level", "width"].map((id) => Number(byId(id).value));
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.viewer.setWindow(level - width / 2, level + width / 2));
  }

  applyPreset() {
    const [low, high] = this.chosenWindow();
    for (const [id, value] of [["level", (low + high) / 2], ["width", high - low]]) {
      const input = byId(id);
      input.min = Math.min(Number(input.min), value);
      input.max = Math.max(Number(input.max), value);
      input.value = value;
    }
    this.applyWindow();
  }

  async showChannel() {
    if (!this.drawing) return;
    const { name, drawing } = this;
    this.loading("Reading the channel\u2026");
    try {
      const image = await api.getImage(name, Number(byId("channel").value));
      if (name !== this.name) return;
      const cross = this.viewer.cross;
      await this.viewer.showImage(image, drawing.shape, this.chosenWindow());
      this.showWindow();
      this.show(this.shown);
      this.viewer.moveTo(cross);
    } catch (error) {
      this.fail(error);
    }
    this.loading("");
    document.body.dataset.ready = name;
  }

  setLayout(key) {
    this.layout = key;
    const { plane } = LAYOUTS.find((one) => one.key === key);
    if (plane !== null) this.plane = plane;
    this.viewer.setLayout(key);
    this.pressLayout(key);
  }

  setPen(key) {
    this.finishStroke();
    if (this.pen === "outline" && key === "outline" && this.outline.length > 2) this.closeOutline();
    this.outline = [];
    this.pen = key;
    this.pressPen(key);
    byId("view").classList.toggle("drawing", key !== "move");
    if (key !== "move" && this.shown !== EDITED) this.show(EDITED);
  }

  setClass(value) {
    this.value = value;
    this.pressClass(value);
  }

  nextClass(by) {
    const values = this.session.classes.map((one) => one.value);
    this.setClass(values[(values.indexOf(this.value) + by + values.length) % values.length]);
  }

  async show(key) {
    if (!this.drawing) return;
    const { name } = this;
    try {
      const labels = key === EDITED ? this.drawing.labels : key === DIFFERENCE ? await this.difference() : this.sources.some((one) => one.key === key) ? await this.labelsOf(key) : null;
      if (name !== this.name) return;
      if (!labels) {
        this.say("this case has no such labels", true);
        return;
      }
      this.shown = key;
      this.viewer.showLabels(labels);
      this.applyOpacity();
    } catch (error) {
      this.fail(error);
    }
    this.pressShown(this.shown);
    byId("difference").hidden = this.shown !== DIFFERENCE;
  }

  async difference() {
    if (this.sources.length < 2) return null;
    const [first, second] = await Promise.all(this.sources.slice(0, 2).map(({ key }) => this.labelsOf(key)));
    const labels = new Uint8Array(first.length);
    const [firstAlone, secondAlone, other] = DIFFERENCES.map(([value]) => value);
    for (let i = 0; i < labels.length; i++) if (first[i] !== second[i]) labels[i] = !second[i] ? firstAlone : !first[i] ? secondAlone : other;
    return labels;
  }

  // The cross goes to the slice with the most of the labels.
  goToLabels() {
    const { labels, shape } = this.drawing;
    const slice = shape[0] * shape[1];
    let [best, most] = [Math.floor(shape[2] / 2), 0];
    for (let z = 0; z < shape[2]; z++) {
      let count = 0;
      for (let i = z * slice; i < (z + 1) * slice; i++) if (labels[i]) count++;
      if (count > most) [best, most] = [z, count];
    }
    let [x, y, found] = [0, 0, 0];
    for (let i = 0; most && i < slice; i++) {
      if (labels[best * slice + i]) [x, y, found] = [x + (i % shape[0]), y + Math.floor(i / shape[0]), found + 1];
    }
    this.viewer.moveTo(found ? [Math.round(x / found), Math.round(y / found), best] : shape.map((length) => Math.floor(length / 2)));
  }

  // --- drawing -------------------------------------------------------------------------------------------------------

  get canDraw() {
    if (this.ended || this.busy || !this.drawing) return false;
    this.finishStroke();
    if (this.shown !== EDITED) this.show(EDITED);
    return true;
  }

  begin() {
    const erases = this.pen === "eraser";
    this.drawing.begin(erases ? 0 : this.value, { protect: byId("protect").checked, only: this.value });
  }

  get size() { return Number(byId("size").value); }

  shownBox() {
    const box = this.drawing.takeBox();
    if (box) this.viewer.showBox(box);
    this.showPlace();
  }

  endStroke() {
    if (!this.drawing.stroke) return;
    this.shownBox();
    if (this.drawing.end()) this.changed();
  }

  // The stroke of a pointer ends when it is lifted, or when something else is to be done.
  finishStroke() {
    if (!this.stroke) return;
    if (this.pen === "outline" && this.outline.length > 2) this.drawing.polygon(this.outline, this.stroke.plane);
    this.outline = [];
    this.stroke = null;
    this.endStroke();
  }

  changed() {
    this.drafts.later(this.name, this.drawing.labels);
    this.showButtons();
  }

  listenToPointer() {
    const canvas = byId("view");
    const stage = byId("stage");
    const drawTo = (event) => {
      const { stroke } = this;
      const place = this.viewer.at(event);
      if (!place || place.plane !== stroke.plane) return;
      place.voxel[stroke.plane] = stroke.slice;
      if (this.pen === "outline") this.outline.push(place.voxel);
      this.drawing.line(stroke.last, place.voxel, stroke.plane, this.pen === "outline" ? 1 : this.size);
      stroke.last = place.voxel;
      this.shownBox();
    };
    stage.addEventListener("pointerdown", (event) => {
      canvas.focus({ preventScroll: true });
      const place = event.button === 0 && this.viewer.hasImage ? this.viewer.at(event) : null;
      if (place) this.plane = place.plane;
      if (!place || this.pen === "move" || !event.isPrimary || !this.canDraw) return;
      this.viewer.moveTo(place.voxel);
      this.begin();
      if (this.pen === "fill") {
        this.drawing.fill(place.voxel, place.plane);
        this.endStroke();
        return;
      }
      this.stroke = { plane: place.plane, slice: place.voxel[place.plane], last: place.voxel, pointer: event.pointerId };
      this.outline = [];
      canvas.setPointerCapture(event.pointerId);
      drawTo(event);
    }, true);
    canvas.addEventListener("pointermove", (event) => {
      if (this.stroke?.pointer !== event.pointerId) return;
      for (const one of event.getCoalescedEvents?.() ?? [event]) drawTo(one);
    });
    const finish = (event) => { if (this.stroke?.pointer === event.pointerId) this.finishStroke(); };
    canvas.addEventListener("pointerup", finish);
    canvas.addEventListener("pointercancel", finish);
    // The viewer moves its cross with the same pointer, which is in the way of a pen.
    for (const name of ["mousedown", "mousemove", "touchstart", "touchmove"]) {
      stage.addEventListener(name, (event) => { if (this.pen !== "move" && this.drawsWith(event)) event.stopPropagation(); }, { capture: true, passive: true });
    }
  }

  drawsWith(event) {
    if (event.type === "mousedown") return event.button === 0 && this.viewer.hasImage && this.viewer.at(event) !== null;
    if (event.type === "mousemove") return this.stroke !== null;
    return event.touches.length === 1;
  }

  // Space: at the cross, as a click of the pointer.
  drawAtCross(from = null) {
    if (this.pen === "move" || !this.canDraw) return;
    this.begin();
    const cross = this.viewer.cross;
    if (this.pen === "fill") this.drawing.fill(cross, this.plane);
    else if (this.pen !== "outline") this.drawing.line(from ?? cross, cross, this.plane, this.size);
    this.endStroke();
  }

  addCorner() {
    if (this.pen !== "outline" || !this.canDraw) return;
    this.outline.push(this.viewer.cross);
    this.say(`${this.outline.length} ${this.outline.length === 1 ? "corner" : "corners"}; O closes the outline and fills it`);
  }

  closeOutline() {
    const slice = this.outline[0][this.plane];
    this.begin();
    this.drawing.polygon(this.outline.map((voxel) => voxel.map((at, axis) => (axis === this.plane ? slice : at))), this.plane);
    this.endStroke();
    this.say("The outline is filled.");
  }

  undo() { this.goBack(() => this.drawing.undo(), "nothing to undo"); }

  redo() { this.goBack(() => this.drawing.redo(), "nothing to redo"); }

  goBack(go, otherwise) {
    if (!this.canDraw) return;
    if (!go()) {
      this.say(otherwise);
      return;
    }
    this.viewer.showLabels(this.drawing.labels);
    this.changed();
  }

  async startFrom(key) {
    if (!this.canDraw) return;
    const { name } = this;
    try {
      const labels = await this.labelsOf(key);
      if (name !== this.name || !this.drawing.replace(labels)) return;
      this.viewer.showLabels(this.drawing.labels);
      this.changed();
      this.say(`These are the labels of ${this.sources.find((one) => one.key === key).name} now; undo brings back yours.`);
    } catch (error) {
      this.fail(error);
    }
  }

  move(right, up) {
    if (!this.drawing) return;
    const before = this.viewer.cross;
    const [u, v] = inPlane(this.plane);
    const voxel = [...before];
    voxel[u] += this.plane === 0 ? right : -right; // the patient's right is at the left
    voxel[v] += up;
    this.viewer.moveTo(this.inside(voxel));
    return before;
  }

  across(by) {
    if (!this.drawing) return;
    const voxel = this.viewer.cross;
    voxel[this.plane] += by;
    this.viewer.moveTo(this.inside(voxel));
  }

  inside(voxel) { return voxel.map((at, axis) => Math.min(Math.max(at, 0), this.drawing.shape[axis] - 1)); }

  // --- decisions -----------------------------------------------------------------------------------------------------

  async decide(act) {
    if (this.busy || this.ended || !this.name) return;
    this.finishStroke();
    this.busy = true;
    this.showButtons();
    try {
      await act(this.name);
    } catch (error) {
      this.fail(error);
    }
    this.busy = false;
    this.showButtons();
  }

  save() {
    return this.decide(async (name) => {
      if (!this.drawing) return;
      await this.drafts.forget();
      this.say("Saving\u2026");
      let standing;
      try {
        standing = await api.putLabel(name, this.drawing.labels);
      } catch (error) {
        this.drafts.later(name, this.drawing.labels);
        throw error;
      }
      this.stands(name, standing);
      this.say(`Saved: ${standing.changed_voxels} voxels differ from the pseudo-label.`);
    });
  }

  accept() {
    return this.decide(async (name) => {
      const [first] = this.sources;
      if (!first) throw new Error("this case has no pseudo-label to accept; draw its labels and save them, or skip it");
      if (!this.drawing) return;
      const from = await this.acceptedSource();
      if (!from) throw new Error("the labels were changed: save them, or undo the changes to accept the pseudo-label as it is");
      const shown = this.sources.some(({ key }) => key === this.shown) ? this.shown : from;
      await this.drafts.forget();
      this.say("Saving\u2026");
      this.stands(name, await api.acceptCase(name, shown));
      await this.goOn(name, "accepted");
    });
  }

  // Whose labels these are, if nothing was drawn into them.
  async acceptedSource() {
    for (const { key } of this.sources) if (same(await this.labelsOf(key), this.drawing.labels)) return key;
    return null;
  }

  skip() {
    return this.decide(async (name) => {
      await this.drafts.flush();
      this.stands(name, await api.skipCase(name));
      await this.goOn(name, "skipped");
    });
  }

  async goOn(name, what) {
    const next = this.cases.nextOpen(name);
    if (next && next !== name) {
      this.busy = false;
      await this.open(next);
    } else {
      this.say(`${name} is ${what}; every case is decided.`);
      await this.done.open();
    }
  }

  step(by) {
    if (this.busy) return;
    const next = this.name && this.cases.further(this.name, by);
    if (next) this.open(next);
    else this.say(by > 0 ? "this is the last case" : "this is the first case");
  }

  showButtons() {
    const off = !this.drawing || this.busy || this.ended;
    byId("undo").disabled = off || !this.drawing.past.length;
    byId("redo").disabled = off || !this.drawing.future.length;
    byId("save").disabled = byId("accept").disabled = off;
    byId("skip").disabled = this.busy || this.ended;
  }

  keyActions() {
    const resize = (by) => {
      byId("size").value = this.size + by;
      byId("size").oninput();
    };
    const arrow = (right, up) => (event) => {
      const before = this.move(right, up);
      if (event.shiftKey && before) this.drawAtCross(before);
    };
    const nextOf = (keys, now) => keys[(keys.indexOf(now) + 1) % keys.length];
    const actions = {
      n: () => this.step(1), p: () => this.step(-1), s: () => this.save(), a: () => this.accept(), k: () => this.skip(),
      z: () => this.undo(), "Ctrl+z": () => this.undo(), y: () => this.redo(), "Ctrl+y": () => this.redo(), "Ctrl+Shift+z": () => this.redo(), "Ctrl+s": () => this.save(),
      b: () => this.setPen("brush"), e: () => this.setPen("eraser"), o: () => this.setPen("outline"), f: () => this.setPen("fill"), m: () => this.setPen("move"),
      "[": () => resize(-1), "]": () => resize(1), c: () => this.nextClass(1), "Shift+c": () => this.nextClass(-1),
      ArrowLeft: arrow(-1, 0), ArrowRight: arrow(1, 0), ArrowUp: arrow(0, 1), ArrowDown: arrow(0, -1),
      PageUp: () => this.across(1), PageDown: () => this.across(-1), " ": () => this.drawAtCross(), Enter: () => this.addCorner(),
      x: () => { this.plane = (this.plane + 2) % 3; this.say(`arrow keys and Space work in the ${PLANES[this.plane]} plane`); },
      v: () => this.setLayout(nextOf(LAYOUTS.map(({ key }) => key), this.layout)), l: () => this.show(nextOf(this.shownKeys, this.shown)),
      h: () => { this.hidden = !this.hidden; this.applyOpacity(); },
      "+": () => this.viewer.zoom(1.25), "=": () => this.viewer.zoom(1.25), "-": () => this.viewer.zoom(0.8), 0: () => this.viewer.zoom(0),
      Escape: () => byId("cases").classList.remove("open"),
      d: () => this.done.open(), "?": () => byId("help").showModal(),
    };
    this.session.classes.slice(0, 9).forEach(({ value }, index) => { actions[String(index + 1)] = () => this.setClass(value); });
    return actions;
  }
}

const page = new Page();
page.start().catch((error) => page.fail(error));
