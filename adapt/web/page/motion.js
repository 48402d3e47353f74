// What drives a frame: expression, pose, blink, gaze and controls together; a pure function of the frame's number.

import { frameVector, neighbourhood } from "./head.js";
import { Blinks, Poses } from "./poses.js";

export class Motion {
  constructor(avatar) {
    this.poses = new Poses(avatar.poses, avatar.arrays);
    this.blinks = new Blinks(avatar.blinks);
    this.gaze = avatar.arrays["track.gaze"];
    this.controls = avatar.controls;
    this.values = {};                     // amounts by the names of controls
    this.rest = { expression: Array.from(avatar.arrays.rest) };
    this.speech = null;                   // a Speech, or weights over time; null: at rest
  }

  // {rotation, translation, expression, eyelids, gaze} of a frame.
  row(number) {
    const { speech } = this, index = speech ? Math.min(Math.max(number, 0), Math.max(0, speech.end - 1)) : number;
    const said = speech?.at(index) ?? this.rest, pose = this.poses.at(index), closed = this.blinks.at(index);
    const row = {
      rotation: pose.rotation,
      translation: pose.translation,
      expression: Array.from(said.expression),
      eyelids: said.eyelids ? [...said.eyelids] : [closed, closed],
      gaze: said.gaze ? [...said.gaze] : Array.from(this.gaze.subarray(4 * pose.source, 4 * pose.source + 4)),
    };
    for (const [name, amount] of Object.entries(this.values)) {
      for (const part of ["expression", "eyelids", "gaze"]) {
        this.controls[name][part].forEach((value, i) => { row[part][i] += amount * value; });
      }
    }
    row.eyelids = row.eyelids.map((value) => Math.min(1, Math.max(0, value)));
    return row;
  }

  // The row of a frame and its vector with those of its neighbours.
  at(number) {
    const vectors = new Map();
    const vectorAt = (k) => {
      const index = this.speech ? Math.min(Math.max(number + k, 0), Math.max(0, this.speech.end - 1)) : number + k;
      if (!vectors.has(index)) vectors.set(index, frameVector(this.row(index)));
      return vectors.get(index);
    };
    return { row: this.row(number), vector: neighbourhood(vectorAt) };
  }
}

// The head's pose in a frame and around it: what the body follows.
export function poseVector(vector) {
  const size = vector.length / 3;
  return [0, 1, 2].flatMap((block) => Array.from(vector.subarray(block * size, block * size + 6)));
}
