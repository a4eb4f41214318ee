// The list of cases, and how each stands.

import { byId, element } from "./elements.js";

const STATES = { open: "open", corrected: "corrected", accepted: "accepted", skipped: "skipped" };

export class CaseList {
  constructor(cases, open) {
    this.cases = cases;
    this.buttons = new Map();
    const list = byId("list");
    list.replaceChildren(...cases.map((one) => {
      const button = element("button", { type: "button", onclick: () => open(one.name) });
      this.buttons.set(one.name, button);
      return element("li", {}, button);
    }));
    for (const one of cases) this.show(one);
    byId("find").oninput = (event) => this.find(event.target.value);
  }

  get(name) { return this.cases.find((one) => one.name === name); }

  index(name) { return this.cases.findIndex((one) => one.name === name); }

  // The case so many further, or null beyond the end.
  further(name, by) { return this.cases[this.index(name) + by]?.name ?? null; }

  // The next one without a decision, from the start again after the end; null if all are decided.
  nextOpen(name) {
    const at = this.index(name);
    const following = [...this.cases.slice(at + 1), ...this.cases.slice(0, Math.max(at, 0))];
    return following.find((one) => one.state === "open")?.name ?? null;
  }

  update(name, standing) {
    Object.assign(this.get(name), standing);
    this.show(this.get(name));
  }

  show(one) {
    const state = one.has_draft ? "draft" : one.state;
    const sure = one.confidence === null ? "" : `confidence ${one.confidence.toFixed(2)}`;
    const why = one.reasons.length ? one.reasons.join("; ") : sure;
    this.buttons.get(one.name).replaceChildren(
      element("span", { class: "name" }, one.name),
      element("span", { class: `state ${state}` }, state === "draft" ? "not saved" : STATES[one.state]),
      element("span", { class: "why" }, why));
  }

  mark(name) {
    for (const [other, button] of this.buttons) button.setAttribute("aria-current", String(other === name));
    this.buttons.get(name)?.scrollIntoView({ block: "nearest" });
  }

  find(text) {
    const wanted = text.trim().toLowerCase();
    for (const [name, button] of this.buttons) button.parentElement.hidden = !name.toLowerCase().includes(wanted);
  }

  tally() {
    const count = (state) => this.cases.filter((one) => one.state === state).length;
    const parts = ["corrected", "accepted", "skipped"].filter(count).map((state) => `${count(state)} ${state}`);
    return [`${count("open")} of ${this.cases.length} open`, ...parts].join(", ");
  }
}
