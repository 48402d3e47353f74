// Everything that can be set about the head: lists, sliders, and turning it with the mouse.

const MOST_YAW = 60, MOST_PITCH = 40;     // degrees beyond the head's own pose

export class Panel {
  constructor(avatar, player) {
    this.player = player;
    const { motion, renderer } = player, element = (id) => document.getElementById(id);
    const choose = (id, set) => { element(id).onchange = (event) => { set(event.target.value); player.dirty = true; }; };
    choose("pose", (value) => { motion.poses.mode = value; });
    choose("blink", (value) => { motion.blinks.mode = value; });
    choose("background", (value) => { renderer.background.mode = value; });
    element("color").oninput = (event) => {
      renderer.background.color = [1, 3, 5].map((at) => parseInt(event.target.value.slice(at, at + 2), 16) / 255);
      player.dirty = true;
    };
    this.turning(element("frame"));
    this.sliders(element("controls"), Object.keys(avatar.controls));
  }

  sliders(place, names) {
    const { motion } = this.player, reset = document.createElement("button");
    const rows = names.map((name) => this.slider(name));
    Object.assign(reset, { type: "button", textContent: "Reset", id: "reset" });
    reset.onclick = () => {
      motion.values = {};
      rows.forEach((row) => { row.querySelector("input").value = 0; row.querySelector("output").value = "0"; });
      this.player.dirty = true;
    };
    place.append(...rows, reset);
  }

  slider(name) {
    const row = document.createElement("label"), title = document.createElement("span");
    const range = document.createElement("input"), shown = document.createElement("output");
    title.textContent = name.replaceAll("_", " ");
    Object.assign(range, { type: "range", min: -1, max: 1, step: 0.05, value: 0, name });
    shown.value = "0";
    range.oninput = () => {
      shown.value = range.value;
      this.player.motion.values[name] = Number(range.value);
      this.player.dirty = true;
    };
    row.append(title, range, shown);
    return row;
  }

  turning(place) {
    const { poses } = this.player.motion, radians = Math.PI / 180;
    const held = (value, most) => Math.min(most, Math.max(-most, value)) * radians;
    place.onpointerdown = (event) => place.setPointerCapture(event.pointerId);
    place.onpointermove = (event) => {
      if (!place.hasPointerCapture(event.pointerId)) return;
      const degrees = 90 / place.clientWidth, [yaw, pitch] = poses.turn.map((value) => value / radians);
      poses.turn = [held(yaw + event.movementX * degrees, MOST_YAW), held(pitch + event.movementY * degrees, MOST_PITCH), 0];
      this.player.dirty = true;
    };
    place.ondblclick = () => { poses.turn = [0, 0, 0]; this.player.dirty = true; };
  }
}
