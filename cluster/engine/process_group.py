"""This process among the workers: its rank, the world size, and its one torch process group.

Every listener binds to the address that the caller names (127.0.0.1 for a run on one machine): torch's own store
would listen on all interfaces.
"""

from __future__ import annotations

import gc
import os
import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from configs import InputError

LOOPBACK = "127.0.0.1"
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, kw_only=True)
class Place:
    """This worker's place: its rank among all ``world`` workers, and among the ``local_world`` workers of its machine."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1
    host: str = LOOPBACK  # where rank 0 listens
    port: int = 0  # of rank 0's store


def listen(host: str = LOOPBACK) -> socket.socket:
    """A listening socket for rank 0's store on ``host`` alone; its port is ``getsockname()[1]``."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind((host, 0))
    listener.listen(1024)
    return listener


def connect(place: Place, backend: str, listener: socket.socket | None = None, timeout: float = 1800.0) -> None:
    """Join the process group.

    Args:
        place: this worker's place.
        backend: ``gloo`` or ``nccl`` (then CPU tensors still go through gloo).
        listener: rank 0's socket from :func:`listen`; None on the other ranks.
        timeout: seconds after which a collective that misses a peer fails; joining waits for at most 300 s of it.

    Raises:
        InputError: the address cannot be reached, or a peer did not join in time.
    """
    import torch.distributed as dist

    _environment(place)
    arguments: dict[str, Any] = {"master_listen_fd": listener.detach()} if listener is not None else {}
    try:
        store = dist.TCPStore(
            place.host,
            place.port,
            place.world,
            is_master=listener is not None,
            timeout=timedelta(seconds=min(timeout, 300)),
            **arguments,
        )
        name = "cpu:gloo,cuda:nccl" if backend == "nccl" else backend
        dist.init_process_group(
            name, store=store, rank=place.rank, world_size=place.world, timeout=timedelta(seconds=timeout)
        )
    except RuntimeError as error:
        _leave_environment()
        raise InputError(
            f"rank {place.rank} of {place.world} could not join the process group at {place.host}:{place.port} "
            f"({str(error).splitlines()[0]}); check that the workers' machines can reach that address"
        ) from error


def alone(backend: str) -> None:
    """A process group of one, for engines that insist on one; it listens nowhere."""
    import torch.distributed as dist

    _environment(Place())
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if backend == "nccl" else backend, store=dist.HashStore(), rank=0, world_size=1
    )


def disconnect() -> None:
    """Leave the process group, if any."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
        _leave_environment()
        # Wrapped models in reference cycles hold the group's threads; collected at the interpreter's end they may abort it.
        gc.collect()


def is_broken(error: RuntimeError) -> bool:
    """Whether an error may be that of a collective whose peer is gone; gloo raises plain ``RuntimeError``."""
    import torch.distributed as dist

    return type(error) is RuntimeError or (dist.is_available() and isinstance(error, dist.DistError))


def current() -> tuple[int, int]:
    """(rank, world size) of this process, (0, 1) without a process group."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def _environment(place: Place) -> None:
    # Accelerate and DeepSpeed read their rank from the environment, whatever the process group says.
    values = (place.rank, place.world, place.local_rank, place.local_world, place.host, place.port)
    os.environ.update(zip(VARIABLES, map(str, values), strict=True))
    interface = _interface(place.host)
    if interface:
        # Gloo and NCCL otherwise choose an interface by the host name, which may be a public one.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", interface)


def _leave_environment() -> None:
    """A process that trains alone afterwards would otherwise wait there for the others."""
    for name in VARIABLES:
        os.environ.pop(name, None)


def _interface(host: str) -> str | None:
    """The name of the loopback interface when the run stays on this machine; None leaves the choice to the library."""
    if host != LOOPBACK:
        return None
    names = [name for _, name in socket.if_nameindex()]
    return next((name for name in ("lo", "lo0") if name in names), None)


def share(number: int) -> int:
    """Rank 0's ``number`` (int64), on every rank. Collective."""
    import torch
    import torch.distributed as dist

    if current()[1] == 1:
        return number
    value = torch.tensor([number], dtype=torch.int64)
    dist.broadcast(value, src=0)
    return int(value.item())


def smallest(number: int) -> int:
    """The smallest number over the ranks, on every rank. Collective."""
    import torch
    import torch.distributed as dist

    if current()[1] == 1:
        return number
    value = torch.tensor([number], dtype=torch.int64)
    dist.all_reduce(value, op=dist.ReduceOp.MIN)
    return int(value.item())
