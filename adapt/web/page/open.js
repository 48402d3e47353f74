// Opens an exported avatar: the document and the arrays of avatar.js.

import { readArrays } from "./arrays.js";

const FORMAT = "headstart-web/1";

export async function openAvatar({ document: avatar, arrays }) {
  if (avatar.format !== FORMAT) throw new Error(`avatar.js has the format ${avatar.format}, expected ${FORMAT}; export the avatar again`);
  avatar.arrays = readArrays(avatar.entries, await unpacked(arrays));
  return avatar;
}

// The bytes of base64 of gzip.
export async function unpacked(base64) {
  const text = atob(base64), packed = new Uint8Array(text.length);
  for (let i = 0; i < packed.length; i++) packed[i] = text.charCodeAt(i);
  return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}
