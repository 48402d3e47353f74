// The page: puts microphone, player, panel and connection together.

import { Connection, LIVE, QUEUED } from "./connection.js";
import { Feeder, Microphone, decodeFile } from "./microphone.js";
import { Panel, element } from "./panel.js";
import { Player, median, remember } from "./player.js";

const delays = [];            // ms from the end of a frame's sound at the microphone to its picture on screen
const pictures = [];          // when pictures were shown, ms
let dropped = 0, notice = "";

const microphone = new Microphone((samples) => connection.sendSound(LIVE, samples));
const feeder = new Feeder((samples) => connection.sendSound(QUEUED, samples));
const player = new Player(element("picture"), shown);
const panel = new Panel((changes) => connection.send("set", changes));
const connection = new Connection({ frame: (frame) => player.add(frame), message, state });

function shown(frame, now) {
  remember(pictures, now);
  const captured = frame.live && microphone.on ? microphone.timeOf(frame.heard) : NaN;
  if (captured) remember(delays, now - captured);
}

function state(text) {
  if (text !== "connected") {
    say(text);
  } else {
    player.reset();
    microphone.forget();
  }
}

function say(text) {
  notice = text;
  element("notice").textContent = text;
}

const messages = {
  hello(hello) {
    say("");
    player.reset();
    microphone.forget();
    panel.fill(hello);
    element("statement").textContent = hello.statement;
    element("driver").textContent = `Speaks by ${hello.driver}; it needs ${hello.delay} ms of sound for a frame.`;
    element("text").hidden = !hello.text;
    adaptation(hello.adaptation);
  },
  status(status) {
    dropped += status.dropped;
    element("dropped").textContent = String(dropped);
    const own = notice.startsWith("this machine");
    if (status.dropped > 2 && (own || !notice)) {  // what else is said stays to be read
      say(`this machine is too slow for 25 pictures a second: ${status.dropped} were left out; the sound is whole`);
    } else if (own) {
      say("");
    }
    recording(status.recording !== null, status.recording);
  },
  error(error) { say(error.message); },
  busy(busy) { say(busy.message); },
  recorded(recorded) {
    const link = document.createElement("a");
    link.href = `recordings/${encodeURIComponent(recorded.name)}`;
    link.download = link.textContent = recorded.name;
    link.onclick = () => setTimeout(() => link.replaceWith("fetched"), 0);
    element("recorded").replaceChildren(link);
    recording(false);
  },
};

// How far an adaptation is, and the PSNR of the face on frames that no step sees.
function adaptation(state) {
  element("adaptation").hidden = !state;
  if (!state) return;
  const points = state.psnr_face ?? [], last = points.at(-1);
  const way = state.complete ? "adapted" : "being adapted";
  element("adaptation").querySelector("figcaption").textContent =
    `${way}: ${Math.round(state.seconds)} s, ${state.iterations} steps, budget ${state.budget}`
    + (last ? `; face ${last[1].toFixed(2)} dB` : "");
  const low = Math.min(...points.map((point) => point[1])), high = Math.max(...points.map((point) => point[1]));
  const line = points.map(([seconds, value]) =>
    `${(300 * seconds / Math.max(last[0], 1e-3)).toFixed(1)},${(85 - 80 * (value - low) / Math.max(high - low, 1e-3)).toFixed(1)}`);
  element("adaptation").querySelector("polyline").setAttribute("points", line.join(" "));
}

function message(object) { messages[object.type]?.(object); }

function recording(on, seconds) {
  element("record").setAttribute("aria-pressed", String(on));
  element("record").textContent = on ? `Stop recording (${Math.round(seconds ?? 0)} s)` : "Record";
}

async function switchMicrophone() {
  const button = element("microphone");
  if (microphone.on) {
    microphone.stop();
  } else {
    try {
      await microphone.start();
      say("");
    } catch (error) {
      microphone.stop();
      say(error.name === "NotAllowedError" ? "the microphone was refused; allow it beside the address and try again"
        : `no microphone (${error.message}); drop a sound file instead`);
    }
  }
  button.setAttribute("aria-pressed", String(microphone.on));
}

async function speakFile(file) {
  const unlocked = player.unlock();
  let sound;
  try {
    sound = await decodeFile(file);
  } catch {
    say(`'${file.name}' is no sound that this browser can read`);
    return;
  }
  say(await unlocked ? "" : "the browser has not started its sound: click on the page to hear it");
  feeder.start(sound);
}

element("microphone").onclick = () => { player.unlock(); switchMicrophone(); };
element("file").onchange = (event) => { if (event.target.files[0]) speakFile(event.target.files[0]); event.target.value = ""; };
element("stop").onclick = () => { feeder.stop(); connection.send("stop"); };
element("monitor").onchange = (event) => { player.unlock(); player.monitor = event.target.checked; };
element("text").onsubmit = (event) => {
  event.preventDefault();
  player.unlock();
  connection.send("say", { text: element("words").value });
};
element("avatar").onchange = (event) => connection.send("avatar", { name: event.target.value });
element("record").onclick = (event) => connection.send("record", { on: event.target.getAttribute("aria-pressed") !== "true" });

document.addEventListener("dragover", (event) => { event.preventDefault(); element("picture").classList.add("dropping"); });
document.addEventListener("dragleave", () => element("picture").classList.remove("dropping"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  element("picture").classList.remove("dropping");
  if (event.dataTransfer.files[0]) speakFile(event.dataTransfer.files[0]);
});

setInterval(() => {
  const now = performance.now(), recent = pictures.filter((time) => time > now - 2000).length / 2;
  element("fps").textContent = recent.toFixed(1);
  element("delay").textContent = microphone.on && delays.length ? `${Math.round(median(delays.slice(-50)))} ms` : "–";
  element("offset").textContent = player.offsets.length ? `${Math.round(median(player.offsets.slice(-50)))} ms` : "–";
}, 500);

// For measurements.
window.headstart = { connection, microphone, player, feeder, delays, pictures };
