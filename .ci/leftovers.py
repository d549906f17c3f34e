"""Finds and removes what an interrupted pip leaves in a virtual environment. Standard library only."""

from __future__ import annotations

import csv
import glob
import os
import shutil


def distributions(venv: str) -> list[str]:
    """The *.dist-info folders of all installed packages, relative to the environment."""
    found = glob.glob(os.path.join(glob.escape(venv), "lib", "python3*", "site-packages", "*.dist-info"))
    return sorted(os.path.relpath(folder, venv) for folder in found)


def is_complete(folder: str) -> bool:
    """Whether every file of an installed package is there, and of the recorded size. `folder`: its *.dist-info."""
    site = os.path.dirname(folder)
    try:
        with open(os.path.join(folder, "RECORD"), newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
        # Compiled files have no recorded size; Python makes them anew.
        sized = [(row[0], int(row[2])) for row in rows if len(row) == 3 and row[2]]
        return bool(sized) and all(os.path.getsize(os.path.join(site, path)) == size for path, size in sized)
    except (OSError, ValueError):
        return False


def clean(venv: str) -> list[str]:
    """Removes what an interrupted pip left, so that the next one installs it again; returns the packages concerned.

    pip writes a package's RECORD last and believes any *.dist-info folder, however little of the package is there.
    """
    for pattern in ("downloads-*", os.path.join("lib", "python3*", "site-packages", "~*")):
        for place in glob.glob(os.path.join(glob.escape(venv), pattern)):
            if os.path.isdir(place):
                shutil.rmtree(place, ignore_errors=True)
            else:
                os.unlink(place)
    broken = [name for name in distributions(venv) if not is_complete(os.path.join(venv, name))]
    for name in broken:
        shutil.rmtree(os.path.join(venv, name))
    return [os.path.basename(name).split("-")[0] for name in broken]
