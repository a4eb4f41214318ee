// The end of a review: the command that takes the label maps, to copy or to run.

import * as api from "./api.js";
import { byId } from "./elements.js";

const POLL = 700; // ms

// What to say of an sfr_add_labels that has ended, above its output.
export function howItEnded({ code, half_done }) {
  if (code === 0) return "The cases are labelled now. What is to be run again is said below.";
  if (half_done) return "sfr_add_labels has stopped half-way; run it again to complete it. What it said:";
  return "sfr_add_labels has not succeeded. What it said:";
}

export class Done {
  // flush: sends what was drawn; reload: lists the cases again, when some became labelled ones.
  constructor(flush, reload) {
    Object.assign(this, { flush, reload });
    byId("run").onclick = () => this.run();
    byId("close-done").onclick = () => byId("done").close();
  }

  async open() {
    byId("done").showModal();
    byId("output").hidden = true;
    try {
      await this.flush();
      this.show(await api.getAdded());
      if (byId("done").dataset.running) await this.follow();
    } catch (error) {
      byId("done-text").textContent = error.message;
    }
  }

  show({ command, decided, running, code, output }) {
    const text = decided === 0 ? "No case is corrected or accepted yet: there is nothing to add." : `${decided} corrected or accepted ${decided === 1 ? "case is" : "cases are"} ready to become labelled. This command takes them; close the page when you have had enough, nothing is lost.`;
    if (decided !== undefined && code === null && !running) byId("done-text").textContent = text;
    byId("command").textContent = command;
    byId("run").disabled = running || decided === 0;
    byId("output").hidden = !output;
    byId("output").textContent = output;
    byId("output").scrollTop = byId("output").scrollHeight;
    if (running) byId("done").dataset.running = "yes";
    else delete byId("done").dataset.running;
  }

  async run() {
    byId("run").disabled = true;
    byId("done-text").textContent = "sfr_add_labels is at work; it goes on if you close the page.";
    try {
      this.show(await api.runAdding());
      await this.follow();
    } catch (error) {
      byId("done-text").textContent = error.message;
    }
  }

  async follow() {
    for (;;) {
      await new Promise((resolve) => { setTimeout(resolve, POLL); });
      const added = await api.getAdded();
      this.show(added);
      if (added.running) continue;
      byId("done-text").textContent = howItEnded(added);
      if (added.code === 0) await this.reload();
      return;
    }
  }
}
