"""A redacted release: nothing in it tells of the machines, users and places that made the corpus, and it is true."""

from __future__ import annotations

import dataclasses
import getpass
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyspiel
import pytest

from selfplay import store
from selfplay.cli.main import call
from selfplay.environments import registry
from selfplay.environments.playthrough import ruleset_digest
from selfplay.episode import EPISODES, Episode, Provenance, content_digests, random_episode, to_batch
from selfplay.store import release as releases
from selfplay.store.corpus.annotations import Label, annotate
from selfplay.store.corpus.targets import targets_of
from selfplay.store.coverage import WHOLE_CONFIG, Tally
from selfplay.store.release import redacted, redaction
from selfplay.store.release.verifier.dialogues import Tokenizers
from selfplay.store.table.table import SIDE_TABLES
from selfplay.store.verify import spelling
from selfplay.store.verify.verify import verify_corpus

HOST, OTHER, USER = "gpu-7.lab.example.org", "laptop-of-zoe", "zoe.q"
HOME = f"/home/{USER}"
PLACE = f"{HOME}/my runs/one"
ADDRESS = "http://10.1.2.3:8000/v1"
#: What must be nowhere.
TOLD = (HOST, "gpu-7", OTHER, USER, HOME, "my runs", ADDRESS, "10.1.2.3", "s3://private", "PRIVATE_KEY", "ana")
TARGETS = {"search": {"algorithm": "gumbel", "c_visit": 50.0, "c_scale": 0.2},
           "learner": {"z_weight": 0.5, "q_weight": 0.5}, "selfplay": {"truncated_value_weight": 0.5}}  # fmt: skip
