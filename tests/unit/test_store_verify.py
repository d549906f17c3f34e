"""Every falsehood is named: edited rows, flipped bytes, missing files, other rules; and what cannot be checked."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyspiel
import pytest
from deltalake import write_deltalake
from typer.testing import CliRunner

from selfplay import store
from selfplay.cli.corpus import app
from selfplay.environments import registry
from selfplay.environments.playthrough import ruleset_digest
from selfplay.episode import Episode, GameRecord, PolicySpan, Provenance, ReplayDigest, Step, random_episode, to_batch
from selfplay.episode.schema import SCHEMA_VERSION
from selfplay.errors import UserError
from selfplay.store.table.table import episodes_uri
from selfplay.store.verify.episode import verify_batch
from selfplay.store.verify.verify import Check, Rules, verify_corpus, verify_episode

SPEC = registry.find("tic_tac_toe")
PROVENANCE = Provenance("run", SPEC.id, SPEC.version, ruleset_digest(SPEC), "b" * 64, "0.1.0", "here", "CC0-1.0")
GAME = pyspiel.load_game(SPEC.game)
runner = CliRunner()


def searched(seed: int, number: int = 0) -> Episode:
    """A random game dressed as if a search had been at every step, all of it as a search would have it."""
    episode = random_episode(GAME, seed, PROVENANCE, slot="a0", epoch=1000, number=number)
    assert episode.game is not None
    state, steps = GAME.new_initial_state(), []
    for step in episode.game.steps:
        legal = np.array(state.legal_actions(), np.int32)
        visits = np.arange(len(legal), dtype=np.int32)
        visits[legal == step.action] += 1
        steps.append(
            Step(
                seat=step.seat,
                action=step.action,
                source="search",
                simulations=int(visits.sum()),
                full_search=True,
                actions=legal,
                visits=visits,
                prior=np.full(len(legal), 1 / len(legal), np.float32),
                q=np.where(visits > 0, 0.25, np.nan).astype(np.float32),
                root_value=(0.1 + 0.25 * int(visits.sum())) / (1 + int(visits.sum())),
                raw_value=0.1,
                surprise=0.5,
            )
        )
        state.apply_action(step.action)
    places = {seat: [i for i, step in enumerate(steps) if step.seat == seat] for seat in range(2)}
    spans = tuple(PolicySpan(seat, at[0], at[-1], "run", 3, "d" * 64) for seat, at in places.items())
    game = dataclasses.replace(episode.game, steps=tuple(steps))
    return dataclasses.replace(episode, game=game, policy_spans=spans, trainable=True)


def archive(uri: str, episodes: list[Episode]) -> None:
    archive_batch(uri, to_batch(episodes))


def archive_batch(uri: str, batch: pa.RecordBatch) -> None:
    committer = store.Committer(uri, "run", 1)
    committer.register("a0")
    committer.commit([store.write_block(uri, batch, "a0", 1000, 0)])


def edited(change: Any) -> Episode:
    episode = searched(3)
    assert episode.game is not None
    return dataclasses.replace(episode, game=change(episode.game))


def other_step(game: GameRecord, **changes: Any) -> GameRecord:
    return dataclasses.replace(game, steps=(dataclasses.replace(game.steps[0], **changes), *game.steps[1:]))


def answer(episode: Episode) -> Check:
    return verify_episode(episode, Rules([]))


def test_true_episodes() -> None:
    assert answer(searched(3)) == Check("run/a0/1000/0", "true", uncovered=("surprise", "configuration"))
    resigned = dataclasses.replace(
        edited(lambda g: dataclasses.replace(g, steps=g.steps[:2], ended_by="resignation", resigned_seat=1)),
        returns=(1.0, -1.0),
        policy_spans=tuple(PolicySpan(seat, seat, seat, "run", 3, "d" * 64) for seat in range(2)),
    )
    state = GAME.new_initial_state()
    digest = ReplayDigest()
    assert resigned.game is not None
    for step in resigned.game.steps:
        digest.step(state, step.action)
        state.apply_action(step.action)
    game = dataclasses.replace(resigned.game, replay_digest=digest.end(state))
    assert answer(dataclasses.replace(resigned, game=game)).state == "true"
    wrong = answer(dataclasses.replace(resigned, game=game, returns=(-1.0, 1.0)))
    assert wrong.reason == "the seat that resigned did not get the lowest return"


@pytest.mark.parametrize(
    ("episode", "reason"),
    [
        (dataclasses.replace(searched(3), returns=(0.0, 0.0)), "its returns are"),
        (dataclasses.replace(searched(3), returns=None), "no return for every seat"),
        (dataclasses.replace(searched(3), status="truncated"), "its status is truncated, and it ended by terminal"),
        (edited(lambda g: dataclasses.replace(g, ended_by="ply_limit")), "its status is ok, and it ended by ply_limit"),
        (edited(lambda g: dataclasses.replace(g, steps=g.steps[:-1])), "a policy span covers steps"),
        (edited(lambda g: dataclasses.replace(g, replay_digest="0" * 64)), "replayed, the rules say otherwise"),
        (edited(lambda g: other_step(g, action=77)), "step 0: the action played is not among its candidates"),
        (edited(lambda g: other_step(g, seat=1)), "a policy span begins or ends at a step of another seat"),
        (edited(lambda g: other_step(g, actions=np.arange(1, 10, dtype=np.int32))), "not the legal actions"),
        (edited(lambda g: other_step(g, simulations=3)), ", and the search made 3 simulations"),
        (edited(lambda g: other_step(g, prior=np.zeros(9, np.float32))), "the priors sum to 0"),
        (edited(lambda g: other_step(g, q=np.zeros(9, np.float32))), "a value without visits"),
        (edited(lambda g: dataclasses.replace(g, game_string="connect_four()")), "it names the game connect_four()"),
    ],
)
def test_falsehoods_that_a_new_digest_would_hide(episode: Episode, reason: str) -> None:
    check = answer(episode)
    assert check.state == "false" and reason in check.reason
    batch = to_batch([searched(1), searched(2), episode, searched(4)])
    among = verify_batch(batch, Rules([]))  # the quick way, which looks at all rows at once
    assert [one.state for one in among] == ["true", "true", "false", "true"] and among[2].reason == check.reason


def test_what_is_not_installed_is_not_checkable() -> None:
    row = {"env_id": "unheard_of-v3", "ruleset_digest": "e" * 64, "package": "their-games", "package_version": "2.1"}
    away = dataclasses.replace(PROVENANCE, env_id="unheard_of-v3", env_version=3, ruleset_digest="e" * 64)
    check = verify_episode(dataclasses.replace(searched(1), provenance=away), Rules([row]))
    assert (check.state, check.reason) == (
        "not checkable",
        "unheard_of-v3 is not installed; install their-games 2.1",
    )
    changed = dataclasses.replace(PROVENANCE, ruleset_digest="c" * 64)
    check = answer(dataclasses.replace(searched(1), provenance=changed))
    assert check.state == "not checkable" and "not those it was played under" in check.reason


def test_damage_to_files_is_named(tmp_path: Path) -> None:
    uri = str(tmp_path)
    committer = store.Committer(uri, "run", 1)
    committer.register("a0")
    rows = to_batch([searched(number, number) for number in range(8)])
    blocks = [store.write_block(uri, rows.slice(2 * n, 2), "a0", 1000, n) for n in range(4)]
    committer.commit(blocks)
    assert [c.state for c in verify_corpus(store.open(uri))] == ["true"] * 8
    flipped, missing, torn, swapped = (Path(episodes_uri(uri)) / block.path for block in blocks)
    data = bytearray(flipped.read_bytes())
    data[len(data) // 3] ^= 1
    flipped.write_bytes(data)
    missing.unlink()
    torn.write_bytes(torn.read_bytes()[:-100])
    edited_block = to_batch([dataclasses.replace(searched(3, 6), returns=(0.5, -0.5)), searched(3, 7)])
    from selfplay.store.table.write import encode

    swapped.write_bytes(encode(edited_block))
    lie = to_batch([dataclasses.replace(searched(5, 8), returns=(0.5, -0.5)), searched(5, 9)], blocks[3].head)
    committer.commit([store.write_block(uri, lie, "a0", 1000, 4)])
    false = {c.subject: c.reason for c in verify_corpus(store.open(uri)) if c.state == "false"}
    assert false[blocks[0].path].startswith("the file was changed")
    assert false[blocks[1].path] == "the file is missing"
    assert false[blocks[2].path].startswith("the file was changed")
    assert false[blocks[3].path].startswith("the file was changed")
    assert "its returns are" in false["run/a0/1000/8"] and "run/a0/1000/9" not in false


def test_an_episode_that_is_there_twice_is_named(tmp_path: Path) -> None:
    uri = str(tmp_path)
    committer = store.Committer(uri, "run", 1)
    committer.register("a0")
    rows = to_batch([searched(n, n) for n in range(3)])
    for number in (0, 1):
        committer.commit([store.write_block(uri, rows.slice(number, 2), "a0", 1000, number)])
    false = {c.subject: c.reason for c in verify_corpus(store.open(uri)) if c.state == "false"}
    assert false == {"run/a0/1000/1": "it is there 2 times; `selfplay repair` leaves one"}


@pytest.mark.parametrize("damage", ["missing", "torn"])
def test_a_damaged_corpus_is_one_sentence_to_everybody(tmp_path: Path, damage: str) -> None:
    uri = str(tmp_path / "corpus")
    committer = store.Committer(uri, "run", 1)
    committer.register("a0")
    block = store.write_block(uri, to_batch([searched(0, 0), searched(0, 1)]), "a0", 1000, 0)
    committer.commit([block])
    file = Path(episodes_uri(uri)) / block.path
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-100])
    out = str(tmp_path / "out")
    asked = (["stats"], ["show", "latest"], ["query", "select count(*) from steps"], ["export", "npz"])
    for command in asked:
        said = runner.invoke(app, [*command, uri, *([out] if command[0] == "export" else [])])
        assert isinstance(said.exception, UserError) and "\n" not in str(said.exception), (command, said.exception)
        assert "selfplay repair" in str(said.exception) or command[0] != "stats"
    assert not Path(out).exists()


def test_a_row_changed_in_place_is_named(tmp_path: Path) -> None:
    uri = str(tmp_path)
    batch = to_batch([searched(1, 0), searched(2, 1)])
    place = batch.schema.get_field_index("seed")
    batch = batch.set_column(place, batch.schema.field("seed"), batch.column("seed").fill_null(0).take([1, 1]))
    committer = store.Committer(uri, "run", 1)
    committer.register("a0")
    committer.commit([store.write_block(uri, batch, "a0", 1000, 0)])
    found = {c.subject: c for c in verify_corpus(store.open(uri))}
    assert "changed after sealing" in found["run/a0/1000/0"].reason
    assert found["run/a0/1000/1"].state == "true"


def test_the_commands(tmp_path: Path) -> None:
    uri = str(tmp_path / "corpus")
    archive(uri, [searched(n, n) for n in range(3)])
    shown = runner.invoke(app, ["show", "run/a0/1000/1", str(tmp_path)])
    assert shown.exit_code == 0, shown.output
    assert "visits" in shown.output and "1. seat 0 plays" in shown.output and "returns" in shown.output
    as_json = json.loads(runner.invoke(app, ["show", "latest", uri, "--json"]).output)
    assert as_json["kind"] == "game" and as_json["game"]["steps"][0]["candidates"][1]["q"] == 0.25
    numbers = json.loads(runner.invoke(app, ["stats", uri, "--json"]).output)
    assert numbers["episodes"] == 3 and numbers["by"]["status"] == [
        {"value": "ok", "episodes": 3, "steps": numbers["steps"], "trainable": 3}
    ]
    assert "3 episodes" in runner.invoke(app, ["stats", uri]).output
    verified = runner.invoke(app, ["verify", uri, "--json"])
    assert verified.exit_code == 0 and json.loads(verified.output)["true"] == 3
    os.unlink(Path(episodes_uri(uri)) / store.open(uri).files()[0]["path"])
    broken = runner.invoke(app, ["verify", uri])
    assert broken.exit_code == 1 and "the file is missing" in broken.output


def test_what_is_not_checkable_is_not_harmless(tmp_path: Path) -> None:
    """Reasons are counted apart, what true covered is said, and --strict wants all episodes true."""
    uri = str(tmp_path / "corpus")
    away = dataclasses.replace(PROVENANCE, env_id="unheard_of-v3", env_version=3, ruleset_digest="e" * 64)
    archive(uri, [searched(0, 0), dataclasses.replace(searched(1, 1), provenance=away)])
    told = json.loads(runner.invoke(app, ["verify", uri, "--json"]).stdout)
    assert (told["true"], told["not checkable"], told["classes"]) == (1, 1, {"no plug-in": 1})
    assert told["uncovered"]["run"] == 1 and told["meaning"].startswith("True here means: ")
    said = runner.invoke(app, ["verify", uri])
    assert said.exit_code == 0 and "1 episodes, no plug-in" in said.output and "run of 1 episodes" in said.output
    assert runner.invoke(app, ["verify", uri, "--strict"]).exit_code == 3
    sampled = json.loads(runner.invoke(app, ["verify", uri, "--sample", "1", "--json"]).stdout)
    assert sampled["uncovered"].get("neighbours", 0) == sampled["true"]
    archive(str(tmp_path / "other"), [searched(0, 0)])
    assert runner.invoke(app, ["verify", str(tmp_path / "other"), "--strict"]).exit_code == 0
    lie = dataclasses.replace(searched(2, 1), returns=(0.5, -0.5))
    archive(str(tmp_path / "lie"), [searched(0, 0), lie, dataclasses.replace(searched(1, 2), provenance=away)])
    assert runner.invoke(app, ["verify", str(tmp_path / "lie"), "--strict"]).exit_code == 1


def test_a_time_that_no_date_can_be_ends_nothing(tmp_path: Path) -> None:
    uri = str(tmp_path / "corpus")
    archive(uri, [searched(0, 0)])
    never = pa.array([2**62], pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    for name, column in (("environments", "added_at"), ("runs", "started_at"), ("policies", "created_at")):
        schema = store.SIDE_TABLES[name].schema
        row = {"run_id": "other", "epoch": 1, "env_id": SPEC.id, "policy_id": "other", "version": 0}
        rows = pa.Table.from_pylist([{key: value for key, value in row.items() if key in schema.names}], schema)
        place = schema.get_field_index(column)
        write_deltalake(f"{uri}/{name}", rows.set_column(place, schema.field(place), never))
    assert [check.state for check in verify_corpus(store.open(uri))] == ["true"]


def test_an_answer_is_of_a_class_that_is_written_down() -> None:
    for words in (("x", "not checkable"), ("x", "true", "", "no plug-in"), ("x", "true", "", "", ("nothing",))):
        with pytest.raises(ValueError, match="no such class"):
            Check(*words)  # type: ignore[arg-type]


def test_a_row_of_a_later_schema_than_its_table_is_false(tmp_path: Path) -> None:
    batch = to_batch([searched(0, 0), searched(1, 1)])
    place = batch.schema.get_field_index("schema_version")
    for version in (SCHEMA_VERSION + 1, 0, None):
        uri = str(tmp_path / f"corpus{version}")
        column = pa.array([1, version], pa.int32())
        archive_batch(uri, batch.set_column(place, batch.schema.field(place), column))
        found = {check.subject: check for check in verify_corpus(store.open(uri))}
        said = f"its schema version is {version}, and that of its table {SCHEMA_VERSION}"
        assert found["run/a0/1000/1"].reason == said


def test_bad_input_is_one_sentence(tmp_path: Path) -> None:
    for words in (["show", "latest"], ["stats"], ["verify"]):
        error = runner.invoke(app, [*words, str(tmp_path)]).exception
        assert isinstance(error, UserError) and "there is no corpus" in str(error)
    store.Committer(str(tmp_path), "run", 1)
    error = runner.invoke(app, ["show", "latest", str(tmp_path)]).exception
    assert isinstance(error, UserError) and "holds no episode yet" in str(error)
    assert runner.invoke(app, ["stats", str(tmp_path)]).exit_code == 0
    assert runner.invoke(app, ["verify", str(tmp_path)]).exit_code == 0


def several(uri: str, files: int = 3) -> None:
    committer = store.Committer(uri, "run", 1)
    writer = store.Writer(uri, "a0", committer.register("a0").epoch)
    for number in range(files):
        block, _ = writer.write([searched(n, n) for n in range(10 * number, 10 * number + 10)])
        committer.commit([block])


def test_a_sample_is_checked_alone_and_drawn_by_its_seed(tmp_path: Path) -> None:
    uri = str(tmp_path / "corpus")
    several(uri)
    corpus = store.open(uri)
    drawn = [[check.subject for check in verify_corpus(corpus, 7, seed)] for seed in (0, 0, 1)]
    assert [len(set(subjects)) for subjects in drawn] == [7, 7, 7] and drawn[0] == drawn[1] != drawn[2]
    assert len(list(verify_corpus(corpus, 1000))) == 30
    told = runner.invoke(app, ["verify", uri, "--sample", "7", "--json"])
    assert json.loads(told.stdout)["true"] == 7


def test_processes_find_what_one_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from selfplay.store.verify import verify

    uri = str(tmp_path / "corpus")
    several(uri)
    corpus = store.open(uri)
    victim = Path(episodes_uri(uri)) / corpus.files()[0]["path"]
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    monkeypatch.setattr(verify, "_PART_ROWS", 4)
    alone = {(check.subject, check.state) for check in verify_corpus(corpus)}
    together = {(check.subject, check.state) for check in verify_corpus(corpus, processes=2)}
    assert together == alone and (corpus.files()[0]["path"], "false") in alone and len(alone) >= 21
