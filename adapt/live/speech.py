"""Text to speech by a program of this machine: espeak-ng, or a command that the user names."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import shutil
import tempfile

import numpy as np

from configs import InputError
from configs.scratch import ScratchFolder
from configs.words import shortened
from shards.media.sound import stream_audio

ESPEAK = "espeak-ng --stdin --stdout"
LONGEST_TEXT = 1000  # characters
PATIENCE = 30.0  # s that the program may take


def speech_command(named: str | None) -> list[str] | None:
    """The program that speaks, ``None`` if none was named and espeak-ng is not installed.

    Args:
        named: a command that reads text on its standard input and writes a sound file on its standard output.

    Raises:
        InputError: a command whose program does not exist.
    """
    words = shlex.split(named or ESPEAK)
    if words and shutil.which(words[0]):
        return words
    if named is not None:
        raise InputError(f"--tts '{named}': no program '{words[0] if words else ''}'; name one that is installed")
    return None


async def spoken(command: list[str], text: str) -> np.ndarray:
    """The sound ``[n]`` of a text, float32 at 16 kHz; the file it comes in is removed at once.

    Raises:
        InputError: no text, more than ``LONGEST_TEXT`` characters, or a program that fails or takes too long.
    """
    if not text.strip():
        raise InputError("nothing to say: type some text")
    if len(text) > LONGEST_TEXT:
        raise InputError(f"text of {len(text)} characters: at most {LONGEST_TEXT} at a time")
    pipe = asyncio.subprocess.PIPE
    with tempfile.TemporaryFile() as heard:
        program = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=heard, stderr=pipe)
        try:
            _, said = await asyncio.wait_for(program.communicate(text.encode()), PATIENCE)
        except asyncio.TimeoutError:
            raise InputError(f"'{command[0]}' took longer than {PATIENCE:g} s; say less at a time") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                program.kill()
        if program.returncode:
            last = said.decode(errors="replace").strip().splitlines()[-1:] or [""]
            raise InputError(f"'{command[0]}' ended with status {program.returncode}: {shortened(last[0])}")
        heard.seek(0)
        return await asyncio.to_thread(_decoded, heard.read())


def _decoded(sound: bytes) -> np.ndarray:
    with ScratchFolder("speech") as folder:
        path = folder / "speech.wav"
        path.write_bytes(sound)
        return np.concatenate([np.zeros(0, np.float32), *stream_audio(path)])