CONFIG = {
    **{part: {**given, "host": HOST} for part, given in TARGETS.items()},
    "endpoint": {"url": ADDRESS, "key_variable": "PRIVATE_KEY"},
    "policy": {"path": "/data/private models/a"},
}
DIGEST = hashlib.sha256(json.dumps(CONFIG, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def episode(number: int, host: str, ply_limit: int = 9, **changes: Any) -> Episode:
    spec = registry.find("tic_tac_toe")
    origin = Provenance("run", spec.id, spec.version, ruleset_digest(spec), DIGEST, "0.1.0", host, "CC0-1.0")
    made = random_episode(pyspiel.load_game("tic_tac_toe"), number, origin, "a", 1000, number, ply_limit)
    return dataclasses.replace(made, started_at=1_700_000_000_000_000 + number, **changes)


def archive(uri: str, *more: Episode) -> store.Corpus:
    """Episodes of two machines, side tables that tell of them, and a failure whose message names a file."""
    text = f"cannot read {PLACE}/x.json on {HOST} as {USER}: see {ADDRESS}/help, ~/.cache/a, 1/2 of / it; 10.1.2.3: no"
    failed = episode(8, HOST, ply_limit=2, error=("worker", text), status="error")
    assert failed.game is not None
    failed = dataclasses.replace(failed, game=dataclasses.replace(failed.game, ended_by="aborted"))
    episodes = [*(episode(n, HOST if n % 2 else OTHER) for n in range(8)), failed, *more]
    committer = store.Committer(uri, "run", 1)
    committer.register("a")
    committer.commit([store.write_block(uri, to_batch(episodes), "a", 1000, 0)])
    began, spec = datetime.fromtimestamp(1_700_000_000, UTC), registry.find("tic_tac_toe")
    run = {"run_id": "run", "epoch": 1, "started_at": began, "config": json.dumps(CONFIG), "config_digest": DIGEST,
           "host": HOST, "run_uri": PLACE}  # fmt: skip
    store.append(uri, "environments", [{"env_id": spec.id, "ruleset_digest": ruleset_digest(spec)}])
    net, uri_then = json.dumps({"path": f"{HOME}/m/n"}), "s3://private/runs/one/weights/000000.safetensors"
    policy = {"policy_id": "run", "version": 0, "digest": "d" * 64, "run_id": "run", "uri": uri_then, "net": net}
    store.append(uri, "runs", [run, {**run, "run_id": "another", "host": "elsewhere-9"}])
    store.append(uri, "policies", [policy])
    annotate(uri, [Label("run/a/1000/0", "odd", True)], "ana", f"{HOME}/bin/finder 1.2")
    return store.open(uri)


@pytest.fixture(scope="module", autouse=True)
def _state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A home of its own for the key that signs releases."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A corpus and its redacted release."""
    folder = tmp_path_factory.mktemp("made")
    archive(str(folder / "corpus"))
    assert call(["corpus", "release", "first", str(folder / "corpus"), "--redact-to", str(folder / "copy")]) == 0
    return str(folder / "corpus"), str(folder / "copy")


def texts(array: pa.ChunkedArray | pa.Array) -> Iterator[str]:
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if pa.types.is_struct(array.type):
        for part in array.flatten():
            yield from texts(part)
    elif pa.types.is_list(array.type):
        yield from texts(array.flatten())
    elif pa.types.is_string(array.type):
        yield from (text for text in array.to_pylist() if text is not None)


def everything(folder: str) -> Iterator[tuple[str, str]]:
    """All that is written in a folder: names, texts, and of Parquet both the bytes and the unpacked columns."""
    for path in sorted(Path(folder).rglob("*")):
        yield str(path), path.relative_to(folder).as_posix()
        if path.is_file():
            yield str(path), path.read_bytes().decode("latin-1")
        if path.suffix == ".parquet":
            file = pq.ParquetFile(path)
            yield str(path), f"{file.schema_arrow.metadata} {file.metadata.metadata} {file.metadata.created_by}"
            for column in file.read().columns:
                yield from ((str(path), text) for text in texts(column))


def test_nothing_tells_of_machines_users_and_places(made: tuple[str, str]) -> None:
    source, copy = made
    names = {socket.gethostname(), os.uname().nodename, getpass.getuser()}
    here = {name for name in names if not name.islower() or not name.isalpha()}  # "data" may be a machine, and a word
    here |= {str(Path(source).parent), os.getcwd(), str(Path.home())}
    found = 0
    for place, text in everything(copy):
        found += 1
        for word in (*TOLD, *here):
            assert not re.search(rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])", text), (word, place, text[:200])
    assert found > 100
    told = "".join(text for _, text in everything(source))
    assert all(word in told for word in TOLD), "all of it is in the corpus, or nothing was tried"


def test_it_is_true_and_says_what_is_missing(made: tuple[str, str]) -> None:
    source, copy = made
    assert call(["corpus", "verify", copy]) == 0
    script = f"{copy}/released/first/verify_corpus.py"
    done = subprocess.run([sys.executable, "-I", script], capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0 and "9 true, 0 false" in done.stdout and ", redacted" in done.stdout, done
    assert redaction.SAID in Path(copy, "released/first/README.md").read_text()
    assert json.loads(Path(copy, "released/first/certificate.json").read_text())["redacted"] is True
    old, new = (store.open(uri).to_arrow().sort_by("number").to_pylist() for uri in (source, copy))
    changed = {name for a, b in zip(old, new, strict=True) for name in a if a[name] != b[name]}
    assert changed == {"host", "config_digest", "error", "content_digest", "previous_digest"}
    assert [row["previous_digest"] for row in new[1:]] == [row["content_digest"] for row in new[:-1]]
    assert [row["host"] for row in new[:3]] == ["machine-1", "machine-2", "machine-1"]
    assert len({row["config_digest"] for row in new}) == 1
    message = "cannot read [path] on [host] as [user]: see [address], [path], 1/2 of / it; [host]: no"
    assert new[8]["error"]["message"] == message
    (run,) = store.open(copy).table("runs").to_pylist()
    assert (run["host"], json.loads(run["config"]), run["run_uri"]) == ("machine-2", TARGETS, None)
    assert {run for run, _ in targets_of(store.open(copy)).by_config} == {"run"}  # so that exports and to_torch work
    assert run["config_digest"] == new[1]["config_digest"]
    (label,) = store.open(copy).table("annotations").to_pylist()
    assert (label["author"], label["source"], label["value"]) == ("author-1", "[path] 1.2", "true")
    (one,) = releases.released(store.open(copy))
    assert (one.name, one.table_version, one.episodes) == ("first", 0, 9)
    assert releases.released(store.open(source)) == []


def test_a_copy_is_checked_as_fully_as_what_it_is_of(made: tuple[str, str]) -> None:
    tallies = [Tally(), Tally()]
    for tally, uri in zip(tallies, made, strict=True):
        for check in verify_corpus(store.open(uri)):
            tally.add(check)
    whole, copy = tallies
    assert copy.true == whole.true and copy.uncovered == whole.uncovered | {WHOLE_CONFIG: copy.true}


def test_reasons_of_verdicts_lose_them_too(made: tuple[str, str]) -> None:
    golden = store.open(str(Path(__file__).parents[1] / "golden" / "corpus_v1")).to_arrow().cast(EPISODES).to_pylist()
    row = next(row for row in golden if row["verdicts"] and row["verdicts"][0]["criteria"])
    row["verdicts"][0]["criteria"][0]["reason"] = f"{PLACE}/a.py said x/y = 1/2 on {OTHER}"
    rows = pa.Table.from_pylist([row], EPISODES)
    digests = content_digests({name: rows.column(name).combine_chunks() for name in EPISODES.names})
    rows = rows.set_column(EPISODES.names.index("content_digest"), "content_digest", pa.array(digests))
    secrets = redaction.secrets_of(store.open(made[0]))
    (after,) = redaction.episodes(rows, secrets, redaction.Heads()).to_pylist()
    assert after["verdicts"][0]["criteria"][0]["reason"] == "[path] said x/y = 1/2 on [host]"


@pytest.mark.parametrize("there", ["episode", "name", "label"])
def test_what_cannot_be_left_out_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str], there: str) -> None:
    uri = str(tmp_path / "corpus")
    if there == "name":
        archive(uri, episode(9, HOST, parents=((f"{OTHER}/a/1/2", "fork"),)))
    else:
        archive(uri)
    if there == "label":
        annotate(uri, [Label("run/a/1000/1", "seen", f"on {HOST}")], "ana", "by hand")
    if there == "episode":
        (row,) = store.open(uri).to_arrow().slice(3, 1).to_pylist()
        path = next(Path(uri, "episodes").rglob("*.parquet"))
        table = pq.ParquetFile(path).read()
        seeds = pa.array([seed + (i == 3) for i, seed in enumerate(table["seed"].to_pylist())], pa.int64())
        pq.write_table(table.set_column(table.schema.get_field_index("seed"), "seed", seeds), path)
    dest = tmp_path / "copy"
    assert call(["corpus", "release", "first", uri, "--redact-to", str(dest)]) == 2
    said = capfd.readouterr().err.strip().splitlines()[-1]
    reason = {"episode": "its digest does not fit", "name": "parents.episode_id of the table episodes holds",
              "label": f"value of the table annotations holds '{HOST}'"}[there]  # fmt: skip
    assert "nothing was released" in said and reason in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus"]


