"""The four commands that read files, on each kind of file that was reported: as on the plain file, or one sentence.

Needs the real clips and the program ffmpeg. ``python -m tests.end_to_end.test_inputs`` prints the table of docs/inputs.md.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import headstart
from shards.media.decode import read_video
from shards.media.sound import read_audio

pytestmark = [pytest.mark.slow, pytest.mark.clips]
CLIP, SECONDS, SIZE = "cnn2_a", 3.0, 128
X264 = "-c:v libx264 -preset veryfast -crf 14"
HDR = "-pix_fmt yuv420p10le -c:v libx265 -preset ultrafast -x265-params log-level=none:crf=14"
FROM_SDR = "zscale=min=170m:tin=bt709:pin=bt709:rin=tv:p=bt2020:m=bt2020nc:r=tv:npl=203:t"  # white at 203 nits
WIDE = "-color_primaries bt2020 -colorspace bt2020nc -color_trc"
# Run by default; the others are asked for.
ALWAYS = ("hole of 2 s in the sound", "10-bit HLG", "upside down")
# ffmpeg's words between -i REF and the output file; several commands make the file in steps.
KINDS: dict[str, tuple[str, str]] = {
    "hole of 2 s in the sound": ("x.mp4", "-c copy -bsf:a setts=ts='if(gte(TS*TB\\,1)\\,TS+2/TB\\,TS)'"),
    "dropout of 80 ms": ("x.mp4", "-c copy -bsf:a setts=ts='if(gte(TS*TB\\,1)\\,TS+0.08/TB\\,TS)'"),
    "fragmented MP4, B-frames": ("x.mp4", f"{X264} -bf 2 -c:a aac -movflags frag_keyframe+empty_moov"),
    "browser recording": ("x.webm", "-r 30 -c:v libvpx -deadline realtime -b:v 2M -c:a libopus -f webm -live 1"),
    "sound longer than the pictures": ("x.mp4", "-filter_complex [0:a]apad=pad_dur=4[a] -map 0:v -map [a] -c:v copy -c:a aac"),
    "sound that starts later": ("x.mp4", "-itsoffset 0.4 -i {ref} -map 0:v -map 1:a -c copy"),
    "two tracks, the first silent": (
        "x.mp4", "-f lavfi -t 3 -i anullsrc=r=48000:cl=mono -map 0:v -map 1:a -map 0:a -c:v copy -c:a aac",
    ),
    "opposite-phase stereo": ("x.mp4", "-c:v copy -af pan=stereo|c0=c0|c1=-1*c0 -c:a pcm_s16le -f mov"),
    "samples beyond full scale": ("x.mkv", "-c:v copy -af volume=30 -c:a pcm_f32le"),
    "10-bit HLG": ("x.mov", f"-vf {FROM_SDR}=arib-std-b67 {HDR} {WIDE} arib-std-b67 -c:a copy"),
    "10-bit PQ": ("x.mov", f"-vf {FROM_SDR}=smpte2084 {HDR} {WIDE} smpte2084 -c:a copy"),
    "mirrored and turned by its matrix": ("x.mov", f"-vf hflip,transpose=1 {X264} -c:a copy"),
    "pixels that are not square": ("x.mp4", f"-vf scale=160:320,setsar=2 {X264} -c:a copy"),
    "interlaced": ("x.mp4", f"-vf fps=50,interlace {X264} -flags +ilme+ildct -c:a copy"),
    "upside down": ("x.mp4", f"-vf hflip,vflip {X264} -c:a copy"),
    "ProRes 4444": ("x.mov", "-c:v prores_ks -profile:v 4444 -pix_fmt yuva444p10le -c:a pcm_s16le"),
    "JPEGs in AVI": ("x.avi", "-c:v mjpeg -q:v 2 -pix_fmt yuvj422p -c:a pcm_s16le"),
    "10 to 61 pictures a second": ("x.mkv", "-vf setpts='PTS+0.012*sin(N)/TB' -fps_mode vfr -c:v libx264 -crf 14 -c:a copy"),
}  # fmt: skip
REFUSED = {"upside down": "upside down"}


class Result(NamedTuple):
    """What the four commands said of a file."""

    built: int
    used: int
    spoken: int
    psnr_face: float
    colour: float  # mean over the pictures, 0 to 255
    loudness: float  # root mean square of the sound


def made(ref: Path, folder: Path, name: str) -> Path:
    """The file of a kind."""
    file, words = KINDS[name]
    out = folder / file
    command = ["ffmpeg", "-v", "error", "-y", "-i", str(ref), *words.replace("{ref}", str(ref)).split(), str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this ffmpeg cannot make it: {done.stderr.strip().splitlines()[-1]}")
    if name == "mirrored and turned by its matrix":
        out = _with_matrix(out)
    return out


def _with_matrix(path: Path) -> Path:
    """The display matrix that undoes ``hflip,transpose=1``, written into the track's header."""
    data = bytearray(path.read_bytes())
    unity = np.array([1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30], ">i4").tobytes()
    turned = np.array([0, -1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30], ">i4").tobytes()
    at = data.index(b"tkhd")
    where = data.index(unity, at)
    data[where : where + len(turned)] = turned
    path.write_bytes(bytes(data))
    return path


