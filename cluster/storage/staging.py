"""Local stand-ins for URLs: inputs are downloaded before a function runs, its output is uploaded when it is done.

Video codecs and safetensors need paths. A function under :func:`staged` sees only paths, with the URLs' own names; its
caller sees only URLs, also in results and in error messages.

Promises: an output that exists, or a bucket that cannot be written to, is refused before any work; only what the same
function wrote earlier is ever replaced; a folder is published whole, its commit mark last; a result whose upload fails
stays on this machine, and the error says where.
"""

from __future__ import annotations

import functools
import glob
import inspect
import shutil
import tempfile
import uuid
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from cluster.storage import storage
from cluster.storage.errors import StorageError, Url, is_remote
from cluster.storage.remote import request
from configs import InputError
from configs.progress import say
from configs.scratch import ScratchFolder, one_writer

P = ParamSpec("P")
R = TypeVar("R")
# A file that every folder of an output holds; ``None`` for an output that is a file. Or a function of the arguments.
Mark = str | None | Callable[[Mapping[str, Any]], str | None]


def staged(
    reads: Sequence[str] = (), writes: str | None = None, *, mark: Mark = None, sidecar: str = ""
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator: the named parameters may be URLs of an object store as well as local paths.

    The function must write its output whole or not at all, so what stands there when it fails (the last good state) is
    published too. Its parameters ``overwrite`` and ``resume``, where it has them, allow an output that exists; with
    ``resume`` the published folder is fetched first.

    Args:
        reads: parameters that name files or published folders to read.
        writes: the parameter that names the file or folder to make.
        mark: of a folder, a file that every earlier output holds; ``overwrite`` replaces no other folder.
        sidecar: ending of a file beside the output that describes it, and goes when the output is replaced.

    Raises (from the decorated function):
        InputError: an input is absent, the output exists, may not be replaced or is being written by another command, the
            store does not answer or refuses.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        names = (*reads, writes) if writes else tuple(reads)

        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            given = bound.arguments
            if not any(is_remote(given[name]) for name in names):
                with alone(given[writes] if writes else None):
                    return function(*args, **kwargs)
            expected = mark(given) if callable(mark) else mark
            with (
                alone(given[writes] if writes else None),
                Stage() as stage,
                _output(stage, given, writes, expected, sidecar),
            ):
                for name in reads:
                    given[name] = stage.fetch(given[name])
                return stage.with_urls(function(*bound.args, **bound.kwargs))

        return run

    return decorate


def alone(output: Url | None) -> AbstractContextManager[None]:
    """Hold a local output, so that no other command of this machine writes it; buckets have no locks.

    Raises:
        InputError: another command is writing it.
    """
    return nullcontext() if output is None or is_remote(output) else one_writer(output)


class Stage:
    """URLs and their local stand-ins in a temporary folder, which is removed when the ``with`` block ends.

    Inside the block an :class:`InputError` about a stand-in leaves it as one about its URL.
    """

    def __init__(self) -> None:
        self._scratch = ScratchFolder("stage")
        self.folder = self._scratch.path
        self._urls: dict[str, str] = {}
        self._held = False

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if error is not None or not self._held:
            self._scratch.close()
        if isinstance(error, InputError) and (text := self.with_urls(str(error))) != str(error):
            renamed = InputError(text)
            vars(renamed).update(vars(error))
            raise renamed from error

    def hold_for(self, owner: object) -> None:
        """Keep the stand-ins until ``owner`` is garbage-collected instead."""
        self._held = True
        weakref.finalize(owner, self._scratch.close)

    def stand_in(self, url: Url) -> Path:
        """A free local path of the URL's own name, in a fresh folder."""
        folder = self.folder / uuid.uuid4().hex[:8]
        folder.mkdir()
        path = folder / storage.basename(url)
        self._urls[str(path)] = str(url).rstrip("/")
        return path

    def fetch(self, url: Any) -> Any:
        """A local copy of a file or published folder; what is no URL comes back as it is.

        Raises:
            StorageError: nothing there, a folder whose upload broke off, or the store does not answer.
        """
        if not is_remote(url):
            return url
        kind = request(url, "read", lambda fs, path: fs.info(path)["type"])
        if kind != "file":
            return storage.download_tree(url, self.stand_in(url))
        path = storage.cached(url, self.folder, limit_bytes=2**62)
        self._urls[str(path)] = str(url)
        return path

    def with_urls(self, value: object) -> Any:
        """A text (or the texts in a dictionary or list) in which URLs replace their stand-ins."""
        if isinstance(value, str):
            for path, url in self._urls.items():
                value = value.replace(path, url)
        elif isinstance(value, dict):
            return {key: self.with_urls(inner) for key, inner in value.items()}
        elif isinstance(value, list):
            return [self.with_urls(inner) for inner in value]
        return value


@contextmanager
def _output(stage: Stage, given: dict[str, Any], name: str | None, mark: str | None, sidecar: str) -> Iterator[None]:
    """A stand-in for the output parameter; what stands there afterwards is published."""
    if name is None or not is_remote(url := given[name]):
        yield
        return
    resume, replace = bool(given.get("resume")), bool(given.get("overwrite"))
    there = check_output(url, may_exist=resume or replace)
    if there and not resume:
        check_replaceable(url, mark)
    path = given[name] = stage.fetch(url) if there and resume else stage.stand_in(url)
    try:
        yield
    except BaseException:
        # A folder that still has the mark of its download was not touched.
        if path.exists() and not (path / storage.COMMIT_MARK).exists():
            _publish(path, url, there, sidecar)
        raise
    _publish(path, url, there, sidecar)


def check_output(url: Url, *, may_exist: bool) -> bool:
    """Whether the output exists; refuses one that must not, and a store that cannot be written to.

    Raises:
        InputError: it exists, or names a whole bucket.
        StorageError: the store does not answer, has no such bucket or refuses.
    """
    if "/" not in str(url).split("://", 1)[1].strip("/"):
        raise InputError(
            f"output '{url}': names a whole bucket; give a name inside it, such as {str(url).rstrip('/')}/NAME"
        )
    there = storage.exists(url)
    if there and not may_exist:
        raise InputError(f"output '{url}' exists; choose another name, remove it or pass --overwrite")
    probe = f"{str(url).rstrip('/')}.tmp-{uuid.uuid4().hex}"
    storage.write_bytes(probe, b"headstart asks whether it may write here\n")
    storage.remove(probe)
    return there


def check_replaceable(url: Url, mark: str | None) -> None:
    """Refuse to replace what is at ``url`` unless it is a file, or with a ``mark`` a folder that holds this file.

    Raises:
        InputError: it is something else.
        StorageError: the store does not answer.
    """
    folder = request(url, "look for", lambda fs, path: fs.info(path)["type"]) != "file"
    if folder != (mark is not None) or (mark and not storage.exists(storage.join(url, mark)) and storage.listdir(url)):
        raise not_replaceable(url, folder, mark)


def not_replaceable(output: Url, folder: bool, mark: str | None) -> InputError:
    """The error for an output that ``--overwrite`` does not replace."""
    expected = "a file" if mark is None else f"a folder with {mark}"
    return InputError(
        f"output '{output}' is {'a folder' if folder else 'a file'}; --overwrite replaces only {expected}; "
        "choose another name"
    )


def _publish(path: Path, url: Url, replace: bool, sidecar: str) -> None:
    """Upload a finished file or folder; keep it on this machine if that fails."""
    try:
        if path.is_dir():
            _publish_folder(path, url, replace)
        else:
            # What lies beside the file under its name (FILE.c2pa) belongs to it, and comes before it.
            if replace and sidecar:
                storage.remove(f"{url}{sidecar}")
            for beside in sorted(path.parent.glob(f"{glob.escape(path.name)}.*")):
                storage.publish(beside, f"{url}{beside.name.removeprefix(path.name)}")
            storage.publish(path, url)
    except BaseException as error:
        kept = Path(tempfile.mkdtemp(prefix="headstart-kept-")) / path.name
        shutil.move(path, kept)
        note = f"what was to be uploaded is kept in {kept}"
        if isinstance(error, StorageError):
            raise StorageError(f"{error}; {note}") from error
        say(f"{url} was not uploaded; {note}")
        raise


def _publish_folder(path: Path, url: Url, replace: bool) -> None:
    if replace:
        storage.remove(url)
    try:
        storage.upload_tree(path, url)
    except BaseException:
        with suppress(StorageError):
            if not storage.is_committed(url):
                storage.remove(url)
        raise
