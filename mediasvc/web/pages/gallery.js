// The newest assets of a bucket, kept as they are by the live feed.

import { Problem, address, call } from "./api.js";
import { copy, curl, image, link } from "./snippets.js";
import { button, element, size } from "./text.js";

const PAGE = 48;
const AGAIN = 5000; // milliseconds until a feed that was refused is asked for again

export class Gallery {
  #cards = new Map();
  #cursor = null;
  #most = PAGE;
  #feed = null;
  #turn = 0;

  constructor(onSignedOut) {
    this.onSignedOut = onSignedOut;
    this.list = document.getElementById("assets");
    this.moreButton = document.getElementById("more");
    this.moreButton.addEventListener("click", () => this.#more());
  }

  /** Show another bucket, or the same one anew. */
  show(bucket) {
    this.close();
    this.bucket = bucket;
    document.getElementById("place").textContent = `in ${bucket.name}${bucket.public ? ", which everybody can read" : ""}`;
    this.#follow();
  }

  close() {
    this.#turn += 1;
    this.#feed?.close();
    clearTimeout(this.again);
  }

  #follow() {
    const feed = new EventSource(address("v1/events", { bucket: this.bucket.name }));
    this.#feed = feed;
    // The feed first, then the list: nothing falls between. Again after each break, for what was missed.
    feed.onopen = () => this.#reload();
    feed.addEventListener("refresh", () => this.#reload());
    feed.addEventListener("asset", ({ data }) => this.#put(JSON.parse(data)));
    feed.addEventListener("deleted", ({ data }) => this.#drop(JSON.parse(data).id));
    feed.onerror = () => {
      if (feed.readyState !== EventSource.CLOSED) return; // it connects again by itself
      this.again = setTimeout(async () => {
        const session = await call("GET", "v1/session").catch(() => null);
        if (this.#feed !== feed) return;
        if (session && session.key_id === null) this.onSignedOut();
        else this.#follow();
      }, AGAIN);
    };
  }

  async #reload() {
    const page = await this.#page(null);
    if (!page) return;
    this.#cards.clear();
    this.list.replaceChildren();
    this.#most = PAGE;
    this.#add(page);
  }

  async #more() {
    const page = await this.#page(this.#cursor);
    if (!page) return;
    this.#most += PAGE;
    const first = this.#add(page);
    first?.querySelector("a").focus({ preventScroll: true });
  }

  async #page(cursor) {
    const turn = ++this.#turn;
    try {
      const parameters = { bucket: this.bucket.name, order: "newest", limit: PAGE, cursor };
      const page = await call("GET", "v1/assets", { parameters });
      return turn === this.#turn ? page : null;
    } catch (error) {
      if (error instanceof Problem && error.status === 401) this.onSignedOut();
      return null; // the feed breaks, too, and comes back with a new list
    }
  }

  #add(page) {
    this.#cursor = page.next_cursor;
    const made = page.assets.map((asset) => this.#place(asset));
    this.#tidy();
    return made[0];
  }

  #put(asset) {
    const known = this.#cards.has(asset.id);
    const last = this.list.lastElementChild?.dataset.id;
    if (!known && this.#cursor !== null && last && asset.id < last) return; // older than all that is shown
    this.#place(asset);
    while (this.#cards.size > this.#most + PAGE) this.#drop(this.list.lastElementChild.dataset.id);
    this.#tidy();
  }

  #drop(id) {
    this.#cards.get(id)?.remove();
    this.#cards.delete(id);
    this.#tidy();
  }

  /** Ids are in order of time. What changed keeps its element, and so its focus. */
  #place(asset) {
    const old = this.#cards.get(asset.id);
    const card = old ?? element("li", { "data-id": asset.id });
    if (card.dataset.version !== look(asset)) {
      card.dataset.version = look(asset);
      const held = card.contains(document.activeElement) ? [...card.querySelectorAll("a, button")].indexOf(document.activeElement) : -1;
      card.replaceChildren(...contents(asset, this.bucket.public));
      if (held >= 0) card.querySelectorAll("a, button")[held]?.focus();
    }
    if (!old) {
      this.#cards.set(asset.id, card);
      const next = [...this.list.children].find((other) => other.dataset.id < asset.id);
      this.list.insertBefore(card, next ?? null);
    }
    return card;
  }

  #tidy() {
    document.getElementById("empty").hidden = this.#cards.size > 0;
    this.moreButton.hidden = this.#cursor === null;
  }
}

/** What a card shows of an asset; while it is the same nothing is drawn anew. */
function look(asset) {
  return [asset.version, asset.state, asset.name, Object.keys(asset.renditions).length].join(" ");
}

function contents(asset, isPublic) {
  const { facts } = asset;
  const about = [size(asset.size), facts.width && facts.height ? `${facts.width}\u202f×\u202f${facts.height}` : "", asset.state === "damaged" ? "damaged" : ""];
  const buttons = [
    copier("Link", `to ${asset.name}`, () => link(asset, isPublic)),
    copier("curl", `line for ${asset.name}`, () => curl(asset, isPublic)),
  ];
  if (Object.keys(asset.renditions).length) buttons.push(copier("img", `with srcset of ${asset.name}`, () => image(asset, isPublic)));
  const open = element("a", { href: asset.url, target: "_blank", rel: "noopener", title: asset.key }, picture(asset), element("span", { class: "name" }, asset.name));
  return [open, element("p", { class: "note" }, about.filter(Boolean).join(" · ")), element("div", { class: "buttons" }, ...buttons)];
}

function copier(text, about, making) {
  return button(text, `${about}: copy`, () => copy(text, making()), { class: "second small copies", title: `Copy: ${text}` });
}

function picture(asset) {
  const { thumb, grid } = asset.renditions;
  const frame = element("span", { class: "picture" });
  if (asset.placeholder) frame.style.backgroundImage = `url(${JSON.stringify(asset.placeholder.data_uri)})`;
  if (!thumb) {
    frame.classList.toggle("coming", asset.state === "processing");
    const extension = /\.([^.]{1,5})$/.exec(asset.name)?.[1] ?? asset.media_type.split("/")[1].slice(0, 5);
    if (!asset.placeholder) frame.append(element("span", { class: "kind", "aria-hidden": "true" }, extension));
    return frame;
  }
  const sources = [thumb, grid].filter(Boolean).map(({ url, width }) => `${url} ${width}w`);
  const shown = element("img", { alt: "", loading: "lazy", decoding: "async", width: thumb.width, height: thumb.height, sizes: "(max-width: 30rem) 45vw, 14rem", srcset: sources.join(", "), src: thumb.url });
  shown.addEventListener("load", () => { frame.style.backgroundImage = ""; });
  frame.append(shown);
  return frame;
}
