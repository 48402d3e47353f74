"""Retries with exponential backoff and full jitter: which failures deserve another try, and how long to wait."""

from __future__ import annotations

import errno
import logging
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from configs.words import shortened

T = TypeVar("T")
log = logging.getLogger("headstart.storage")

# Trying again cannot cure these: the user must act.
_FINAL = (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError, ImportError)
_FINAL_ERRNO = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG}
_FINAL_NAMES = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "ParamValidationError",
    "InvalidEndpointError",
    "ProfileNotFound",
    "InvalidConfigError",
}


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often to try and how long to wait: uniform in [0, min(cap, base * 2**attempt)] seconds ("full jitter").

    Attributes:
        attempts: tries in all, the first included.
        base: upper limit of the first wait, s.
        cap: upper limit of any wait, s.
    """

    attempts: int = 8
    base: float = 0.2
    cap: float = 20.0

    @classmethod
    def from_environment(cls) -> RetryPolicy:
        """``HEADSTART_STORAGE_RETRIES`` as ``attempts``, ``HEADSTART_STORAGE_BACKOFF`` as ``base``."""
        return cls(
            attempts=int(os.environ.get("HEADSTART_STORAGE_RETRIES", cls.attempts)),
            base=float(os.environ.get("HEADSTART_STORAGE_BACKOFF", cls.base)),
        )

    def wait(self, attempt: int) -> float:
        """Seconds to sleep after the failed attempt number ``attempt`` (from 0)."""
        # Full jitter: hundreds of ranks that failed together must not come back together.
        return random.uniform(0, min(self.cap, self.base * 2**attempt))


def is_transient(error: BaseException) -> bool:
    """Whether another try may help: 5xx, throttling, resets, timeouts, truncated bodies; not 403, 404 or a full disk."""
    if isinstance(error, _FINAL) or type(error).__name__ in _FINAL_NAMES:
        return False
    if isinstance(error, OSError) and error.errno in _FINAL_ERRNO:
        return False
    response = getattr(error, "response", None) or getattr(error.__cause__, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
        code = response.get("Error", {}).get("Code", "")
        return status >= 500 or status in (408, 429) or code in ("RequestTimeout", "SlowDown", "BadDigest")
    if isinstance(error, OSError | TimeoutError | EOFError):
        return True
    # aiohttp and botocore raise their own families; their names are stable, their bases are not.
    return type(error).__module__.split(".")[0] in ("aiohttp", "aiobotocore", "botocore", "urllib3", "asyncio")


def retry(action: Callable[[], T], what: str, policy: RetryPolicy | None = None) -> T:
    """Run ``action`` until it succeeds, fails for good, or the attempts are used up; the last error is raised."""
    policy = policy or RetryPolicy.from_environment()
    for attempt in range(policy.attempts):
        try:
            return action()
        except Exception as error:
            if attempt + 1 >= policy.attempts or not is_transient(error):
                raise
            pause = policy.wait(attempt)
            log.warning(
                "%s: %s; attempt %d of %d, again in %.1f s", what, brief(error), attempt + 1, policy.attempts, pause
            )
            time.sleep(pause)
    raise RuntimeError("unreachable: a retry policy needs at least one attempt")


def brief(error: BaseException) -> str:
    """One line about an error: its class and the start of its message."""
    return f"{type(error).__name__}: {shortened(error)}"
