"""LPIPS perceptual distance from weight files that the user provides; nothing is downloaded.

Two files are needed: the ImageNet backbone (torchvision's ``vgg16-397923af.pth`` or ``alexnet-owt-7be5be79.pth``, or
the same tensors as safetensors) and the linear layers of LPIPS v0.1 (``vgg.pth`` / ``alex.pth`` of the authors'
repository). Source: Zhang et al., *The Unreasonable Effectiveness of Deep Features* (2018), eq. 1.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor, nn

from configs import InputError

# VGG16: (index in torchvision's Sequential, channels in, channels out, max-pool before, tap after)
_VGG = [
    *[(0, 3, 64, False, False), (2, 64, 64, False, True), (5, 64, 128, True, False), (7, 128, 128, False, True)],
    *[(10, 128, 256, True, False), (12, 256, 256, False, False), (14, 256, 256, False, True)],
    *[(17, 256, 512, True, False), (19, 512, 512, False, False), (21, 512, 512, False, True)],
    *[(24, 512, 512, True, False), (26, 512, 512, False, False), (28, 512, 512, False, True)],
]
# AlexNet: (index, channels in, channels out, kernel, stride, padding, max-pool before); every layer is tapped.
_ALEX = [(0, 3, 64, 11, 4, 2, False), (3, 64, 192, 5, 1, 2, True), (6, 192, 384, 3, 1, 1, True)]
_ALEX += [(8, 384, 256, 3, 1, 1, False), (10, 256, 256, 3, 1, 1, False)]
CHANNELS = {"vgg": (64, 128, 256, 512, 512), "alex": (64, 192, 384, 256, 256)}


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a ``.safetensors`` or PyTorch file; a pickle that would run code is refused.

    Raises:
        InputError: missing file, unreadable file, or a pickle that holds more than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"weights '{path}': no such file; give the path of a .safetensors or .pth file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(str(path))
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"weights '{path}': the file holds more than tensors and would run code when loaded; "
            "save the plain state dictionary, or convert it to .safetensors"
        ) from None
    except Exception as error:
        raise InputError(f"weights '{path}': not readable ({' '.join(str(error).split())[:120]})") from None
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise InputError(f"weights '{path}': expected a dictionary of tensors; save model.state_dict()")
    return weights


class LPIPS(nn.Module):
    """Perceptual distance of images: ``LPIPS(backbone_file, linear_file)(image, target) -> [B]``; 0 for equal images.

    The network, VGG16 or AlexNet, is recognised by the backbone's tensors. Parameters are frozen.

    Raises:
        InputError: files that cannot be read, lack a tensor or belong to different networks.
    """

    shift: Tensor
    spread: Tensor

    def __init__(self, backbone: str | Path, linear: str | Path) -> None:
        super().__init__()
        weights, lines = load_weights(backbone), load_weights(linear)
        self.network = _network_of(weights, backbone)
        self.layers, self.pools, self.taps = _backbone(self.network)
        for layer, (number, *_) in zip(self.layers, _VGG if self.network == "vgg" else _ALEX):
            for name, parameter in layer.named_parameters():
                _fill(parameter, weights, f"features.{number}.{name}", backbone)
        self.lines = nn.ParameterList(torch.empty(1, c, 1, 1) for c in CHANNELS[self.network])
        for i, line in enumerate(self.lines):
            _fill(line, lines, f"lin{i}.model.1.weight", linear)
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1))
        self.register_buffer("spread", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1))
        self.requires_grad_(False)

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        """Distances ``[B]`` of RGB images ``[B, H, W, 3]`` (or one ``[H, W, 3]``) in [0, 1]; differentiable.

        Raises:
            ValueError: shapes that differ, or images smaller than 32 px (the deepest layer would be empty).
        """
        image, target = (x if x.dim() == 4 else x[None] for x in (image, target))
        if image.shape != target.shape or image.shape[-1] != 3 or min(image.shape[1:3]) < 32:
            raise ValueError(
                f"LPIPS: expected two RGB images [B, H, W, 3] of at least 32 px, "
                f"got {tuple(image.shape)} and {tuple(target.shape)}"
            )
        total = image.new_zeros(len(image))
        for line, a, b in zip(self.lines, self.activations(image), self.activations(target)):
            total = total + ((_unit(a) - _unit(b)).square() * line).sum(dim=1).mean(dim=(1, 2))
        return total

    def activations(self, image: Tensor) -> list[Tensor]:
        """Activations ``[B, C, h, w]`` of the five compared layers, for images ``[B, H, W, 3]`` in [0, 1]."""
        x = (image.permute(0, 3, 1, 2) * 2 - 1 - self.shift) / self.spread
        found = []
        for layer, pool, tap in zip(self.layers, self.pools, self.taps):
            x = nn.functional.max_pool2d(x, *((2, 2) if self.network == "vgg" else (3, 2))) if pool else x
            x = torch.relu(layer(x))
            if tap:
                found.append(x)
        return found


def _unit(x: Tensor) -> Tensor:
    return x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)


def _network_of(weights: dict[str, Tensor], path: str | Path) -> str:
    first = weights.get("features.0.weight")
    for network, shape in (("vgg", (64, 3, 3, 3)), ("alex", (64, 3, 11, 11))):
        if first is not None and tuple(first.shape) == shape:
            return network
    got = "no such tensor" if first is None else f"shape {tuple(first.shape)}"
    raise InputError(
        f"LPIPS backbone '{path}': features.0.weight: got {got}, expected VGG16's (64, 3, 3, 3) or AlexNet's "
        "(64, 3, 11, 11); give torchvision's vgg16 or alexnet weights"
    )


def _backbone(network: str) -> tuple[nn.ModuleList, list[bool], list[bool]]:
    if network == "vgg":
        return (
            nn.ModuleList(nn.Conv2d(n_in, n_out, 3, padding=1) for _, n_in, n_out, _, _ in _VGG),
            [pool for *_, pool, _ in _VGG],
            [tap for *_, tap in _VGG],
        )
    return nn.ModuleList(nn.Conv2d(*row[1:6]) for row in _ALEX), [row[6] for row in _ALEX], [True] * len(_ALEX)


def _fill(parameter: Tensor, weights: dict[str, Tensor], key: str, path: str | Path) -> None:
    value = weights.get(key)
    if value is None or value.shape != parameter.shape:
        got = "no such tensor" if value is None else f"shape {tuple(value.shape)}"
        raise InputError(f"weights '{path}': {key}: got {got}, expected shape {tuple(parameter.shape)}")
    with torch.no_grad():
        parameter.copy_(value)
