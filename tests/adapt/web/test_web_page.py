"""The exported page in a real browser without a screen: it draws Python's frames, speaks, turns, and says what it is."""

from __future__ import annotations

import asyncio
import base64

import numpy as np
import pytest
import soundfile

from adapt.drivers.arkit import NAMES
from benchmarks import chromium
from heads.measures.image import psnr
from tests.support.avatars import SIZE
from tests.support.waiting import LONGEST

pytest.importorskip("aiohttp")
pytestmark = pytest.mark.skipif(chromium.find_chromium() is None, reason="needs Chromium")

READY = "self.headstart?.page?.driver && headstart.player.first"
# A frame of the picture as base64, without the canvas and its mark.
FRAME = """(() => { const bytes = headstart.player.picture(%d); let text = '';
  for (const value of bytes) text += String.fromCharCode(value);
  return btoa(text); })()"""
HOLD = "headstart.player.due = () => -1"


def visit(url, steps, microphone=None, before="", errors=0):
    """Run ``steps(page)`` once the page is ready; ``before`` runs ahead of the page's own scripts."""

    async def run():
        async with chromium.opened("about:blank" if before else url, microphone) as page:
            if before:
                await page.call("Page.addScriptToEvaluateOnNewDocument", source=before)
                await page.call("Page.navigate", url=url)
            await page.until(READY)
            await steps(page)
            assert len(page.errors) == errors, page.errors

    asyncio.run(asyncio.wait_for(run(), LONGEST))


async def say(page, sound, path):
    """Let the head say a sound at once, and hold the clock."""
    soundfile.write(path, sound, 16_000, subtype="FLOAT")
    data = base64.b64encode(path.read_bytes()).decode()
    await page.run(HOLD)
    return await page.run(
        f"""(async () => {{
          const bytes = Uint8Array.from(atob('{data}'), (c) => c.charCodeAt(0)).buffer;
          const speech = headstart.page.driver.speech(false);
          await speech.feed(await headstart.decode(bytes));
          await speech.finish();
          headstart.player.motion.speech = speech;
          return speech.end; }})()"""
    )


async def frame(page, number):
    content = base64.b64decode(await page.run(FRAME % number))
    return np.frombuffer(content, np.uint8).reshape(SIZE, SIZE, 3) / 255


@pytest.mark.parametrize("renderer", ["webgl", "processor"])
def test_frames_are_those_of_talk(page, spoken, world, tmp_path, renderer):
    async def steps(tab):
        assert await say(tab, world.sound, tmp_path / "said.wav") == len(spoken)
        found = [psnr(await frame(tab, number), spoken[number]) for number in range(0, len(spoken), 7)]
        assert np.mean(found) > 40, found
        assert min(found) > 35, found

    with chromium.served(page) as url:
        visit(f"{url}?renderer={renderer}", steps)


def test_the_page_opens_from_disk_and_speaks_a_file(page, world, tmp_path):
    soundfile.write(tmp_path / "said.wav", world.sound, 16_000)
    data = base64.b64encode((tmp_path / "said.wav").read_bytes()).decode()

    async def steps(tab):
        # Frames that are due are noted in the page: speech may be over before anything outside it has looked.
        await tab.run(
            """(() => { const player = headstart.player, due = player.due; window.said = [];
              player.due = (now) => { const number = due.call(player, now);
                if (player.motion.speech) said.push(number); return number; }; })()"""
        )
        await tab.run(
            f"headstart.page.play(new File([Uint8Array.from(atob('{data}'), (c) => c.charCodeAt(0))], 'said.wav'))"
        )
        await tab.until("said.length && !headstart.player.motion.speech")  # it is over, and the head rests
        assert max(await tab.run("said")) > 10
        await tab.until("document.getElementById('clock').textContent === 'at rest'")
        await tab.run("document.getElementById('stop').click()")

    visit(f"file://{page}/index.html", steps)


def test_the_mark_is_part_of_the_canvas_and_cannot_be_overlooked(page):
    # Mean red minus blue of the mark's place on the canvas, and of the middle of the picture.
    colours = """(() => { const c = document.createElement('canvas'), p = c.getContext('2d');
      const from = document.getElementById('picture');
      c.width = c.height = from.width; p.drawImage(from, 0, 0);
      const d = p.getImageData(c.width * 0.6, c.width * 0.03, c.width * 0.37, c.width * 0.08).data, sum = [0, 0, 0];
      for (let i = 0; i < d.length; i++) if (i % 4 < 3) sum[i % 4] += d[i];
      return sum.map((v) => v * 4 / d.length); })()"""

    async def steps(tab):
        assert await tab.run("document.title") == "ada: synthetic head"
        assert "Synthetic head made with headstart" in await tab.run("document.getElementById('statement').textContent")
        for renderer in ("webgl", "processor"):
            await tab.call("Page.navigate", url=f"{url}?renderer={renderer}")
            await tab.until(READY)
            red, green, blue = await tab.run(colours)
            assert red > green > blue + 10, (renderer, red, green, blue)

    with chromium.served(page) as url:
        visit(url, steps)


