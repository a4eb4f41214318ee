// What is drawn goes to the server as a draft shortly after each stroke, one upload at a time, the last state last.

const DELAY = 600; // ms

export class Drafts {
  constructor(put, onResult, onFailure) {
    Object.assign(this, { put, onResult, onFailure, waiting: null, timer: 0, running: null });
    addEventListener("beforeunload", (event) => { if (this.waiting || this.running) event.preventDefault(); });
    addEventListener("visibilitychange", () => { if (document.hidden) this.flush(); });
  }

  later(name, labels) {
    this.waiting = { name, labels };
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.flush(), DELAY);
  }

  // Send what is waiting; resolves when everything is on the disk.
  async flush() {
    clearTimeout(this.timer);
    while (this.running) await this.running; // another that waited for it may have begun the next upload
    if (!this.waiting) return;
    const { name, labels } = this.waiting;
    this.waiting = null;
    this.running = this.put(name, labels).then((standing) => this.onResult(name, standing), (error) => {
      this.waiting ??= { name, labels };
      this.onFailure(error);
    });
    await this.running;
    this.running = null;
  }

  // What was drawn has been saved, or is not wanted.
  async forget() {
    clearTimeout(this.timer);
    this.waiting = null;
    if (this.running) await this.running;
  }
}
