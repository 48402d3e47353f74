"""The live server: who may come in, what it answers, and that nothing sent to it breaks or fills it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import soundfile

from adapt.avatar.avatar import load_avatar
from adapt.avatar.provenance import parse_tags
from adapt.job import adapt as make_avatar
from adapt.live import protocol
from adapt.live.connection import Connection, rehearse
from adapt.live.server import Server, serve
from adapt.live.speech import LONGEST_TEXT, speech_command, spoken
from adapt.marking.certificates import load_credentials, sign_init
from adapt.marking.sign import available, read_manifest
from configs import InputError
from configs.scratch import PREFIX, ScratchFolder
from shards.media.decode import read_frames
from shards.media.probe import video_info
from shards.media.sound import read_audio
from tests.support.avatars import SIZE
from tests.support.waiting import LONGEST, until, wait_until

aiohttp = pytest.importorskip("aiohttp")
AGREED = "Ada agreed in writing on 3 May 2026"


@pytest.fixture(scope="module")
def folder(world, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shards.tracking.track_frames", world.segments)
        out = tmp_path_factory.mktemp("avatar") / "ada"
        make_avatar(world.video, out, budget="10it", prior="none", size=SIZE, consent=AGREED)
    return out


@pytest.fixture(scope="module")
def avatar(folder):
    return load_avatar(folder, "cpu")


@contextlib.asynccontextmanager
async def serving(avatar, place, sessions=1, tts=None, names=("ada",), credentials=None):
    """A server and a client of it."""
    server = Server(dict.fromkeys(names, avatar), place, sessions, tts, credentials=credentials)
    stop, url = asyncio.Event(), []
    task = asyncio.create_task(server.run(0, url.append, stop))
    await until(lambda: url or task.done())
    if task.done():
        task.result()
    async with aiohttp.ClientSession() as client:
        yield server, client
    stop.set()
    await asyncio.wait_for(task, LONGEST)


def origin(server):
    return {"Origin": f"http://127.0.0.1:{server.port}"}


def connecting(server, client, **options):
    return client.ws_connect(server.url + "ws", **{"headers": origin(server), "max_msg_size": 0, **options})


async def messages(socket):
    """JSON messages and frames, as they come."""
    end = time.monotonic() + LONGEST
    while time.monotonic() < end:
        message = await asyncio.wait_for(socket.receive(), LONGEST)
        assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), message
        yield json.loads(message.data) if message.type == aiohttp.WSMsgType.TEXT else parsed(message.data)
    raise TimeoutError


async def told(socket, kind):
    """The next JSON message of a kind; frames are passed over."""
    async for message in messages(socket):
        if isinstance(message, dict) and message["type"] == kind:
            return message


def parsed(message):
    number, heard, _, delay, flags, _, count = protocol.HEADER.unpack_from(message)
    sound = np.frombuffer(message[protocol.HEADER.size :][:count], "<i2")
    picture = message[protocol.HEADER.size + count :]
    return number, heard, delay, flags, sound, simplejpeg.decode_jpeg(picture) if picture else None


async def frames_of(socket, count=0, enough=lambda found: True):
    """The next frames: so many at least, and enough of them."""
    found = []
    async for message in messages(socket):
        if isinstance(message, tuple):
            found.append(message)
        if len(found) >= count and enough(found):
            return found


def test_the_page_and_only_its_files_are_served_to_who_knows_the_secret(avatar, tmp_path):
    async def visit():
        async with serving(avatar, tmp_path) as (server, client):
            base, seen = f"http://127.0.0.1:{server.port}", {}
            paths = {
                "page": server.url,
                "script": server.url + "app.js",
                "no secret": base + "/",
                "wrong secret": base + "/guess/",
                "other file": server.url + "server.py",
                "outside": server.url + "..%2fserver.py",
                "no recording": server.url + "recordings/..%2f..%2fetc%2fpasswd",
            }
            for name, path in paths.items():
                async with client.get(path) as answer:
                    seen[name] = answer.status, await answer.text(), answer.headers
            async with client.get(server.url, headers={"Host": "evil.example"}) as answer:
                seen["other host"] = answer.status, "", answer.headers
            async with client.get(server.url, headers={"Origin": "http://evil.example"}) as answer:
                seen["other origin"] = answer.status, "", answer.headers
            return seen

    seen = asyncio.run(visit())
    status = {name: found[0] for name, found in seen.items()}
    assert status.pop("page") == status.pop("script") == 200
    assert status.pop("other host") == status.pop("other origin") == 403
    assert set(status.values()) == {404}
    assert "Headstart live" in seen["page"][1]
    assert "default-src 'none'" in seen["page"][2]["Content-Security-Policy"]


def test_every_file_of_the_page_exists_and_names_no_other_place(avatar):
    from adapt.live.server import PAGE

    page = Path(__file__).parents[2] / "adapt" / "live" / "page"
    assert {entry.name for entry in page.iterdir()} == {name for name, _ in PAGE.values()}
    for entry in page.iterdir():
        assert "http://" not in entry.read_text()
        assert "https://" not in entry.read_text()


@pytest.mark.parametrize("headers", [{}, {"Origin": "http://evil.example"}, {"Origin": "null"}])
def test_sockets_of_other_pages_are_refused(avatar, tmp_path, headers):
    async def connect():
        async with serving(avatar, tmp_path) as (server, client):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await client.ws_connect(server.url + "ws", headers=headers)
            return refused.value.status

    assert asyncio.run(connect()) == 403


def test_what_is_sent_is_seen_and_heard(avatar, tmp_path, world):
    sound = (world.sound[: 640 * 20] * 32767).astype("<i2")

    async def talk():
        async with serving(avatar, tmp_path) as (server, client), connecting(server, client) as socket:
            hello = await told(socket, "hello")
            await socket.send_bytes(bytes([protocol.QUEUED]) + sound.tobytes())
            return hello, await frames_of(socket, enough=lambda found: sum(len(f[4]) for f in found) >= len(sound))

    hello, frames = asyncio.run(talk())
    assert hello["avatars"] == ["ada"]
    assert "jaw" in hello["controls"]
    assert hello["text"] is False
    assert hello["delay"] <= 160
    assert "Synthetic" in hello["statement"]
    numbers = [frame[0] for frame in frames]
    assert numbers == list(range(numbers[0], numbers[0] + len(frames)))
    heard = np.concatenate([frame[4] for frame in frames])
    assert np.abs(heard[: len(sound)].astype(int) - sound).max() <= 2
    pictures = [frame[5] for frame in frames if frame[5] is not None]
    assert pictures
    assert all(picture.shape == (SIZE, SIZE, 3) for picture in pictures)


def test_every_picture_that_leaves_the_server_carries_the_label(avatar, tmp_path):
    async def look():
        async with serving(avatar, tmp_path) as (server, client), connecting(server, client) as socket:
            await socket.send_str('{"type":"set","background":"plain"}')
            # A busy machine leaves pictures out.
            found = await frames_of(socket, enough=lambda found: sum(frame[5] is not None for frame in found) > 5)
            return [frame[5] for frame in found if frame[5] is not None]

    for picture in asyncio.run(look()):
        corner = picture[: SIZE // 4, -SIZE // 4 :].astype(int)
        # White letters on a dark plate.
        assert corner.max() > 200
        assert corner.min() < 70


def test_one_page_too_many_is_told_that_it_is_busy(avatar, tmp_path):
    async def crowd():
        async with serving(avatar, tmp_path, sessions=2) as (server, client):
            async with connecting(server, client) as first, connecting(server, client) as second:
                await told(first, "hello")
                await told(second, "hello")
                async with connecting(server, client) as third:
                    busy = json.loads((await third.receive()).data)
                    end = await third.receive()
            await until(lambda: not server.open)
            async with connecting(server, client) as again:
                await told(again, "hello")
            return busy, end.data

    busy, code = asyncio.run(crowd())
    assert busy["type"] == "busy"
    assert "2 of 2" in busy["message"]
    assert code == 1013


def test_a_page_that_is_loaded_again_does_not_meet_itself(avatar, tmp_path):
    async def reload():
        async with serving(avatar, tmp_path) as (server, client):
            server.open["leaving"] = None  # the page before, whose session takes a moment to end
            async with connecting(server, client) as again:
                asyncio.get_running_loop().call_later(0.2, server.open.pop, "leaving")
                return await told(again, "hello")

    assert asyncio.run(reload())["avatar"] == "ada"


def memory():
    """Of this process now, MB."""
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) / 1024


def malformed(rng):
    """Messages that no page sends, without end."""
    texts = ["", "{", "[]", "null", '"x"', '{"type":1}', '{"type":"fly"}', "[" * 5000, '{"type":"set","controls":[1]}']
    texts += ['{"type":"set","controls":{"wings":1}}', '{"type":"set","turn":[1e999,0]}', '{"type":"say","text":"x"}']
    texts += ['{"type":"avatar","name":"../../etc"}', '{"type":"set","pose":{}}', '{"type":"set","blink":[]}', "\x00"]
    while True:
        yield texts[rng.integers(len(texts))]
        yield rng.bytes(int(rng.integers(0, 400)))
        yield b"\x01" + rng.bytes(1 + 2 * int(rng.integers(100)))


def test_a_thousand_malformed_messages_neither_crash_it_nor_fill_it(avatar, tmp_path):
    rng = np.random.default_rng(0)

    async def attack():
        async with serving(avatar, tmp_path) as (server, client), connecting(server, client) as socket:
            await told(socket, "hello")
            await frames_of(socket, enough=lambda found: found and found[-1][5] is not None)
            before = memory()
            for count, message in enumerate(malformed(rng)):
                await (socket.send_str(message) if isinstance(message, str) else socket.send_bytes(message))
                if count == 1000:
                    break
            complaint = await told(socket, "error")
            await told(socket, "status")
            connection = next(iter(server.open))
            session = connection.session
            waiting = len(session._live) + len(session._queued), len(asyncio.all_tasks())
            connection.limit.at -= 10.0  # s later, messages are taken again
            await socket.send_str('{"type":"set","pose":"still"}')
            await told(socket, "status")
            grown = memory() - before
            return complaint, connection.refused, waiting, session.look.pose, list(tmp_path.iterdir()), grown

    complaint, refused, (queued, tasks), pose, files, grown = asyncio.run(attack())
    assert grown < 200  # MB: buffers and kernels that are loaded in between
    assert complaint["message"]
    assert refused > 600
    assert queued < 10
    assert tasks < 20
    assert pose == "still"
    assert files == []


def test_oversized_messages_end_their_connection_and_no_other(avatar, tmp_path):
    async def attack():
        async with serving(avatar, tmp_path, sessions=2) as (server, client), connecting(server, client) as good:
            await told(good, "hello")
            codes = []
            for _ in range(30):
                async with connecting(server, client) as socket:
                    await socket.send_bytes(bytes(protocol.LONGEST_MESSAGE + 1))
                    while (message := await socket.receive()).type in (
                        aiohttp.WSMsgType.TEXT,
                        aiohttp.WSMsgType.BINARY,
                    ):
                        pass
                    codes.append(message.data)
                await until(lambda: len(server.open) == 1)
            return codes, len(await frames_of(good, 3))

    codes, frames = asyncio.run(attack())
    assert set(codes) == {1009}
    assert frames == 3


def test_another_avatar_is_chosen_and_keeps_the_settings(avatar, tmp_path):
    async def choose():
        async with serving(avatar, tmp_path, names=("ada", "bea")) as (server, client), connecting(server, client) as s:
            await told(s, "hello")
            await s.send_str('{"type":"set","pose":"still","controls":{"smile":0.5}}')
            await s.send_str('{"type":"avatar","name":"bea"}')
            hello = await told(s, "hello")
            return hello["avatar"], next(iter(server.open)).session.look

    name, look = asyncio.run(choose())
    assert name == "bea"
    assert look.pose == "still"
    assert look.controls == {"smile": 0.5}


def test_a_recording_is_marked_in_step_and_gone_once_fetched(avatar, tmp_path, world):
    sound = (world.sound[: 640 * 40] * 32767).astype("<i2").tobytes()

    async def record():
        async with serving(avatar, tmp_path) as (server, client), connecting(server, client) as socket:
            await told(socket, "hello")
            await socket.send_str('{"type":"record","on":true}')
            await socket.send_bytes(bytes([protocol.QUEUED]) + sound)
            connection = next(iter(server.open))
            await frames_of(socket, enough=lambda _: connection.recording and connection.recording.frames >= 50)
            await socket.send_str('{"type":"record","on":false}')
            name = (await told(socket, "recorded"))["name"]
            async with client.get(f"{server.url}recordings/{name}") as answer:
                body = await answer.read()
            async with client.get(f"{server.url}recordings/{name}") as answer:
                again = answer.status
            return body, again, list(tmp_path.iterdir())

    body, again, files = asyncio.run(record())
    assert again == 404
    assert files == []
    video = tmp_path / "recording.mp4"
    video.write_bytes(body)
    statement = parse_tags(video_info(video).tags)
    assert statement is not None
    assert statement["synthetic"] is True
    assert statement["avatar"] == "ada"
    assert statement["consent"] == AGREED
    assert statement["watermark"]
    frames, heard = len(list(read_frames(video))), read_audio(video)
    assert frames >= 40
    assert abs(len(heard) / 640 - frames) <= 2
    assert np.abs(heard).max() > 0.1


@pytest.mark.skipif(not available(), reason="c2pa-python is not installed (extra sign)")
def test_a_recording_is_signed_where_there_is_a_certificate(avatar, tmp_path):
    signer = sign_init(tmp_path / "signer")
    credentials = load_credentials(signer["certificate"], signer["key"])
    place = tmp_path / "recordings"
    place.mkdir()

    async def record():
        async with serving(avatar, place, credentials=credentials) as (server, client), connecting(server, client) as s:
            await told(s, "hello")
            await s.send_str('{"type":"record","on":true}')
            await frames_of(s, 10)
            await s.send_str('{"type":"record","on":false}')
            name = (await told(s, "recorded"))["name"]
            async with client.get(f"{server.url}recordings/{name}") as answer:
                return await answer.read()

    (tmp_path / "signed.mp4").write_bytes(asyncio.run(record()))
    manifest = read_manifest(tmp_path / "signed.mp4")
    assert manifest is not None
    assert (manifest.state, manifest.provenance["consent"]) == ("Valid", AGREED)
    assert list(place.iterdir()) == []


def test_a_closed_tab_leaves_no_session_and_no_file(avatar, tmp_path):
    async def leave():
        async with serving(avatar, tmp_path) as (server, client):
            socket = await connecting(server, client)
            await told(socket, "hello")
            await socket.send_str('{"type":"record","on":true}')
            await frames_of(socket, 5)
            await socket.close()
            await until(lambda: not server.open)
            return len(server.open), list(tmp_path.iterdir())

    assert asyncio.run(leave()) == (0, [])


def test_a_burst_beyond_the_limit_is_left_out_and_said():
    limit = protocol.Limit(10, 1000, 2)
    assert sum(limit.allows(10) for _ in range(100)) == 20
    limit.at -= 1.0
    assert sum(limit.allows(10) for _ in range(100)) == 10
    assert not protocol.Limit(10, 1000, 2).allows(2001)


@pytest.mark.parametrize("message", [b"", b"\x01", b"\x01\x00", b"\x03\x00\x00", b"\x02\x00\x00\x00"])
def test_half_a_sample_or_an_unknown_kind_is_refused(message):
    with pytest.raises(InputError, match="int16"):
        protocol.parse_sound(message)


def test_text_is_spoken_by_the_named_program(tmp_path):
    wav = tmp_path / "tone.wav"
    soundfile.write(wav, 0.3 * np.sin(np.arange(22_050) / 5).astype(np.float32), 22_050)
    command = speech_command(f"sh -c 'cat > {tmp_path}/text; cat {wav}'")
    sound = asyncio.run(spoken(command, "hello"))
    assert (tmp_path / "text").read_text() == "hello"
    assert abs(len(sound) - 16_000) < 20
    for text, says in (("  ", "nothing to say"), ("x" * (LONGEST_TEXT + 1), "at most")):
        with pytest.raises(InputError, match=says):
            asyncio.run(spoken(command, text))
    with pytest.raises(InputError, match="status 3: broken"):
        asyncio.run(spoken(["sh", "-c", "cat > /dev/null; echo broken >&2; exit 3"], "hello"))
    with pytest.raises(InputError, match="no program 'no-such-voice'"):
        speech_command("no-such-voice")


def test_typed_text_reaches_the_head_and_faults_of_the_program_are_said(avatar, tmp_path):
    wav = tmp_path / "tone.wav"
    soundfile.write(wav, 0.3 * np.sin(np.arange(32_000) / 5).astype(np.float32), 16_000)
    said, sent = [], []

    async def type_text():
        async def tell(message):
            said.append(message)

        async def send(message):
            sent.append(message)

        command = ["sh", "-c", f"cat > /dev/null; cat {wav}"]
        connection = Connection({"ada": avatar}, tmp_path, command, send, tell)
        task = asyncio.create_task(connection.run())
        await until(lambda: said)
        await connection.asked('{"type":"say","text":"hello"}')
        await until(lambda: any(parsed(message)[4].any() for message in sent))
        connection.tts = ["false"]
        await connection.asked('{"type":"stop"}')
        await connection.asked('{"type":"say","text":"hello"}')
        await until(errors)
        task.cancel()
        await asyncio.wait([task])

    def errors():
        return [message["message"] for message in said if message["type"] == "error"]

    asyncio.run(asyncio.wait_for(type_text(), LONGEST))
    assert said[0]["text"] is True
    assert len(errors()) == 1
    assert "'false' ended with status 1" in errors()[0]


@pytest.mark.parametrize(
    ("options", "says"),
    [({"port": 70_000}, "1 to 65535"), ({"sessions": 0}, "1 or more"), ({"tts": "no-such-voice x"}, "no program")],
)
def test_wrong_options_are_refused_before_an_avatar_is_opened(options, says):
    with pytest.raises(InputError, match=says):
        serve(["/no/such/avatar"], **options)


def test_a_port_in_use_is_one_sentence(avatar, tmp_path):
    async def twice():
        async with serving(avatar, tmp_path) as (server, _):
            with pytest.raises(InputError, match=f"port {server.port} cannot be used"):
                await Server({"ada": avatar}, tmp_path, 1, None).run(server.port, print)

    asyncio.run(twice())


@pytest.mark.skipif(sys.platform == "win32", reason="signals and process folders are those of POSIX")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_that_is_ended_leaves_nothing_behind(folder, tmp_path, number):
    environment = {**os.environ, "TMPDIR": str(tmp_path), "HEADSTART_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "headstart", "live", str(folder), "--port", "0", "--json"]
    with (tmp_path / "err").open("w") as err:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, text=True, env=environment)
        try:
            wait_until(lambda: "stop with Ctrl-C" in (tmp_path / "err").read_text() or process.poll() is not None)
            assert list(tmp_path.glob(f"{PREFIX}live-*"))
            process.send_signal(number)
            out, _ = process.communicate(timeout=LONGEST)
        finally:
            process.kill()
    if number == signal.SIGTERM:
        assert process.returncode == 0
        assert json.loads(out.splitlines()[-1])["frames"] == 0
    else:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tempfile, "tempdir", str(tmp_path))
            ScratchFolder("next").close()
    assert not list(tmp_path.glob(f"{PREFIX}*"))


def test_a_frames_message_is_small_and_holds_what_it_says(avatar):
    assert protocol.HEADER.size == 28
    assert struct.calcsize("<IQdHBBI") == 28


def test_kernels_are_run_before_the_first_page_is_shown(avatar, monkeypatch):
    order, sent = [], []

    async def run(server, port, ready, stop):
        order.append("served")

    monkeypatch.setattr("adapt.live.server.load_avatar", lambda *_, **__: avatar)
    monkeypatch.setattr("adapt.live.server.rehearse", lambda avatar: order.append("rehearsed"))
    monkeypatch.setattr(Server, "run", run)
    serve(["ada"])
    assert order == ["rehearsed", "served"]

    monkeypatch.setattr("adapt.live.protocol.frame_message", lambda frame: sent.append(frame.image))
    rehearse(avatar)
    assert [image.shape for image in sent] == 2 * [(SIZE, SIZE, 3)]
    assert not np.array_equal(*sent)  # one for each background
