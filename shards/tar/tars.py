"""The one module that uses webdataset: writing tars, streaming them, and the pipeline under the reader.

Shards are plain WebDataset: ``webdataset.WebDataset(glob.glob("shards/*.tar"))`` reads them without Headstart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from cluster.storage import storage
from configs import InputError
from shards.format.index import WholeTar


class TarFile:
    """A tar being written; the same members give the same bytes (no clock, no user name)."""

    def __init__(self, path: Path) -> None:
        from webdataset import TarWriter

        self._stream: BinaryIO = open(path, "wb")  # noqa: SIM115  (closed in close)
        # mtime is an integer: a fraction would give every member a PAX header, 1,024 bytes more.
        self._tar = TarWriter(self._stream, encoder=False, user="headstart", group="headstart", mtime=0)

    def write(self, key: str, members: Mapping[str, bytes]) -> None:
        """Append members; several calls with one key are one sample as long as no other key comes between."""
        self._tar.write({"__key__": key, **members})

    def tell(self) -> int:
        """Bytes so far."""
        return self._stream.tell()

    def close(self) -> None:
        """Finish the tar."""
        self._tar.close()
        self._stream.close()

    def abandon(self) -> None:
        """Close a tar that will not be read; a full disk does not matter any more."""
        with suppress(OSError):
            self._tar.close()
        with suppress(OSError):
            self._stream.close()


def stream_samples(url: str) -> Iterator[dict[str, object]]:
    """All samples of a tar in file order, as webdataset groups them: ``{"__key__", "f000.jpg": bytes, ...}``.

    Memory holds one sample; remote tars are streamed.

    Raises:
        InputError: not a tar, truncated (its last sample is then not given), or duplicate members.
    """
    import tarfile

    from webdataset.tariterators import group_by_keys

    with storage.open_read(url) as stream:
        try:
            yield from group_by_keys(_files(WholeTar(stream, url), url))
        except (tarfile.TarError, ValueError, EOFError) as error:
            raise InputError(f"{url}: not a readable shard ({error}); fetch or build it again") from None


def _files(stream: WholeTar, url: str) -> Iterator[dict[str, object]]:
    from webdataset.tariterators import tar_file_iterator

    for file in tar_file_iterator(stream, skip_meta=None):
        yield {**file, "__url__": url}
    stream.check_end()  # before webdataset takes what it has of the last sample for all of it


def sample_name(member: str) -> tuple[str | None, str | None]:
    """Key and suffix of a member, split as webdataset splits them; (None, None) for what belongs to no sample."""
    from webdataset.tariterators import base_plus_ext

    return base_plus_ext(member)


def expand_braces(pattern: str) -> list[str]:
    """The URLs that webdataset reads for a pattern such as ``data-{000..010}.tar``."""
    from webdataset.shardlists import expand_urls

    return list(expand_urls(pattern))


def pipeline(*stages: Callable[..., Iterator[object]]) -> object:
    """A webdataset pipeline of generator stages: an iterable dataset for :func:`loader`."""
    from webdataset import DataPipeline

    return DataPipeline(*stages)


def loader(dataset: object, workers: int, prefetch: int) -> Any:
    """The pipeline, run here (``workers=0``) or by DataLoader worker processes that each hold ``prefetch`` batches."""
    if workers == 0:
        return dataset
    from webdataset import WebLoader

    return WebLoader(dataset, batch_size=None, num_workers=workers, prefetch_factor=prefetch)


def worker() -> tuple[int, int]:
    """Number of this DataLoader worker, and how many there are; ``(0, 1)`` outside a worker."""
    from torch.utils.data import get_worker_info

    info = get_worker_info()
    return (0, 1) if info is None else (info.id, info.num_workers)
