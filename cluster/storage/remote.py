"""Requests to an object store through fsspec: deadlines, retries, ranged reads, multipart uploads."""

from __future__ import annotations

import io
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from cluster.storage.errors import StorageError, Url, sentence
from cluster.storage.retry import is_transient, retry

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

T = TypeVar("T")
Item = TypeVar("Item")
BLOCK = 8 * 2**20  # bytes of one ranged read and of one part of a multipart upload
MULTIPART_FROM = 2 * BLOCK
_known_buckets: set[str] = set()
PARALLEL = 4  # concurrent requests for one large file or one folder


def filesystem(url: Url) -> tuple[object, str]:
    """The fsspec filesystem of a URL and the path inside it; call again in a forked child."""
    import fsspec

    if is_s3(url) and not _bucket(url):
        raise StorageError(f"{url}: names no bucket; write s3://bucket/key")
    options = _s3_options() if is_s3(url) else {}
    try:
        fs, path = fsspec.core.url_to_fs(str(url), **options)
    except ImportError as error:
        raise StorageError(
            f"{url}: the package for this scheme is absent ({error}); install headstart[cluster]"
        ) from None
    except ValueError as error:
        raise StorageError(f"{url}: not a URL that can be opened ({error}); use a path or s3://bucket/key") from None
    if is_s3(url):
        fs.retries = 1  # retries are ours: one place that logs them and adds jitter
    return fs, path


def is_s3(url: Url) -> bool:
    """Whether the URL speaks the S3 protocol."""
    return str(url).startswith(("s3://", "s3a://"))


def _s3_options() -> dict[str, object]:
    config: dict[str, object] = {
        "connect_timeout": float(os.environ.get("HEADSTART_STORAGE_TIMEOUT", 20)),
        "read_timeout": float(os.environ.get("HEADSTART_STORAGE_TIMEOUT", 20)),
        "retries": {"total_max_attempts": 1},
        "max_pool_connections": 32,
    }
    variable = "AWS_ENDPOINT_URL_S3" if os.environ.get("AWS_ENDPOINT_URL_S3") else "AWS_ENDPOINT_URL"
    endpoint = os.environ.get(variable)
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise StorageError(f"{variable} is {endpoint}, expected an address that begins with http:// or https://")
    if endpoint:
        # Stores other than Amazon's rarely have bucket host names and often refuse trailing checksums.
        config["s3"] = {"addressing_style": "path"}
        config["request_checksum_calculation"] = "when_required"
        config["response_checksum_validation"] = "when_required"
    # The endpoint is passed although botocore would find it: fsspec caches one filesystem per set of options.
    return {
        "config_kwargs": config,
        "endpoint_url": endpoint,
        "use_listings_cache": False,
        "default_fill_cache": False,
    }


def request(url: Url, verb: str, action: Callable[[AbstractFileSystem, str], T]) -> T:
    """``action(filesystem, path)`` with retries; what still fails becomes a :class:`StorageError`."""
    fs, path = filesystem(url)
    try:
        return retry(lambda: action(fs, path), f"{verb} {url}")
    except StorageError:
        raise
    except Exception as error:
        if isinstance(error, FileNotFoundError):
            check_bucket(url)
        # A programming error keeps its traceback; only what the store or the network did becomes a sentence.
        known = type(error).__module__.split(".")[0] in ("botocore", "aiobotocore", "aiohttp", "fsspec")
        if isinstance(error, OSError | TimeoutError) or known or is_transient(error):
            raise sentence(url, verb, error) from error
        raise


def _bucket(url: Url) -> str:
    return str(url).partition("://")[2].partition("/")[0]


def check_bucket(url: Url) -> None:
    """Once something was not found in a bucket, prove that there is such a bucket; asks once for each bucket.

    Raises:
        StorageError: there is none.
    """
    bucket = _bucket(url)
    if not is_s3(url) or bucket in _known_buckets:
        return
    fs = filesystem(url)[0]
    asked = {"Bucket": bucket, "MaxKeys": 1}
    try:
        retry(lambda: call_with_deadline(fs, "_call_s3", 0, "list_objects_v2", asked), f"look for {bucket}")
    except FileNotFoundError:
        raise StorageError(
            f"{url}: there is no bucket {bucket}; check its name and AWS_ENDPOINT_URL, or create it"
        ) from None
    except Exception:  # such as 403: a policy may allow keys and not the list of them
        return
    _known_buckets.add(bucket)


def call_with_deadline(fs: AbstractFileSystem, method: str, length: int, *args: object) -> Any:
    """One request with a deadline for the whole response: a trickle of bytes never trips a socket timeout."""
    if not getattr(fs, "async_impl", False):
        return getattr(fs, method.removeprefix("_"))(*args)
    from fsspec.asyn import sync

    return sync(fs.loop, getattr(fs, method), *args, timeout=_deadline(length))


def _deadline(length: int) -> float:
    slowest = float(os.environ.get("HEADSTART_STORAGE_SLOWEST", 200_000))  # bytes a second below which we ask again
    return float(os.environ.get("HEADSTART_STORAGE_TIMEOUT", 20)) + length / slowest


