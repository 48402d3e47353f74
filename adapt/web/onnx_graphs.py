"""The audio-expression prior and Whisper's encoder as ONNX graphs; the only module that uses onnx."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from adapt.drivers.prior import PriorDriver
from configs import InputError
from pretrain.audio_expression import AudioExpressionPrior
from pretrain.audio_expression.diffusion import sample_times
from shards.features.whisper import EACH, Whisper

OPSET = 18
MISSING = "exporting a prior needs onnx: pip install 'headstart[onnx]'"
LARGE = 1024  # elements; smaller tensors are not worth a node


def exported_prior(driver: PriorDriver) -> AudioExpressionPrior:
    """The prior of a driver, if it is of the kind that can be exported.

    Raises:
        InputError: another package's prior.
    """
    if not isinstance(driver.prior, AudioExpressionPrior):
        raise InputError(
            f"{driver.name}: only Headstart's own audio-expression prior can be exported; leave --onnxruntime out"
        )
    return driver.prior


class ExpressionGraph(nn.Module):
    """A prior as a :class:`adapt.drivers.prior.PriorDriver` samples it: one step without noise, with guidance.

    Maps features ``[1, T, C]`` and the recording's statistics ``[1, C]`` (``[1, 2, C]`` with ``scale``) to the flat targets
    ``[1, T, D]`` in rig units.
    """

    style: Tensor
    time: Tensor
    yes: Tensor
    no: Tensor

    def __init__(self, driver: PriorDriver) -> None:
        super().__init__()
        prior, options = exported_prior(driver), driver.options
        if options.get("steps") != 1 or options.get("temperature") != 0.0:
            raise ValueError(f"the graph samples in one step without noise, not with {options}")
        self.model, self.guidance = prior.model, float(str(options.get("guidance", 1.0)))
        style = prior.mean_style if driver.style is None else driver.style
        self.register_buffer("style", torch.as_tensor(style, dtype=torch.float32)[None])
        self.register_buffer("time", torch.tensor([sample_times(prior.config.diffusion.train_steps, 1)[0]]))
        for kind in ("yes", "no"):
            self.register_buffer(kind, torch.tensor([kind == "yes"]))

    def forward(self, features: Tensor, statistics: Tensor) -> Tensor:
        rows = self.model.normalise(features, statistics)
        noisy = rows.new_zeros(1, rows.shape[1], self.model.dims)
        told = self.model.predict(noisy, self.time, rows, self.style, self.yes)
        if self.guidance != 1.0:
            untold = self.model.predict(noisy, self.time, rows, self.style, self.no)
            told = untold + self.guidance * (told - untold)
        return self.model.with_closure(self.model.decode(told), rows)


class WhisperGraph(nn.Module):
    """Whisper's spectrogram ``[1, MELS, 2 P]`` of a window to its rows ``[1, T, C]``, two positions a frame."""

    def __init__(self, feature: Whisper) -> None:
        super().__init__()
        self.encoder, self.frames = feature.encoder(), (feature.positions - 1) // EACH

    def forward(self, mel: Tensor) -> Tensor:
        hidden = self.encoder(mel).last_hidden_state[:, 1 : 1 + EACH * self.frames]
        centred = hidden - hidden.mean(-1, keepdim=True)
        rows = centred / torch.sqrt(centred.square().mean(-1, keepdim=True) + 1e-5)
        return rows.unflatten(1, (self.frames, EACH)).mean(2)


def prior_graph(driver: PriorDriver) -> bytes:
    """The prior of a driver, with its style, for windows of any length.

    Raises:
        InputError: onnx is not installed.
    """
    prior = exported_prior(driver)
    graph, config = ExpressionGraph(driver).eval(), prior.config
    size, frames = prior.features_size, config.window
    statistics = torch.ones(1, 2, size) if config.scale else torch.zeros(1, size)
    inputs = {"features": torch.zeros(1, frames, size), "statistics": statistics}
    return _exported(graph, inputs, "targets", {"features": {1: "frames"}, "statistics": {}})


def whisper_graph(feature: Whisper) -> bytes:
    """Whisper's encoder for one window.

    Raises:
        InputError: onnx is not installed, or the weights are missing.
    """
    (bands,) = feature.files.positive("num_mel_bins")
    return _exported(
        WhisperGraph(feature).eval(), {"mel": torch.zeros(1, bands, 2 * feature.positions)}, "rows", {"mel": {}}
    )


def _exported(graph: nn.Module, inputs: dict[str, Tensor], output: str, moving: dict[str, dict[int, str]]) -> bytes:
    """The file of a graph whose ``moving`` axes may have any length from 2 on."""
    try:
        import onnx  # noqa: F401  (it writes what torch's exporter, which needs onnxscript, has made)
        import onnxscript  # noqa: F401
    except ImportError:
        raise InputError(MISSING) from None
    shapes = {
        name: {axis: torch.export.Dim(label, min=2) for axis, label in axes.items()} for name, axes in moving.items()
    }
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            graph,
            kwargs=inputs,
            input_names=list(inputs),
            output_names=[output],
            dynamic_shapes=shapes,
            opset_version=OPSET,
            dynamo=True,
            optimize=True,
        )
    assert program is not None, "dynamo's exporter returns the program"
    return _published(program.model_proto.SerializeToString())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Torch's exporter prints its progress and warns of what it does not need."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _published(content: bytes) -> bytes:
    """A graph without torch's metadata, and with half-precision weights where that is exact.

    Torch leaves a stack trace with this machine's paths in every node. Weights that half precision represents exactly are
    stored in it, followed by a cast.
    """
    import onnx

    model = onnx.load_from_string(content)
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.ClearField("doc_string")
    casts = []
    for stored in graph.initializer:
        if stored.data_type != onnx.TensorProto.FLOAT:
            continue
        values, name = onnx.numpy_helper.to_array(stored), stored.name
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if values.size < LARGE or not np.array_equal(half.astype(np.float32), values):
            continue
        stored.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}.half"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT))
    for cast in reversed(casts):
        graph.node.insert(0, cast)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
