"""The live page in a real browser without a screen: it shows the head, says it is synthetic, hears, turns, records."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import numpy as np
import pytest
import soundfile

from adapt.avatar.avatar import load_avatar
from adapt.live.server import Server
from benchmarks import chromium
from tests.support.waiting import LONGEST, at_rest, until

aiohttp = pytest.importorskip("aiohttp")
pytestmark = pytest.mark.skipif(chromium.find_chromium() is None, reason="needs Chromium")

# Mean colour of a part of the canvas, as shares of its side: left, top, right, bottom.
COLOUR = """(() => { const c = document.getElementById('picture'), p = c.getContext('2d');
  const [a, b, r, s] = %s.map((v) => Math.round(v * c.width));
  const d = p.getImageData(a, b, r - a, s - b).data, sum = [0, 0, 0];
  for (let i = 0; i < d.length; i++) if (i %% 4 < 3) sum[i %% 4] += d[i];
  return sum.map((v) => v * 4 / d.length); })()"""


@pytest.fixture(scope="module")
def avatar(ada):
    return load_avatar(ada, "cpu")


@pytest.fixture
def microphone(world, tmp_path):
    path = tmp_path / "microphone.wav"
    soundfile.write(path, np.tile(world.sound, 4), 16_000, subtype="PCM_16")
    return path


def visit(avatar, place, steps, microphone=None, names=("ada", "bea")):
    """Run ``steps(page, server)`` with the page open."""

    async def run():
        server, stop, url = Server(dict.fromkeys(names, avatar), place, 1, None), asyncio.Event(), []
        serving = asyncio.create_task(server.run(0, url.append, stop))
        while not url:
            await asyncio.sleep(0.01)
        try:
            async with chromium.opened(url[0], microphone) as page:
                await page.until("window.headstart && headstart.pictures.length > 5")
                await steps(page, server)
                assert page.errors == []
        finally:
            stop.set()
            await serving

    asyncio.run(asyncio.wait_for(run(), LONGEST))


def test_the_head_is_seen_under_a_label_that_says_ai(avatar, tmp_path):
    async def steps(page, server):
        assert await page.run("document.title") == "Headstart live: synthetic video"
        assert "Synthetic" in await page.run("document.getElementById('statement').textContent")
        assert max(await page.run(COLOUR % "[0.3, 0.3, 0.7, 0.7]")) > 20
        red, green, blue = await page.run(COLOUR % "[0.62, 0.03, 0.96, 0.09]")
        assert red > blue + 15  # orange letters on black, drawn into the picture itself
        assert red > green

    visit(avatar, tmp_path, steps)


def test_the_microphone_moves_the_head_and_the_delay_is_shown(avatar, tmp_path, microphone):
    async def steps(page, server):
        await page.run("document.getElementById('microphone').click()")
        await page.until("headstart.delays.length > 25")
        await page.until("document.getElementById('delay').textContent.endsWith('ms')")
        delays = await page.run("headstart.delays.slice(5)")
        assert np.isfinite(delays).all()
        assert np.median(delays) > 0
        session = next(iter(server.open)).session
        assert session._pushed > 16_000
        await page.run("document.getElementById('microphone').click()")
        await at_rest(lambda: session._pushed)

    visit(avatar, tmp_path, steps, microphone)


def test_a_refused_microphone_is_said_and_the_head_lives_on(avatar, tmp_path):
    async def steps(page, server):
        refused = (
            "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('no', 'NotAllowedError'); }"
        )
        await page.run(refused)
        await page.run("document.getElementById('microphone').click()")
        await page.until("document.getElementById('notice').textContent.includes('was refused')")
        count = await page.run("headstart.pictures.length")
        await page.until(f"headstart.pictures.length > {count + 5}")

    visit(avatar, tmp_path, steps)


# A browser that takes some time to start its sound.
SLOW_SOUND = """window.AudioContext = class extends AudioContext {
  constructor(options) { super(options); this.held = super.suspend(); }
  async resume() { await this.held; await new Promise((next) => setTimeout(next, %d)); return super.resume(); } }"""


COUNTED = """window.heard = 0; headstart.player.patience = 1e6; const schedule = headstart.player.schedule;
  headstart.player.schedule = function (sound) { window.heard += sound.length; return schedule.call(this, sound); }"""


@pytest.mark.parametrize("late", [0, 4000])
def test_a_dropped_sound_file_is_heard_whole_and_in_step_with_its_pictures(avatar, tmp_path, microphone, late):
    drop = """fetch('%s').then((r) => r.blob()).then((blob) => {
      const data = new DataTransfer(); data.items.add(new File([blob], 'speech.wav', {type: 'audio/wav'}));
      document.dispatchEvent(new DragEvent('drop', {dataTransfer: data, cancelable: true, bubbles: true})); })"""

    async def steps(page, server):
        # The page may fetch nothing from elsewhere, so the file is built in the page.
        data = "data:audio/wav;base64," + base64.b64encode(microphone.read_bytes()).decode()
        await page.call("Page.setBypassCSP", enabled=True)
        await page.run("window.before = true")
        await page.call("Page.reload")
        await page.until("!window.before && headstart.pictures.length > 5")
        await page.run(SLOW_SOUND % late if late else "")
        await page.run(COUNTED)
        await page.run(drop % data)
        await page.until(f"window.heard >= {soundfile.info(microphone).frames - 640}")
        offsets = np.array(await page.run("headstart.player.offsets"))
        assert offsets.min() >= -8.5  # no picture ahead of its sound; how far behind is the machine's: benchmarks live
        await page.run("document.getElementById('stop').click()")
        await page.until("!headstart.feeder.timer")

    visit(avatar, tmp_path, steps)


# The player with clocks of the test's own: each row is when a frame's sound starts by the audio clock, s, and when the
# frame is due by the page's, ms. A frame comes every 40 ms, then ten at once.
SCHEDULE = """(async () => {
  const { Player } = await import('./player.js'), clock = performance.now, starts = [], rows = [];
  const player = new Player(document.createElement('canvas'), () => {});
  const source = () => ({ playbackRate: {}, connect() {}, start(at) { starts.push(at); } });
  player.audio = { state: 'running', currentTime: 5, outputLatency: 0.03, createBufferSource: source,
    createBuffer: () => ({ getChannelData: (_) => new Float32Array(640) }) };
  for (let i = 0; i < 30; i++) {
    const steps = Math.min(i, 20);
    player.audio.currentTime = 5 + 0.04 * steps;
    performance.now = () => 1000 + 40 * steps;
    const frame = { sound: new Int16Array(640), live: false, picture: null };
    player.add(frame);
    rows.push([starts.at(-1), frame.due]);
  }
  performance.now = clock;
  return rows; })()"""


def test_a_frame_is_due_when_its_sound_is_heard():
    async def rows():
        page = Path(__file__).parents[2] / "adapt" / "live" / "page"
        with chromium.served(page) as url:
            async with chromium.opened(url.replace("index.html", "page.css")) as tab:
                await tab.until("document.readyState === 'complete' && location.port")
                return np.array(await tab.run(SCHEDULE))

    starts, due = asyncio.run(rows()).T
    heard = 1000 * (starts - 5 + 0.03)  # by the audio clock with its latency, from the page's time 1000 on
    np.testing.assert_allclose(due - 1000, heard, atol=1e-6)
    np.testing.assert_allclose(np.diff(starts[:21]), 0.04, atol=1e-9)
    assert np.diff(starts).min() > 0.04 / 1.06  # what piled up is caught up by a twentieth, not at once


def test_settings_reach_the_session_and_come_back_after_a_lost_connection(avatar, tmp_path):
    async def steps(page, server):
        session = next(iter(server.open)).session
        await page.run("""(() => { const c = document.getElementById('picture'), o = {pointerId: 1, bubbles: true};
          c.setPointerCapture = () => {}; c.hasPointerCapture = () => true;
          c.dispatchEvent(new PointerEvent('pointermove', {...o, movementX: 60, movementY: -20})); })()""")
        await page.run("""(() => { const s = document.querySelector('input[name=jaw]');
          s.value = 0.5; s.dispatchEvent(new Event('input')); })()""")
        await page.run("""(() => { const s = document.querySelector('input[name=gaze_x]');
          s.value = -1; s.dispatchEvent(new Event('input')); })()""")
        for name, value in (("background", "plain"), ("style", "lively"), ("blink", "0.5"), ("pose", "still")):
            await page.run(f"""(() => {{ const p = document.getElementById('{name}');
              p.value = '{value}'; p.dispatchEvent(new Event('change')); }})()""")
        await until(lambda: session.look.pose == "still")
        assert session.look.controls == {"jaw": 0.5, "gaze_x": -1}
        assert (session.look.background, session.look.style, session.look.blink) == ("plain", "lively", "0.5")
        assert session.look.turn[0] > 2
        assert session.look.turn[1] < 0
        await page.run("""(() => { const a = document.getElementById('avatar');
          a.value = 'bea'; a.dispatchEvent(new Event('change')); })()""")
        await page.until("document.getElementById('statement').textContent && headstart.pictures.length > 5")
        await page.run("window.before = headstart.connection.socket")
        await next(iter(server.open.values())).close()
        await page.until("headstart.connection.socket !== before && headstart.connection.ready")
        count = await page.run("headstart.pictures.length")
        await page.until(f"headstart.pictures.length > {count + 10}")

    visit(avatar, tmp_path, steps)


def test_a_recording_is_offered_as_a_file(avatar, tmp_path):
    async def steps(page, server):
        await page.run("document.getElementById('record').click()")
        await page.until("document.getElementById('record').getAttribute('aria-pressed') === 'true'")
        count = await page.run("headstart.pictures.length")
        await page.until(f"headstart.pictures.length > {count + 10}")
        await page.run("document.getElementById('record').click()")
        await page.until("document.querySelector('#recorded a')")
        size = await page.run(
            "fetch(document.querySelector('#recorded a').href).then((r) => r.blob()).then((b) => b.size)"
        )
        assert size > 2000

    visit(avatar, tmp_path, steps)


def test_a_second_tab_is_told_that_it_is_busy_and_opens_once_there_is_room(avatar, tmp_path):
    async def steps(page, server):
        async with chromium.opened(server.url) as second:
            await second.until("document.getElementById('notice').textContent.startsWith('busy')")
            await page.call("Page.navigate", url="about:blank")
            await second.until(
                "headstart.pictures.length > 5 && !document.getElementById('notice').textContent.startsWith('busy')"
            )

    visit(avatar, tmp_path, steps)
