"""Where compiled kernels are kept on disk.

Numba looks at the file of a cached function only, not at those whose functions it has inlined; an edit there would go
unnoticed. So the cache of this package lies in a folder named by a digest of all its sources.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numba

_HERE = Path(__file__).parent


def cache_folder() -> Path:
    """Beside the sources if that can be written, else in the user's cache."""
    total = hashlib.sha256(numba.__version__.encode())
    for path in sorted(_HERE.glob("*.py")):
        total.update(path.read_bytes())
    name = f"numba-{total.hexdigest()[:16]}"
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "selfplay-factory"
    for parent in (_HERE / "__pycache__", home):
        with contextlib.suppress(OSError):
            parent.mkdir(parents=True, exist_ok=True)
            if os.access(parent, os.W_OK):
                return parent / name
    return Path(tempfile.gettempdir()) / f"selfplay-{os.getuid()}-{name}"


@contextlib.contextmanager
def kept_by_sources() -> Iterator[None]:
    """Functions decorated with `njit(cache=True)` meanwhile are cached in `cache_folder`."""
    before = numba.config.CACHE_DIR
    if not before:  # a folder that the user has named is his
        numba.config.CACHE_DIR = str(cache_folder())
    try:
        yield
    finally:
        numba.config.CACHE_DIR = before
