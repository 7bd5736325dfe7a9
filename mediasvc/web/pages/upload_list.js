// The queue, as people see it: what is on its way and what needs them; what is done is only counted.

import { button, count, element, hidden, say, size } from "./text.js";

const MOST_ROWS = 30; // of those that wait
const WORDS = { waiting: "waiting", checking: "looking whether it is there", sending: "", paused: "paused", failed: "", taken: "" };

export class UploadList {
  #queue;
  #rows = new Map();
  #drawing = false;
  #speed = { bytes: 0, at: 0, rate: 0 };

  constructor(queue) {
    this.#queue = queue;
    this.section = document.getElementById("uploads");
    this.list = document.getElementById("queue");
    queue.addEventListener("change", () => this.#soon());
  }

  /** Many changes, one drawing. */
  #soon() {
    if (this.#drawing) return;
    this.#drawing = true;
    // Not by animation frames: these stop while nobody looks, and the title goes on counting.
    setTimeout(() => { this.#drawing = false; this.#draw(); }, 100);
  }

  #draw() {
    const { entries } = this.#queue;
    this.section.hidden = entries.length === 0;
    const shown = [...entries.filter((entry) => entry.active), ...entries.filter((entry) => ["taken", "failed", "paused"].includes(entry.state)).slice(0, MOST_ROWS)];
    const waiting = entries.filter((entry) => entry.state === "waiting");
    shown.push(...waiting.slice(0, Math.max(0, MOST_ROWS - shown.length)));
    this.#arrange(shown);
    const more = entries.filter((entry) => !entry.over).length - shown.length;
    const rest = document.getElementById("more-waiting");
    rest.hidden = more <= 0;
    rest.textContent = `and ${count(more, "more file")}`;
    this.#sum(entries);
    this.#offer(entries);
  }

  #arrange(shown) {
    const kept = new Set(shown);
    const lost = this.list.contains(document.activeElement) ? document.activeElement.closest("li") : null;
    for (const [entry, row] of this.#rows) {
      if (!kept.has(entry)) {
        row.item.remove();
        this.#rows.delete(entry);
      }
    }
    shown.forEach((entry, place) => {
      if (!this.#rows.has(entry)) this.#rows.set(entry, new Row(entry, this.#queue));
      const row = this.#rows.get(entry);
      row.draw();
      if (this.list.children[place] !== row.item) this.list.insertBefore(row.item, this.list.children[place] ?? null);
    });
    // Who worked by keyboard in a row that went is not thrown to the top of the page.
    if (lost && !lost.isConnected) (this.list.querySelector("button") ?? document.getElementById("choose-files")).focus();
  }

  #sum(entries) {
    const of = (...states) => entries.filter((entry) => states.includes(entry.state)).length;
    const all = entries.reduce((sum, { file }) => sum + file.size, 0);
    const sent = entries.reduce((sum, entry) => sum + (entry.over ? entry.file.size : entry.sent), 0);
    const over = of("done", "skipped");
    const parts = [`${over.toLocaleString("en")} of ${count(entries.length, "file")}`, `${size(sent)} of ${size(all)}`];
    if (of("skipped")) parts.push(`${of("skipped").toLocaleString("en")} already here`);
    if (of("taken")) parts.push(`${of("taken").toLocaleString("en")} to decide`);
    if (of("failed")) parts.push(`${of("failed").toLocaleString("en")} failed`);
    const rate = this.#rate(entries.reduce((sum, entry) => sum + (entry.state === "skipped" ? 0 : entry.sent), 0));
    if (this.#queue.busy && rate) parts.push(`${size(rate)}/s`);
    document.getElementById("summary").textContent = parts.join(" · ");
    const done = entries.length ? (all ? sent / all : over / entries.length) : 0;
    document.getElementById("total").value = done;
    document.title = this.#queue.busy ? `${Math.floor(done * 100)} % · mediasvc` : "mediasvc";
    if (entries.length && !this.#queue.busy && this.wasBusy) say(`Uploads: ${parts.join(", ")}`);
    this.wasBusy = this.#queue.busy;
  }

  #rate(bytes) {
    const speed = this.#speed;
    const now = performance.now();
    if (bytes < speed.bytes || now - speed.at > 10_000) Object.assign(speed, { bytes, at: now, rate: 0 });
    else if (now - speed.at > 1000) {
      const latest = ((bytes - speed.bytes) * 1000) / (now - speed.at);
      Object.assign(speed, { bytes, at: now, rate: speed.rate ? speed.rate * 0.7 + latest * 0.3 : latest });
    }
    return speed.rate;
  }

  #offer(entries) {
    const queue = this.#queue;
    const some = (...states) => entries.filter((entry) => states.includes(entry.state));
    const offers = [];
    if (some("taken").length > 1) {
      offers.push(["Replace all", "whose names are taken", () => some("taken").forEach((entry) => queue.resume(entry, { replace: true }))]);
      offers.push(["Keep all", "beside what has their names", () => some("taken").forEach((entry) => queue.keepBoth(entry))]);
    }
    if (queue.busy) offers.push(["Pause all", "uploads", () => queue.pauseAll()]);
    else if (some("paused", "failed").length) offers.push(["Resume all", "uploads", () => queue.resumeAll()]);
    if (!queue.busy && entries.some((entry) => entry.over)) offers.push(["Clear", "what is done", () => queue.clear()]);
    const place = document.getElementById("all");
    const names = offers.map(([text]) => text).join();
    if (place.dataset.offers === names) return; // a button that is new under the finger gets no click
    place.dataset.offers = names;
    place.replaceChildren(...offers.map(([text, about]) =>
      button(text, about, () => this.#choices.get(text)(), { class: "second small" })));
    this.#choices = new Map(offers.map(([text, , act]) => [text, act]));
  }

  #choices = new Map();
}

class Row {
  constructor(entry, queue) {
    this.entry = entry;
    this.queue = queue;
    this.note = element("p", { class: "note" });
    this.bar = element("progress", { max: "1", value: "0" });
    this.bar.setAttribute("aria-label", `Sent of ${entry.key}`);
    this.buttons = element("div", { class: "buttons" });
    const cut = entry.key.lastIndexOf("/") + 1;
    const name = element("p", { class: "name" }, element("span", { class: "folder" }, entry.key.slice(0, cut)), entry.key.slice(cut));
    this.item = element("li", {}, element("div", { class: "what" }, name, this.note, this.bar), this.buttons);
  }

  draw() {
    const { entry, queue } = this;
    const { state, file, sent } = entry;
    this.item.dataset.state = state;
    this.bar.hidden = !(entry.active || (state === "paused" && sent));
    this.bar.value = file.size ? sent / file.size : 0;
    const begun = sent || state === "sending" ? `${size(sent)} of ${size(file.size)}` : size(file.size);
    this.note.textContent = [begun, WORDS[state], entry.note].filter(Boolean).join(" · ");
    if (this.drawn === state) return;
    const held = this.buttons.contains(document.activeElement);
    this.drawn = state;
    const offers = { waiting: ["Pause"], checking: ["Pause"], sending: ["Pause"], paused: ["Resume"], failed: ["Try again"], taken: ["Replace", "Keep both"] };
    const acts = {
      Pause: () => queue.pause(entry),
      Resume: () => queue.resume(entry),
      "Try again": () => queue.resume(entry),
      Replace: () => queue.resume(entry, { replace: true }),
      "Keep both": () => queue.keepBoth(entry),
    };
    const remove = element("button", { type: "button", class: "plain small close", click: () => queue.remove(entry) }, hidden(`Remove ${entry.key}`));
    this.buttons.replaceChildren(...(offers[state] ?? []).map((text) => button(text, entry.key, acts[text], { class: "second small" })), remove);
    if (held) this.buttons.firstElementChild.focus();
  }
}
