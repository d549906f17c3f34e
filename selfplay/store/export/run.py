"""Runs one export: into a folder beside, then to its place, with a sidecar that says where each row is from."""


from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import selfplay
from selfplay.errors import UserError
from selfplay.extras import how_to_install
from selfplay.io import storage
from selfplay.store.export.formats import find
from selfplay.store.export.job import ROWS, SIDECAR, Job, Progress

if TYPE_CHECKING:
    from selfplay.store.corpus.corpus import Corpus


@dataclass(frozen=True)
class Exported:
    """What an export holds. left_out: reason -> episodes that the filter let through and the format cannot hold."""

    format: str
    destination: str
    version: int
    episodes: int
    rows: int
    files: tuple[str, ...]
    left_out: dict[str, int]


def export(
    corpus: Corpus,
    name: str,
    destination: str,
    where: str | None = None,
    options: dict[str, str] | None = None,
    progress: Progress = lambda rows: None,
) -> Exported:
    """Writes the episodes that `where` (SQL over `episodes`) lets through, all or nothing.

    destination: a path or s3://…, empty or not there yet. progress: told how many episodes were read since last time.
    Raises `UserError` for an unknown format or option, a missing package, a destination that holds something.
    """
    chosen, place = find(name), storage.normalise(destination)
    given = options or {}
    unknown = sorted(set(given) - set(chosen.options))
    if unknown:
        known = ", ".join(sorted(chosen.options)) or "none"
        raise UserError(f"format {name} has no option {unknown[0]!r}; its options: {known}")
    for package in chosen.needs:
        if find_spec(package) is None:
            raise UserError(f"format {name} needs {package}: {how_to_install(chosen.extra)}")
    _refuse_full(place)
    with _workplace(place) as folder:
        job = Job(corpus, chosen, folder, where, given, progress)
        chosen.write(job)
        job.close()
        if not job.rows:
            raise UserError(_nothing(job))
        files = _finish(job)
        _move(folder, place, files)
    return Exported(name, place, corpus.version, len(job.episode_ids), job.rows, files, job.left_out)


def _refuse_full(place: str) -> None:
    local = None if storage.is_remote(place) else Path(place)
    if local is not None and local.exists() and not local.is_dir():
        raise UserError(f"{place} is a file; give a folder that is empty or not there yet")
    held = any(storage.entries(place)) if local is None else local.is_dir() and any(local.iterdir())
    if held:
        raise UserError(f"{place} is not empty; give a folder that is empty or not there yet")


@contextlib.contextmanager
def _workplace(place: str) -> Iterator[Path]:
    """A folder to work in, beside the destination where that is local, so that it can be moved there in one piece."""
    beside = None
    if not storage.is_remote(place):
        beside = Path(place).parent
        try:
            beside.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{place} cannot be written: {error.strerror or error}") from error
    try:
        with tempfile.TemporaryDirectory(prefix=".selfplay-export-", dir=beside) as work:
            folder = Path(work) / "export"
            folder.mkdir()
            yield folder
    except OSError as error:
        known = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTEMPTY)
        if error.errno not in known:
            raise
        raise UserError(f"{place} cannot be written: {error.strerror or error}") from error


def _move(folder: Path, place: str, files: tuple[str, ...]) -> None:
    if not storage.is_remote(place):
        try:
            if Path(place).is_dir():
                Path(place).rmdir()
            folder.rename(place)
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.EXDEV):  # a place of its own, such as a mounted volume
                raise
            for child in sorted(folder.iterdir(), key=lambda path: path.name == SIDECAR):
                shutil.move(child, Path(place) / child.name)
        return
    for name in [*(name for name in files if name != SIDECAR), SIDECAR]:  # with the sidecar it is whole
        storage.upload(folder / name, storage.join(place, name))


def _nothing(job: Job) -> str:
    kinds = " or ".join(job.format.kinds)
    reasons = "; ".join(f"{count:,} left out, {reason}" for reason, count in sorted(job.left_out.items()))
    asked = f" with {job.where}" if job.where else ""
    said = f"there is no {kinds} episode{asked} that format {job.format.name} can hold"
    return f"{said} ({reasons})" if reasons else said


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _finish(job: Job) -> tuple[str, ...]:
    """Writes the sidecar; names of all files, below the folder."""
    names = sorted(path.relative_to(job.folder).as_posix() for path in job.folder.rglob("*") if path.is_file())
    about = {
        "format": job.format.name,
        "summary": job.format.summary,
        "corpus_version": job.corpus.version,
        "where": job.where,
        "options": job.options,
        "licences": sorted(job.licences),
        "episodes": len(job.episode_ids),
        "rows": job.rows,
        "left_out": dict(sorted(job.left_out.items())),
        "package_version": selfplay.__version__,
        "rows_file": ROWS,
        "sha256": {name: _sha256(job.folder / name) for name in names},
    }
    (job.folder / SIDECAR).write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n")
    return tuple(sorted([*names, SIDECAR]))
