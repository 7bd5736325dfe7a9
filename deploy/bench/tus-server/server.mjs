// @tus/server over its own file store, as its README shows it: node server.mjs PORT FOLDER
import { FileStore } from "@tus/file-store";
import { Server } from "@tus/server";
import { createServer } from "node:http";

const [port, directory] = process.argv.slice(2);
const tus = new Server({ path: "/files", datastore: new FileStore({ directory }) });
createServer((request, response) => {
  if (request.url === "/up") response.end();
  else tus.handle(request, response);
}).listen(Number(port), "127.0.0.1");
