"""Settings: every mistake is one sentence that names the key, the value and what was expected."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from selfplay.errors import UserError
from selfplay.store.corpus.kept_settings import fits_digest, pseudonym, settings_alone
from selfplay.store.release.verifier.searching import playing_of
from selfplay.store.verify.sampled import dialogue_settings
from selfplay.store.verify.searched import search_settings
from trainers.alphazero.config import RunConfig
from trainers.kinds import from_data, from_toml, kind_of
from trainers.reasoning.config import ReasoningConfig
from trainers.recipe import derive, load_recipe, shipped, slug
from trainers.run.settings import apply_overrides, from_mapping, keys

SMALL = {"name": "x", "env": {"id": "connect_four"}}


@pytest.mark.parametrize("name", sorted(shipped()))
def test_shipped_recipes_hold(name: str) -> None:
    config = load_recipe(name)
    assert config.name == name and config.summary
    assert from_data(json.loads(config.to_json()), "copy") == config


def test_all_seven_games_have_a_recipe() -> None:
    games = {name for name in shipped() if isinstance(load_recipe(name), RunConfig)}
    assert games == {"tic_tac_toe", "connect_four", "othello", "breakthrough", "hex", "go", "chess"}


@pytest.mark.parametrize(
    ("section", "key", "value", "parts"),
    [
        ("search", "simulations", "many", ["search.simulations", '"many"', "a whole number"]),
        ("search", "simulations", 0, ["search.simulations = 0", "greater than or equal to 1"]),
        ("search", "simulation", 3, ["no setting search.simulation", "nearest is search.simulations"]),
        ("selfplay", "actors", "x", ['selfplay.actors = "x"', "a whole number or 'auto'"]),
        ("learner", "lr", float("nan"), ["learner.lr", "finite"]),
        ("learner", "lr", "fast", ["learner.lr", "a number"]),
        ("learner", "window_max", 3, ["window_max must be at least window_initial"]),
        ("learner", "learners", 3, ["batch must be a multiple of learners"]),
        ("evaluation", "opponents", ["mcts"], ["evaluation.opponents", "'mctsN'"]),
        ("run", "deterministic", "yes", ["run.deterministic", "true or false"]),
    ],
)
def test_a_wrong_setting_is_named(section: str, key: str, value: object, parts: list[str]) -> None:
    with pytest.raises(UserError) as error:
        from_mapping(RunConfig, {**SMALL, section: {key: value}}, "mine.toml")
    for part in ["mine.toml", *parts]:
        assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_overrides() -> None:
    overrides = ["search.simulations=64", "seed=3", "deterministic=true", "resign_threshold=none"]
    data = apply_overrides(RunConfig, SMALL, overrides)
    config = from_mapping(RunConfig, data, "x")
    assert (config.search.simulations, config.run.seed, config.run.deterministic) == (64, 3, True)
    assert config.selfplay.resign_threshold is None
    data = apply_overrides(RunConfig, SMALL, ["search.algorithm=puct"])
    assert from_mapping(RunConfig, data, "x").search.algorithm == "puct"


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("simulations=64", "say search.simulations or evaluation.simulations"),
        ("seeed=3", "nearest is run.seed"),
        ("seed", "KEY=VALUE"),
        ("nonsense=3", "no such setting"),
    ],
)
def test_a_wrong_override_is_named(override: str, part: str) -> None:
    with pytest.raises(UserError, match=part):
        apply_overrides(RunConfig, SMALL, [override])


def test_broken_toml_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="mine.toml is not valid TOML"):
        from_toml("name = ", "mine.toml")
    with pytest.raises(UserError, match="nested too deep"):
        from_toml("name = " + "[" * 5000, "mine.toml")
    (tmp_path / "mine.toml").write_bytes(b'name = "\xff"')
    with pytest.raises(UserError, match="is not UTF-8 text"):
        load_recipe(str(tmp_path / "mine.toml"))


@pytest.mark.parametrize("model", [RunConfig, ReasoningConfig])
def test_every_setting_is_described(model: type[RunConfig] | type[ReasoningConfig]) -> None:
    for key, meaning, _ in keys(model):
        assert meaning or key == "env", f"{key} has no description"


def test_digest_follows_content() -> None:
    config = from_mapping(RunConfig, SMALL, "x")
    assert config.digest == from_data(json.loads(config.to_json()), "y").digest
    assert config.digest != from_mapping(RunConfig, apply_overrides(RunConfig, SMALL, ["seed=3"]), "x").digest


def test_a_run_goes_on_only_as_itself() -> None:
    config = load_recipe("connect_four")
    assert kind_of(config).incompatible(config, load_recipe("connect_four", ["minutes=3", "lr=1e-3"])) is None
    assert "net.channels" in str(kind_of(config).incompatible(config, load_recipe("connect_four", ["channels=64"])))
    assert "name" in str(kind_of(config).incompatible(config, load_recipe("othello")))


def test_any_searchable_game_has_settings() -> None:
    config = load_recipe("openspiel:hex(board_size=5)", ["minutes=1"])
    assert config.env.id == "openspiel:hex(board_size=5)" and config.name == "hex_board_size_5"
    assert config.run.minutes == 1.0
    assert load_recipe("connect_four-v0").env.id == "connect_four-v0"


def test_any_task_has_settings() -> None:
    config = load_recipe("countdown", ["run.minutes=1"])
    assert isinstance(config, ReasoningConfig) and config.task.id == "countdown" and config.warm.steps
    assert isinstance(load_recipe("nim"), ReasoningConfig)


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        (["learner.algorithm=ppo"], "needs policy.value_head"),
        (["learner.algorithm=grop"], "'grop' is no algorithm; there are 'grpo', 'rloo', 'ppo', 'expert' and 'sft'"),
        (["policy.lora_rank=4"], "needs a policy.path"),
        (["generation.group=1"], "generation.group >= 2"),
        (["generation.temperature=0.0"], "explores nothing"),
        (["learner.clip_hgih=0.3"], "nearest is learner.clip_high"),
    ],
)
def test_a_wrong_setting_of_reasoning_is_named(settings: list[str], part: str) -> None:
    with pytest.raises(UserError, match=part):
        load_recipe("parity_cot", settings)


@pytest.mark.parametrize("shape", [(3, 3, 3), (9, 19, 19), (40,), (2000,)])
@pytest.mark.parametrize("actions", [2, 81, 4674])
@pytest.mark.parametrize("plies", [1, 9, 1000])
def test_derived_settings_hold(shape: tuple[int, ...], actions: int, plies: int) -> None:
    from_mapping(RunConfig, derive("openspiel:x", "x", shape, actions, plies), "derived")


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("conect_four", "did you mean connect_four"),
        ("openspiel:hxe", "hex"),
        ("openspiel:kuhn_poker", "chance"),
        ("openspiel:matrix_rps", "cannot be played by this search"),
        ("nothing.toml", "no recipe file"),
        ("./nothing.py", "nothing.py"),
    ],
)
def test_an_unknown_recipe_is_a_sentence(name: str, part: str) -> None:
    with pytest.raises(UserError, match=part):
        load_recipe(name)


def test_a_recipe_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\nenv.id = "tic_tac_toe"\nsearch.simulations = 8\n')
    assert load_recipe(str(path)).search.simulations == 8


def test_slug() -> None:
    assert slug("openspiel:hex(board_size=5)") == "hex_board_size_5"


@pytest.mark.parametrize("name", sorted(shipped()))
def test_a_stored_configuration_has_the_digest_that_its_episodes_name(name: str) -> None:
    config = load_recipe(name)
    assert fits_digest(config.to_json(), config.digest) and not fits_digest(config.to_json(), "0" * 64)
    changed = config.to_json().replace('"seed": 0', '"seed": 1')
    assert changed != config.to_json() and not fits_digest(changed, config.digest)


@pytest.mark.parametrize("name", sorted(shipped()))
def test_what_a_redacted_copy_keeps_of_a_configuration(name: str) -> None:
    """So that a copy is checked as fully as what it is of."""
    config = load_recipe(name)
    alone = settings_alone(config.to_json())
    assert alone is not None and settings_alone(alone) == alone
    assert fits_digest(alone, pseudonym(3)) and not fits_digest(config.to_json(), pseudonym(3))
    whole = [{"config": config.to_json(), "config_digest": config.digest}]
    kept = [{"config": alone, "config_digest": pseudonym(3)}]
    for read in (search_settings, dialogue_settings):
        assert list(read(whole).values()) == list(read(kept).values())
    assert playing_of(json.loads(config.to_json())) == playing_of(json.loads(alone))
    assert search_settings(kept) or dialogue_settings(kept)


def test_a_path_and_what_is_no_setting_are_left_out_of_a_configuration() -> None:
    given = {"generation": {"stop": ["\n"], "engine": "Not a word", "group": {"a": 1}, "temperature": 1.0, "key": "k"},
             "policy": {"path": "/home/zoe/model", "context": 9}, "host": "gpu-7", "run": {"seed": 4, "corpus": "/x/y"}}
    kept = {"run": {"seed": 4}, "generation": {"stop": ["\n"], "temperature": 1.0},
            "policy": {"path": "[path]", "context": 9}}  # fmt: skip
    assert json.loads(settings_alone(json.dumps(given)) or "{}") == kept
    assert [settings_alone(text) for text in ("[]", "{", '{"run": {"seed": 1}}')] == [None] * 3