def read_span(url: Url, start: int, end: int, *, whole: bool = False) -> bytes:
    """The bytes ``[start, end)`` in one request; a truncated body is requested again.

    With ``whole`` a short body is taken for the end of the file; checking its length would be a second request.
    """

    def action(fs: AbstractFileSystem, path: str) -> bytes:
        try:
            data = call_with_deadline(fs, "_cat_file", end - start, path, *((None,) if is_s3(url) else ()), start, end)
        except Exception as error:
            if _status(error) == 416 or "not satisfiable" in str(error):
                return b""  # wholly past the end, as for a local file
            raise
        if not whole and len(data) < end - start and start + len(data) < (total := fs.size(path)):
            raise EOFError(f"got {len(data)} of {min(end, total) - start} bytes from {start}")
        return data

    return request(url, "read", action)


def check_ranges(url: Url) -> None:
    """Prove that a web server supports ranged requests; one that does not sends the whole file for every block.

    Raises:
        StorageError: it does not.
    """
    if not str(url).startswith(("http://", "https://")):
        return
    asked = urllib.request.Request(str(url), headers={"Range": "bytes=0-0"})
    timeout = float(os.environ.get("HEADSTART_STORAGE_TIMEOUT", 20))

    def status() -> int:
        try:
            with urllib.request.urlopen(asked, timeout=timeout) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            if error.code in (404, 410):
                raise FileNotFoundError(str(url)) from None
            if error.code in (401, 403):
                raise PermissionError(str(url)) from None
            return 206 if error.code == 416 else error.code  # 416: empty, but ranges are understood

    got = request(url, "read", lambda fs, path: status())
    if got != 206:
        raise StorageError(
            f"cannot read {url}: the web server answers no ranged requests (status {got}); copy the file to a disk or a "
            "bucket, or serve it by another server"
        )


def names(fs: AbstractFileSystem, path: str) -> list[str]:
    """Names directly below a prefix."""
    try:
        return [
            name.rstrip("/").rsplit("/", 1)[-1]
            for name in fs.ls(path, detail=False, refresh=True)
            if name.strip("/") != path.strip("/")
        ]
    except FileNotFoundError:
        return []


def remove_tree(fs: AbstractFileSystem, path: str) -> None:
    """Remove every key below a prefix, if any."""
    with suppress(FileNotFoundError):
        # Key by key: the bulk request needs an MD5 header on Swift and older Ceph that botocore no longer sends.
        parallel(fs.rm_file, fs.find(path))


def _status(error: Exception) -> int | None:
    """The HTTP status behind an error, however deep s3fs wrapped it."""
    response = getattr(error, "response", None) or getattr(error.__cause__, "response", None) or {}
    return response.get("ResponseMetadata", {}).get("HTTPStatusCode")


def multipart(url: Url, total: int, read: Callable[[int, int], bytes]) -> None:
    """Upload in parts, each with its own retries; nothing is visible before the last request completes it."""
    part = max(BLOCK, -(-total // 9000))  # S3 allows 10,000 parts
    bucket, key = str(url).split("://", 1)[1].split("/", 1)
    common = {"Bucket": bucket, "Key": key}

    def call(method: str, length: int = 0, **arguments: object) -> Any:
        from fsspec.asyn import sync

        def action(fs: AbstractFileSystem, _: str) -> Any:
            return sync(fs.loop, fs._call_s3, method, timeout=_deadline(length), **common, **arguments)

        return request(url, "write", action)

    upload = call("create_multipart_upload")["UploadId"]

    def send(number: int) -> dict[str, object]:
        body = read(number * part, min(total, (number + 1) * part))
        sent = call("upload_part", len(body), UploadId=upload, PartNumber=number + 1, Body=body)
        return {"PartNumber": number + 1, "ETag": sent["ETag"]}

    try:
        parts = parallel(send, list(range(-(-total // part))))
        finish = partial(call, "complete_multipart_upload", UploadId=upload, MultipartUpload={"Parts": parts})
        _complete(url, total, finish)
    except BaseException:
        with suppress(Exception):
            call(
                "abort_multipart_upload", UploadId=upload
            )  # parts of an abandoned upload cost money until they are removed
        raise


def _complete(url: Url, total: int, action: Callable[[], object]) -> None:
    try:
        action()
    except StorageError:
        # The answer may be lost though the store did the work; a second request then says "no such upload".
        if not request(url, "look for", lambda fs, path: fs.exists(path) and fs.size(path) == total):
            raise


def parallel(action: Callable[[Item], T], items: list[Item]) -> list[T]:
    """``[action(item) for item in items]``, a few at once; the first error stops the rest."""
    if len(items) <= 1:
        return [action(item) for item in items]
    with ThreadPoolExecutor(min(PARALLEL, len(items)), thread_name_prefix="storage") as pool:
        futures = [pool.submit(action, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            raise


class BlockReader(io.RawIOBase):
    """Sequential and random reads of a remote object; the next block is fetched while this one is used."""

    def __init__(self, url: Url, size: int) -> None:
        self._url, self._size, self._at = url, size, 0
        self._start, self._block = 0, b""
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="readahead")
        self._next: tuple[int, Future[bytes]] | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        if self._at >= self._size:
            return 0
        if not self._start <= self._at < self._start + len(self._block):
            self._load(self._at)
        offset = self._at - self._start
        piece = self._block[offset : offset + len(buffer)]
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)

    def _load(self, start: int) -> None:
        if self._next is not None and self._next[0] == start:
            self._block = self._next[1].result()
        else:
            self._block = self._read(start)
        self._start, after = start, start + len(self._block)
        self._next = (after, self._pool.submit(self._read, after)) if after < self._size else None

    def _read(self, start: int) -> bytes:
        return read_span(self._url, start, min(self._size, start + BLOCK))

    def close(self) -> None:
        if not self.closed:
            self._pool.shutdown(wait=False, cancel_futures=True)
        super().close()
