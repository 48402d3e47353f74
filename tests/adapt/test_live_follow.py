"""Following an adaptation on the live page: each new state of the folder is shown, with its PSNR over time."""

from __future__ import annotations

import asyncio
import json
import shutil
from types import SimpleNamespace

import pytest

from adapt.avatar.avatar import load_avatar
from adapt.job import adapt as make_avatar
from adapt.live.follow import EVERY, first_state, state_of
from adapt.live.server import Server, serve
from configs import InputError, progress
from headstart.cli import adapt as command
from tests.support.avatars import SIZE
from tests.support.waiting import LONGEST, until, wait_until

aiohttp = pytest.importorskip("aiohttp")


@pytest.fixture(scope="module")
def states(world, tmp_path_factory):
    """Two states of one person's avatar."""
    place = tmp_path_factory.mktemp("states")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shards.tracking.track_frames", world.segments)
        for steps in (6, 12):
            make_avatar(world.video, place / str(steps), budget=f"{steps}it", prior="none", size=SIZE)
    return place / "6", place / "12"


def steps_of(state):
    return json.loads((state / "avatar.json").read_text())["progress"]["iterations"]


def replace(folder, state):
    """Whole at every moment, as an adaptation does it."""
    shutil.copytree(state, folder.with_name("next"))
    if folder.exists():
        folder.rename(folder.with_name("old"))
    folder.with_name("next").rename(folder)
    shutil.rmtree(folder.with_name("old"), ignore_errors=True)


async def hello(socket):
    while True:
        message = await asyncio.wait_for(socket.receive(), LONGEST)
        if message.type == aiohttp.WSMsgType.TEXT and json.loads(message.data)["type"] == "hello":
            return json.loads(message.data)


def test_the_page_shows_each_new_state_and_its_curve(states, tmp_path):
    folder = tmp_path / "me"
    replace(folder, states[0])

    async def watch():
        server = Server({"me": load_avatar(folder, "cpu")}, tmp_path, 1, None, {"me": folder}, "cpu")
        url, stop = [], asyncio.Event()
        task = asyncio.create_task(server.run(0, url.append, stop))
        await until(lambda: url)
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


def test_it_waits_for_the_first_state(states, tmp_path, monkeypatch):
    folder, pauses = tmp_path / "me", []

    def sleep(seconds):
        pauses.append(seconds)
        if len(pauses) == 3:
            replace(folder, states[0])

    monkeypatch.setattr("adapt.live.follow.time", SimpleNamespace(sleep=sleep))
    assert state_of(first_state(folder, "cpu"))["iterations"] == steps_of(states[0])
    assert pauses == [EVERY] * 3


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
        wait_until(lambda: any(line.startswith("open http") for line in said) or viewer.poll() is not None)
        assert viewer.poll() is None, said
    assert any(line.startswith("open http://127.0.0.1:") for line in said)
    assert viewer.returncode == 0