def test_it_writes_over_nothing(made: tuple[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").write_text("x")
    for place in (full, full / "mine"):
        assert call(["corpus", "release", "first", made[0], "--redact-to", str(place)]) == 2
        assert "there is something at" in capfd.readouterr().err
    assert [path.name for path in full.iterdir()] == ["mine"]


@pytest.mark.slow
def test_killed_before_the_end_nothing_is_there(made: tuple[str, str], tmp_path: Path) -> None:
    code = "from selfplay.cli.main import main; main()"
    words = ["corpus", "release", "first", made[0], "--redact-to", str(tmp_path / "copy"), "--processes", "1"]
    environment = {**os.environ, "SELFPLAY_FAULT": "before_release"}
    killed = subprocess.run([sys.executable, "-c", code, *words], env=environment, capture_output=True, check=False)
    assert killed.returncode < 0
    (left,) = tmp_path.iterdir()
    assert left.name.startswith("copy.incomplete-")
    assert call(words) == 0 and call(["corpus", "verify", str(tmp_path / "copy")]) == 0


def test_tokenizers_go_along_unless_their_files_tell() -> None:
    corpus = store.open(str(Path(__file__).parents[1] / "golden" / "corpus_v1"))
    rows = [{"digest": "bytes", "files": '{"a": "/usr/share"}'}, {"digest": "nobody's", "files": "{}"},
            {"digest": "bytes", "files": f'{{"name_or_path": "{corpus.uri}/m"}}'}]  # fmt: skip
    kept = pa.Table.from_pylist(rows, SIDE_TABLES["tokenizers"].schema)
    kept = redacted._tellable_tokenizers(corpus, kept, redaction.secrets_of(corpus))
    assert kept.column("files").to_pylist() == ['{"a": "/usr/share"}']


def test_a_tokenizer_that_was_exchanged_is_named(tmp_path: Path) -> None:
    source = str(tmp_path / "corpus")
    shutil.copytree(Path(__file__).parents[1] / "golden" / "corpus_v1", source)
    digest, files = spelling.kept({"tokenizer.json": "{}"}) or ("", "")
    store.append(source, "tokenizers", [{"digest": digest, "files": files}, {"digest": "0" * 64, "files": files}])
    wrong = [check for check in verify_corpus(store.open(source)) if check.state == "false"]
    said = ("tokenizer 000000000000", "the table of tokenizers has files that are not its own")
    assert [(check.subject, check.reason) for check in wrong] == [said]
    assert Tokenizers({digest: files, "0" * 64: files}).lies() == [said]
