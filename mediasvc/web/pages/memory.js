// What this browser remembers of its uploads: where an unfinished one goes on, and what a finished one became.
//
// A file is known by bucket, key, size and time of change: reading all of a large one only to recognise it would be
// dear. What is skipped is never decided by that alone, though: the server must still hold the bytes that came of it.

const PREFIX = "mediasvc upload ";
const KEPT = 30 * 86400_000; // milliseconds
const MOST = 5000;

export function fingerprint(bucket, key, file) {
  return JSON.stringify([bucket, key, file.size, file.lastModified]);
}

/** `{url}` of an unfinished upload, `{etag}` of a finished one, or null. */
export function recall(print) {
  try {
    return JSON.parse(localStorage.getItem(PREFIX + print));
  } catch {
    return null;
  }
}

export function remember(print, what) {
  try {
    localStorage.setItem(PREFIX + print, JSON.stringify({ ...what, at: Date.now() }));
  } catch {
    // Full or forbidden: uploads work, they are only not taken up again after a reload.
  }
}

export function forget(print) {
  try {
    localStorage.removeItem(PREFIX + print);
  } catch {
    // nothing was remembered
  }
}

export function forgetAll() {
  for (const [print] of everything()) forget(print);
}

/** Bucket, key and size of what was begun here and not finished. */
export function unfinished() {
  return everything()
    .filter(([, what]) => what.url)
    .map(([print]) => {
      const [bucket, key, size] = JSON.parse(print);
      return { print, bucket, key, size };
    });
}

/** Forget what is old, and the oldest of what is too much. */
export function prune() {
  const now = Date.now();
  everything()
    .sort(([, one], [, other]) => other.at - one.at)
    .forEach(([print, { at }], place) => {
      if (place >= MOST || now - at > KEPT) forget(print);
    });
}

function everything() {
  const found = [];
  try {
    for (const name of Object.keys(localStorage)) {
      if (!name.startsWith(PREFIX)) continue;
      const print = name.slice(PREFIX.length);
      const what = recall(print);
      if (what) found.push([print, what]);
    }
  } catch {
    // storage is forbidden here
  }
  return found;
}
