"""An exported head in other programs and in Headstart's renderer: one camera, pictures side by side, PSNR.

    python -m benchmarks readers --packages DIR [--avatar FOLDER] [--picture FILE.jpg]

``DIR`` holds the npm packages of ``tests/adapt/export/package.json``. Spark and three.js draw in a headless Chromium by
WebGL in software. splat-transform draws by Vulkan, with Chromium's SwiftShader unless ``VK_ICD_FILENAMES`` names another
driver. Without ``--avatar`` a generated talker is adapted first.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from adapt.avatar.avatar import load_avatar
from adapt.avatar.export import Cloud
from adapt.export import export, still_cloud
from benchmarks import chromium
from benchmarks.outputs.web import generated_avatar
from benchmarks.results import row, write
from heads.measures.image import psnr
from heads.raster.api import rasterization

SIDE, FOV = 480, 30.0  # px, degrees
# In metres and OpenGL axes: in front of the face, a little below the eyes.
CAMERA, TARGET = (0.0, -0.03, 0.6), (0.0, -0.03, 0.0)
OURS = "Headstart"
IN_BROWSER = {"spark": ("Spark", (".ply", ".spz")), "three": ("three.js", (".ply", ".glb", ".spz"))}
SPLAT_TRANSFORM = "splat-transform", (".ply", ".spz")
SUFFIXES = (".ply", ".glb", ".spz")
SOFTWARE_VULKAN = Path("/usr/lib/chromium/vk_swiftshader_icd.json")
PANEL, CAPTION, ACROSS = 240, 22, 4  # px, px, pictures
VARIABLE = "HEADSTART_NODE_READERS"


def main(arguments: list[str] | None = None) -> None:
    """Measure, write ``results/readers.json`` and the picture."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks readers")
    parser.add_argument("--packages", type=Path, default=os.environ.get(VARIABLE), help=f"default: ${VARIABLE}")
    parser.add_argument("--avatar", type=Path, help="folder of the avatar (default: a generated talker, adapted now)")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="all readers side by side")
    options = parser.parse_args(arguments)
    if options.packages is None:
        print(f"not measured: no readers; install tests/adapt/export/package.json, then --packages DIR or {VARIABLE}")
        return
    with tempfile.TemporaryDirectory(prefix="headstart-readers-") as place:
        folder = options.avatar or generated_avatar(Path(place))
        files = {suffix: Path(place) / f"head{suffix}" for suffix in SUFFIXES}
        for path in files.values():
            export(folder, path)
        cloud = still_cloud(load_avatar(folder, "cpu"))
        seen = pictures(cloud, files, options.packages)
    if options.picture is not None:
        sheet(seen).save(options.picture, quality=90)
    case = f"{cloud.n} Gaussians, {SIDE} px, neutral head"
    rows = [
        row(case, f"{name}: PSNR against {OURS}'s picture", psnr(picture / 255, seen[OURS] / 255), "dB")
        for name, picture in seen.items()
        if name != OURS
    ]
    named = [] if options.avatar is None else ["--avatar", options.avatar.name]
    write(
        "readers",
        rows,
        f"camera 0.6 m in front of the face, {FOV:g} degrees, white ground",
        command=" ".join(["readers", *named]),
    )


def pictures(cloud: Cloud, files: Mapping[str, Path], packages: Path) -> dict[str, np.ndarray]:
    """Pictures ``[SIDE, SIDE, 3]`` uint8 by reader and suffix, Headstart's own first.

    Args:
        cloud: what is in the files, in OpenCV axes.
        files: suffix to exported file.
        packages: folder that holds ``node_modules``.

    Raises:
        RuntimeError: a reader that fails.
    """
    seen = {OURS: drawn(cloud)}
    seen |= asyncio.run(_in_browser(files, packages))
    name, suffixes = SPLAT_TRANSFORM
    return seen | {f"{name} {suffix}": _by_splat_transform(files[suffix], packages) for suffix in suffixes}


