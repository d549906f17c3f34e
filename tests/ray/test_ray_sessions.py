"""Ray's folders in /tmp: ours go, when a run ends or when the next one begins; others' stay."""

from __future__ import annotations

import json
import os
from pathlib import Path

import ray

from trainers.run import ray_temporary_folders
from trainers.run.ray_session import ray_session


def session(folder: Path, pid: int, born: str = "long ago", mark: bool = True) -> Path:
    place = folder / f"session_2026-01-01_00-00-00_000000_{pid}"
    (place / "logs").mkdir(parents=True)
    if mark:
        (place / ray_temporary_folders.MARK).write_text(json.dumps({"pid": pid, "born": born}))
    return place


def test_only_sessions_of_our_dead_drivers_are_deleted(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "ray", tmp_path / "elsewhere"
    dead, unmarked = session(folder, 4_000_001), session(folder, 4_000_002, mark=False)
    wrong = session(folder, 4_000_003)
    wrong.rename(renamed := folder / "session_of_somebody_4000009")
    (link := folder / "session_link_4000004").symlink_to(session(elsewhere, 4_000_004))
    linked_mark = session(folder, 4_000_005, mark=False)
    (linked_mark / ray_temporary_folders.MARK).symlink_to(session(elsewhere, 4_000_005) / ray_temporary_folders.MARK)
    broken = session(folder, 4_000_006)
    (broken / ray_temporary_folders.MARK).write_text("{")
    own = session(folder, os.getpid(), mark=False)
    ray_temporary_folders.mark(own)
    ray_temporary_folders.delete_dead(folder)
    assert not dead.exists()
    assert all(place.exists() for place in (unmarked, renamed, link, linked_mark, broken, own))
    assert len(list(elsewhere.iterdir())) == 2 and (elsewhere.iterdir().__next__() / "logs").exists()
    ray_temporary_folders.delete(unmarked)
    ray_temporary_folders.delete(own)
    assert unmarked.exists() and not own.exists()


def test_a_run_leaves_no_folder_of_ray_behind() -> None:
    with ray_session(None):
        place = Path(ray.nodes()[0]["RayletSocketName"]).parent.parent
        assert (place / ray_temporary_folders.MARK).exists()
    assert not place.exists()
