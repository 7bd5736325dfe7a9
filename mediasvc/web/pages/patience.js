// When to try again, and how long to wait before.

const LONGEST = 30_000; // milliseconds

/** Whether the same request may succeed later; 0: no answer came. */
export function passing(status) {
  return [0, 408, 409, 423, 429, 460].includes(status) || (status >= 500 && ![501, 507].includes(status));
}

/** Wait longer after each failure in a row, or until the network is back. Throws the signal's reason. */
export function rest(failures, signal, retryAfter = 0) {
  const milliseconds = Math.max(retryAfter * 1000, Math.min(LONGEST, 500 * 2 ** failures));
  return new Promise((resolve, reject) => {
    const over = () => {
      clearTimeout(timer);
      removeEventListener("online", over);
      signal.removeEventListener("abort", over);
      if (signal.aborted) reject(signal.reason);
      else resolve();
    };
    const timer = setTimeout(over, milliseconds * (0.75 + Math.random() / 2)); // not all at the same moment
    addEventListener("online", over);
    signal.addEventListener("abort", over);
  });
}

/** Do it again until it is done, or fails for good. */
export async function patiently(attempt, signal, onWait) {
  for (let failures = 0; ; failures++) {
    try {
      const result = await attempt();
      signal.throwIfAborted();
      if (failures) onWait(null);
      return result;
    } catch (error) {
      signal.throwIfAborted();
      if (!passing(error.status)) throw error;
      onWait(error.message);
      await rest(failures, signal);
    }
  }
}
