"""Releases: pinned for ever, described so that loaders understand, and checkable by strangers with one file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyspiel
import pytest
from deltalake import CommitProperties, Transaction, write_deltalake
from typer.testing import CliRunner

from selfplay import store
from selfplay.cli.corpus import app
from selfplay.environments import registry
from selfplay.environments.game import load
from selfplay.environments.playthrough import ruleset_digest
from selfplay.episode import EPISODES, Episode, Provenance, random_episode, to_batch
from selfplay.episode.schema import PARTITION_BY
from selfplay.errors import UserError
from selfplay.io import storage
from selfplay.play.generator import Generator, PlaySettings, Policy
from selfplay.search import SearchConfig
from selfplay.search.hash_net import HashNet
from selfplay.store import release as releases
from selfplay.store.coverage import COVERED, meaning
from selfplay.store.release import job
from selfplay.store.release.certificate import facts
from selfplay.store.release.diversity import diversity
from selfplay.store.release.schema_md import columns, names_null, schema_md
from selfplay.store.table import maintenance
from selfplay.store.table.table import SIDE_TABLES, episodes_uri, open_or_create_episodes, open_table
from selfplay.store.table.write import encode

runner = CliRunner()
#: Runs the verifier where nothing of ours can be imported.
ALONE = """
import runpy, sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("selfplay", "envs", "trainers"):
            raise ImportError(name)
sys.meta_path.insert(0, Nothing())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def provenance(reference: str) -> Provenance:
    spec = registry.find(reference)
    return Provenance("run", spec.id, spec.version, ruleset_digest(spec), "b" * 64, "0.1.0", "here", "CC0-1.0")


@pytest.fixture(scope="module", autouse=True)
def _state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A home of its own for the key that signs releases."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="module")
def blocks() -> dict[str, list[Episode]]:
    """Episodes by slot: searches with openings; chance and hidden cards; all seats at once; rules nobody has here."""
    game = load(registry.find("tic_tac_toe"))
    settings = PlaySettings(slots=8, simulations=8, opening_fraction=0.5, opening_plies=2, ply_limit=9)
    net = HashNet(game.num_actions, value_range=1.0)
    made = Generator(
        game, net, SearchConfig(), settings, provenance("tic_tac_toe"), "search", 1000, 0, np.random.default_rng(0)
    )
    made.set_policy(Policy("run", 3, "c" * 64))
    found: dict[str, list[Episode]] = {"search": made.play(lambda sealed, _: sealed >= 12)[:12]}
    for slot, name in (("chance", "kuhn_poker"), ("joint", "goofspiel(num_cards=3)"), ("more", "tic_tac_toe()")):
        origin = provenance(f"openspiel:{name}")
        rules = pyspiel.load_game(name)
        found[slot] = [random_episode(rules, n, origin, slot=slot, epoch=1000, number=n) for n in range(5)]
    other = {"env_id": "unheard_of-v3", "env_version": 3, "ruleset_digest": "d" * 64}
    away = dataclasses.replace(provenance("tic_tac_toe"), **other)
    away_game = random_episode(pyspiel.load_game("tic_tac_toe"), 1, away, slot="away", epoch=1000)
    assert away_game.game is not None
    unknown = dataclasses.replace(away_game.game, game_string="unheard_of()")
    found["away"] = [dataclasses.replace(away_game, game=unknown)]
    return found


def archive(uri: str, blocks: dict[str, list[Episode]]) -> store.Corpus:
    committer = store.Committer(uri, "run", 1)
    for slot, episodes in blocks.items():
        committer.register(slot)
        committer.commit([store.write_block(uri, to_batch(episodes), slot, 1000, 0)])
    row = {"env_id": "unheard_of-v3", "ruleset_digest": "d" * 64, "package": "their-games", "package_version": "2.1"}
    store.append(uri, "environments", [row])
    return store.open(uri)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, blocks: dict[str, list[Episode]]) -> tuple[str, releases.Released]:
    uri = str(tmp_path_factory.mktemp("made") / "corpus")
    return uri, releases.release(archive(uri, blocks), "first", "To test with.")


