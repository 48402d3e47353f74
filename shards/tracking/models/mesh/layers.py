"""The layers of FaceMesh's landmark network, read from the file that MediaPipe is installed with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

FILE = "modules/face_landmark/face_landmark_with_attention.tflite"


Table = Any  # of the file; flatbuffers' classes have no types


@dataclass(frozen=True)
class Square:
    """A turned square around some landmarks · options of MediaPipe's Landmarks2TransformMatrix.

    Attributes:
        points: numbers ``[N]`` of the landmarks.
        corners: numbers of two whose line is level in it.
        room: its side relative to the landmarks' extent.
    """

    points: np.ndarray
    corners: tuple[int, int]
    room: float


@dataclass
class Layer:
    """A convolution and what follows it, or a crop. Feature maps are named by the numbers of the file's tensors, -1: none.

    Attributes:
        source, target: maps that it reads and writes.
        side, channels: of the map that it writes.
        weights: ``[O, K, K, I]`` and bias ``[O]``.
        depthwise: weights ``[3, 3, I]`` and bias ``[I]`` of a convolution before it.
        stride: of the depthwise convolution, else of its own.
        padded: whether margins of zeros are part of the input.
        added: map that is added, or its largest of 2 x 2 numbers if ``pooled``.
        slopes: ``[O]`` of the PReLU.
        square: where a crop is.
    """

    source: int
    target: int
    side: int
    channels: int
    weights: np.ndarray | None = None
    bias: np.ndarray | None = None
    depthwise: tuple[np.ndarray, np.ndarray] | None = None
    stride: int = 1
    padded: bool = False
    added: int = -1
    pooled: bool = False
    slopes: np.ndarray | None = None
    square: Square | None = None


@dataclass
class Layers:
    """A network: its layers in order, the side and channels of every map, and its input."""

    layers: list[Layer] = field(default_factory=list)
    shapes: dict[int, tuple[int, int]] = field(default_factory=dict)
    input: int = -1


def read_layers() -> Layers:
    """The layers of the network.

    Raises:
        ValueError: the file has operators that are not known here, so it is that of another version.
    """
    import mediapipe
    from mediapipe.tasks.metadata import schema_py_generated as schema

    data = (Path(mediapipe.__file__).parent / FILE).read_bytes()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data))
    return _Reader(schema, model).read()


class _Reader:
    """Goes through a file's operators and joins them to layers."""

    def __init__(self, schema: ModuleType, model: Table) -> None:
        self._schema, self._model, self._part = schema, model, model.subgraphs[0]
        self._names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
        self._values: dict[int, np.ndarray] = dict(self._constants())
        self._filters: dict[int, tuple[int, tuple[np.ndarray, np.ndarray], int]] = {}
        self._pools: dict[int, tuple[int, bool]] = {}
        self._squares: dict[int, Square] = {}
        self._open: dict[int, Layer] = {}  # convolutions by the tensor that they write
        self._found = Layers(input=int(self._part.inputs[0]))

    def _constants(self) -> Iterator[tuple[int, np.ndarray]]:
        kinds = self._schema.TensorType
        types = {kinds.FLOAT32: "<f4", kinds.FLOAT16: "<f2", kinds.INT32: "<i4"}
        for number, tensor in enumerate(self._part.tensors):
            data = self._model.buffers[tensor.buffer].data
            if data is not None:
                yield number, np.frombuffer(data.tobytes(), types[tensor.type]).reshape(tensor.shape)

    def read(self) -> Layers:
        for operator in self._part.operators:
            inputs, target = [int(number) for number in operator.inputs], int(operator.outputs[0])
            self._take(self._name(operator), operator, inputs, target)
        for layer in self._found.layers:
            self._found.shapes[layer.target] = layer.side, layer.channels
        tensors = self._part.tensors
        side, channels = (int(n) for n in tensors[self._found.input].shape[2:])
        self._found.shapes[self._found.input] = side, channels
        return self._found

    def _name(self, operator: Table) -> str:
        code = self._model.operatorCodes[operator.opcodeIndex]
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        custom = number == self._schema.BuiltinOperator.CUSTOM
        return code.customCode.decode() if custom else self._names[number]

    def _take(self, name: str, operator: Table, inputs: list[int], target: int) -> None:
        options, values = operator.builtinOptions, self._values
        if name == "DEQUANTIZE":
            values[target] = values[inputs[0]].astype(np.float32)
        elif name == "DEPTHWISE_CONV_2D":
            self._filters[target] = (inputs[0], (values[inputs[1]][0], values[inputs[2]]), int(options.strideH))
        elif name == "MAX_POOL_2D":
            self._pools[target] = (inputs[0], True)
        elif name == "PAD":  # with channels of zeros
            self._pools[target] = self._pools.get(inputs[0], (inputs[0], False))
        elif name == "CONV_2D":
            self._open[target] = self._convolution(inputs, target, options)
        elif name == "ADD":
            layer = self._open.pop(next(number for number in inputs if number in self._open))
            other = next(number for number in inputs if number != layer.target)
            layer.added, layer.pooled = self._pools.get(other, (other, False))
            layer.target, self._open[target] = target, layer
        elif name == "PRELU":
            layer = self._open.pop(inputs[0])
            layer.slopes, layer.target = values[inputs[1]].ravel(), target
        elif name == "Landmarks2TransformMatrix":
            self._squares[target] = _square(operator.customOptions.tobytes())
        elif name == "TransformTensorBilinear":
            side, channels = (int(n) for n in self._part.tensors[target].shape[2:])
            self._found.layers.append(Layer(inputs[0], target, side, channels, square=self._squares[inputs[1]]))
        elif name not in ("RESHAPE", "MUL", "TransformLandmarks", "STRIDED_SLICE"):  # computed beside the network
            raise ValueError(f"FaceMesh has an operator {name}, which is not known")

    def _convolution(self, inputs: list[int], target: int, options: Table) -> Layer:
        weights, bias = self._values[inputs[1]], self._values[inputs[2]]
        source, depthwise, stride = self._filters.get(inputs[0], (inputs[0], None, int(options.strideH)))
        side, channels = (int(n) for n in self._part.tensors[target].shape[2:])
        padded = depthwise is not None or options.padding == self._schema.Padding.SAME
        layer = Layer(source, target, side, channels, weights, bias, depthwise, stride, padded)
        self._found.layers.append(layer)
        return layer


def _square(options: bytes) -> Square:
    from flatbuffers import flexbuffers

    read = flexbuffers.Loads(options)
    corners = int(read["left_rotation_idx"]), int(read["right_rotation_idx"])
    return Square(np.array(read["subset_idxs"], np.int64), corners, float(read["scale_x"]))
