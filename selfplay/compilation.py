"""Where compiled kernels are kept on disk.

Numba looks at the file of a cached function only, not at those whose functions it has inlined; an edit there would go
unnoticed. So the cache of a package lies in a folder named by a digest of all its sources.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from selfplay import surroundings
from selfplay.io import scratch


def cache_folder(package: Path) -> Path:
    """Beside the sources of the package in this folder if that can be written, else in the user's cache.

    Numba unpickles what it finds there: nobody else may be able to write it.
    """
    total = hashlib.sha256(metadata.version("numba").encode())
    for path in sorted(package.glob("*.py")):
        total.update(path.read_bytes())
    name = f"numba-{total.hexdigest()[:16]}"
    beside = package / "__pycache__"
    with contextlib.suppress(OSError):
        beside.mkdir(exist_ok=True)
        if os.access(beside, os.W_OK):
            return beside / name
    return scratch.cache() / name


@contextlib.contextmanager
def kept_by_sources(package: Path) -> Iterator[None]:
    """Functions of a package decorated with `njit(cache=True)` meanwhile are cached in its `cache_folder`.

    Raises `UserError` where the working folder holds settings for numba: it would read them while it is imported.
    """
    surroundings.refuse_settings(surroundings.NUMBA_FILE)
    import numba

    before = numba.config.CACHE_DIR
    if not before:  # a folder that the user has named is his
        numba.config.CACHE_DIR = str(cache_folder(package))
    try:
        yield
    finally:
        numba.config.CACHE_DIR = before
