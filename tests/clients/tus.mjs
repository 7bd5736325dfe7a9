// tus-js-client as it comes from npm, told what to do by JSON, telling what happens in lines of JSON.
import fs from 'node:fs'
import { createRequire } from 'node:module'
import { PassThrough } from 'node:stream'

const told = JSON.parse(process.argv[2])
const tus = createRequire(`${told.clients}/`)('tus-js-client')
const tell = (what) => fs.writeSync(1, `${JSON.stringify(what)}\n`)

// Of a file its source does not know which piece is the last: with a length that is said later it waits for ever, and
// in the drafts it never says `Upload-Complete: ?1` where there is more than one piece.
const SOURCES = {
  file: () => fs.createReadStream(told.path),
  stream: () => fs.createReadStream(told.path).pipe(new PassThrough()),
  buffer: () => fs.readFileSync(told.path),
}
const source = SOURCES[told.source]()

let abortAt = told.abortAt ?? Infinity
const upload = new tus.Upload(source, {
  retryDelays: Array(100).fill(100),
  ...told.options,
  ...(told.memory && { urlStorage: new tus.FileUrlStorage(told.memory) }),
  onUploadUrlAvailable: () => tell({ url: upload.url }),
  onBeforeRequest: (request) => {
    tell({ sent: request.getMethod(), offset: Number(request.getHeader('Upload-Offset') ?? -1) })
  },
  onAfterResponse: (request, response) => {
    tell({ got: response.getStatus(), for: request.getMethod() })
  },
  onProgress: (sent) => {
    if (sent < abortAt) return
    abortAt = Infinity
    tell({ aborted: sent })
    if (told.terminate) upload.abort(true).then(() => tell({ terminated: upload.url }))
    else upload.abort().then(() => upload.start())
  },
  onSuccess: () => tell({ done: upload.url }),
  onError: (error) => {
    tell({ failed: String(error) })
    process.exitCode = 1
  },
})
if (told.memory) {
  const [before] = await upload.findPreviousUploads()
  if (before) upload.resumeFromPreviousUpload(before)
}
upload.start()
