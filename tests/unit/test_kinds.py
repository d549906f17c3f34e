"""The table of run kinds: settings find theirs, folders of another are refused, and a wrong entry point is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selfplay.errors import UserError
from selfplay.store import acquire
from trainers import kinds
from trainers.alphazero.config import RunConfig
from trainers.kinds import REASONING, SELF_PLAY, kind_in, kind_of
from trainers.recipe import load_recipe, shipped
from trainers.run.run_folder import RunFolder


class Point:
    """An entry point that gives this."""

    name, value = "other", "other_kind:KIND"

    def __init__(self, given: Any) -> None:
        self._given = given

    def load(self) -> Any:
        if isinstance(self._given, Exception):
            raise self._given
        return self._given


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`offered(thing)`: an entry point gives it."""

    def offer(thing: Any) -> None:
        monkeypatch.setattr(kinds, "entry_points", lambda group: [Point(thing)])
        kinds.kinds.cache_clear()

    yield offer
    kinds.kinds.cache_clear()


@pytest.mark.parametrize("name", sorted(shipped()))
def test_every_recipe_has_the_kind_that_its_settings_name(name: str) -> None:
    config = load_recipe(name)
    kind = kind_of(config)
    assert kind is kind_in(config.model_dump(mode="json")) and type(config) is kind.config
    assert kind.find(kind.environment_of(config)).id and isinstance(kind.state(), kind.state)


@pytest.mark.parametrize(("first", "second"), [("tic_tac_toe", "parity_cot"), ("parity_cot", "tic_tac_toe")])
def test_a_folder_of_another_kind_is_refused_and_stays_as_it_is(first: str, second: str, tmp_path: Path) -> None:
    begun, other = load_recipe(first), load_recipe(second)
    with acquire(str(tmp_path), "test") as lease:
        RunFolder(str(tmp_path), begun, kind_of(begun), lease).begin("{}")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    with pytest.raises(UserError, match=f"it is not {kind_of(other).name}, and this is"):
        RunFolder(str(tmp_path), other, kind_of(other))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.json")} == before


@pytest.mark.parametrize(
    ("thing", "part"),
    [
        (ImportError("no module named nothing"), "cannot be loaded: no module named nothing"),
        ("a text", "is not a RunKind"),
        (replace(SELF_PLAY, name="other"), "has the name or the section of another"),
        (replace(REASONING, section="other"), "has the name or the section of another"),
    ],
)
def test_a_wrong_entry_point_is_named(thing: Any, part: str, offered: Any) -> None:
    offered(thing)
    with pytest.raises(UserError, match=part):
        kinds.kinds()


def test_a_third_kind_is_found_by_its_section_and_its_settings(offered: Any) -> None:
    class Other(RunConfig):
        """Builds on the settings of self-play, and is not self-play."""

    third = replace(SELF_PLAY, name="other", section="other", config=Other)
    offered(third)
    settings = load_recipe("tic_tac_toe").model_dump(mode="json")
    assert kind_of(Other.model_validate_json(json.dumps(settings))) is third
    assert kind_of(load_recipe("tic_tac_toe")) is SELF_PLAY
    assert kind_in({"name": "x", "other": {"id": "y"}}) is third and kind_in({"env": {}}) is SELF_PLAY
