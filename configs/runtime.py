"""Settings of this process: environment variables that other libraries read when they load, and where their logs go."""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

# OMP_WAIT_POLICY: torch's OpenMP threads otherwise spin at every barrier, and a step that shares a core with another
# process takes three to fifteen times as long. OPENBLAS_THREAD_TIMEOUT: NumPy's OpenBLAS threads otherwise spin for
# 2^26 cycles after every product, so small products 25 times a second keep a core busy (a live frame: 50 ms of
# processor time instead of 15). The rest turns telemetry off.
DEFAULTS = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "OPENBLAS_THREAD_TIMEOUT": "4",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # parameters of mallopt, from glibc's malloc.h


def prepare() -> None:
    """Set what the user has not set; call it before torch is imported."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)


def keep_memory() -> None:
    """Let the C library keep freed memory: a training step on a CPU frees and allocates the same arrays again and again.

    By default glibc returns each large array to the system, and every page of the next one is faulted in and zeroed again
    (8 % of an expression-visual step, python -m benchmarks pretrain). The thresholds are 32 MiB for ``mmap``, the largest
    that glibc takes, and 2 GiB for trimming. Without glibc this does nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        for parameter, value in ((M_MMAP_THRESHOLD, 1 << 25), (M_TRIM_THRESHOLD, (1 << 31) - 1)):
            library.mallopt(parameter, value)


@contextlib.contextmanager
def others_to(log: Path) -> Iterator[tuple[TextIO, TextIO]]:
    """Send what other libraries print, warn and log to a file, in this process and in those it starts.

    The file descriptors 1 and 2 are redirected, because C++ libraries (absl, TFLite, NCCL) write to them directly.

    Args:
        log: the file to append to; it and its folder are created if needed.

    Yields:
        ``(out, err)``: streams for what *this* program has to say.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    out, err = sys.stdout, sys.stderr
    out.flush(), err.flush()
    saved = {number: os.dup(number) for number in (1, 2)}
    ours = [_beside(stream, number, saved[number]) for number, stream in ((1, out), (2, err))]
    with log.open("a", buffering=1, encoding="utf-8", errors="replace") as file:
        handler = _take_logging(file)
        for number in saved:
            os.dup2(file.fileno(), number)
        sys.stdout = sys.stderr = file
        try:
            yield ours[0], ours[1]
        finally:
            for stream in ours:
                stream.flush()
            sys.stdout, sys.stderr = out, err
            for number, copy in saved.items():
                os.dup2(copy, number)
                os.close(copy)
            _return_logging(handler)


def _beside(stream: TextIO, number: int, copy: int) -> TextIO:
    """A stream of our own on the descriptor's copy; the stream itself where it is not on that descriptor (captured by a test)."""
    try:
        if stream.fileno() != number:
            return stream
    except (OSError, ValueError, io.UnsupportedOperation):
        return stream
    return os.fdopen(os.dup(copy), "w", buffering=1, encoding=stream.encoding, errors="replace")


def _take_logging(file: TextIO) -> logging.Handler:
    handler = logging.StreamHandler(file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    logging.captureWarnings(True)
    return handler


def _return_logging(handler: logging.Handler) -> None:
    logging.captureWarnings(False)
    logging.getLogger().removeHandler(handler)
