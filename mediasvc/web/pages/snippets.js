// What one click copies: an asset's link, the curl line that fetches it, the <img> that shows it.

import { call } from "./api.js";
import { say } from "./text.js";

const LASTS = "7d"; // what is private is shown by a link, which ends

export async function link(asset, isPublic) {
  return isPublic ? asset.url : signed(asset);
}

export async function curl(asset, isPublic) {
  const name = asset.name.replace(/^-/, "./-");
  return `curl -fL -o ${quoted(name)} ${quoted(await link(asset, isPublic))}`;
}

/** Every rendition at its width; the browser takes what it needs. */
export async function image(asset, isPublic) {
  const renditions = Object.entries(asset.renditions).sort(([, one], [, other]) => one.width - other.width);
  const sources = new Map();
  for (const [preset, { width, url }] of renditions) {
    if (!sources.has(width)) sources.set(width, isPublic ? url : await signed(asset, preset));
  }
  const [, largest] = renditions.at(-1);
  const attributes = {
    src: sources.get(largest.width),
    srcset: [...sources].map(([width, url]) => `${url} ${width}w`).join(", "),
    sizes: `(max-width: ${largest.width}px) 100vw, ${largest.width}px`,
    width: largest.width,
    height: largest.height,
    alt: asset.name.replace(/\.[^.]*$/, ""),
  };
  return `<img ${Object.entries(attributes).map(([name, value]) => `${name}="${escaped(value)}"`).join(" ")}>`;
}

/** Put it on the clipboard; where that is not allowed (http:// in a network), show it, marked. */
export async function copy(what, making) {
  try {
    // Safari wants to be handed the promise while the click still counts.
    if (globalThis.ClipboardItem && navigator.clipboard?.write) {
      const blob = making.then((text) => new Blob([text], { type: "text/plain" }));
      await navigator.clipboard.write([new ClipboardItem({ "text/plain": blob })]);
    } else {
      await navigator.clipboard.writeText(await making);
    }
    say(`${what} copied`);
  } catch {
    await making.then(show, (error) => say(`${what}: ${error.message}`));
  }
}

function show(text) {
  const dialog = document.getElementById("copy");
  const place = document.getElementById("copy-text");
  place.value = text;
  dialog.showModal();
  place.select();
}

async function signed(asset, recipe) {
  const body = { expires_in: LASTS, ...(recipe ? { recipe } : {}) };
  return (await call("POST", `v1/assets/${asset.id}/links`, { body })).url;
}

/** For a shell: nothing in single quotes is special but the quote. */
function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function escaped(value) {
  return String(value).replaceAll("&", "&amp;").replaceAll('"', "&quot;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
