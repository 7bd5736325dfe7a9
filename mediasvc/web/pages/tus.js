// One file, sent resumably by tus 1.0 (https://tus.io/protocols/resumable-upload).

import { passing, rest } from "./patience.js";

const CHUNK = 16 * 2 ** 20; // bytes in one PATCH: proxies cap bodies, and a phone's memory is small
const STALLED = 30_000; // milliseconds in which not one byte went out
const FINISHING = 600_000; // milliseconds that the server may take to make the last bytes durable
const BEGINNINGS = 3; // how often an upload that got lost on the server is begun anew

/** An answer that is none of the good ones; `status` 0: none came. */
export class Failed extends Error {
  constructor(status, detail, retryAfter = 0) {
    super(detail);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/**
 * Send `file` until all of it is there and durable, however often the connection breaks.
 *
 * `url`: where an earlier attempt went on. `onUrl(url | null)`: remember it. `onProgress(bytes)`: what the server
 * has, and what is on its way. `onWait(reason | null)`: it is waiting to try again, or not any more.
 * Throws Failed for what trying again does not mend, and the signal's reason where it was aborted.
 */
export async function send(file, { endpoint, metadata, url = null, signal, onUrl, onProgress, onWait, chunkSize = CHUNK }) {
  let offset = null; // unknown until the server says it
  let failures = 0;
  let beginnings = 0;
  for (;;) {
    signal.throwIfAborted();
    try {
      let answer;
      if (url === null) {
        answer = await request("POST", endpoint, signal, {
          headers: { "Upload-Length": String(file.size), "Upload-Metadata": encoded(metadata) },
        });
        url = new URL(answer.getResponseHeader("Location"), endpoint).href;
        onUrl(url);
        offset = 0;
        onProgress(0);
        if (file.size === 0) return;
      } else if (offset === null) {
        answer = await request("HEAD", url, signal);
        offset = offsetOf(answer, file.size);
        onProgress(offset);
      } else {
        // At the end the body is empty: that asks for the last answer once more, which may have been lost.
        const chunk = file.slice(offset, Math.min(offset + allowed(answer, chunkSize), file.size));
        const from = offset;
        answer = await request("PATCH", url, signal, {
          headers: { "Content-Type": "application/offset+octet-stream", "Upload-Offset": String(offset) },
          body: chunk,
          onSent: (bytes) => onProgress(from + bytes),
        });
        offset = offsetOf(answer, file.size);
        onProgress(offset);
        if (offset === file.size) return;
        if (offset === from && chunk.size > 0) throw new Failed(0, "the server took nothing");
      }
      chunkSize = allowed(answer, chunkSize);
      failures = 0;
      onWait(null);
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof Failed)) throw error;
      offset = null;
      if (url !== null && [404, 410].includes(error.status) && ++beginnings < BEGINNINGS) {
        url = null; // expired, or lost: from the start
        onUrl(null);
        continue;
      }
      if (!passing(error.status)) throw error;
      onWait(error.message);
      await rest(failures++, signal, error.retryAfter);
    }
  }
}

/** Tell the server to forget an unfinished upload; what comes of it does not matter. */
export function discard(url) {
  request("DELETE", url, new AbortController().signal).catch(() => {});
}

function request(method, url, signal, { headers = {}, body = null, onSent = () => {} } = {}) {
  return new Promise((resolve, reject) => {
    const xhr = new XMLHttpRequest(); // fetch does not tell how much of a body has gone out
    let watch;
    const expect = (milliseconds) => {
      clearTimeout(watch);
      watch = setTimeout(() => { done(new Failed(0, "the connection stands still")); xhr.abort(); }, milliseconds);
    };
    const abort = () => { done(signal.reason); xhr.abort(); };
    const done = (error) => {
      clearTimeout(watch);
      signal.removeEventListener("abort", abort);
      if (error) reject(error);
      else resolve(xhr);
    };
    xhr.open(method, url);
    xhr.setRequestHeader("Tus-Resumable", "1.0.0");
    for (const [name, value] of Object.entries(headers)) xhr.setRequestHeader(name, value);
    if (body?.size) {
      xhr.upload.onprogress = (event) => { expect(STALLED); onSent(event.loaded); };
      xhr.upload.onload = () => expect(FINISHING);
    }
    xhr.onload = () => done(xhr.status >= 200 && xhr.status < 300 ? null : failure(xhr));
    xhr.onerror = () => done(new Failed(0, "the server cannot be reached"));
    signal.addEventListener("abort", abort);
    expect(body?.size === 0 ? FINISHING : STALLED);
    xhr.send(body);
  });
}

function failure(xhr) {
  let detail = `the server answered ${xhr.status}`;
  try {
    detail = JSON.parse(xhr.responseText).detail ?? detail;
  } catch {
    // no problem document, as with HEAD and some proxies
  }
  return new Failed(xhr.status, detail, Number(xhr.getResponseHeader("Retry-After")) || 0);
}

function offsetOf(xhr, size) {
  const text = xhr.getResponseHeader("Upload-Offset") ?? "";
  const offset = Number(text);
  if (!/^\d+$/.test(text) || offset > size) throw new Failed(400, "the server knows this upload by another length");
  return offset;
}

/** What a proxy in front lets through at most (`Upload-Limit: max-append-size=…`). */
function allowed(xhr, chunkSize) {
  const limit = /max-append-size=(\d+)/.exec(xhr?.getResponseHeader("Upload-Limit") ?? "");
  return limit && Number(limit[1]) > 0 ? Math.min(chunkSize, Number(limit[1])) : chunkSize;
}

/** Upload-Metadata: names, and their values as base64 of UTF-8. */
function encoded(metadata) {
  return Object.entries(metadata)
    .map(([name, text]) => `${name} ${btoa(String.fromCodePoint(...new TextEncoder().encode(text)))}`)
    .join(",");
}
