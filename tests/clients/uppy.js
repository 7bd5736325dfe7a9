// Uppy as it comes from npm, in a page: `upload` sends a file of `size` bytes and gives its URL.
import AwsS3 from '@uppy/aws-s3'
import Uppy from '@uppy/core'
import Tus from '@uppy/tus'

globalThis.upload = async ({ size, meta, ...options }) => {
  const words = Uint32Array.from({ length: Math.ceil(size / 4) }, (_, i) => Math.imul(i, 2654435761))
  const uppy = new Uppy({ meta })
  if (options.companionEndpoint) uppy.use(AwsS3, { ...options, shouldUseMultipart: () => options.multipart })
  else uppy.use(Tus, options)
  uppy.addFile({ name: 'Füße.bin', type: 'application/x-thing', data: new Blob([new Uint8Array(words.buffer, 0, size)]) })
  const { successful, failed } = await uppy.upload()
  return { url: successful[0]?.uploadURL, failed: failed.map((file) => String(file.error)) }
}
