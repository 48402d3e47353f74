"""FaceMesh's landmark network, as a program of the kernels beside this file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from shards.tracking.models.mesh import kernels as k
from shards.tracking.models.mesh.layers import Layer, Layers, read_layers
from shards.tracking.models.mesh.regions import IRIS, place_regions, put_landmarks

SIDE = 192  # px of the picture that the network takes
LEVEL = 1 / 255  # of a picture's level in the network's input
SURFACE = 468  # landmarks of the surface


class MeshNetwork:
    """Landmarks of a face in a picture of 192 px."""

    def __init__(self) -> None:
        self._program = _compiled()
        self._maps = np.zeros(self._program.size, np.float32)
        self._matrices = np.zeros((len(self._program.regions.ends), 6), np.float32)
        self._rows = np.zeros(k.ROOM + k.TILE * self._program.depth, np.float32)
        self._where, self._added = np.zeros((2, k.ROOM), np.int64)
        self._input = self._map(self._program.input, (SIDE + 2) ** 2 * 3).reshape(SIDE + 2, SIDE + 2, 3)[1:-1, 1:-1]

    def __call__(self, picture: np.ndarray) -> tuple[np.ndarray, float]:
        """Landmarks ``[478, 3]`` px of a picture ``[192, 192, 3]`` uint8 RGB, and the logit of a face being there."""
        program, regions = self._program, self._program.regions
        self._input[:] = picture
        self._run(program.before)
        mesh = self._map(program.mesh, SURFACE * 3).reshape(SURFACE, 3)
        flat = regions.points, regions.ends
        place_regions(mesh, *flat, regions.corners, regions.room, regions.side, regions.scale, self._matrices)
        self._run(program.after)
        landmarks = np.empty((SURFACE + 2 * IRIS, 3), np.float32)
        places = program.mesh, program.parts, program.irises
        put_landmarks(self._maps, *places, *flat, self._matrices, regions.scale, landmarks)
        return landmarks, float(self._maps[program.flag])

    def _run(self, steps: np.ndarray) -> None:
        k.run(steps, self._program.parameters, self._maps, self._matrices, self._rows, self._where, self._added)

    def _map(self, at: int, size: int) -> np.ndarray:
        return self._maps[at : at + size]


@dataclass(frozen=True)
class _Regions:
    """Lips, left and right eye, as :func:`place_regions` takes them."""

    points: np.ndarray
    ends: np.ndarray
    corners: np.ndarray
    room: float
    side: int
    scale: float


@dataclass(frozen=True)
class _Program:
    """The network as the kernel takes it; maps are named by where they start."""

    before: np.ndarray  # steps up to the crops
    after: np.ndarray  # steps from the crops on
    parameters: np.ndarray
    size: int  # numbers in all maps
    depth: int  # most numbers that one output depends on
    input: int
    regions: _Regions
    mesh: int
    parts: np.ndarray  # landmarks found again in each region
    irises: np.ndarray  # in the eyes' regions
    flag: int


class _Compiler:
    """Gives maps and parameters their places."""

    def __init__(self, network: Layers) -> None:
        self._network = network
        self._parameters: list[np.ndarray] = []
        self._count = self.size = 0
        self._places: dict[int, int] = {}
        self._free: dict[tuple[int, int], list[int]] = {}
        self._last: dict[int, int] = {}  # step that reads a map last
        for number, layer in enumerate(network.layers):
            self._last[layer.source] = self._last[layer.added] = number

    def place(self, tensor: int) -> int:
        """Where a map starts; maps of one shape take each other's places once they are not read any more."""
        if tensor not in self._places:
            side, channels = shape = self._shape(tensor)
            free = self._free.get(shape)
            self._places[tensor] = free.pop() if free else self.size
            self.size += 0 if free is not None and self._places[tensor] < self.size else (side + 2) ** 2 * channels
        return self._places[tensor]

    def _shape(self, tensor: int) -> tuple[int, int]:
        """Side and channels of a map, whose channels are padded to whole tiles, but not those of the picture."""
        side, channels = self._network.shapes[tensor]
        return side, channels if tensor == self._network.input else -(-channels // k.OUT) * k.OUT

    def only_pixel(self, tensor: int) -> int:
        """Where the numbers of a map of one pixel, inside its margin, start."""
        return self._places[tensor] + 4 * self._shape(tensor)[1]

    def step(self, number: int, layer: Layer) -> np.ndarray:
        """A step of the program."""
        row = np.full(k.COLUMNS, -1, np.int64)
        row[k.SOURCE], (row[k.SOURCE_SIDE], row[k.CHANNELS]) = self.place(layer.source), self._shape(layer.source)
        row[k.TARGET], (row[k.SIDE], row[k.OUTPUTS]) = self.place(layer.target), self._shape(layer.target)
        row[k.KIND], row[k.POOLED] = k.CROP_STEP, int(layer.pooled)
        if layer.added >= 0:
            row[k.ADDED], row[k.ADDED_CHANNELS] = self.place(layer.added), self._shape(layer.added)[1]
        if layer.weights is not None and layer.bias is not None:
            self._fill(row, layer, layer.weights, layer.bias)
        for tensor in {layer.source, layer.added} - {-1, self._network.input}:
            if self._last[tensor] == number:
                self._free.setdefault(self._shape(tensor), []).append(self._places[tensor])
        return row

    def _fill(self, row: np.ndarray, layer: Layer, weights: np.ndarray, bias: np.ndarray) -> None:
        outputs, reach = int(row[k.OUTPUTS]), weights.shape[1]
        more = (0, outputs - len(bias))
        scale = LEVEL if layer.source == self._network.input else 1
        matrix = np.pad(weights.reshape(len(weights), -1) * scale, (more, (0, 0)))
        row[k.KIND] = k.PATCH_STEP if layer.depthwise is None else k.DEPTHWISE_STEP
        row[k.STRIDE], row[k.REACH] = layer.stride, reach
        # TensorFlow's margins: one on both sides, or, with stride 2 and an even side, only at the end.
        wide = layer.padded and (reach == 3 or layer.depthwise is not None)
        row[k.MARGIN] = int(layer.stride == 2) if wide else 1
        row[k.WEIGHTS] = self._keep(matrix.reshape(outputs // k.OUT, k.OUT, -1).transpose(0, 2, 1))
        row[k.BIAS] = self._keep(np.pad(bias, more))
        row[k.SLOPES] = self._keep(np.pad(np.ones(len(bias)) if layer.slopes is None else layer.slopes, more))
        if layer.depthwise is not None:
            row[k.DEPTHWISE], row[k.DEPTHWISE_BIAS] = (self._keep(values) for values in layer.depthwise)

    def _keep(self, values: np.ndarray) -> int:
        at = self._count
        self._parameters.append(np.ascontiguousarray(values, np.float32).ravel())
        self._count += values.size
        return at

    @property
    def parameters(self) -> np.ndarray:
        return np.concatenate(self._parameters)


@lru_cache(maxsize=1)
def _compiled() -> _Program:
    network = read_layers()
    compiler, layers = _Compiler(network), network.layers
    steps = np.stack([compiler.step(number, layer) for number, layer in enumerate(layers)])
    crops = [number for number, layer in enumerate(layers) if layer.square is not None]
    regions = _regions([layers[n] for n in crops], SIDE / network.shapes[layers[crops[0]].source][0])

    def ends(channels: int) -> np.ndarray:
        """Where the results of that many numbers start."""
        found = [compiler.only_pixel(layer.target) for layer in layers if (layer.side, layer.channels) == (1, channels)]
        return np.array(found, np.int64)

    sizes = np.diff(regions.ends, prepend=0)
    return _Program(
        before=steps[: crops[0]],
        after=steps[crops[0] :],
        parameters=compiler.parameters,
        size=compiler.size + int(steps[:, k.OUTPUTS].max()),  # behind the maps, numbers that nothing reads
        depth=max(layer.weights[0].size for layer in layers if layer.weights is not None),
        input=compiler.place(network.input),
        regions=regions,
        mesh=int(ends(3 * SURFACE)[0]),
        parts=np.concatenate([ends(2 * sizes[0]), ends(2 * sizes[1])]),
        irises=ends(2 * IRIS),
        flag=int(ends(1)[0]),
    )


def _regions(crops: list[Layer], scale: float) -> _Regions:
    squares = [layer.square for layer in crops if layer.square is not None]
    ends = np.cumsum([len(square.points) for square in squares])
    corners = np.array([square.corners for square in squares], np.int64)
    points = np.concatenate([square.points for square in squares])
    return _Regions(points, ends, corners, squares[0].room, crops[0].side, float(scale))
