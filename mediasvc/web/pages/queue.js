// The uploads of this page: three at once, each paused, resumed, and skipped where the server has it already.

import { Problem, address, stored } from "./api.js";
import { fingerprint, forget, recall, remember } from "./memory.js";
import { patiently } from "./patience.js";
import { Failed, discard, send } from "./tus.js";

const AT_ONCE = 3;
const HASHABLE = 64 * 2 ** 20; // bytes; a browser hashes in memory only

/**
 * One file on its way. `state`: waiting, checking, sending, paused, taken (something else has its key), failed,
 * done, skipped (it was there). `sent`: bytes. `note`: what people should know.
 */
class Entry {
  constructor(file, bucket, key) {
    Object.assign(this, { file, bucket, key, state: "waiting", sent: 0, note: "", replace: false, stop: null });
    this.print = fingerprint(bucket, key, file);
  }

  get active() {
    return this.state === "checking" || this.state === "sending";
  }

  get over() {
    return this.state === "done" || this.state === "skipped";
  }
}

/** Tells of every change by the event `change`, whose `detail` is the entry; `signedout` where the key has gone. */
export class Queue extends EventTarget {
  entries = [];
  held = false; // nobody is signed in
  #active = new Set();

  add(bucket, prefix, files) {
    const known = new Map(this.entries.filter((entry) => !entry.over).map((entry) => [entry.print, entry]));
    for (const { file, path } of files) {
      const entry = new Entry(file, bucket, joined(prefix, path));
      const twin = known.get(entry.print);
      if (twin) {
        if (!twin.active && twin.state !== "waiting") this.resume(twin);
        continue;
      }
      known.set(entry.print, entry);
      this.entries.push(entry);
      this.#tell(entry);
    }
    this.#fill();
  }

  pause(entry) {
    if (!entry.active && entry.state !== "waiting") return;
    this.#set(entry, "paused");
    entry.stop?.abort();
    this.#fill();
  }

  /** Go on, or try again. `replace`: whatever has its key now gives way. */
  resume(entry, { replace = entry.replace } = {}) {
    if (entry.active || entry.over) return;
    entry.replace = replace;
    this.#set(entry, "waiting");
    this.#fill();
  }

  /** Under a key of its own, beside what has its key now. */
  keepBoth(entry) {
    const [, stem, extension] = /^(.*?)((?:\.[^./]*)?)$/s.exec(entry.key);
    entry.key = `${stem}-${Math.random().toString(36).slice(2, 8)}${extension}`;
    entry.print = fingerprint(entry.bucket, entry.key, entry.file);
    this.resume(entry);
  }

  remove(entry) {
    entry.stop?.abort();
    const url = recall(entry.print)?.url;
    if (url && !entry.over) {
      discard(url);
      forget(entry.print);
    }
    this.entries = this.entries.filter((other) => other !== entry);
    this.#tell(entry);
    this.#fill();
  }

  clear() {
    this.entries = this.entries.filter((entry) => !entry.over);
    this.#tell(null);
  }

  pauseAll() {
    // Backwards: what waits must not begin because something before it stopped.
    for (const entry of [...this.entries].reverse()) this.pause(entry);
  }

  resumeAll() {
    for (const entry of this.entries) if (entry.state === "paused" || entry.state === "failed") this.resume(entry);
  }

  release() {
    this.held = false;
    this.#fill();
  }

  get busy() {
    return this.entries.some((entry) => entry.active || entry.state === "waiting");
  }

  #fill() {
    for (const entry of this.entries) {
      if (this.held || this.#active.size >= AT_ONCE) return;
      // Two files for one key go one after the other, so that the second sees the first.
      const rival = [...this.#active].some((other) => other.bucket === entry.bucket && other.key === entry.key);
      if (entry.state === "waiting" && !rival && !this.#active.has(entry)) this.#start(entry);
    }
  }

  async #start(entry) {
    this.#active.add(entry);
    entry.stop = new AbortController();
    try {
      await this.#carry(entry, entry.stop.signal);
    } catch (error) {
      if (entry.stop.signal.aborted) return; // its state says already why
      const known = error instanceof Failed || error instanceof Problem;
      if (known && error.status === 401) {
        this.held = true;
        this.#set(entry, "waiting");
        this.dispatchEvent(new Event("signedout"));
      } else {
        this.#set(entry, "failed", known ? error.message : `${entry.file.name} cannot be read any more: choose it again`);
        if (!known) console.error(error);
      }
    } finally {
      this.#active.delete(entry);
      this.#fill();
    }
  }

  async #carry(entry, signal) {
    const { file, bucket, key, print } = entry;
    this.#set(entry, "checking");
    const onWait = (reason) => { entry.note = reason ? `${reason}: trying again` : ""; this.#tell(entry); };
    const url = recall(print)?.url ?? null;
    if (url === null && !entry.replace) {
      const there = await patiently(() => stored(bucket, key), signal, onWait);
      if (there && (await same(file, there, recall(print)?.etag))) {
        remember(print, { etag: there.etag });
        return this.#set(entry, "skipped", "already here");
      }
      signal.throwIfAborted();
      if (there) return this.#set(entry, "taken", "something else has this name");
    }
    this.#set(entry, "sending");
    await send(file, {
      endpoint: address("v1/uploads").href,
      metadata: { filename: file.name, filetype: file.type || "application/octet-stream", bucket, key },
      url,
      signal,
      onUrl: (place) => (place ? remember(print, { url: place }) : forget(print)),
      onProgress: (bytes) => { entry.sent = bytes; this.#tell(entry); },
      onWait,
    });
    entry.sent = file.size;
    forget(print);
    this.#set(entry, "done");
    const there = await stored(bucket, key).catch(() => null);
    if (there?.size === file.size) remember(print, { etag: there.etag });
  }

  #set(entry, state, note = "") {
    Object.assign(entry, { state, note });
    this.#tell(entry);
  }

  #tell(entry) {
    this.dispatchEvent(new CustomEvent("change", { detail: entry }));
  }
}

/** Keys are kept as NFC; file systems of Apple hand out names decomposed. */
function joined(prefix, path) {
  const start = prefix.trim().replace(/^\/+|\/+$/g, "");
  return (start ? `${start}/${path}` : path).normalize("NFC");
}

/** Whether the server holds exactly this file: it did when we last sent it, or its SHA-256 says so. */
async function same(file, there, etag) {
  if (there.size !== file.size) return false;
  if (etag === there.etag) return true;
  if (file.size > HASHABLE || !globalThis.crypto?.subtle) return false;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await file.arrayBuffer()));
  const hex = [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return there.etag === `"${hex.slice(0, 32)}"`;
}