def copied(made: tuple[str, releases.Released], tmp_path: Path) -> str:
    return shutil.copytree(made[0], tmp_path / "corpus").as_posix()


def check(uri: str, *words: str, script: str = "") -> tuple[int, dict[str, Any]]:
    """What the one-file verifier says of a release, run alone."""
    command = [sys.executable, "-I", "-c", ALONE, script or f"{uri}/released/first/verify_corpus.py"]
    done = subprocess.run([*command, *words, "--json"], capture_output=True, text=True, cwd="/")
    assert done.returncode in (0, 1, 2) and "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout) if done.stdout else {"said": done.stderr}


def ours(uri: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(runner.invoke(app, ["verify", uri, "--json"]).stdout)
    return told


def subjects(told: dict[str, Any]) -> set[str]:
    return {lie["subject"] for lie in told["falsehoods"]}


def text(uri: str, name: str) -> str:
    return Path(uri, "released", "first", name).read_text()


def test_the_certificate_holds_what_the_files_are(made: tuple[str, releases.Released]) -> None:
    uri, done = made
    certificate = json.loads(text(uri, "certificate.json"))
    assert (done.episodes, done.true, done.not_checkable) == (28, 27, 1)
    uncovered = {"configuration": 12, "end": 27, "run": 27, "surprise": 12}
    assert certificate["verification"] == {
        "true": 27,
        "false": 0,
        "not checkable": 1,
        "reasons": {"unheard_of-v3 is not installed; install their-games 2.1": 1},
        "sample": None,
        "seed": None,
        "classes": {"no plug-in": 1},
        "uncovered": uncovered,
        "meaning": meaning(uncovered),
    }
    assert meaning(uncovered) in text(uri, "README.md") and all(line in text(uri, "README.md") for line in COVERED)
    for name, digest in certificate["release_files"].items():
        assert hashlib.sha256(text(uri, name).encode()).hexdigest() == digest
    assert hashlib.sha256(text(uri, "certificate.json").encode()).hexdigest() == done.certificate_sha256
    for file in certificate["files"]:
        data = Path(episodes_uri(uri), file["path"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file["size"], file["sha256"])
    digests = sorted(store.open(uri).to_arrow()["content_digest"].to_pylist())
    assert certificate["content_digest"] == hashlib.sha256("".join(f"{d}\n" for d in digests).encode()).hexdigest()
    rulesets = {row["env_id"]: row for row in certificate["rulesets"]}
    assert rulesets["unheard_of-v3"]["package"] == "their-games"
    assert rulesets["tic_tac_toe-v0"]["ruleset_digest"] == ruleset_digest(registry.find("tic_tac_toe"))
    assert set(certificate["packages"]) == {"selfplay-factory", "open_spiel", "pyarrow", "deltalake"}
    (listed,) = releases.released(store.open(uri))
    assert listed == done
    for name in releases.FILES:  # none tells of this machine
        assert uri not in text(uri, name) and socket.gethostname() not in text(uri, name).split()


def test_the_one_file_verifier_agrees(made: tuple[str, releases.Released]) -> None:
    code, told = check(made[0])
    assert code == 0 and told["falsehoods"] == []
    mine = ours(made[0])
    assert [told[state] for state in ("true", "false", "not checkable")] == [27, 0, 1]
    assert [mine[state] for state in ("true", "false", "not checkable")] == [27, 0, 1]
    (reason,) = told["missing"]
    assert "install their-games" in reason
    code, told = check(made[0], "--sample", "6")
    assert code == 0 and told["true"] + told["not checkable"] == 6
    code, told = check(made[0], "/nowhere")
    assert code == 2 and "cannot be read" in told["said"]


def test_damage_is_found_by_both(
    made: tuple[str, releases.Released], blocks: dict[str, list[Episode]], tmp_path: Path
) -> None:
    uri = copied(made, tmp_path)
    by_slot = {file["min.slot"]: Path(episodes_uri(uri), file["path"]) for file in store.open(uri).files()}
    data = bytearray(by_slot["search"].read_bytes())
    data[len(data) // 3] ^= 1
    by_slot["search"].write_bytes(data)
    by_slot["chance"].unlink()
    by_slot["joint"].write_bytes(by_slot["joint"].read_bytes()[:-100])
    lie = dataclasses.replace(blocks["more"][0], returns=(0.5, -0.5))
    by_slot["more"].write_bytes(encode(to_batch([lie, *blocks["more"][1:]])))
    code, told = check(uri)
    mine = ours(uri)
    assert code == 1
    paths = {path.relative_to(episodes_uri(uri)).as_posix() for slot, path in by_slot.items() if slot != "away"}
    assert subjects(told) == subjects(mine) and paths | {lie.episode_id} <= subjects(mine)
    assert [told[state] for state in ("true", "not checkable")] == [mine[state] for state in ("true", "not checkable")]
    reasons = {one["subject"]: one["reason"] for one in told["falsehoods"]}
    assert "its returns are" in reasons[lie.episode_id]
    with pytest.raises(UserError, match="nothing was released: version 6 is not true .* and 2 more"):
        releases.release(store.open(uri), "second")
    assert not Path(uri, "released", "second").exists() and len(releases.released(store.open(uri))) == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"returns": (0.5, -0.5)}, "its returns are"),  # the rules know better
        ({"game": "connect_four()"}, "it names"),
        ({"seed": 12345}, None),  # no rule speaks of it: only the certificate can know
    ],
)
def test_a_rewritten_table_is_found(
    made: tuple[str, releases.Released],
    blocks: dict[str, list[Episode]],
    tmp_path: Path,
    change: dict[str, Any],
    reason: str | None,
) -> None:
    uri = str(tmp_path / "corpus")
    true = blocks["search"][2]
    if "game" in change:
        assert true.game is not None
        change = {"game": dataclasses.replace(true.game, game_string=change["game"])}
    lie = dataclasses.replace(true, **change)
    archive(uri, {**blocks, "search": [*blocks["search"][:2], lie, *blocks["search"][3:]]})
    shutil.copytree(Path(made[0], "released"), Path(uri, "released"))
    mine = ours(uri)
    assert subjects(mine) == ({lie.episode_id} if reason else set())
    code, told = check(uri)
    reasons = {one["subject"]: one["reason"] for one in told["falsehoods"]}
    assert code == 1 and subjects(mine) <= set(reasons)
    assert {"the certificate does not list this file"} < set(reasons.values())
    if reason:
        assert reason in reasons[lie.episode_id]
    if "game" in change:
        with pytest.raises(UserError, match="has two games under one digest"):
            facts(store.open(uri), "second", "", job.Verified(0, 0, {}, None, None))


