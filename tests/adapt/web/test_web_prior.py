"""Priors in the page: the ONNX graphs give torch's numbers, and the page's streams give the numbers of ``talk``."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from adapt.drivers.base import drive
from adapt.drivers.closing import LipClosing
from adapt.drivers.prior import EMPHASIS, SAMPLER, SHARE, PriorDriver
from adapt.drivers.ridge import PAST, RidgeDriver
from adapt.web.export import export_web
from adapt.web.onnx_graphs import prior_graph, whisper_graph
from adapt.web.sound import closing_document, sound_files
from configs import InputError, load_config
from pretrain.audio_expression.windows import LEAST_SPREAD
from shards.features import open_feature
from shards.features.speech import SpeechStream
from shards.features.whisper import log_mel
from tests.adapt.web.test_web_numbers import run
from tests.shards.features.models import whisper

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="needs node")


def session(content: bytes):
    runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'headstart[onnx]'")
    return runtime.InferenceSession(content)


def make_prior(**changes):
    """An untrained prior of the real architecture whose weights are not zero anywhere."""
    from pretrain.audio_expression import AudioExpressionPrior
    from pretrain.audio_expression.config import AudioExpressionConfig
    from pretrain.audio_expression.model import ExpressionModel

    torch.manual_seed(0)
    config = load_config(
        AudioExpressionConfig, "pretrain/audio-expression/tiny", [f"{k}={v}" for k, v in changes.items()]
    )
    model = ExpressionModel(config, 160, 32, 2)
    with torch.no_grad():
        closure = [] if model.closure is None else [model.closure.weight]
        for value in [*model.parameters(), model.denoiser.linear.weight, *closure]:
            value.add_(0.05 * torch.randn_like(value))
    return AudioExpressionPrior(model, {"prior": "audio-expression"}, ["a", "b"])


@pytest.fixture(scope="module")
def features():
    return np.random.default_rng(0).standard_normal((150, 160)).astype(np.float32)


@pytest.mark.parametrize("changes", [{}, {"scale": False, "centre": True}, {"closure": True}])
def test_the_prior_s_graph_gives_torch_s_numbers_at_any_length(changes, features):
    pytest.importorskip("onnxscript", reason="needs onnx: pip install 'headstart[onnx]'")
    prior = make_prior(**changes)
    driver = PriorDriver(prior, prior.styles["a"])
    content = prior_graph(driver)
    assert b"/onnx_graphs.py" not in content, "the file holds paths of this machine"
    graph = session(content)
    for rows in (features[: prior.config.window], features[:9]):
        statistics = prior.utterance_statistics(rows)
        found = graph.run(None, {"features": rows[None], "statistics": statistics[None]})[0][0]
        true = prior.sample(rows, style=driver.style, mean=statistics, **SAMPLER)
        assert np.abs(true["expression"]).max() > 0.5
        np.testing.assert_allclose(found[:, :32], true["expression"], atol=1e-4)
        np.testing.assert_allclose(np.clip(found[:, 32:34], 0, 1), true["eyelids"], atol=1e-4)
        assert ("closure" in true) == (found.shape[1] == 35)
        if "closure" in true:
            assert np.abs(true["closure"]).max() > 0.5
            np.testing.assert_allclose(found[:, 34], true["closure"], atol=1e-4)


def test_whisper_s_graph_gives_torch_s_rows(tmp_path):
    pytest.importorskip("onnxscript", reason="needs onnx: pip install 'headstart[onnx]'")
    feature = open_feature(f"whisper={whisper(tmp_path / 'w')}")
    sound = 0.1 * np.random.default_rng(0).standard_normal(640 * 60).astype(np.float32)
    mel = log_mel(sound, feature.filters(), 2 * feature.positions)
    found = session(whisper_graph(feature)).run(None, {"mel": mel.T[None].copy()})[0][0]
    np.testing.assert_allclose(found[:60], feature.open_encoder()(sound), atol=1e-4)


def test_without_onnx_the_sentence_names_the_install_line(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(InputError, match=r"needs onnx: pip install 'headstart\[onnx\]'"):
        prior_graph(PriorDriver(make_prior()))


def test_an_avatar_with_a_prior_is_exported_with_it(avatar, tmp_path, monkeypatch):
    monkeypatch.setattr("adapt.web.onnx_graphs.prior_graph", lambda driver: b"graph")
    for name in ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"):
        (tmp_path / name).write_bytes(name.encode())
    prior = make_prior()
    calibration = np.ones((3, 32), np.float32)
    speaking = replace(avatar, driver=PriorDriver(prior, calibration=calibration, regression=avatar.driver))
    monkeypatch.setattr("adapt.web.export.load_avatar", lambda *_, **__: speaking)
    result = export_web("ada", tmp_path / "page", onnxruntime=tmp_path)
    assert {"prior.onnx", "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"} <= set(result["files"])
    assert result["driver"] == speaking.driver.name
    without = export_web("ada", tmp_path / "plain")
    assert "prior.onnx" not in without["files"]
    assert without["driver"] == avatar.driver.name
    found = sound_files(speaking, tmp_path).document["prior"]
    assert (found["window"], found["overlap"], found["emphasis"]) == (
        prior.config.window,
        prior.config.overlap,
        EMPHASIS,
    )


def test_an_avatar_whose_prior_is_away_is_refused(avatar, tmp_path):
    folder = tmp_path / "ada"
    shutil.copytree(avatar.path, folder)
    document = json.loads((folder / "avatar.json").read_text())
    (tmp_path / "gone").mkdir()
    record = {
        "name": "audio-expression",
        "version": "3",
        "sha256": "0" * 64,
        "uri": str(tmp_path / "gone"),
        "features": None,
    }
    document |= {"driver": "prior", "priors": {"audio-expression": record}}
    (folder / "avatar.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"needs the audio-expression prior .* cannot be opened"):
        export_web(folder, tmp_path / "page")
    assert not (tmp_path / "page").exists()


@pytest.fixture(scope="module", params=[False, True], ids=["gap", "closure"])
def streams(request, page, features, tmp_path_factory):
    """A prior whose network is arithmetic, a regression, Whisper's spectrogram: what Python and the page make of them."""
    rng = np.random.default_rng(1)
    prior = make_prior(scale=True, centre=True, closure=request.param)
    dims = prior.model.columns

    def window(rows, mean, at, style, sampling):
        return (rows[:, :dims] - mean[0, :dims]) / mean[1, :dims] + len(rows) / 1000

    prior._window = window
    ridge = RidgeDriver.fit(features, features[:, :32] + 0.1 * rng.standard_normal((150, 32)).astype(np.float32))
    calibration = rng.uniform(0.2, 1.2, (3, 32)).astype(np.float32)
    sound, filters = (
        0.1 * rng.standard_normal(6400).astype(np.float32),
        rng.uniform(0, 0.1, (201, 6)).astype(np.float32),
    )
    rest, slope, direction = (rng.normal(0, spread, 32).astype(np.float32) for spread in (0.5, 0.02, 0.02))
    closing = LipClosing(rest, 0.08, 0.1, slope, direction)
    config = prior.config
    exported = {"window": config.window, "overlap": config.overlap, "memory": config.memory, "scale": True,
                "least_spread": LEAST_SPREAD, "expression_at": 0, "expression": 32, "emphasis": EMPHASIS, "share": SHARE,
                "closing": closing_document(closing), "closure_at": dims - 1 if request.param else None}  # fmt: skip
    given = {"rows": features.tolist(), "exported": exported, "calibration": calibration.ravel().tolist(), "past": PAST,
             "ridge": {name: getattr(ridge, name).ravel().tolist() for name in ("mean", "spread", "weight", "bias")},
             "sound": sound.tolist(), "filters": filters.ravel().tolist(), "columns": 42, "dims": dims,
             "pieces": [7, 61, 1, 30]}  # fmt: skip
    folder = tmp_path_factory.mktemp("prior")
    (folder / "in.json").write_text(json.dumps(given))
    found = run("prior.mjs", page, folder, str(folder / "in.json"))
    driver = PriorDriver(prior, calibration=calibration, closing=closing)
    return SimpleNamespace(found=found, driver=driver, ridge=ridge, sound=sound, filters=filters)


