"""The shipped games play as they did: one game of each, written out, is compared line by line.

After a change that is meant (and a new version in the id): pytest tests/golden/test_playthroughs.py --force-regen
"""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_regressions.file_regression import FileRegressionFixture

from selfplay.contract import GameSpec
from selfplay.environments import registry
from selfplay.environments.playthrough import choose, playthrough, ranges, ruleset_digest

FOLDER = Path(__file__).parent / "playthroughs"
SHIPPED = [
    spec.id
    for spec in registry.all_specs()
    if isinstance(spec, GameSpec) and registry.source_of(spec).package == "selfplay-factory"
]
#: Games without a file here that the record must hold: chance, hidden information, three seats, all at once.
OPENSPIEL = {
    "backgammon": "openspiel:backgammon",
    "kuhn_poker": "openspiel:kuhn_poker",
    "goofspiel": "openspiel:goofspiel(num_cards=5)",
    "pig_three_seats": "openspiel:pig(players=3,winscore=20)",
}


@pytest.mark.parametrize("env", SHIPPED)
def test_shipped_game(env: str, file_regression: FileRegressionFixture) -> None:
    file_regression.check(playthrough(registry.find(env)), fullpath=FOLDER / f"{env}.txt")


@pytest.mark.parametrize("name", list(OPENSPIEL))
def test_openspiel_game(name: str, file_regression: FileRegressionFixture) -> None:
    file_regression.check(playthrough(registry.find(OPENSPIEL[name])), fullpath=FOLDER / f"openspiel_{name}.txt")


def test_every_file_is_of_a_game() -> None:
    expected = {f"{env}.txt" for env in SHIPPED} | {f"openspiel_{name}.txt" for name in OPENSPIEL}
    assert {path.name for path in FOLDER.iterdir()} == expected


def test_ruleset_digest_tells_rules_apart() -> None:
    specs = [*map(registry.find, SHIPPED), registry.find("openspiel:hex(board_size=5)"), registry.find("openspiel:hex")]
    assert len({ruleset_digest(spec) for spec in specs}) == len(specs)
    assert ruleset_digest(registry.find("hex")) == ruleset_digest(registry.find("hex-v0"))


def test_choices_stay_what_they_are() -> None:
    """They come from sha256 alone, so that no library's generator can change them."""
    assert [choose(0, 0, 7), choose(0, 1, 7), choose(1, 0, 7), choose(0, 0, 7, seat=1)] == [2, 1, 3, 5]


def test_ranges() -> None:
    assert [ranges(x) for x in ([], [3], [0, 1, 2, 5], [1, 3])] == ["none", "3", "0-2 5", "1 3"]