def plain(folder: Path, clips: Path) -> Path:
    """The file that the others are made of."""
    path = folder / "ref.mp4"
    words = f"-t {SECONDS} -i {clips / CLIP}.mp4 -vf scale=320:320 {X264} -bf 2 -c:a aac -ar 48000 {path}"
    subprocess.run(["ffmpeg", "-v", "error", "-y", *words.split()], check=True)
    return path


def run(*words: Any) -> tuple[int, Any]:
    """A command's status, and its JSON or its sentence."""
    printed, said = io.StringIO(), io.StringIO()
    with redirect_stdout(printed), redirect_stderr(said):
        status = headstart.main([*map(str, words), "--json"])
    lines = (printed.getvalue() if status == 0 else said.getvalue()).strip().splitlines()
    return status, json.loads(lines[-1]) if status == 0 else lines[-1]


def commands(path: Path, folder: Path) -> Result | str:
    """All four on one file; the sentence if building and adapting both refuse it."""
    status, built = run("shards", "build", path, "--out", folder / "data")
    adapted, avatar = run(
        "adapt", path, "--out", folder / "avatar", "--prior", "none", "--budget", "5it", "--size", SIZE
    )
    if adapted == 2:
        assert status == 2 or built["frames"] == 0
        return str(avatar)
    assert status == adapted == 0
    spoke, video = run("talk", folder / "avatar", path, "--out", folder / "said.mp4")
    scored, scores = run("evaluate", folder / "avatar", path, "--out", folder / "scores")
    assert spoke == scored == 0
    pictures = [picture.mean() for picture in read_video(path)]
    loudness = float(np.sqrt((read_audio(path) ** 2).mean()))
    psnr = scores["drives"]["track"]["psnr_face"]
    return Result(built["frames"], avatar["frames"], video["frames"], psnr, float(np.mean(pictures)), loudness)


@pytest.fixture(scope="module")
def world(tmp_path_factory, clips) -> tuple[Path, Result]:
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs the program ffmpeg")
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("inputs")
        patch.setenv("HEADSTART_HOME", str(folder / "home"))
        ref = plain(folder, clips)
        result = commands(ref, folder)
        assert isinstance(result, Result)
        yield ref, result


@pytest.mark.parametrize("name", KINDS)
def test_the_commands_take_it_as_the_plain_file_or_refuse_it(name, world, tmp_path):
    if name not in ALWAYS and not os.environ.get("HEADSTART_ALL_INPUTS"):
        pytest.skip("about half a minute each; HEADSTART_ALL_INPUTS=1 runs all kinds")
    ref, expected = world
    found = commands(made(ref, tmp_path, name), tmp_path)
    if name in REFUSED:
        assert isinstance(found, str)
        assert REFUSED[name] in found
        return
    assert isinstance(found, Result), found
    compare(name, found, expected)


def compare(name: str, found: Result, expected: Result) -> None:
    """Within what re-encoding explains."""
    assert abs(found.built - expected.built) <= 1
    assert abs(found.used - expected.used) <= 1
    longer = {"hole of 2 s in the sound": 50, "sound longer than the pictures": 100, "sound that starts later": 10}
    assert abs(found.spoken - expected.spoken - longer.get(name, 2)) <= 3
    assert found.psnr_face > expected.psnr_face - 2.5
    assert abs(found.colour - expected.colour) < (12 if name.startswith("10-bit") else 2)
    assert found.loudness > 0.01


def main() -> None:
    """Print the table; argument: the folder of the clips."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        ref = plain(folder, Path(sys.argv[1]))
        print("| input | built | used by `adapt` | spoken | face dB | mean colour |\n|---|---|---|---|---|---|")
        for name in ["the plain file", *KINDS]:
            place = folder / name.replace(" ", "-").replace(",", "")
            place.mkdir()
            found = commands(ref if name == "the plain file" else made(ref, place, name), place)
            cells = [found] if isinstance(found, str) else [*found[:3], f"{found.psnr_face:.1f}", f"{found.colour:.1f}"]
            print("|", " | ".join(map(str, [name, *cells])), "|", flush=True)


if __name__ == "__main__":
    main()
