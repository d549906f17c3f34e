"""What a run tells of itself into its folder, and how `selfplay top` shows it."""

from __future__ import annotations

import json
import re
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from selfplay.cli.main import call
from selfplay.cli.top import lines_of, look
from selfplay.io import sealed
from selfplay.store import acquire
from trainers.alphazero.status import LostGames, Status, StrengthRow
from trainers.kinds import REASONING, SELF_PLAY
from trainers.reasoning.status import ReasoningStatus, Score
from trainers.run import status_publisher
from trainers.run.status_publisher import METRICS, Beacon


def played(place: Path) -> Status:
    return Status(
        "connect_four", "connect_four-v0", str(place), f"{place}/corpus", "playing", elapsed_s=90, total_s=600,
        episodes=1234, positions=5678, positions_per_s=1500.4, version=7, players=2, staleness=1.0, queued_blocks=3,
        archive_lag_s=2.5, lost=LostGames(5, 60), messages=("player p0001 died",),
        strength=(StrengthRow("random", 7, 9, 0, 1, 0.9, 0.8, 1.0), StrengthRow("mcts100", 7, 6, 0, 4, 0.6, 0.4, 0.8),
                  StrengthRow("version 3", 7, 6, 0, 4, 0.7, 0.4, 0.8)),
    )  # fmt: skip


def told(place: Path, status: Status | ReasoningStatus) -> None:
    seen = []
    with tempfile.TemporaryDirectory() as run, acquire(run, "test") as lease:
        kind = REASONING if isinstance(status, ReasoningStatus) else SELF_PLAY
        with Beacon(str(place), kind, seen.append, lease, metrics=False) as tell:
            tell(status)
    assert seen == [status]


def test_a_run_is_shown_as_it_told_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told(tmp_path / "a", played(tmp_path / "a"))
    score = Score(9, None, 0.62, 0.6, 0.64, 512, 80.0, 100.0)
    thought = ReasoningStatus("countdown", "countdown-v1", "b", "b/corpus", phase="finished", scores=(score,))
    told(tmp_path / "b", replace(thought, tokens_per_s=22_000.0, elapsed_s=60, total_s=60))
    (tmp_path / "no_run").mkdir()
    assert call(["top", str(tmp_path), "--json"]) == 0
    one, two = json.loads(capsys.readouterr().out)
    assert one["alive"] and one["kind"] == "self-play" and one["status"]["episodes"] == 1234
    assert not two["alive"] and two["kind"] == "reasoning"
    assert call(["top", str(tmp_path / "a"), str(tmp_path / "b"), "--once"]) == 0
    shown = capsys.readouterr().out
    words = ["playing 1.5 of 10 min", "1,234 episodes", "1,500 pos/s", "version 7 (plays 1 behind)"]
    words += ["60% of mcts100 (40–80)"]
    words += ["3 blocks wait for the archive (2 s)", "5 lost", "p0001 died", "finished", "held-out 62% (60–64)"]
    for word in words:
        assert word in re.sub(r"\s+", " ", shown), word


def test_where_there_is_no_terminal_it_prints_once_and_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told(tmp_path, played(tmp_path))
    assert call(["top", str(tmp_path)]) == 0
    assert "1,234 episodes" in capsys.readouterr().out


def test_who_has_lost_the_run_tells_nothing_of_it(tmp_path: Path) -> None:
    with acquire(str(tmp_path), "test") as lease, Beacon(str(tmp_path), SELF_PLAY, print, lease, metrics=False) as tell:
        lease.taken.set()
        tell(played(tmp_path))
    assert not (tmp_path / "status.json").exists()


def test_a_driver_that_is_gone_is_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told(tmp_path, played(tmp_path))
    file = tmp_path / "status.json"
    long_ago = (datetime.now(UTC) - timedelta(seconds=100)).isoformat()
    file.write_text(sealed.dumps(sealed.read(str(file)) | {"written_at": long_ago}))
    (found,) = look([str(tmp_path)])
    assert not found["alive"] and 99 < found["age_s"] < 130
    assert call(["top", str(tmp_path), "--once"]) == 0
    assert "silent" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["{", "[]", '{"status": {}}'])
def test_what_no_run_wrote_is_refused(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "status.json").write_text(text)
    assert call(["top", str(tmp_path)]) == 2
    assert f"{tmp_path}/status.json is " in capsys.readouterr().err


def test_where_there_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["top", str(tmp_path)]) == 2
    assert "no runs found in" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_ends_no_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(status_publisher, "EVERY_S", 0.01)
    (tmp_path / "file").write_text("")
    told(tmp_path / "file" / "run", played(tmp_path))


def test_every_metric_is_a_number_of_some_status(tmp_path: Path) -> None:
    statuses = (replace(played(tmp_path), policy_loss=1.0, value_loss=1.0),
                ReasoningStatus("r", "e", "o", "c", reward=0.5, length=3.0, unverifiable=0.0))  # fmt: skip
    for name in set(METRICS) - {"lost_games", "lost_episodes"}:
        assert any(isinstance(getattr(status, name, None), int | float) for status in statuses), name


def test_a_loop_that_hangs_is_told_of_by_another_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(status_publisher, "EVERY_S", 0.02)
    monkeypatch.setattr(status_publisher, "STALLED_S", 0.1)
    seen: list[Status] = []
    with (
        acquire(str(tmp_path), "test") as lease,
        Beacon(str(tmp_path), SELF_PLAY, seen.append, lease, metrics=False) as tell,
    ):
        tell(played(tmp_path))
        until = time.monotonic() + 10
        while len(seen) < 3 and time.monotonic() < until:
            time.sleep(0.05)
        (found,) = look([str(tmp_path)])
        assert found["alive"] and found["stalled"] and found["stalled_s"] >= 0.1
        assert found["status"]["positions_per_s"] == 0.0, "nothing is played, or nobody hears of it"
        assert call(["top", str(tmp_path), "--once"]) == 0
        assert "stalled for" in " ".join(capsys.readouterr().out.split())
        assert "nothing has moved" in seen[1].messages[-1]
        tell(played(tmp_path))
        time.sleep(0.06)
        (found,) = look([str(tmp_path)])
        assert not found["stalled"] and not found["stalled_s"] and found["status"]["positions_per_s"] == 1500.4


def test_what_died_with_a_process_is_counted_of_either_kind_of_run(tmp_path: Path) -> None:
    answers = ReasoningStatus("r", "e", "o", "c", lost=12)
    for place, status, name, count in (
        ("games", played(tmp_path), "lost_games", 5), ("answers", answers, "lost_episodes", 12)
    ):  # fmt: skip
        told(tmp_path / place, status)
        assert f"{count} lost in flight" in lines_of(look([str(tmp_path / place)])[0])[1]
        exported = (tmp_path / place / "metrics.prom").read_text()
        assert re.findall(r"^ray_selfplay_(lost_\w+)\{.*\} (\S+)$", exported, re.MULTILINE) == [(name, f"{count}.0")]


def test_a_run_on_one_machine_writes_metrics_for_the_node_exporter(tmp_path: Path) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    told(tmp_path, played(tmp_path))
    families = {one.name: one for one in text_string_to_metric_families((tmp_path / "metrics.prom").read_text())}
    (sample,) = families["ray_selfplay_positions_per_s"].samples
    assert sample.value == 1500.4 and sample.labels == {"run": str(tmp_path), "recipe": "connect_four"}
    assert families["ray_selfplay_lost_games"].samples[0].value == 5