def test_settings_change_the_picture(page):
    async def steps(tab):
        await tab.run(HOLD)
        rest = await frame(tab, 0)
        for setting, least in (
            ("headstart.player.motion.values = { jaw: 1 }", 0.002),
            ("headstart.player.motion.values = {}; headstart.player.motion.blinks.mode = '1'", 0.0005),
            ("headstart.player.motion.poses.turn = [0.4, 0, 0]", 0.005),
            ("headstart.player.renderer.background.mode = 'plain'", 0.02),
        ):
            await tab.run(setting)
            changed = await frame(tab, 0)
            assert np.abs(changed - rest).mean() > least, setting
        assert np.allclose(changed[2, 2], [0.55, 0.6, 0.65], atol=0.005)
        assert await tab.run("document.querySelectorAll('#controls input').length") >= 8

    with chromium.served(page) as url:
        visit(url, steps)


def test_the_microphone_moves_the_lips(page, world, tmp_path):
    path = tmp_path / "microphone.wav"
    soundfile.write(path, np.tile(world.sound, 4), 16_000, subtype="PCM_16")

    async def steps(tab):
        await tab.run("document.getElementById('microphone').click()")
        await tab.until("headstart.player.live && headstart.player.motion.speech.end > 50")
        opened = await tab.run(
            """(() => { const f = headstart.player.motion.speech.frames.map((x) => x.expression[0]);
              return Math.max(...f) - Math.min(...f); })()"""
        )
        assert opened > 0.01
        await tab.run("document.getElementById('stop').click()")
        assert not await tab.run("headstart.page.microphone.on")

    with chromium.served(page) as url:
        visit(url, steps, microphone=path)


def test_without_a_microphone_a_sentence_says_so(page):
    async def steps(tab):
        await tab.run("document.getElementById('microphone').click()")
        await tab.until("document.getElementById('notice').textContent.startsWith('Microphone:')")

    with chromium.served(page) as url:
        visit(url, steps)


async def weights(tab, name, text):
    await tab.run(f"headstart.page.play(new File([`{text}`], '{name}'))")
    return await tab.run("document.getElementById('notice').textContent")


def test_arkit_weights_move_the_face_and_wrong_ones_are_refused(page, avatar):
    header, zero = ",".join(NAMES), ["0"] * len(NAMES)
    opened = ["1" if name == "jawOpen" else "0" for name in NAMES]
    rows = "\\n".join([header, ",".join(zero), *[",".join(opened)] * 119])

    async def steps(tab):
        await tab.run(HOLD)
        rest = await frame(tab, 0)
        assert await weights(tab, "face.csv", rows) == ""
        assert await tab.run("headstart.player.motion.speech.end") == 50  # 120 rows at 60 a second
        assert np.abs(await frame(tab, 30) - rest).mean() > 0.002
        for name, text, sentence in (
            ("a.csv", "smileLeft,jawOpen\\n0,1", "'smileLeft' is none of the 52 ARKit names"),
            ("a.csv", "jawOpen\\nwide", "column jawOpen: 'wide' is not a number"),
            ("a.csv", "jawOpen\\n7", "jawOpen is 7 in frame 0; expected weights from 0 to 1"),
            ("a.json", "{}", "expected the keys facsNames and weightMat"),
            ("a.wav", "no sound", "holds no sound that the browser can decode"),
        ):
            assert sentence in await weights(tab, name, text), name

    with chromium.served(page) as url:
        visit(url, steps)


def test_a_browser_without_webgl2_is_told_and_gets_a_picture(page):
    without = """const own = HTMLCanvasElement.prototype.getContext;
      HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
        return kind === 'webgl2' ? null : own.call(this, kind, ...rest); };"""

    async def steps(tab):
        assert "no WebGL2" in await tab.run("document.getElementById('renderer').textContent")
        await tab.run(HOLD)
        assert (await frame(tab, 0)).std() > 0.05

    with chromium.served(page) as url:
        visit(url, steps, before=without)


def test_a_folder_without_its_avatar_says_what_is_missing(page, tmp_path):
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(page, broken)
    (broken / "avatar.js").unlink()

    async def run():
        async with chromium.opened(f"file://{broken}/index.html") as tab:
            await tab.until("document.getElementById('notice').textContent.includes('avatar.js is missing')")

    asyncio.run(asyncio.wait_for(run(), LONGEST))
