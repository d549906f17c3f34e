"""Late labels: added once, all or none, with who says it; and shown where the episode is."""

from __future__ import annotations

import json
from pathlib import Path

import pyspiel
import pytest
from typer.testing import CliRunner

from selfplay import store
from selfplay.cli.corpus import app
from selfplay.cli.main import call
from selfplay.episode import Provenance, random_episode, to_batch
from selfplay.errors import UserError
from selfplay.store.corpus.annotations import Label, annotate, labels_of, read_labels

runner = CliRunner()


@pytest.fixture
def uri(tmp_path: Path) -> str:
    uri = str(tmp_path / "corpus")
    committer = store.Committer(uri, "run", 1)
    epoch = committer.register("a").epoch
    provenance = Provenance("run", "tic_tac_toe-v0", 0, "a" * 64, "b" * 64, "0.1", "here", "CC0-1.0")
    game = pyspiel.load_game("tic_tac_toe")
    episodes = [random_episode(game, n, provenance, slot="a", epoch=epoch, number=n) for n in range(3)]
    committer.commit([store.write_block(uri, to_batch(episodes), "a", epoch, 0)])
    return uri


def name(uri: str, number: int) -> str:
    return f"run/a/1000/{number}"


def test_labels_are_added_once_and_found(uri: str) -> None:
    labels = [Label(name(uri, 0), "blunder", {"loss": 1.5}, step=2), Label(name(uri, 1), "duplicate_of", "x")]
    assert annotate(uri, labels, "ana", "finder 1.2") == 2
    assert annotate(uri, labels, "ana", "finder 1.2") == 0, "a repeated call changes nothing"
    assert annotate(uri, labels[:1], "ben", "finder 1.2") == 1
    corpus = store.open(uri)
    one, two = labels_of(corpus, name(uri, 0))
    assert (one["author"], one["step"], json.loads(one["value"])) == ("ana", 2, {"loss": 1.5})
    assert two["author"] == "ben"
    found = corpus.to_duckdb().sql("select count(*) from annotations join episodes using (episode_id)").fetchall()
    assert found == [(3,)]


def test_who_changes_his_mind_twice_is_heard(uri: str) -> None:
    for value in ("good", "bad", "good"):
        assert annotate(uri, [Label(name(uri, 0), "quality", value)], "ana", "by hand") == 1
        assert annotate(uri, [Label(name(uri, 0), "quality", value)], "ana", "by hand") == 0
    assert [json.loads(row["value"]) for row in labels_of(store.open(uri), name(uri, 0))] == ["good", "bad", "good"]


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (Label("run/a/1000/99", "x", 1), "is not in"),
        (Label("run/a/1000/0", "x", 1, step=50), "not 50"),
        (Label("run/a/1000/0", "not a name", 1), "may hold letters"),
    ],
)
def test_a_wrong_label_adds_none(uri: str, label: Label, said: str) -> None:
    with pytest.raises(UserError, match=said):
        annotate(uri, [Label(name(uri, 0), "fine", True), label], "ana", "by hand")
    assert store.open(uri).table("annotations").num_rows == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2: "),
        ('{"name": "x", "value": 1}', "a label needs episode_id"),
        ('{"episode_id": "a", "name": "x", "value": 1, "stepp": 3}', "stepp is no field"),
        ('{"episode_id": "a", "name": "x", "value": 1, "step": "3"}', "whole number"),
        ('["a"]', "a label is an object"),
        ("[" * 100_000, "line 2: maximum recursion depth"),
        ('{"episode_id": "\\ud800", "name": "x", "value": 1}', "surrogates not allowed"),
        ("[]", "a label is an object"),
    ],
)
def test_a_wrong_line_is_named(line: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        list(read_labels(["", line], "labels.jsonl"))


def test_the_command(uri: str, tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    file.write_text(json.dumps({"episode_id": name(uri, 2), "name": "checked", "value": True}) + "\n\n")
    command = ["annotate", str(file), uri, "--author", "ana", "--source", "by hand"]
    assert "1 label was added" in runner.invoke(app, command).stdout
    assert "were there already" in runner.invoke(app, command).stdout
    shown = runner.invoke(app, ["show", name(uri, 2), uri]).stdout
    assert "checked" in shown and "ana" in shown
    told = json.loads(runner.invoke(app, ["show", name(uri, 2), uri, "--json"]).stdout)
    assert told["annotations"][0]["author"] == "ana"
    assert call(["corpus", "annotate", str(tmp_path / "no"), uri, "--author", "a", "--source", "b"]) == 2