def drawn(cloud: Cloud) -> np.ndarray:
    """Headstart's picture ``[SIDE, SIDE, 3]`` uint8 of a cloud in OpenCV axes, on white ground."""
    x, y, z = CAMERA
    view = torch.eye(4)
    view[:3, 3] = torch.tensor([-x, y, z])  # minus the camera's place (x, -y, -z)
    focal = SIDE / 2 / np.tan(np.radians(FOV) / 2)
    lens = torch.tensor([[focal, 0, SIDE / 2], [0, focal, SIDE / 2], [0, 0, 1]], dtype=torch.float32)
    parts = (torch.from_numpy(part) for part in (cloud.means, cloud.quats, cloud.scales, cloud.opacities, cloud.colors))
    image, _, _ = rasterization(*parts, view[None], lens[None], SIDE, SIDE, backgrounds=torch.ones(1, 3))
    return (image[0].clamp(0, 1) * 255).round().byte().numpy()


async def _in_browser(files: Mapping[str, Path], packages: Path) -> dict[str, np.ndarray]:
    """Pictures of Spark and three.js."""
    seen = {}
    view = json.dumps({"side": SIDE, "fov": FOV, "camera": CAMERA, "target": TARGET})
    with tempfile.TemporaryDirectory(prefix="headstart-readers-") as place:
        folder = Path(place)
        (folder / "node_modules").symlink_to((packages / "node_modules").resolve())
        shutil.copy(Path(__file__).with_suffix(".html"), folder / "index.html")
        for suffix, path in files.items():
            shutil.copy(path, folder / f"head{suffix}")
        with chromium.served(folder) as url:
            for reader, (name, suffixes) in IN_BROWSER.items():
                for suffix in suffixes:
                    async with chromium.opened(url) as page:  # a page a file: nothing is left of the one before
                        await page.until("self.pictureOf")
                        data = await page.run(f"pictureOf({reader!r}, 'head{suffix}', {view})")
                    seen[f"{name} {suffix}"] = np.frombuffer(base64.b64decode(data), np.uint8).reshape(SIDE, SIDE, 3)
    return seen


def _by_splat_transform(path: Path, packages: Path) -> np.ndarray:
    """splat-transform's picture; it takes all files for y-down, which half a turn about z undoes."""
    out = path.with_name(f"{path.name}.webp")
    program = packages / "node_modules/@playcanvas/splat-transform/bin/cli.mjs"
    place = {"--camera-pos": CAMERA, "--camera-target": TARGET, "--background": (1, 1, 1, 1)}
    camera = [word for name, numbers in place.items() for word in (name, ",".join(map(str, numbers)))]
    lens = ["--camera-fov", f"{FOV:g}", "--camera-near", "0.01", "--resolution", f"{SIDE}x{SIDE}"]
    command = ["node", program, "-q", "-w", path, "--rotate", "0,0,180", out, *camera, *lens]
    drivers = {"VK_ICD_FILENAMES": str(SOFTWARE_VULKAN)} if SOFTWARE_VULKAN.is_file() else {}
    done = subprocess.run(
        [str(word) for word in command], env=drivers | dict(os.environ), capture_output=True, text=True, check=False
    )
    if done.returncode or not out.is_file():
        raise RuntimeError(f"splat-transform draws no picture: {done.stderr[-500:]}")
    with Image.open(out) as image:
        return np.asarray(image.convert("RGB"))


def sheet(seen: Mapping[str, np.ndarray]) -> Image.Image:
    """The pictures in rows of ``ACROSS``, each with its name above."""
    rows = -(-len(seen) // ACROSS)
    whole = Image.new("RGB", (PANEL * ACROSS, (PANEL + CAPTION) * rows), "white")
    for i, (name, picture) in enumerate(seen.items()):
        left, top = i % ACROSS * PANEL, i // ACROSS * (PANEL + CAPTION)
        whole.paste(Image.fromarray(picture).resize((PANEL, PANEL), Image.Resampling.LANCZOS), (left, top + CAPTION))
        ImageDraw.Draw(whole).text((left + 6, top + 4), name, fill="black", font_size=13)
    return whole


if __name__ == "__main__":
    main(sys.argv[1:])
