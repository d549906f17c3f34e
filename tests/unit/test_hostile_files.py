"""Files of strangers that never end, that reach out of their folder, or that ask a library for code from elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import selfplay
from selfplay.cli import doctor_launch
from selfplay.cli.main import call
from selfplay.cli.run import configuration
from selfplay.environments import question_file
from selfplay.errors import Damaged, UserError
from selfplay.io import run_files, sealed, storage
from selfplay.nets.language import policy
from selfplay.nets.language.tokenizer import of_characters
from selfplay.store.table import log
from selfplay.store.table.replayed import Added, Orphan, State, _Coverage
from trainers.recipe import load_recipe

GOLDEN = Path(selfplay.__file__).parent.parent / "tests/golden/corpus_v1"


@pytest.fixture(autouse=True)
def _in_time() -> Iterator[None]:
    """A reader that waits for a pipe fails instead of waiting for ever."""
    signal.setitimer(signal.ITIMER_REAL, 60.0)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0.0)


def endless(file: Path, kind: str) -> None:
    """Puts what never ends in place of a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to("/dev/zero")


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_never_ends_is_not_read(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    endless(file, kind)
    for read in (storage.read, sealed.read, question_file.read):
        with pytest.raises(Damaged, match="not a regular file"):
            read(str(file))


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("episodes/_delta_log/00000000000000000001.json", ["corpus", "stats"]),
        ("episodes/_delta_log/_last_checkpoint", ["corpus", "verify"]),
        ("runs/_delta_log/00000000000000000000.json", ["corpus", "query", "SELECT 1"]),
        ("data", ["corpus", "show", "latest"]),
        ("data", ["corpus", "query", "SELECT count(*) FROM steps"]),
        ("corpus.uri", ["corpus", "stats"]),
        ("agent.json", ["play"]),
        ("config.json", ["run", "--out"]),
    ],
)
def test_commands_refuse_it_in_a_sentence(
    kind: str, file: str, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "there"
    if file == "corpus.uri":
        place.mkdir()
    else:
        shutil.copytree(GOLDEN, place)
    named = next(place.glob("episodes/**/*.parquet")) if file == "data" else place / file
    endless(named, kind)
    assert call([*command, str(place)]) == 2
    assert "not a regular file" in capsys.readouterr().err


def test_verify_names_it_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "there"
    shutil.copytree(GOLDEN, place)
    endless(next(place.glob("episodes/**/*.parquet")), "pipe")
    assert call(["corpus", "verify", str(place), "--processes", "1"]) == 1
    assert "not a regular file" in capsys.readouterr().out


def test_a_log_of_giant_files_is_not_opened(tmp_path: Path) -> None:
    """Files with a hole take no room in an archive, and as much as they say in memory."""
    shutil.copytree(GOLDEN, tmp_path, dirs_exist_ok=True)
    table = str(tmp_path / "episodes")
    log.refuse_unfit(table)
    for name in (log.entry_name(7), log.HINT):
        file = Path(log.place(table, name))
        file.touch()
        os.truncate(file, 2**40)
        with pytest.raises(UserError, match="1,099,511,627,776 bytes"):
            log.refuse_unfit(table)
        file.unlink()


@pytest.mark.parametrize("command", [["stats"], ["verify", "--processes", "1"]])
def test_a_log_that_states_a_giant_version_is_told_at_once(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every version between it and the others would be named as missing, one after the other."""
    place = tmp_path / "there"
    shutil.copytree(GOLDEN, place)
    table = str(place / "episodes")
    shutil.copy(log.place(table, log.entry_name(1)), log.place(table, log.entry_name(10**16 - 1)))
    assert call(["corpus", command[0], str(place), *command[1:]]) == 2
    assert "that are not there" in capsys.readouterr().err


def test_numbers_of_episodes_are_not_counted_because_the_log_says_so(tmp_path: Path) -> None:
    ends = {"slot": "a", "epoch": 0}
    stats = {"numRecords": 10**15, "minValues": {**ends, "number": 1}, "maxValues": {**ends, "number": 10**15}}
    added = Added(1, {"kind": "game", "run_id": "r"}, stats)
    state = State(files={"kind=game/run_id=r/x.parquet": added})
    (tmp_path / "kind=game/run_id=r").mkdir(parents=True)
    (tmp_path / "kind=game/run_id=r/x.parquet").write_bytes(b"no Parquet")
    block = Orphan("", 1, "game", "r", "a", 0, 5, 6, 2, {})
    assert not _Coverage(str(tmp_path), state).has(block)


def test_nothing_is_moved_or_written_through_a_link_in_a_run(tmp_path: Path) -> None:
    """A damaged file that is set aside would replace one of the same name wherever the link leads."""
    mine, run = tmp_path / "mine", tmp_path / "run"
    mine.mkdir()
    run.mkdir()
    (mine / "config.json").write_text("mine")
    (run / "config.json").write_text("damaged")
    (run / "damaged").symlink_to(mine)
    with pytest.raises(UserError, match="is a link to"):
        run_files.set_aside(str(run), str(run / "config.json"))
    assert (mine / "config.json").read_text() == "mine"
    (run / "config.json").write_text(load_recipe("tic_tac_toe").to_json())
    with pytest.raises(UserError, match="is a link to"):
        configuration(None, str(run), [])
    (run / "damaged").unlink()
    assert configuration(None, str(run), []).name == "tic_tac_toe"
    run_files.set_aside(str(run), str(run / "config.json"))
    assert (run / "damaged" / "config.json").exists()


@pytest.mark.parametrize(
    ("about", "sentence"),
    [
        ({"_attn_implementation": "stranger/kernel"}, "code from elsewhere"),
        (
            {"text_config": {"_attn_implementation_internal": "paged|stranger/kernel@main:function"}},
            "code from elsewhere",
        ),
        ({"auto_map": {"AutoModel": "code.Model"}}, "Python code of its own"),
        (None, "adapters for another model"),
    ],
)
def test_a_model_that_brings_code_is_refused(about: dict[str, Any] | None, sentence: str, tmp_path: Path) -> None:
    """By its own words, before any library reads them."""
    tokenizer = of_characters("01")
    for name, text in tokenizer.files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "model.safetensors").write_bytes(b"")
    config = {"model_type": "gpt2", "n_positions": 64, "vocab_size": tokenizer.size}
    (tmp_path / "config.json").write_text(json.dumps({**config, **(about or {})}))
    if about is None:
        (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "stranger/base"}))
    with pytest.raises(UserError, match=sentence):
        policy.load(str(tmp_path))


@pytest.mark.parametrize("name", ["model.safetensors", "generation_config.json", "config.json", policy.VALUE_HEAD])
def test_a_pipe_among_the_files_of_a_model_is_named(name: str, tmp_path: Path) -> None:
    """Weights and settings that libraries read, too: they would wait without end."""
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=f"{name} is damaged: it is a pipe"):
        policy.load(str(tmp_path))


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ({"vocab_size": 10**12}, "a model of 4,000,000,000,012 weights or more"),
        ({"num_hidden_layers": 9_999}, "and its files have 24 bytes"),
        ({"num_hidden_layers": 10**10, "model_type": "smollm3"}, "num_hidden_layers is 10000000000"),
        ({"hidden_size": -4}, "a size in it is out of range"),
        ({"max_position_embeddings": 10**18}, "a size in it is out of range"),
    ],
)
def test_a_model_is_not_built_larger_than_its_weights(sizes: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    tokenizer = of_characters("01")
    for name, text in tokenizer.files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "model.safetensors").write_bytes(b" " * 24)
    shape = {"vocab_size": 4, "num_hidden_layers": 1, "hidden_size": 4, "intermediate_size": 1}
    about = {"model_type": "llama", **shape, "num_attention_heads": 1, "max_position_embeddings": 16}
    (tmp_path / "config.json").write_text(json.dumps({**about, **sizes}))
    with pytest.raises(UserError, match=sentence):
        policy.load(str(tmp_path))


@pytest.mark.parametrize("name", ["../private.safetensors", "/private.safetensors", "a/b.safetensors", 1, []])
def test_weights_are_read_from_their_own_folder(name: Any, tmp_path: Path) -> None:
    index = {"weight_map": {"x": name}}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="outside its folder|not an index of weights"):
        policy.load(str(tmp_path))


@pytest.mark.parametrize(
    ("address", "auth"),
    [
        ("127.0.0.1", {"ssh_user": "-oProxyCommand=touch RAN;"}),
        ("-oProxyCommand=touch RAN", {}),
        ("127.0.0.1", {"ssh_proxy_command": "touch RAN"}),
    ],
)
def test_checking_a_cluster_file_runs_nothing_of_it(
    address: str, auth: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    finding = doctor_launch.machine(address, auth, "")
    assert finding.level in ("bad", "note") and ("not asked" in finding.text or "not a name" in finding.text)
    assert not (tmp_path / "RAN").exists()


def test_a_log_of_giant_files_in_a_bucket_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket lists sizes: of what is not older than the last checkpoint, and then of what is new."""
    shutil.copytree(GOLDEN, tmp_path, dirs_exist_ok=True)
    table, asked = str(tmp_path / "episodes"), list[str | None]()

    def entries(uri: str, after: str | None = None) -> Any:
        asked.append(after)
        return storage.entries(uri)

    bucket = {**vars(storage), "is_remote": lambda uri: True, "entries": entries}
    monkeypatch.setattr(log, "storage", SimpleNamespace(**bucket))
    log.refuse_unfit(table)
    for name in (log.entry_name(7), log.HINT):
        file = Path(log.place(table, name))
        file.touch()
        os.truncate(file, 2**40)
        with pytest.raises(UserError, match="1,099,511,627,776 bytes"):
            log.refuse_unfit(table)
        file.unlink()
    for version in (1, 1000):
        Path(log.place(table, log.entry_name(version))).write_text("{}")
    log.refuse_unfit(table)
    log.refuse_unfit(table)
    log.refuse_unfit(table, 3)
    assert asked[-2:] == [log.place(table, log.entry_name(749)), None]
