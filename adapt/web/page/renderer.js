// What draws the head here: WebGL2, or the processor where that is missing or slower.

import { poseVector } from "./motion.js";
import { ProcessorRenderer } from "./processor.js";
import { WebGLRenderer } from "./webgl.js";

const GOOD = 15;                 // ms a frame by WebGL2 that need no comparison
const TRIES = 3;

const MISSING = " This browser has no WebGL2, or it is switched off, so the processor draws the head; a large head may be slow.";
const SLOWER = " WebGL2 runs in software here and is slower.";

// A renderer on a canvas of its own in `place`, and a sentence about the choice. ?renderer=webgl|processor decides for it.
export function openRenderer(place, avatar, mark, head, motion, wanted = new URLSearchParams(location.search).get("renderer")) {
  const { row, vector } = motion.at(0), pose = poseVector(vector);
  head.set(row, vector);
  const cost = (renderer) => {
    let least = Infinity;
    for (let i = 0; i < TRIES; i++) {
      const begin = performance.now();
      renderer.draw(head, pose);
      renderer.wait?.();
      least = Math.min(least, performance.now() - begin);
    }
    return least;
  };
  const webgl = wanted === "processor" ? null : opened(() => WebGLRenderer.open(canvas(avatar), avatar, mark));
  const spent = webgl && wanted !== "webgl" ? cost(webgl) : 0;
  if (webgl && spent <= GOOD) return shown(place, webgl, "");
  const processor = new ProcessorRenderer(canvas(avatar), avatar, mark);
  if (!webgl) return shown(place, processor, wanted === "processor" ? "" : MISSING);
  return cost(processor) < spent ? shown(place, processor, SLOWER) : shown(place, webgl, "");
}

function opened(open) {
  try {
    return open();
  } catch (error) {
    console.warn(error);          // a driver that does not compile the shaders counts as none
    return null;
  }
}

function canvas({ size }) {
  const made = Object.assign(document.createElement("canvas"), { width: 2 * size, height: 2 * size, id: "picture" });
  made.setAttribute("aria-label", "a synthetic talking head");
  return made;
}

function shown(place, renderer, reason) {
  place.replaceChildren(renderer.canvas);
  return { renderer, reason };
}
