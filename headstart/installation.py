"""What is installed, what will be used, what is missing and how to install it.

Nothing heavy but torch is imported: packages are looked up in the installation's metadata, so the answer comes in a
second or two.
A missing optional package is not a fault (``ok`` stays true and ``fix`` says how to install it). A broken one is, and so
is one that is missing on a machine that could use it.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cluster.registry import mlflow_client, spool
from cluster.storage import storage
from cluster.storage.remote import request
from heads.raster.registry import rendering_check

MEDIAPIPE = "0.10.21"  # the last one whose wheel holds its models
FREE_GB = 5.0  # least free space, 10^9 bytes


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the report."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


def doctor() -> dict[str, object]:
    """``{"ok", "checks": [{"name", "ok", "detail", "fix"}]}``; ``ok`` is whether every check is."""
    checks = [asdict(_safely(check)) for check in CHECKS]
    return {"ok": all(check["ok"] for check in checks), "checks": checks}


def _safely(check: Callable[[], Check]) -> Check:
    try:
        return check()
    except Exception as error:
        # The doctor must also answer on a broken machine.
        name = check.__name__.removeprefix("check_")
        return Check(name=name, ok=False, detail=f"{type(error).__name__}: {error}", fix="see the detail")


# ------------------------------------------------------------------------------------------------ this machine


def check_python() -> Check:
    """Python's version and the machine."""
    ok = (3, 10) <= sys.version_info[:2] < (3, 13)
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return Check(name="python", ok=ok, detail=detail, fix="" if ok else "use Python 3.10, 3.11 or 3.12")


def check_torch() -> Check:
    """Torch, and the kernels that run without a GPU."""
    if installed("torch") is None:
        return Check(name="torch", ok=False, detail="absent", fix="pip install headstart")
    numba = installed("numba")
    detail = f"torch {installed('torch')}, numba {numba or 'absent'} (CPU rasteriser)"
    return Check(name="torch", ok=numba is not None, detail=detail, fix="" if numba else "pip install numba")


def check_gpu() -> Check:
    """GPUs that torch can use."""
    import torch

    if torch.cuda.is_available():
        names = [
            f"{torch.cuda.get_device_name(i)} ({torch.cuda.get_device_properties(i).total_memory / 2**30:.0f} GiB)"
            for i in range(torch.cuda.device_count())
        ]
        return Check(name="gpu", ok=True, detail=f"{len(names)}: {', '.join(names)}; CUDA {torch.version.cuda}")
    if shutil.which("nvidia-smi"):
        fix = "pip install torch from https://download.pytorch.org/whl/ for your CUDA version"
        return Check(name="gpu", ok=False, detail="a driver is here, but torch sees no GPU", fix=fix)
    return Check(name="gpu", ok=True, detail="none; everything runs on the CPU, smaller", fix="")


def check_nccl() -> Check:
    """How several workers communicate."""
    import torch
    import torch.distributed as dist

    gloo = "gloo (CPU)" if dist.is_available() and dist.is_gloo_available() else "no gloo"
    if not torch.cuda.is_available():
        return Check(name="nccl", ok=dist.is_available(), detail=f"not needed without a GPU; workers use {gloo}")
    ok = dist.is_nccl_available()
    numbers = ".".join(map(str, torch.cuda.nccl.version())) if ok else "absent"
    return Check(name="nccl", ok=ok, detail=f"NCCL {numbers}, {gloo}", fix="" if ok else "install torch's CUDA build")


def check_disk() -> Check:
    """Free space for caches, runs and temporary files."""
    places = {
        "home": _existing(storage.home()),
        "here": Path.cwd(),
        "temporary": Path(os.environ.get("TMPDIR", "/tmp")),
    }
    free = {name: shutil.disk_usage(path).free / 1e9 for name, path in places.items()}
    shared = shutil.disk_usage("/dev/shm").free / 1e9 if Path("/dev/shm").is_dir() else None
    detail = ", ".join(f"{name} {gigabytes:.0f} GB free" for name, gigabytes in free.items())
    detail += f", shared memory {shared:.1f} GB" if shared is not None else ""
    ok = min(free.values()) >= FREE_GB
    low = min(free, key=lambda name: free[name])
    fix = "" if ok else f"free {FREE_GB:.0f} GB at {places[low]}, or set HEADSTART_HOME and TMPDIR to larger disks"
    return Check(name="disk", ok=ok, detail=detail, fix=fix)


