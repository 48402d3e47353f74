"""Log-mel: exactly one row a frame, centred on it, the same from a stream."""

from __future__ import annotations

import numpy as np
import pytest

from shards.features import logmel, open_feature
from tests.shards.features.sounds import clicks, tone


def test_logmel_has_one_finite_row_per_frame_and_follows_the_sound():
    audio = np.concatenate([np.zeros(6400, np.float32), tone(0.4, 1000.0), np.zeros(6400, np.float32)])
    rows = logmel(audio)
    assert rows.shape == (30, open_feature("logmel").size)
    assert np.isfinite(rows).all()
    loud = rows.max(axis=1) > 0
    assert loud[10:20].all()
    assert not loud[:9].any()
    assert not loud[21:].any()


def test_logmel_rows_are_centred_on_their_frame():
    # A click in the middle of frame 5 lies between its second and third step, whatever the window.
    row = logmel(clicks([5 * 640 + 320], 6400))[5].reshape(4, 40).mean(axis=1)
    assert row[1] == pytest.approx(row[2], abs=0.02)  # half a sample is no frame
    assert row[1] > row[0] + 0.3
    assert row[2] > row[3] + 0.3


def test_a_louder_file_does_not_change_the_rows_of_a_quiet_part():
    rng = np.random.default_rng(0)
    quiet = 0.01 * rng.normal(size=16_000).astype(np.float32)
    # Matrix products of another size round differently; a normalisation over the file would move rows by far more.
    assert np.allclose(logmel(np.concatenate([quiet, 30 * quiet]))[:24], logmel(quiet)[:24], atol=1e-4)


@pytest.mark.parametrize("sizes", [[1], [160, 7, 2000], [640], [100_000]])
def test_a_stream_of_logmel_gives_the_same_rows_however_it_is_cut(sizes):
    audio = 0.1 * np.random.default_rng(1).normal(size=1600 if sizes == [1] else 20_123).astype(np.float32)
    stream, rows, at, turn = open_feature("logmel").stream(), [], 0, 0
    while at < len(audio):
        rows.append(stream.push(audio[at : at + sizes[turn % len(sizes)]]))
        at, turn = at + sizes[turn % len(sizes)], turn + 1
    rows.append(stream.finish())
    np.testing.assert_allclose(np.concatenate(rows), logmel(audio), atol=1e-5)
