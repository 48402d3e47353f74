"""Priors of one adaptation agree on schema, rig and audio feature, or are refused by name and value."""

from __future__ import annotations

import pytest

from cluster.registry.compatibility import check_compatible, misfit
from configs import InputError

RIG = {"name": "mediapipe-478/1", "sha256": "a" * 64}
LOGMEL = {"name": "logmel", "size": 160, "weights": None}
HUBERT = {"name": "hubert", "size": 1024, "weights": {"source": "hubert", "sha256": "c" * 64}}
INFO = {"schema": 1, "prior": "sync-expert", "rig": RIG, "features": LOGMEL}


def pair(**change):
    return {"sync-expert": INFO, "audio-expression": INFO | change}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rig": {"name": "flame", "sha256": "b" * 64}}, r"rig of 'sync-expert' is mediapipe-478/1 \(aaaaaaaaaaaa\)"),
        ({"features": HUBERT}, r"audio features of 'sync-expert' is logmel of size 160.*hubert of size 1024"),
        ({"features": {"name": "logmel", "size": 80}}, r"logmel of size 160, of 'audio-expression' it is .* size 80"),
        ({"schema": 2}, r"schema of 'sync-expert' is 1, of 'audio-expression' it is 2"),
    ],
)
def test_priors_that_do_not_fit_together_are_refused_by_name_and_value(change, words):
    with pytest.raises(InputError, match=words):
        check_compatible(pair(**change))


def test_a_prior_without_audio_fits_every_audio_feature():
    check_compatible({"sync-expert": INFO, "expression-visual": INFO | {"features": None}})
    check_compatible({})


def test_equal_names_with_other_weights_are_different_features():
    other = HUBERT | {"weights": {"source": "my-hubert", "sha256": "d" * 64}}
    infos = {"audio-expression": INFO | {"features": HUBERT}, "sync-expert": INFO | {"features": other}}
    assert "weights cccccccccccc" in misfit(infos)
    assert "weights dddddddddddd" in misfit(infos)


def test_rows_of_another_revision_are_different_features():
    infos = {"audio-expression": INFO | {"features": LOGMEL | {"revision": 2}}, "sync-expert": INFO}
    assert "is logmel of size 160 of revision 2, of 'sync-expert' it is logmel of size 160 of revision 1" in misfit(
        infos
    )
    check_compatible({"a": INFO, "b": INFO | {"features": LOGMEL | {"revision": 1}}}, feature="logmel")


def test_the_clip_or_avatar_joins_the_comparison():
    check_compatible({"a": INFO}, rig=RIG, feature="logmel")
    check_compatible({"a": INFO}, rig=RIG, feature=LOGMEL)
    with pytest.raises(InputError, match="of this clip or avatar is hubert, of 'a' it is logmel"):
        check_compatible({"a": INFO}, feature="hubert")
    with pytest.raises(InputError, match="rig of this clip or avatar is ict"):
        check_compatible({"a": INFO}, rig={"name": "ict", "sha256": "e" * 64})