# ------------------------------------------------------------------------------------------------ engines


def check_gsplat() -> Check:
    """The GPU rasteriser."""
    return _for_gpu("gsplat", "headstart[gpu]", "our own rasteriser is used", needs_compiler=True)


def check_tinycudann() -> Check:
    """The GPU hash encoding, which is not on the package index."""
    import torch

    if _has_module("tinycudann"):
        return Check(name="tinycudann", ok=True, detail="present; used for encodings on the GPU")
    fix = "pip install git+https://github.com/NVlabs/tiny-cuda-nn/#subdirectory=bindings/torch"
    detail = "absent; the PyTorch encoding of the same values is used"
    return Check(name="tinycudann", ok=True, detail=detail, fix=fix if torch.cuda.is_available() else "")


def check_mediapipe() -> Check:
    """The face tracker and the models inside its wheel."""
    found, spec = installed("mediapipe"), importlib.util.find_spec("mediapipe")
    fix = f'pip install "mediapipe=={MEDIAPIPE}" "numpy<2" "protobuf<5"'
    if found is None or spec is None or spec.origin is None:
        return Check(
            name="mediapipe", ok=True, detail="absent; videos cannot be tracked, datasets can be read", fix=fix
        )
    model = Path(spec.origin).parent / "modules" / "face_landmark" / "face_landmark_with_attention.tflite"
    if not model.is_file():
        detail = f"{found}, whose wheel holds no models; the last one that does is {MEDIAPIPE}"
        return Check(name="mediapipe", ok=False, detail=detail, fix=fix)
    return Check(name="mediapipe", ok=True, detail=f"{found} with its models")


def check_ray() -> Check:
    """Starting workers, here or on a cluster."""
    address = os.environ.get("RAY_ADDRESS")
    where = f"RAY_ADDRESS names {address}" if address else "each run starts its own on the loopback"
    return _optional("ray", "ray", "headstart[cluster]", where, "only --no-ray works")


def check_accelerate() -> Check:
    """The engine under plain, DDP and ZeRO."""
    return _optional("accelerate", "accelerate", "headstart[cluster]", "plain and ddp", "priors cannot be trained")


def check_deepspeed() -> Check:
    """ZeRO 1-3."""
    return _optional(
        "deepspeed", "deepspeed", "headstart[cluster]", "zero1, zero2, zero3", "engine.mode is plain or ddp"
    )


def check_speech() -> Check:
    """Speech features: Whisper, wav2vec2, HuBERT, WavLM."""
    return _optional(
        "speech encoders",
        "transformers",
        "headstart[speech]",
        "whisper, wav2vec2, hubert, wavlm",
        "log-mel features only",
    )


def check_live() -> Check:
    """The web server of the live page."""
    speech = (
        "typed text is spoken by espeak-ng" if shutil.which("espeak-ng") else "no espeak-ng: text needs --tts COMMAND"
    )
    return _optional(
        "live page", "aiohttp", "headstart[live]", f"headstart live; {speech}", "headstart live does not run"
    )


def check_rendering() -> Check:
    """Which backend will render."""
    found = rendering_check()
    return Check(name="rendering", ok=bool(found["ok"]), detail=str(found["detail"]), fix=str(found["fix"]))


# ------------------------------------------------------------------------------------------------ services


