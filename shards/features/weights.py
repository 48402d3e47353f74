"""Weights of speech encoders: found by folder or hub name, identified by sha256, refused when incomplete."""

from __future__ import annotations

import hashlib
import json
import os
from functools import cached_property
from pathlib import Path
from typing import Any

from cluster.storage import storage
from configs import InputError
from configs.words import shortened

CONFIG, ONE_FILE, MANY_FILES = "config.json", "model.safetensors", "model.safetensors.index.json"
PREPROCESSOR = "preprocessor_config.json"
SHOWN = 3  # names of tensors in a sentence


class Weights:
    """The files of one checkpoint, as transformers saves it.

    Attributes:
        feature: name of the feature, for messages.
        source: the hub name as given, or the absolute path of the folder.
        folder: where the files are.
        files: the weight files, sorted by name.

    Raises:
        InputError: nothing there, not JSON, or no ``model.safetensors``; the sentence names the command to fetch or convert it.
    """

    def __init__(self, feature: str, source: str) -> None:
        self.feature = feature
        local = Path(source).expanduser()
        self.source = str(local.resolve()) if local.is_dir() else source
        self.folder = local if local.is_dir() else _from_hub(feature, source)
        self.files = self._files()

    @cached_property
    def config(self) -> dict[str, Any]:
        """``config.json``."""
        return self._json(CONFIG)

    @cached_property
    def preprocessor(self) -> dict[str, Any]:
        """``preprocessor_config.json``, empty if there is none."""
        return self._json(PREPROCESSOR) if (self.folder / PREPROCESSOR).is_file() else {}

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the weight file; of several files, the digest of their hex digests joined in order of name."""
        digests = [storage.sha256(path) for path in self.files]
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()

    def expect(self, *types: str) -> None:
        """Refuse a checkpoint that is not of one of these model types.

        Raises:
            InputError: naming its type and those expected.
        """
        found = self.config.get("model_type")
        if found not in types:
            raise InputError(
                f"{self.source}: is a {found or 'nameless'} model, expected {' or '.join(types)}; "
                f"give --features {self.feature}=FOLDER of such a model"
            )

    def positive(self, *names: str) -> list[int]:
        """Values of entries of ``config.json`` that must be whole numbers above 0.

        Raises:
            InputError: the first that is not.
        """
        for name in names:
            value = self.config.get(name)
            if not isinstance(value, int) or value < 1:
                raise InputError(f"{self.source}: {CONFIG} has {name} {value!r}, expected a whole number above 0")
        return [self.config[name] for name in names]

    def refuse(self, missing: list[str], reason: str = "lacks") -> None:
        """Refuse weights in which tensors are missing or unusable.

        Raises:
            InputError: naming the first few, when there are any.
        """
        if missing:
            names = ", ".join(sorted(missing)[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
            raise InputError(
                f"{self.source}: {reason} {len(missing)} tensors of its model ({names}); random numbers would take "
                "their place: fetch or save the checkpoint again with transformers' save_pretrained"
            )

    def unreadable(self, error: Exception) -> InputError:
        """The sentence for weights on which a loader failed."""
        reason = shortened(error)
        return InputError(f"{self.source}: cannot be loaded as {self.feature} ({reason}); download the files again")

    def _json(self, name: str) -> dict[str, Any]:
        try:
            value = json.loads((self.folder / name).read_text())
        except (OSError, ValueError) as error:
            raise InputError(f"{self.source}: {name} cannot be read ({error}); download the files again") from None
        if not isinstance(value, dict):
            raise InputError(f"{self.source}: {name} is not a JSON object; download the files again")
        return value

    def _files(self) -> tuple[Path, ...]:
        if not (self.folder / CONFIG).is_file():
            raise InputError(
                f"{self.source}: holds no {CONFIG}; give --features {self.feature}=FOLDER with {CONFIG} and {ONE_FILE}"
            )
        if (self.folder / ONE_FILE).is_file():
            return (self.folder / ONE_FILE,)
        if (self.folder / MANY_FILES).is_file():
            names = sorted(set(self._json(MANY_FILES).get("weight_map", {}).values()))
            if names and all(Path(n).name == n and (self.folder / n).is_file() for n in names):
                return tuple(self.folder / name for name in names)
        raise InputError(
            f"{self.source}: holds no {ONE_FILE} (other formats can run code and are not read); convert it: python -c "
            f"\"from transformers import AutoModel; AutoModel.from_pretrained('{self.source}').save_pretrained('DIR')\" "
            f"and give --features {self.feature}=DIR"
        )


def _from_hub(feature: str, name: str) -> Path:
    """The snapshot of a hub name: from the cache of this machine, else fetched."""
    get = f"on a machine with a network run: hf download {name}"
    looks_like_a_path = name.startswith((".", "/", "~")) or name.count("/") != 1 or os.sep == "\\"
    if looks_like_a_path:
        raise InputError(
            f"speech checkpoint '{name}' cannot be loaded (no such folder); give --features {feature}=FOLDER with "
            f"{CONFIG} and {ONE_FILE}, or a hub name"
        )
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ImportError:
        raise InputError("speech features need transformers: pip install 'headstart[speech]'") from None
    wanted = [CONFIG, PREPROCESSOR, ONE_FILE, MANY_FILES, "model-*.safetensors"]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted, local_files_only=True))
    except (LocalEntryNotFoundError, OSError, ValueError):
        pass
    try:
        return Path(snapshot_download(name, allow_patterns=wanted))
    except Exception as error:  # the hub's client, its transport and the system each have errors of their own
        reason = shortened(error)
        raise InputError(
            f"speech checkpoint '{name}' cannot be loaded: it is not on this machine and not fetched ({reason}); "
            f"{get}, or give --features {feature}=FOLDER"
        ) from None