@pytest.mark.node
@needs_node
def test_the_page_joins_a_prior_s_windows_and_presses_lips_as_talk_does(streams, features):
    alone = drive(streams.driver, features)["expression"]
    open_ = drive(streams.driver.closed(None), features)["expression"]
    assert 0 < (np.abs(alone - open_).max(1) > 1e-3).mean() < 1, "some lips are pressed, some are not"
    np.testing.assert_allclose(np.array(streams.found["alone"]), alone, atol=1e-4)
    averaged = drive(streams.driver.averaged(streams.ridge), features)["expression"]
    np.testing.assert_allclose(np.array(streams.found["averaged"]), averaged, atol=1e-4)


@pytest.mark.node
@needs_node
def test_the_page_cuts_whisper_s_windows_and_spectrogram_as_python_does(streams):
    mel = log_mel(streams.sound, streams.filters, 42)
    np.testing.assert_allclose(np.array(streams.found["mel"]).reshape(6, 42), mel.T, atol=2e-5)
    windows = []

    def rows(sound):
        windows.append(len(sound))
        return np.array([[len(windows), place] for place in range(5)], np.float32)

    stream = SpeechStream(rows, 2, 3, 1)
    pieces = [stream.push(streams.sound[at : min(6400, at + 900)]) for at in range(0, 6400, 900)]
    np.testing.assert_array_equal(np.array(streams.found["placed"]), np.concatenate([*pieces, stream.finish()]))
