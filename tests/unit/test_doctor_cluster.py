"""`selfplay doctor --cluster`: what is wrong with a node is told in a sentence each."""

from __future__ import annotations

import time
from typing import Any

import pytest

from selfplay.cli.doctor_cluster import _of_node

HERE = {"python": "3.11.7", "ray": "2.60.0", "torch": "2.13.0"}
OUT = "s3://bucket/runs"


def told(late_s: float = 0.0, **seen: Any) -> dict[str, list[str]]:
    """What is said of a node of 8 cores and 2 GPUs that was seen like this: level -> sentences."""
    well = {"versions": HERE, "gpus": 2, "free_gib": 50.0, "token": True, "bucket": "", "time": time.time() - late_s}
    found: dict[str, list[str]] = {}
    for finding in _of_node("10.0.0.2", {"CPU": 8.0, "GPU": 2.0}, {**well, **seen}, HERE, time.time(), OUT):
        assert finding.subject == "10.0.0.2"
        found.setdefault(finding.level, []).append(finding.text)
    return found


def test_a_sound_node() -> None:
    assert told() == {"ok": ["answers: 8 cores, 2 GPUs, 50 GiB free"]}
    assert "bad" not in told(versions={**HERE, "datasets": "5.0"}, bucket=None)  # what only it has harms nobody


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (
            {"versions": {"python": "3.11.7", "ray": "2.59.0"}},
            "other versions than here: ray 2.59.0 instead of 2.60.0, torch none instead of 2.13.0",
        ),
        ({"gpus": 0}, "Ray counts 2 GPUs, torch sees 0"),
        ({"gpus": 3}, "Ray counts 2 GPUs, torch sees 3"),
        ({"late_s": 3600}, "its clock is 3"),
        ({"late_s": -3600}, "its clock is 3"),
        (
            {"bucket": "no permission for s3://bucket/runs/x; check AWS_ACCESS_KEY_ID and its rights"},
            "s3://bucket/runs cannot be used: no permission for s3://bucket/runs/x; "
            "check AWS_ACCESS_KEY_ID and its rights",
        ),
    ],
    ids=["versions", "too few GPUs", "too many GPUs", "behind", "ahead", "bucket"],
)
def test_what_is_wrong_is_one_sentence(seen: dict[str, Any], said: str) -> None:
    (sentence,) = told(**seen)["bad"]
    assert sentence.startswith(said)


def test_what_a_person_may_want_to_know() -> None:
    low, open_ = told(free_gib=1.0, token=False)["note"]
    assert low == "1.0 GiB free" and "RAY_AUTH_MODE=token" in open_