def lies(true: Episode) -> dict[str, Episode]:
    """Falsehoods with digests that fit, made from a game with searches, by what is said of each."""
    assert true.game is not None
    game = true.game
    place = next(i for i, step in enumerate(game.steps) if len(step.actions) > 1)
    step = game.steps[place]

    def with_step(**changes: Any) -> Episode:
        steps = (*game.steps[:place], dataclasses.replace(step, **changes), *game.steps[place + 1 :])
        return dataclasses.replace(true, game=dataclasses.replace(game, steps=steps))

    def with_game(**changes: Any) -> Episode:
        return dataclasses.replace(true, game=dataclasses.replace(game, **changes))

    away = np.where(step.actions > step.action, 77, -77)
    others = np.where(step.actions == step.action, step.actions, step.actions + away).astype(np.int32)
    span = dataclasses.replace(true.policy_spans[0], last_step=len(game.steps))
    return {
        "its returns are": dataclasses.replace(true, returns=(0.25, -0.25)),
        "no return for every seat": dataclasses.replace(true, returns=None),
        "its status is truncated": dataclasses.replace(true, status="truncated"),
        "its status is error": dataclasses.replace(true, status="error"),
        "not marked trainable": dataclasses.replace(true, trainable=False),
        "in units of": with_game(value_scale=64.0),
        "ended by ply_limit": with_game(ended_by="ply_limit"),
        "resigned seat contradicts": with_game(resigned_seat=0),
        "the rules say otherwise": with_game(replay_digest="0" * 64),
        "not among its candidates": with_step(action=77),
        "policy span": with_step(seat=1 - step.seat),
        "not the legal actions": with_step(actions=others),
        "simulations": with_step(simulations=1),
        "the priors sum to": with_step(prior=np.zeros_like(step.prior)),
        "without a value": with_step(q=np.full_like(step.q, np.nan)),
        "a policy span": dataclasses.replace(true, policy_spans=(span,)),
    }