def check_s3() -> Check:
    """The object store that the environment names; the values of credentials are never shown."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    keys = "AWS_ACCESS_KEY_ID" in os.environ or "AWS_PROFILE" in os.environ
    if not _has_module("s3fs"):
        return Check(
            name="s3", ok=True, detail="s3fs absent; s3:// URLs do not work", fix='pip install "headstart[cluster]"'
        )
    if not endpoint and not keys:
        fix = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_ENDPOINT_URL for your own store) to use s3://"
        return Check(name="s3", ok=True, detail=f"s3fs {installed('s3fs')}; not configured", fix=fix)
    shown = mlflow_client.without_password(endpoint or "Amazon's")
    try:
        _ask_store()
    except storage.StorageError as error:
        return Check(
            name="s3", ok=False, detail=f"{shown}: {error}", fix="correct AWS_ENDPOINT_URL and the credentials"
        )
    credentials = "credentials in the environment" if keys else "no credentials in the environment"
    return Check(name="s3", ok=True, detail=f"{shown} answers; {credentials}")


def _ask_store() -> None:
    before = {name: os.environ.get(name) for name in ("HEADSTART_STORAGE_RETRIES", "HEADSTART_STORAGE_TIMEOUT")}
    os.environ.update(HEADSTART_STORAGE_RETRIES="1", HEADSTART_STORAGE_TIMEOUT="5")
    try:
        request("s3://", "list the buckets of", lambda fs, path: fs.ls("", refresh=True))
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def check_mlflow() -> Check:
    """The registry, and the metrics that wait to be sent to it."""
    found, uri = installed("mlflow"), mlflow_client.shown_uri()
    if found is None:
        fix = 'pip install "headstart[cluster]"'
        return Check(name="mlflow", ok=True, detail="absent; no registry, priors are used by folder", fix=fix)
    if not mlflow_client.reachable():
        fix = "start the server, correct MLFLOW_TRACKING_URI, or unset it; trainings go on and send later"
        return Check(name="mlflow", ok=False, detail=f"{found}; nobody answers at {uri}", fix=fix)
    if wrong := mlflow_client.trouble():
        fix = "correct MLFLOW_TRACKING_URI, or unset it for the embedded registry"
        return Check(name="mlflow", ok=False, detail=f"{found}; {wrong}", fix=fix)
    waiting = spool.waiting()
    detail = f"{found}; registry at {uri}" + (f"; {len(waiting)} trainings have metrics to send" if waiting else "")
    return Check(
        name="mlflow", ok=True, detail=detail, fix="python -m cluster.registry.spool sends them" if waiting else ""
    )


# ------------------------------------------------------------------------------------------------ looking


def installed(package: str) -> str | None:
    """The version of an installed distribution, or ``None``."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _has_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _optional(name: str, package: str, extra: str, used: str, without: str) -> Check:
    found = installed(package)
    if found is None:
        return Check(name=name, ok=True, detail=f"absent; {without}", fix=f'pip install "{extra}"')
    return Check(name=name, ok=True, detail=f"{found}; {used}")


def _for_gpu(package: str, extra: str, without: str, *, needs_compiler: bool) -> Check:
    import torch

    found, gpu = installed(package), torch.cuda.is_available()
    if found is None:
        return Check(name=package, ok=not gpu, detail=f"absent; {without}", fix=f'pip install "{extra}"' if gpu else "")
    if not gpu:
        return Check(name=package, ok=True, detail=f"{found}; not used without a GPU, {without}")
    if needs_compiler and not shutil.which("nvcc"):
        fix = "install the CUDA toolkit of torch's CUDA version and put nvcc on PATH, or a prebuilt wheel"
        return Check(
            name=package, ok=True, detail=f"{found}; nvcc is not on PATH, needed to build its kernels", fix=fix
        )
    return Check(name=package, ok=True, detail=f"{found}; used on the GPU")


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


CHECKS: tuple[Callable[[], Check], ...] = (
    check_python,
    check_torch,
    check_gpu,
    check_nccl,
    check_gsplat,
    check_tinycudann,
    check_mediapipe,
    check_speech,
    check_live,
    check_ray,
    check_accelerate,
    check_deepspeed,
    check_s3,
    check_mlflow,
    check_disk,
    check_rendering,
)
