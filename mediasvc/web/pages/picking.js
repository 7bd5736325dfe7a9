// Files and folders as people hand them over: dropped, chosen, pasted. Each as {file, path}.

const LITTER = new Set([".DS_Store", "Thumbs.db", "desktop.ini"]); // file managers leave these behind

/** Everything in a drop, folders with all that is in them. The items live only while the event is handled. */
export async function dropped(transfer) {
  const entries = [...transfer.items].filter((item) => item.kind === "file").map((item) => item.webkitGetAsEntry?.());
  const loose = entries.some((entry) => !entry) ? [...transfer.files].map(plain) : [];
  const found = [];
  for (const entry of entries) {
    if (entry && !loose.length) await walk(entry, found);
  }
  return clean([...loose, ...found]);
}

export function chosen(input) {
  const files = clean([...input.files].map(plain));
  input.value = ""; // so that the same choice counts again
  return files;
}

/** A pasted picture has no name of its own. */
export function pasted(transfer) {
  const now = new Date();
  const time = new Date(now - now.getTimezoneOffset() * 60_000).toISOString().slice(0, 19).replace("T", "-").replaceAll(":", "");
  return [...transfer.files].map((file, number) => {
    const nameless = /^image\.\w+$/.test(file.name);
    const name = `pasted-${time}${number ? `-${number + 1}` : ""}.${file.name.split(".").pop()}`;
    return plain(nameless ? new File([file], name, { type: file.type, lastModified: file.lastModified }) : file);
  });
}

function plain(file) {
  return { file, path: file.webkitRelativePath || file.name };
}

async function walk(entry, found) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject)).catch(() => null);
    if (file) found.push({ file, path: entry.fullPath.replace(/^\//, "") });
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    // A hundred at a time, by the specification; an empty answer is the end.
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)).catch(() => []);
    if (!some.length) return;
    for (const child of some) await walk(child, found);
  }
}

function clean(files) {
  return files.filter(({ path }) => !LITTER.has(path.split("/").pop()));
}
