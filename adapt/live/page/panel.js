// Everything that can be set about the head: lists, sliders, and turning it with the mouse.

const EVERY = 40;  // ms between two settings at most

export class Panel {
  // set(changes) sends settings to the server.
  constructor(set) {
    this.set = set;
    this.changes = {};
    this.turn = [0, 0];
    this.values = {};
    for (const name of ["style", "pose", "background", "blink"]) {
      element(name).onchange = (event) => this.change({ [name]: event.target.value });
    }
    this.turning(element("picture"));
  }

  // What the server says about the avatar.
  fill(hello) {
    this.limits = hello.limits;
    options(element("avatar"), hello.avatars, hello.avatar);
    options(element("style"), hello.styles, element("style").value || "own");
    options(element("pose"), hello.poses, element("pose").value || "generated");
    options(element("background"), hello.backgrounds, element("background").value || "model");
    const place = element("controls");
    place.querySelectorAll("label").forEach((old) => old.remove());
    for (const name of hello.controls) place.append(this.slider(name));
    const reset = element("reset-controls") ?? place.appendChild(document.createElement("button"));
    Object.assign(reset, { id: "reset-controls", type: "button", textContent: "Reset" });
    place.append(reset);
    reset.onclick = () => {
      this.values = {};
      place.querySelectorAll("label").forEach((row) => { row.querySelector("input").value = 0; row.querySelector("output").value = "0"; });
      this.change({ controls: {} });
    };
  }

  slider(name) {
    const row = document.createElement("label"), title = document.createElement("span");
    const range = document.createElement("input"), shown = document.createElement("output");
    title.textContent = name.replaceAll("_", " ");
    Object.assign(range, { type: "range", min: -1, max: 1, step: 0.05, value: this.values[name] ?? 0, name });
    shown.value = range.value;
    range.oninput = () => {
      shown.value = range.value;
      this.values[name] = Number(range.value);
      this.change({ controls: { ...this.values } });
    };
    row.append(title, range, shown);
    return row;
  }

  turning(canvas) {
    canvas.onpointerdown = (event) => canvas.setPointerCapture(event.pointerId);
    canvas.onpointermove = (event) => {
      if (!canvas.hasPointerCapture(event.pointerId) || !this.limits) return;
      const degrees = 90 / canvas.clientWidth, { yaw, pitch } = this.limits;
      this.turn = [
        clamp(this.turn[0] + event.movementX * degrees, yaw),
        clamp(this.turn[1] + event.movementY * degrees, pitch),
      ];
      this.change({ turn: this.turn });
    };
    canvas.ondblclick = () => { this.turn = [0, 0]; this.change({ turn: this.turn }); };
  }

  // Sends what has changed, together, at most every 40 ms.
  change(changes) {
    Object.assign(this.changes, changes);
    this.timer ??= setTimeout(() => {
      this.timer = undefined;
      this.set(this.changes);
      this.changes = {};
    }, EVERY);
  }
}

export function element(id) { return document.getElementById(id); }

function clamp(value, most) { return Math.max(-most, Math.min(most, value)); }

function options(list, values, chosen) {
  list.replaceChildren(...values.map((value) => new Option(value, value, false, value === chosen)));
}
