"""Every file of a run's folder, damaged in every way: a reader goes on with the one before, or names the file."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfplay import agent, store
from selfplay.agent import Agent
from selfplay.cli.main import call
from selfplay.cli.run import configuration
from selfplay.cli.top import look
from selfplay.environments import registry
from selfplay.environments.game import load
from selfplay.errors import Damaged, UserError
from selfplay.io import run_files, sealed
from selfplay.nets import weights
from selfplay.nets.policy_value import build, to_arrays
from selfplay.store.table import lease as leases
from trainers.alphazero.actors import net_config, search_config
from trainers.alphazero.state import State
from trainers.kinds import REASONING, SELF_PLAY
from trainers.recipe import load_recipe
from trainers.run.restore import restore
from trainers.run.run_folder import RunFolder
from trainers.run.services import Office
from trainers.run.settings import Experiment

VERSIONS, SCORES = 3, [{"version": 1, "level": 1.0}]


def begin(place: Path, config: Experiment, kind: Any, about: str, tensors: dict[str, Any]) -> Path:
    """A run as two drivers leave it: two checkpoints, three versions, a state of each driver."""
    for epoch in (1, 2):
        with store.acquire(str(place), "selfplay run") as lease:
            folder = RunFolder(str(place), config, kind, lease)
            folder.begin(about)
            store.Committer(folder.corpus, folder.run_id, lease.epoch)
            folder.state.checkpoint = f"{epoch:06d}-{epoch:09d}.safetensors"
            folder.state.version, folder.state.elapsed_s = epoch, 10.0 * epoch
            meta = {"kind": "learner", "step": epoch, "state": asdict(folder.state)}
            weights.save(folder.checkpoint_uri(folder.state.checkpoint), tensors, meta)
            weights.save(run_files.weights_uri(folder.uri, epoch), tensors, {"kind": "weights", "version": epoch})
            folder.save()
    weights.save(run_files.weights_uri(str(place), 0), tensors, {"kind": "weights", "version": 0})
    shown: dict[str, object] = {"phase": "finished", "activity": "", "messages": [], "lost": {"count": 0}}
    shown |= {"strength": [], "exact": [], "episodes": 2, "version": 2, "positions_per_s": 1.0}
    shown |= {"elapsed_s": 9.0, "total_s": 9.0}
    status = {"kind": "self-play", "status": shown, "written_at": "2026-01-01T00:00:00+00:00", "every_s": 5.0}
    (place / run_files.STATUS_FILE).write_text(sealed.dumps(status))
    return place


@pytest.fixture(scope="module")
def games(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = load_recipe("tic_tac_toe", ["net.channels=4", "net.blocks=1"])
    game = load(registry.find("tic_tac_toe"))
    net = net_config(config, game)
    about = agent.describe(game, net, search_config(config), "a-run")
    place = tmp_path_factory.mktemp("games") / "run"
    return begin(place, config, SELF_PLAY, about, to_arrays(build(net, 0)))


@pytest.fixture(scope="module")
def reasoning(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tensors = {"a": np.arange(6, dtype=np.float32)}
    about = json.dumps({"schema": 1, "kind": "reasoning", "policy": {}})
    return begin(tmp_path_factory.mktemp("cot") / "run", load_recipe("parity_cot"), REASONING, about, tensors)


def changed(data: bytes) -> bytes:
    """One digit, or one byte where there is none: what only a digest can see."""
    at = next((i for i in range(len(data) - 2, 0, -1) if data[i : i + 1].isdigit()), len(data) // 2)
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def unknown(data: bytes) -> bytes:
    """Valid JSON with a field that nobody knows; other files are cut by a byte."""
    try:
        return json.dumps({**json.loads(data), "unheard": 1}).encode()
    except (ValueError, TypeError):
        return data[:-1]


WAYS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "other JSON": lambda data: b"[17]",
    "an empty object": lambda data: b"{}",
    "changed": changed,
    "an unknown field": unknown,
    "no text": lambda data: b"\xff\xfe\x00" * 40,
    "a wrong type": lambda data: data.replace(b'"schema": 3', b'"schema": "two"').replace(b'"seed": 0', b'"seed": {}'),
}
#: Files that the next start depends on. The corpus has tests of its own.
FILES = [
    "config.json", "run.json", "agent.json", "status.json", "begun/000001.json", "begun/000002.json",
    "state/000001.json", "state/000002.json", "lease/000001.json", "lease/000002.json",
    "checkpoints/000001-000000001.safetensors", "checkpoints/000002-000000002.safetensors",
    "weights/000000.safetensors", "weights/000001.safetensors", "weights/000002.safetensors",
]  # fmt: skip


def start(run: Path, kind: Any) -> tuple[Any, list[str]]:
    """What a start does before Ray: the folder is taken, read, and written to; the state and what was said."""
    said: list[str] = []
    config = configuration(None, str(run), [])
    with store.acquire(str(run), "me", said.append) as lease:
        folder = RunFolder(str(run), config, kind, lease)
        about, damaged = run_files.read_part(folder.uri, run_files.AGENT_FILE, "agent", 1)
        folder.pass_over(damaged, "the record of the last start")
        folder.begin(json.dumps(about))
        checkpoints = folder.checkpoints()
        found = restore(folder.uri, checkpoints, lambda uri: weights.load(uri)[1]["state"])
        folder.pass_over(found.damaged, found.place or "a new learner")
        if checkpoints and found.checkpoint != folder.state.checkpoint:
            folder.went_back(found.checkpoint, found.state)
        folder.tell_damage(said.append)
        folder.save()
        return folder.state, said


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["games", "reasoning"])
def test_every_file_in_every_way(
    kind: str, way: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "EXPIRES_S", 0.0)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # a hundred starts
    whole: Path = request.getfixturevalue(kind)
    first = json.loads((whole / "run.json").read_text())["run_id"]
    for name in FILES:
        run = tmp_path / name.replace("/", "-")
        shutil.copytree(whole, run)
        data = WAYS[way]((whole / name).read_bytes())
        (run / name).write_bytes(data)
        same = data == (whole / name).read_bytes()
        try:
            state, said = start(run, SELF_PLAY if kind == "games" else REASONING)
        except UserError as error:
            sentence = str(error)
            assert name in sentence and "\n" not in sentence, (name, sentence)
            assert name == "config.json" and way in ("an empty object", "an unknown field", "a wrong type"), sentence
            continue
        assert json.loads((run / "run.json").read_text())["run_id"] == first, name
        assert state.checkpoint and state.version >= 1 and state.elapsed_s >= 10.0, name
        matters = name in ("run.json", "agent.json", "state/000002.json") or name.startswith("checkpoints/000002")
        if matters and not same and not (name == "agent.json" and way == "a wrong type"):
            (sentence,) = said
            assert sentence.startswith(f"{name} is damaged (") and "the run goes on with " in sentence
            assert (run / "damaged" / name).read_bytes() == data
        again, said = start(run, SELF_PLAY if kind == "games" else REASONING)
        assert not said and again.checkpoint == state.checkpoint, (name, said)


def test_an_older_checkpoint_comes_with_the_state_that_belongs_to_it(reasoning: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(reasoning, run)
    (run / "checkpoints/000002-000000002.safetensors").write_bytes(b"")
    state, said = start(run, REASONING)
    assert (state.checkpoint, state.elapsed_s) == ("000001-000000001.safetensors", 10.0)
    assert said == [
        "checkpoints/000002-000000002.safetensors is damaged (it is empty); "
        "the run goes on with checkpoints/000001-000000001.safetensors"
    ]


def test_without_any_whole_state_the_newest_checkpoint_has_it(games: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(games, run)
    for file in (run / "state").iterdir():
        file.write_text("")
    state, said = start(run, SELF_PLAY)
    assert (state.checkpoint, state.elapsed_s) == ("000002-000000002.safetensors", 20.0)
    assert len(said) == 1 and "goes on with checkpoints/000002" in said[0]


def test_what_holds_nothing_whole_begins_anew_with_the_corpus(games: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(games, run)
    for file in [*(run / "state").iterdir(), *(run / "checkpoints").iterdir()]:
        file.write_text("")
    state, said = start(run, SELF_PLAY)
    assert state.checkpoint is None and state.elapsed_s == 0.0
    assert len(said) == 4 and all("what the archive holds" in sentence for sentence in said)


#: What is whole JSON, and nothing that a start could use: a file, and what is changed in it.
SENSELESS: dict[str, tuple[str, dict[str, Any]]] = {
    "an id that is a path": ("run.json", {"run_id": "../../elsewhere"}),
    "an id that is a number": ("run.json", {"run_id": 5}),
    "a setting of another kind": ("config.json", {"search": [1]}),
    "a checkpoint outside": ("state/000002.json", {"checkpoint": "../../precious.safetensors"}),
    "no time": ("state/000002.json", {"elapsed_s": float("nan")}),
}


@pytest.mark.parametrize("what", SENSELESS)
def test_what_is_whole_and_makes_no_sense(what: str, games: Path, tmp_path: Path) -> None:
    name, change = SENSELESS[what]
    run, precious = tmp_path / "run", tmp_path / "precious.safetensors"
    shutil.copytree(games, run)
    precious.write_text("somebody else's")
    (run / name).write_text(json.dumps({**sealed.read(str(run / name)), **change}))
    once = tmp_path / "once"
    shutil.copytree(run, once)
    if name == "config.json":  # it may have been edited by hand
        with pytest.raises(UserError, match="search"):
            start(once, SELF_PLAY)
    else:
        state, (sentence,) = start(once, SELF_PLAY)
        assert name in sentence and state.checkpoint == "000002-000000002.safetensors"
    assert call(["repair", str(run), "--yes"]) == 0
    state, said = start(run, SELF_PLAY)
    assert not said and state.checkpoint == "000002-000000002.safetensors" and state.elapsed_s == 20.0
    assert sealed.read(str(run / "run.json")) == sealed.read(str(games / "run.json"))
    assert precious.read_text() == "somebody else's"


def test_without_a_record_of_the_start_the_file_is_named(games: Path, tmp_path: Path) -> None:
    for name in ("run.json", "config.json", "agent.json"):
        run = tmp_path / name
        shutil.copytree(games, run)
        shutil.rmtree(run / "begun")
        (run / name).write_text('{"half')
        with pytest.raises(UserError, match=rf"/{name} is damaged: it is not JSON; `selfplay repair {run}`"):
            start(run, SELF_PLAY)


@pytest.mark.parametrize("way", WAYS)
def test_an_agent_is_one_version_older(way: str, games: Path, tmp_path: Path) -> None:
    for name, version in (("weights/000002.safetensors", 1), ("weights/000001.safetensors", 2), ("agent.json", 2)):
        run = tmp_path / name.replace("/", "-")
        shutil.copytree(games, run)
        data = (run / name).read_bytes()
        (run / name).write_bytes(WAYS[way](data))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                found = Agent.load(str(run))
            except Damaged as error:
                assert error.uri.endswith(name) and way == "an empty object", (name, error)
                continue
        assert found.version == (version if WAYS[way](data) != data else 2)
        if version == 1 and WAYS[way](data) != data:
            (warning,) = caught
            assert "000002.safetensors is damaged" in str(warning.message) and "version 1" in str(warning.message)
            with pytest.raises(Damaged, match="000002"):  # asked for by its number it is not replaced
                Agent.load(str(run), version=2)


def test_a_damaged_status_is_named(games: Path, tmp_path: Path) -> None:
    assert look([str(games)])
    for way, damage in WAYS.items():
        file = tmp_path / way / run_files.STATUS_FILE
        file.parent.mkdir()
        file.write_bytes(damage((games / run_files.STATUS_FILE).read_bytes()))
        with contextlib.suppress(UserError):
            look([str(file.parent)])


def test_a_file_in_the_place_of_a_folder_and_the_other_way_round(games: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(games, run)
    (run / "state/000002.json").unlink()
    (run / "state/000002.json").mkdir()
    (run / "state/000002.json/file").write_text("")
    state, _ = start(run, SELF_PLAY)
    assert state.checkpoint == "000002-000000002.safetensors"


def test_a_repair_shows_then_sets_aside_and_the_run_goes_on(
    games: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(games, run)
    bad = ["state/000002.json", "checkpoints/000002-000000002.safetensors", "weights/000002.safetensors", "run.json"]
    for name in bad:
        (run / name).write_bytes(b"{")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert call(["repair", str(run), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert not told["done"] and {step["subject"] for step in told["steps"]} == {f"{run}/{name}" for name in bad}
    assert "checkpoints/000001-000000001.safetensors" in told["untouched"][0]
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert call(["repair", str(run), "--yes"]) == 0
    assert "the learner from checkpoints/000001" in capsys.readouterr().out
    assert all((run / "damaged" / name).read_bytes() == b"{" for name in bad)
    state, said = start(run, SELF_PLAY)
    assert not said and state.checkpoint == "000001-000000001.safetensors"
    assert (run / "run.json").read_bytes() == (games / "run.json").read_bytes()
    assert call(["repair", str(run)]) == 0 and "nothing to repair" in capsys.readouterr().out


def test_settings_and_identity_of_which_there_is_no_record_come_from_the_corpus(games: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(games, run)
    identity, config = (sealed.read(str(run / name)) for name in ("run.json", "config.json"))
    row = {"run_id": identity["run_id"], "epoch": 2, "config": json.dumps(config), "run_uri": str(run)}
    store.append(f"{run}/corpus", "runs", [row])
    newest = run / "begun/000002.json"  # it is whole, and without sense
    newest.write_text(sealed.dumps({"run": {}, "config": [1]}))
    (run / "begun/000001.json").unlink()
    for name in ("run.json", "config.json"):
        (run / name).write_text("")
    assert call(["repair", str(run), "--yes"]) == 0
    assert sealed.read(str(run / "run.json")) == identity and sealed.read(str(run / "config.json")) == config


def test_a_run_that_is_held_is_not_repaired(games: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    shutil.copytree(games, run)
    (run / "run.json").write_text("")
    with store.acquire(str(run), "selfplay run"):
        assert call(["repair", str(run), "--yes"]) == 2
    assert "is held by selfplay run" in capsys.readouterr().err and (run / "run.json").read_text() == ""


def test_the_untrained_net_stays_where_a_damaged_one_lay(games: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(games, tmp_path / "run"))
    tensors = weights.load(run_files.weights_uri(str(run), 0))[0]
    for version in range(VERSIONS):
        Path(run_files.weights_uri(str(run), version)).write_bytes(b"torn")

    class Books(Office):
        """Without the actors of a run."""

        def __init__(self, folder: RunFolder[State]) -> None:
            self.folder, self._kept = folder, run_files.versions(folder.uri)

        def enter_policy(self, *row: object) -> None:
            pass

        def _serve(self, version: int, digest: str, tensors: object) -> None:
            self.folder.state.version = version

    with store.acquire(str(run), "me") as lease:
        folder = RunFolder(str(run), configuration(None, str(run), []), SELF_PLAY, lease)
        Books(folder).publish_kept(lambda: tensors)
        folder.tell_damage(lambda word: None)
    assert folder.state.version == 0 and run_files.versions(str(run)) == [0]
    weights.load(run_files.weights_uri(str(run), 0))
    assert len(list((run / "damaged" / "weights").iterdir())) == VERSIONS