def test_both_name_the_same_lies(
    blocks: dict[str, list[Episode]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = str(tmp_path / "corpus")
    said = lies(blocks["search"][0])
    false = [dataclasses.replace(lie, number=12 + n) for n, lie in enumerate(said.values())]
    corpus = archive(uri, {"search": [*blocks["search"], *false]})
    monkeypatch.setattr(job, "verified", lambda *_: job.Verified(0, 0, {}, None, None))
    releases.release(corpus, "first")
    code, told = check(uri)
    mine = ours(uri)
    assert code == 1 and (told["true"], told["false"]) == (mine["true"], mine["false"]) == (12, len(said))
    for verdicts in (told, mine):
        reasons = {one["subject"]: one["reason"] for one in verdicts["falsehoods"]}
        for reason, lie in zip(said, false, strict=True):
            assert reason in reasons[lie.episode_id], (reason, reasons[lie.episode_id])
    place = Path(uri, "released", "first", "certificate.json")
    certificate = json.loads(place.read_text())
    certificate["packages"]["open_spiel"] = "0.1"  # then a contradiction to the rules may be theirs
    place.write_text(json.dumps(certificate))
    code, other = check(uri)
    assert code == 1 and other["true"] == 12 and 0 < other["false"] < told["false"]
    assert any("install open_spiel==0.1" in reason for reason in other["missing"])


def test_writers_go_on_beside_a_release(blocks: dict[str, list[Episode]], tmp_path: Path) -> None:
    uri = str(tmp_path / "corpus")
    committer = store.Committer(uri, "run", 1)
    for slot in ("more", "joint"):
        committer.register(slot)
    committer.commit([store.write_block(uri, to_batch(blocks["more"]), "more", 1000, 0)])
    first = releases.release(store.open(uri), "first")
    committer.commit([store.write_block(uri, to_batch(blocks["joint"]), "joint", 1000, 0)])
    second = releases.release(store.open(uri), "second")
    assert (first.episodes, second.episodes, store.open(uri).count()) == (5, 10, 10)
    assert open_table(episodes_uri(uri)).metadata().description  # the schema version is written there


def test_an_episode_twice_is_false(blocks: dict[str, list[Episode]], tmp_path: Path) -> None:
    uri = str(tmp_path / "corpus")
    archive(uri, {"search": blocks["search"]})
    committer = store.Committer(uri, "run", 1)
    committer.commit([store.write_block(uri, to_batch(blocks["search"][:1]), "search", 1000, 1)])
    twice = blocks["search"][0].episode_id
    with pytest.raises(UserError, match=f"nothing was released: .*{twice}.* (more than once|there 2 times)"):
        releases.release(store.open(uri), "first")


def test_a_release_outlives_compaction_vacuum_and_the_age_of_the_log(
    made: tuple[str, releases.Released], blocks: dict[str, list[Episode]], tmp_path: Path
) -> None:
    uri = copied(made, tmp_path)
    version = made[1].table_version
    again = [dataclasses.replace(one, epoch=2000) for one in blocks["more"]]
    committer = store.Committer(uri, "run", 2)
    committer.register("more")
    committer.commit([store.write_block(uri, to_batch(again), "more", 2000, 0)])
    maintenance.compact(uri)
    assert runner.invoke(app, ["vacuum", uri, "--hours", "0", "--yes"]).exit_code == 0
    assert len(list(store.open(uri, version).records())) == 28
    table = open_table(episodes_uri(uri))
    table.create_checkpoint()
    old = time.time() - 60 * 86400
    for entry in Path(episodes_uri(uri), "_delta_log").iterdir():
        os.utime(entry, (old, old))
    for number in range(105):  # delta-rs cleans up after every hundredth commit
        properties = CommitProperties(app_transactions=[Transaction("other", number, 1)])
        table.create_write_transaction([], "append", table.schema(), PARTITION_BY, commit_properties=properties)
        table.update_incremental()
    assert {e.episode_id for e in store.open(uri, version).records()} == {
        e.episode_id for episodes in blocks.values() for e in episodes
    }
    assert check(uri)[0] == 0


def test_a_name_is_given_once(made: tuple[str, releases.Released], tmp_path: Path) -> None:
    uri = copied(made, tmp_path)
    corpus = store.open(uri)
    for name, said in (("first", "is released already, as version 6"), ("../away", "may hold letters")):
        error = runner.invoke(app, ["release", name, uri]).exception
        assert isinstance(error, UserError) and said in str(error)
    with pytest.raises(UserError, match="say the NAME"):
        runner.invoke(app, ["release", "alone"], catch_exceptions=False)
    empty = str(tmp_path / "empty")
    store.Committer(empty, "run", 1)
    with pytest.raises(UserError, match="holds no episode"):
        releases.release(store.open(empty), "nothing")
    assert corpus.version <= store.open(uri).version


@pytest.mark.slow
def test_of_two_processes_one_releases(blocks: dict[str, list[Episode]], tmp_path: Path) -> None:
    uri = str(tmp_path / "corpus")
    archive(uri, {"more": blocks["more"]})
    code = "from selfplay.cli.main import main; main()"
    command = [sys.executable, "-c", code, "corpus", "release", "first", uri, "--json"]
    killed = subprocess.run(command, env={**os.environ, "SELFPLAY_FAULT": "before_release"}, capture_output=True)
    assert killed.returncode < 0 and releases.released(store.open(uri)) == []
    racing = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    told = [process.communicate() for process in racing]
    assert sorted(process.returncode for process in racing) == [0, 2], told
    (loser,) = [err for process, (_, err) in zip(racing, told, strict=True) if process.returncode]
    assert "first" in loser and ("released" in loser or "releasing" in loser) and len(loser.strip().splitlines()) == 1
    (one,) = releases.released(store.open(uri))
    assert hashlib.sha256(text(uri, "certificate.json").encode()).hexdigest() == one.certificate_sha256


def test_the_loser_of_the_last_step_is_told(
    blocks: dict[str, list[Episode]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = str(tmp_path / "corpus")
    corpus = archive(uri, {"more": blocks["more"]})
    row = {"name": "first", "table_version": corpus.version}
    monkeypatch.setattr(job, "_refuse_vacuumed", lambda *_: store.append(uri, "releases", [row]))
    with pytest.raises(UserError, match="another process released first at the same time"):
        releases.release(corpus, "first")


def test_the_command(blocks: dict[str, list[Episode]], tmp_path: Path) -> None:
    uri = str(tmp_path / "run" / "corpus")
    archive(uri, {"search": blocks["search"]})
    version = store.open(uri).version
    empty = runner.invoke(app, ["release", "--list", uri])
    assert empty.exit_code == 0 and "nothing is released yet" in empty.stdout
    done = runner.invoke(app, ["release", "one", str(tmp_path / "run"), "--sample", "5", "--seed", "3"])
    assert done.exit_code == 0, done.output
    assert "12 episodes, 5 of them checked, 5 true" in done.stdout and "signed by ed25519:" in done.stdout
    assert f'store.open("{uri}", version={version})' in done.stdout.splitlines()[-1]
    certificate = json.loads(Path(uri, "released", "one", "certificate.json").read_text())
    assert (certificate["verification"]["sample"], certificate["verification"]["seed"]) == (5, 3)
    assert "a sample of 5 (seed 3)" in Path(uri, "released", "one", "README.md").read_text()
    again = runner.invoke(app, ["release", "two", uri, "--version", str(version), "--note", "why", "--json"])
    assert json.loads(again.stdout)["table_version"] == version <= store.open(uri).version
    listed = runner.invoke(app, ["release", "--list", uri, "--json"])
    assert [json.loads(line)["name"] for line in listed.stdout.splitlines()] == ["one", "two"]
    assert "why" in runner.invoke(app, ["release", "--list", uri]).stdout


def test_croissant_is_read_by_its_own_loader(made: tuple[str, releases.Released]) -> None:
    mlc = pytest.importorskip("mlcroissant")
    uri, done = made
    dataset = mlc.Dataset(f"{uri}/released/first/croissant.json")
    assert not dataset.metadata.issues.errors and not dataset.metadata.issues.warnings
    told = json.loads(text(uri, "croissant.json"))
    committed = json.loads(text(uri, "certificate.json"))["committed_at"]
    assert told["isLiveDataset"] is False and told["datePublished"] == committed
    assert {field["name"] for field in told["recordSet"][0]["field"]} == set(EPISODES.names)
    records = list(dataset.records("episodes"))
    assert len({record["episodes/episode_id"] for record in records}) == done.episodes
    assert {record["episodes/run_id"] for record in records} == {b"run"}


def test_the_card_is_read_by_the_hub(made: tuple[str, releases.Released]) -> None:
    hub = pytest.importorskip("huggingface_hub")
    uri, done = made
    card = hub.DatasetCard.load(f"{uri}/released/first/README.md")
    assert card.data.license == ["cc0-1.0"] and card.data.size_categories == ["n<1K"]
    (config,) = card.data["configs"]
    (split,) = config["data_files"]
    assert split["path"] == sorted(f"episodes/{file['path']}" for file in store.open(uri).files())
    assert done.content_digest in card.text and f"version={done.table_version}" in card.text
    assert "not checkable (1 episodes): unheard_of-v3" in card.text


def test_the_card_tells_how_diverse_it_is(tmp_path: Path) -> None:
    uri, origin = str(tmp_path / "corpus"), provenance("tic_tac_toe")
    rules = pyspiel.load_game("tic_tac_toe")
    seeds = (1, 2, 3, 1, 1)  # one game three times
    games = [random_episode(rules, seed, origin, slot="a", epoch=1000, number=n) for n, seed in enumerate(seeds)]
    golden = store.open(str(Path(__file__).parents[1] / "golden" / "corpus_v1")).to_arrow()
    dialogues = golden.filter(pc.equal(golden["kind"], "reasoning")).cast(EPISODES)
    corpus = archive(uri, {"a": games})
    found = diversity(corpus)
    (row,) = found["game"]
    plies = {tuple(step.action for step in game.game.steps)[:4] for game in games if game.game}
    assert (row["episodes"], row["different"], row["openings_4"]) == (5, 3, len(plies))
    assert (found["reasoning"], found["control"]) == ([], [])
    releases.release(corpus, "first")
    assert "| tic_tac_toe-v0 | 5 | 3 | 40.0% |" in text(uri, "README.md")
    assert json.loads(text(uri, "certificate.json"))["diversity"]["game"] == [row]
    twice = pa.concat_tables([dialogues, dialogues])
    told = {"problem": "problem_digest", "answer": "answer"}
    pairs = {tuple(one["reasoning"][name] for name in told.values()) for one in dialogues.to_pylist()}
    place = storage.join(str(tmp_path / "twice"), "episodes")
    open_or_create_episodes(str(tmp_path / "twice"))
    write_deltalake(place, twice, mode="append")
    rows = diversity(store.open(str(tmp_path / "twice")))["reasoning"]
    assert sum(one["episodes"] for one in rows) == twice.num_rows
    assert sum(one["different"] for one in rows) <= dialogues.num_rows
    assert sum(one["answers"] for one in rows) == len(pairs)


def test_the_card_s_examples_run(made: tuple[str, releases.Released]) -> None:
    example = text(made[0], "README.md").split("```python\n")[1].split("```")[0].replace("CORPUS", made[0])
    exec(compile(example, "README.md", "exec"), {})


def test_every_column_says_what_it_is(made: tuple[str, releases.Released]) -> None:
    written = schema_md()
    for schema in (EPISODES, *(side.schema for side in SIDE_TABLES.values())):
        for path, field in columns(schema):
            said = (field.metadata or {}).get(b"comment", b"").decode()
            assert len(said) > 2 and f"| `{path}` |" in written and said.replace("|", "\\|") in written, path
    rows = store.open(made[0]).to_arrow().cast(EPISODES).combine_chunks()
    for field in EPISODES:
        _no_null_without_a_meaning(field.name, field, rows.column(field.name).combine_chunks())


def _no_null_without_a_meaning(path: str, field: pa.Field, array: pa.Array) -> None:
    assert names_null(field) or not array.null_count, path
    array = array.drop_null()
    kind = field.type
    if pa.types.is_list(kind):
        array, kind = pc.list_flatten(array), kind.value_type
    if pa.types.is_struct(kind):
        for child, values in zip(kind, array.flatten(), strict=True):
            _no_null_without_a_meaning(f"{path}.{child.name}", child, values)


@pytest.mark.slow
def test_on_s3(blocks: dict[str, list[Episode]], tmp_path: Path, s3: str) -> None:
    uri = f"{s3}/runs/corpus"
    done = releases.release(archive(uri, blocks), "first")
    maintenance.compact(uri)
    maintenance.vacuum(uri, 0, dry_run=False)
    assert len(list(store.open(uri, done.table_version).records())) == 28
    for name in ("certificate.json", "verify_corpus.py"):
        (tmp_path / name).write_bytes(storage.read(storage.join(done.place, name)))
    for words in ([], ["--certificate", f"{done.place}/certificate.json"]):
        code, told = check("", uri, *words, script=str(tmp_path / "verify_corpus.py"))
        assert code == 0 and told["true"] == 27, told
    copy = releases.release_redacted(store.open(uri), "first", f"{s3}/copy")
    assert (copy.true, store.open(f"{s3}/copy").count()) == (27, 28)
    (tmp_path / "certificate.json").write_bytes(storage.read(storage.join(copy.place, "certificate.json")))
    code, told = check("", f"{s3}/copy", script=str(tmp_path / "verify_corpus.py"))
    assert code == 0 and told["true"] == 27, told
    with pytest.raises(UserError, match="there is something at"):
        releases.release_redacted(store.open(uri), "first", f"{s3}/copy")


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of an S3 server on this machine."""
    pytest.importorskip("moto.server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    endpoint = f"http://127.0.0.1:{port}"
    keys = {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    for name, value in {**keys, "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{endpoint}/moto-api", timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        urllib.request.urlopen(urllib.request.Request(f"{endpoint}/releases", method="PUT"), timeout=10).close()
        yield "s3://releases"
    finally:
        server.kill()
        server.wait()
