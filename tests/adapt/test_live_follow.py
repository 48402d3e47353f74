"""Following an adaptation on the live page: each new state of the folder is shown, with its PSNR over time."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
import time

import pytest

from adapt.avatar.avatar import load_avatar
from adapt.job import adapt as make_avatar
from adapt.live.follow import first_state, state_of
from adapt.live.server import Server, serve
from configs import InputError, progress
from headstart.cli import adapt as command
from tests.support.avatars import SIZE, make_world

aiohttp = pytest.importorskip("aiohttp")


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    """Two states of one person's avatar."""
    place = tmp_path_factory.mktemp("states")
    world = make_world(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shards.tracking.track_frames", world.segments)
        for steps in (6, 12):
            make_avatar(world.video, place / str(steps), budget=f"{steps}it", prior="none", size=SIZE)
    return place / "6", place / "12"


def steps_of(state):
    return json.loads((state / "avatar.json").read_text())["progress"]["iterations"]


def replace(folder, state):
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(state, folder)


async def hello(socket):
    while True:
        message = await asyncio.wait_for(socket.receive(), 20)
        if message.type == aiohttp.WSMsgType.TEXT and json.loads(message.data)["type"] == "hello":
            return json.loads(message.data)


def test_the_page_shows_each_new_state_and_its_curve(states, tmp_path):
    folder = tmp_path / "me"
    replace(folder, states[0])

    async def watch():
        server, stop, url = (
            Server({"me": load_avatar(folder, "cpu")}, tmp_path, 1, None, {"me": folder}, "cpu"),
            None,
            [],
        )
        stop = asyncio.Event()
        task = asyncio.create_task(server.run(0, url.append, stop))
        while not url:
            await asyncio.sleep(0.01)
        headers = {"Origin": f"http://127.0.0.1:{server.port}"}
        async with aiohttp.ClientSession() as client, client.ws_connect(url[0] + "ws", headers=headers) as socket:
            before = await hello(socket)
            await asyncio.to_thread(replace, folder, states[1])
            after = await hello(socket)
        stop.set()
        await task
        return before["adaptation"], after["adaptation"]

    before, after = asyncio.run(watch())
    assert [before["iterations"], after["iterations"]] == [steps_of(state) for state in states]
    assert after["complete"] is True
    assert len(after["psnr_face"]) >= 1


def test_it_waits_for_the_first_state(states, tmp_path):
    folder = tmp_path / "me"
    later = threading.Timer(1.0, replace, (folder, states[0]))
    later.start()
    began = time.monotonic()
    assert state_of(first_state(folder, "cpu"))["iterations"] == steps_of(states[0])
    assert time.monotonic() - began > 0.9
    later.join()


def test_an_avatar_elsewhere_cannot_be_followed():
    with pytest.raises(InputError, match="only a folder of this machine"):
        serve(["s3://bucket/me"], follow=True)


def test_the_viewer_beside_an_adaptation_says_its_address_and_ends_with_it(states, tmp_path):
    said = []

    class Listener:
        def say(self, text):
            said.append(text)

    with progress.listen(Listener()), command._viewer(str(tmp_path / "me"), "cpu") as viewer:
        replace(tmp_path / "me", states[0])
        for _ in range(600):
            if any(line.startswith("open http") for line in said):
                break
            time.sleep(0.1)
        assert viewer.poll() is None
    assert any(line.startswith("open http://127.0.0.1:") for line in said)
    assert viewer.returncode == 0
