// The page at /: who is signed in, what is dropped on it, what the server has.

import { HOME, call } from "./api.js";
import { Gallery } from "./gallery.js";
import { forgetAll, prune, unfinished } from "./memory.js";
import { chosen, dropped, pasted } from "./picking.js";
import { Queue } from "./queue.js";
import { count, say } from "./text.js";
import { UploadList } from "./upload_list.js";

const at = (id) => document.getElementById(id);
const queue = new Queue();
const gallery = new Gallery(askForKey);
let buckets = [];
let narrowed = ""; // the prefix that the key is narrowed to

async function begin() {
  let session;
  try {
    session = await call("GET", "v1/session");
  } catch (error) {
    notice("elsewhere", `${error.message}: trying again`);
    setTimeout(begin, 3000);
    return;
  }
  at("elsewhere").hidden = true;
  const origin = new URL(session.url).origin;
  if (origin !== HOME.origin) {
    // The cookie counts at our own origin only, and that is another one than this.
    notice("elsewhere", `This server is known as ${session.url}: open it there.`);
    return;
  }
  if (session.key_id === null) {
    askForKey();
    return;
  }
  buckets = session.buckets;
  narrowed = session.prefix;
  work();
}

function askForKey() {
  gallery.close();
  queue.held = true;
  at("workplace").hidden = true;
  at("sign-out").hidden = true;
  at("sign-in").hidden = false;
  at("key").focus();
}

function work() {
  const before = at("bucket").value || localStorage.getItem("mediasvc bucket");
  at("bucket").replaceChildren(...buckets.map(({ name }) => new Option(name)));
  at("bucket").value = buckets.some(({ name }) => name === before) ? before : buckets[0]?.name ?? "";
  at("prefix").value ||= narrowed.replace(/\/$/, "");
  at("sign-in").hidden = true;
  at("sign-out").hidden = false;
  at("workplace").hidden = false;
  tellInterrupted();
  show();
  queue.release();
}

function show() {
  const bucket = buckets.find(({ name }) => name === at("bucket").value);
  if (bucket) gallery.show(bucket);
  else say("This key may see no bucket.");
}

function take(files) {
  if (!files.length) return;
  queue.add(at("bucket").value, at("prefix").value, files);
  say(`${count(files.length, "file")} added`);
  tellInterrupted();
}

function tellInterrupted() {
  const inHand = new Set(queue.entries.map(({ print }) => print));
  const open = unfinished().filter(({ print }) => !inHand.has(print));
  at("interrupted").hidden = open.length === 0;
  const names = open.slice(0, 3).map(({ key }) => key.split("/").pop()).join(", ");
  at("interrupted").textContent =
    `${count(open.length, "upload")} broke off (${names}${open.length > 3 ? ", …" : ""}). ` +
    `Drop or choose the same ${open.length === 1 ? "file" : "files"} again, and ${open.length === 1 ? "it goes" : "they go"} on.`;
}

function notice(id, text) {
  at(id).textContent = text;
  at(id).hidden = false;
}

at("sign-in-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  at("sign-in-error").textContent = "";
  try {
    await call("POST", "v1/session", { body: { key: at("key").value } });
    at("key").value = "";
    await begin();
  } catch (error) {
    at("sign-in-error").textContent = error.message;
    at("key").select();
  }
});

at("sign-out").addEventListener("click", async () => {
  if (queue.busy && !confirm("Uploads are under way. Sign out all the same?")) return;
  try {
    await call("DELETE", "v1/session");
  } catch (error) {
    say(error.message);
    return;
  }
  for (const entry of [...queue.entries]) queue.pause(entry);
  forgetAll();
  localStorage.removeItem("mediasvc bucket");
  location.reload();
});

at("bucket").addEventListener("change", () => {
  localStorage.setItem("mediasvc bucket", at("bucket").value);
  show();
});

for (const [opener, input] of [["choose-files", "files"], ["choose-folder", "folder"]]) {
  at(opener).addEventListener("click", () => at(input).click());
  at(input).addEventListener("change", () => take(chosen(at(input))));
}
at("choose-folder").hidden = !("webkitdirectory" in at("folder"));

const holdsFiles = (event) => event.dataTransfer?.types.includes("Files") && !at("workplace").hidden;
let over = 0; // entered and not left again: each element on the way tells of itself
addEventListener("dragenter", (event) => {
  if (!holdsFiles(event)) return;
  over += 1;
  document.body.classList.add("over");
});
addEventListener("dragleave", (event) => {
  if (!holdsFiles(event)) return;
  over = Math.max(0, over - 1);
  document.body.classList.toggle("over", over > 0);
});
addEventListener("dragover", (event) => {
  if (holdsFiles(event)) event.preventDefault();
});
addEventListener("drop", async (event) => {
  over = 0;
  document.body.classList.remove("over");
  if (!holdsFiles(event)) return;
  event.preventDefault();
  take(await dropped(event.dataTransfer));
});
addEventListener("paste", (event) => {
  if (at("workplace").hidden || !event.clipboardData?.files.length) return;
  event.preventDefault();
  take(pasted(event.clipboardData));
});
addEventListener("beforeunload", (event) => {
  if (queue.busy) event.preventDefault();
});
queue.addEventListener("signedout", askForKey);

new UploadList(queue);
prune();
begin();
