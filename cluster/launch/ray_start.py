"""Connecting to Ray: a private one on the loopback, or a running cluster."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
from types import ModuleType
from typing import TYPE_CHECKING

from cluster.engine import process_group
from cluster.launch import ray_private
from cluster.launch.settings import ClusterConfig
from cluster.storage.retry import brief
from configs import InputError

if TYPE_CHECKING:
    import psutil

# Ray's sockets lie below its temporary folder, and Linux allows their names 107 bytes (sun_path in sys/un.h).
SOCKET, LONGEST_SOCKET = "/ray/session_2026-11-30_21-44-15_108622_4194304/sockets/plasma_store", 107
STARTS = 3  # attempts to start a private Ray
log = logging.getLogger("headstart.launch")


def connect(settings: ClusterConfig) -> tuple[ModuleType, bool]:
    """``(ray, owned)``: a private Ray of this process, or the cluster at ``settings.address``.

    A Ray that this process is connected to already is used as it is.

    Raises:
        InputError: Ray is not installed, or nothing answers at the address.
    """
    already = sys.modules.get("ray")
    if already is not None and already.is_initialized():
        return already, False
    prepare_environment(settings, imported=already is not None)
    try:
        import ray
    except ImportError as error:
        raise InputError(f"several workers need Ray, which is absent ({error}); install headstart[cluster]") from None
    try:
        if settings.address:
            check_reachable(settings.address)
            ray.init(address=settings.address, logging_level=logging.WARNING, log_to_driver=not settings.quiet)
        else:
            _start_private(ray, settings)
    except InputError:
        raise
    except Exception as error:
        raise InputError(_no_ray(settings, error)) from error
    return ray, not settings.address


def _no_ray(settings: ClusterConfig, error: Exception) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    if settings.address:
        return f"no Ray at {settings.address} ({type(error).__name__}: {first}); check the address and RAY_AUTH_TOKEN"
    if "AF_UNIX" in first:
        return (
            f"Ray's temporary folder has too long a path ({first}); set RAY_TMPDIR to a folder of at most "
            f"{LONGEST_SOCKET - len(SOCKET)} characters"
        )
    return f"Ray does not start on this machine ({type(error).__name__}: {first}); one worker trains with --no-ray"


def check_reachable(address: str) -> None:
    """Try one connection first: Ray itself would try for minutes and log every attempt.

    Raises:
        InputError: nothing listens there.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # "auto" and the like: Ray looks for itself, and is quick about it
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"address '{address}': no Ray cluster answers ({why}); start one with 'ray start --head', or correct the address"
        ) from None


def prepare_environment(settings: ClusterConfig, imported: bool) -> None:
    """Set the variables that Ray reads when it is imported and when its processes start; the user's own win.

    Args:
        settings: of the run; without ``address`` the variables confine a private Ray to the loopback, with a token.
        imported: whether Ray is imported already.

    Raises:
        InputError: Ray is imported already, too late to confine a private one.
    """
    private = not settings.address
    if private and imported and os.environ.get("RAY_AUTH_MODE") != "token":
        raise InputError(
            "Ray was imported before this launch, too late to confine it to the loopback with a token; "
            "launch first, or call ray.init yourself and that Ray is used"
        )
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")  # else every failure is noticed 2 s later
    os.environ.setdefault(ray_private.START_TIMEOUT, str(settings.start_timeout))
    os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")  # it prints what goes to stderr twice
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # relative paths mean what they meant to the user
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # inherited by the workers, which import torch early
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if settings.quiet:
        os.environ.setdefault("RAY_COLOR_PREFIX", "0")
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "error")
        for name in ("ray", "ray.train", "ray.data"):
            logging.getLogger(name).setLevel(logging.WARNING)
    if private:
        folder = os.environ.get("TMPDIR", "")
        if "RAY_TMPDIR" not in os.environ and len(os.fsencode(folder + SOCKET)) > LONGEST_SOCKET:
            os.environ["RAY_TMPDIR"] = "/tmp"  # TMPDIR of a batch system, such as /scratch/users/ann/job-1234567/tmp
        # Ray's own default is 15: beside any ordinary process a worker then gets a thirtieth of a core.
        os.environ.setdefault("RAY_worker_niceness", "0")  # added to the command's own, which Ray's processes inherit
        # Without this Ray advertises the machine's address and several of its servers listen on all interfaces.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # one machine: SIGTERM reaches the driver
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def _start_private(ray: ModuleType, settings: ClusterConfig) -> None:
    for attempt in range(STARTS):
        before = _children()
        try:
            return _start_once(ray, settings)
        except Exception as error:
            # Ray allows its own processes 30 s to start, too little on a busy machine, and leaves them running.
            ray.shutdown()
            for process in _children() - before:
                process.kill()
            if attempt + 1 == STARTS or "timed out" not in str(error).lower():
                raise
            log.warning("Ray did not start in time (%s); trying again", brief(error))


def _children() -> set[psutil.Process]:
    """Processes below this one; Ray has psutil among its own requirements."""
    import psutil

    return set(psutil.Process().children(recursive=True))


def _start_once(ray: ModuleType, settings: ClusterConfig) -> None:
    with ray_private.few_processes(settings.dashboard, logs=not settings.quiet):
        _init(ray, settings)


def _init(ray: ModuleType, settings: ClusterConfig) -> None:
    ray.init(
        address="local",
        # Of Ray's count, not of the machine: the spare process reserves as much as a worker, and needs it only in its place.
        num_cpus=max(os.cpu_count() or 1, (settings.workers + settings.spare) * settings.cpus),
        include_dashboard=settings.dashboard,
        dashboard_host=process_group.LOOPBACK,
        object_store_memory=settings.object_store_mb * 2**20,
        logging_level=logging.WARNING,
        log_to_driver=not settings.quiet,
        _node_ip_address=process_group.LOOPBACK,
        # Our few actors start on demand; prestarted idle workers would compete for the cores.
        _system_config={"enable_worker_prestart": False, "prestart_worker_first_driver": False},
    )
