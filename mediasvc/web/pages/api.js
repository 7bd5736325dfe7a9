// The JSON API, called with the session's cookie.

export const HOME = new URL(".", document.baseURI); // also behind a proxy that puts us under a path

/** An answer that tells what is wrong (RFC 9457). */
export class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** The URL of a path of ours, whose query is `parameters`. */
export function address(path, parameters = {}) {
  const url = new URL(path, HOME);
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== "" && value !== null && value !== undefined) url.searchParams.set(name, value);
  }
  return url;
}

/** The answer's JSON, null where it has none. Throws Problem, status 0 where no answer came. */
export async function call(method, path, { parameters, body } = {}) {
  let answer;
  try {
    answer = await fetch(address(path, parameters), {
      method,
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw new Problem(0, "the server cannot be reached");
  }
  const json = answer.status === 204 ? null : await answer.json().catch(() => null);
  if (!answer.ok) throw new Problem(answer.status, json?.detail ?? `the server answered ${answer.status}`);
  return json;
}

/** Size and ETag of what is stored under a key; null where nothing is. */
export async function stored(bucket, key) {
  const path = key.split("/").map(encodeURIComponent).join("/");
  let answer;
  try {
    answer = await fetch(address(`b/${bucket}/${path}`), { method: "HEAD", cache: "no-store" });
  } catch {
    throw new Problem(0, "the server cannot be reached");
  }
  if (answer.status === 404) return null;
  if (!answer.ok) throw new Problem(answer.status, `the server answered ${answer.status}`);
  return { size: Number(answer.headers.get("Content-Length")), etag: answer.headers.get("ETag").replace(/^W\//, "") };
}
