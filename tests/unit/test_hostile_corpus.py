"""A stranger's corpus: whatever its fields, log and folders hold, commands print it tamely and touch nothing else.

Every string field of every table carries an escape sequence, a line end, a direction mark, HTML and Markdown here.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake
from deltalake.transaction import AddAction

import selfplay
from selfplay import store
from selfplay.cli.main import call
from selfplay.episode.schema import EPISODES, PARTITION_BY
from selfplay.errors import UserError
from selfplay.store.release import markdown
from selfplay.store.release.verifier import one_file
from selfplay.store.table import limits, maintenance
from selfplay.store.table.snapshot import itself
from selfplay.store.table.table import SIDE_TABLES, open_or_create_episodes

HERE = Path(selfplay.__file__).parent
GOLDEN = HERE.parent / "tests/golden/corpus_v1"
EVIL = "\x1b]0;x\x07\x1b[2J\u202e\x9b1m<script>`|[b]\nINJECTED"


def evil(kind: pa.DataType, value: Any) -> Any:
    """The value with its strings replaced, all the way down."""
    if value is None:
        return EVIL if pa.types.is_string(kind) else None
    if pa.types.is_string(kind):
        return EVIL
    if pa.types.is_list(kind):
        return [evil(kind.value_type, one) for one in value]
    if pa.types.is_struct(kind):
        return {field.name: evil(field.type, value[field.name]) for field in kind}
    return value


def add(uri: str, rows: list[dict[str, Any]], name: str) -> None:
    """Puts rows into the table as they are, past every check of the writer."""
    table = open_or_create_episodes(uri)
    path, run_id = f"kind=game/run_id=x/{name}.parquet", rows[0]["run_id"]
    data = pa.Table.from_pylist(rows, EPISODES).drop_columns(PARTITION_BY)
    file = Path(uri, "episodes", path)
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(data, file, compression="zstd", write_statistics=False, use_dictionary=False)
    low = {"schema_version": 1, "slot": "a", "epoch": 0, "number": 0, "status": "a"}
    high = {"schema_version": 1, "slot": "z", "epoch": 2**40, "number": 2**40, "status": "z"}
    stats = json.dumps({"numRecords": len(rows), "minValues": low, "maxValues": high, "nullCount": {}})
    action = AddAction(path, file.stat().st_size, {"kind": "game", "run_id": run_id}, 1, True, stats)
    table.create_write_transaction([action], "append", table.schema(), PARTITION_BY)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = str(tmp_path_factory.mktemp("hostile") / "corpus")
    games = [row for row in store.open(str(GOLDEN)).to_arrow().to_pylist() if row["kind"] == "game"]
    rows = []
    for row in games[:2]:
        bad = {field.name: evil(field.type, row[field.name]) for field in EPISODES}
        rows.append({**bad, "kind": "game", "slot": "a", "episode_id": f"{EVIL}/a/{row['epoch']}/{row['number']}"})
    add(uri, rows, "evil")
    for name, side in SIDE_TABLES.items():
        full = {field.name: evil(field.type, None) for field in side.schema}
        table = pa.Table.from_pylist([full], side.schema)
        write_deltalake(f"{uri}/{name}", table)
    return uri


def tame(text: str) -> None:
    controls = re.findall(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    assert not controls, (controls, text[:2000])
    assert not re.search(r"^\W*INJECTED", text, re.MULTILINE), text[:2000]


COMMANDS = [
    "show latest CORPUS", "show latest CORPUS --json", "show nothing CORPUS", "stats CORPUS", "stats CORPUS --json",
    "verify CORPUS", "verify CORPUS --json", "query|from episodes|CORPUS", "query|from runs|CORPUS|--json",
    "query|select * from annotations|CORPUS", "query|select 1 as \"" + EVIL + "\"|CORPUS", "query|" + EVIL + "|CORPUS",
    "tail CORPUS --after -1 --seconds 0", "tail CORPUS --after -1 --seconds 0 --json", "diff 0 1 CORPUS",
    "release --list CORPUS", "release first CORPUS", "lineage|" + EVIL + "/a/1000/0|CORPUS",
    "lineage CORPUS --weights 01234567", "delete-run|" + EVIL + "|CORPUS|--why|x", "vacuum CORPUS",
    "export npz CORPUS DEST", "export pgn CORPUS DEST",
]  # fmt: skip


@pytest.mark.parametrize("line", COMMANDS, ids=lambda line: re.sub(r"\W+", "-", line)[:40])
def test_no_command_prints_what_a_terminal_obeys(
    hostile: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.setenv("COLUMNS", "4000")
    words = line.split("|") if "|" in line else line.split()
    places = {"CORPUS": hostile, "DEST": str(tmp_path / "out")}
    code = call(["corpus", *(places.get(word, word) for word in words)])
    said = capfd.readouterr()
    assert code in (0, 1, 2) and "traceback" not in said.err, said.err
    tame(said.out)
    tame(said.err)


def test_every_print_of_the_command_line_goes_through_a_door() -> None:
    """`say`, our console, or JSON: nothing else may print."""
    for path in sorted((HERE / "cli").rglob("*.py")):
        if path.name in ("untrusted.py", "console.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "rich.console":
                guarded = path.read_text().split("TYPE_CHECKING:")[0]
                names = {alias.name for alias in node.names}
                assert "Console" not in names or "rich.console import Console" not in guarded or path.name in (
                    "screen.py", "display.py",
                ), path  # fmt: skip
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "typer.echo"):
                printed = ast.unparse(node.args[0]) if node.args else "''"
                doors = r"json|VERSION|text or|''|^tame|^signing\.pem"
                assert re.search(doors, printed), f"{path}: {ast.unparse(node)}"


def test_markdown_of_a_card_is_text() -> None:
    shown = markdown.plain(EVIL + " https://evil.example www.evil.example a*b &amp;")
    assert "<" not in shown and "://" not in shown and "www." not in shown and "\n" not in shown
    assert all(shown[at - 1] == "\\" for at, one in enumerate(shown) if one in "`|[]*")
    tame(shown)
    assert markdown.plain("connect_four-v0, 3.5 (ok)") == "connect_four-v0, 3.5 (ok)"


PATHS = ["../../elsewhere/x.parquet", "/etc/x.parquet", "kind=game/../../x.parquet", "file:///etc/x.parquet",
         "%2e%2e/x.parquet", "kind=game/run_id=%2e%2e/x.parquet", "a\\\\b.parquet", "s3://b/x.parquet"]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_a_log_that_leads_out_of_its_table_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], path: str
) -> None:
    corpus = Path(shutil.copytree(GOLDEN, tmp_path / "corpus"))
    log = corpus / "episodes/_delta_log"
    actions = [json.loads(line) for file in sorted(log.glob("*.json")) for line in file.read_text().splitlines()]
    found = next(action["add"] for action in actions if "add" in action)
    (log / f"{len(list(log.glob('*.json'))):020d}.json").write_text(json.dumps({"add": {**found, "path": path}}))
    for verb in (["verify"], ["stats"], ["compact"], ["vacuum"], ["show", "latest"], ["release", "first"]):
        assert call(["corpus", *verb, str(corpus)]) == 2
        assert "not plainly inside it" in capfd.readouterr().err, verb
    if path not in PATHS[:2]:
        return
    command = [sys.executable, alone(tmp_path), str(corpus), "--certificate"]
    (tmp_path / "c.json").write_text(json.dumps({**CERTIFICATE, "release": "first"}))
    done = subprocess.run([*command, str(tmp_path / "c.json")], capture_output=True, text=True)
    assert done.returncode == 2 and "not plainly inside" in done.stderr, done.stderr


def alone(folder: Path) -> str:
    """The one-file verifier, as a release holds it."""
    (folder / "verify_corpus.py").write_text(one_file())
    return str(folder / "verify_corpus.py")


CERTIFICATE: dict[str, Any] = {
    "table_version": 7, "episodes": 1, "release": EVIL, "content_digest": "", "packages": {}, "rulesets": [],
    "files": [],
}  # fmt: skip


@pytest.mark.parametrize("change", [{"episodes": "x"}, {"files": [1]}, None])
def test_a_malformed_certificate_is_one_sentence(tmp_path: Path, change: dict[str, Any] | None) -> None:
    text = "[" * 100_000 if change is None else json.dumps({**CERTIFICATE, **change})
    (tmp_path / "c.json").write_text(text)
    command = [sys.executable, alone(tmp_path), str(GOLDEN), "--certificate"]
    done = subprocess.run([*command, str(tmp_path / "c.json")], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "the certificate" in done.stderr


def test_a_file_that_unpacks_to_gigabytes_is_named_and_not_read(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SMALL_GROUP_BYTES", 2**20)
    uri = str(tmp_path / "corpus")
    row = next(row for row in store.open(str(GOLDEN)).to_arrow().to_pylist() if row["kind"] == "game")
    add(uri, [{**row, "run_id": "x", "host": "0" * (20 * 2**20)}], "bomb")
    assert call(["corpus", "verify", uri]) == 1
    assert "unpacks from" in capfd.readouterr().out
    for words in (["show", "latest"], ["stats"], ["query", "from episodes"]):
        assert call(["corpus", *words, uri]) == 2
        assert "unpacks from" in capfd.readouterr().err
    with pytest.raises(UserError, match="unpacks from"):
        store.open(uri).count(pc.field("host") == "me")


def test_upkeep_names_the_corpus_that_it_changes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    mine = Path(shutil.copytree(GOLDEN, tmp_path / "mine"))
    count = store.open(str(mine)).count()
    hostile = tmp_path / "hostile"
    hostile.mkdir()
    (hostile / "corpus.uri").write_text(str(mine))
    for words in (["delete-run", "golden"], ["vacuum"], ["compact"], ["release", "first"]):
        why = ["--why", "x"] if words[0] == "delete-run" else []
        assert call(["corpus", *words, str(hostile), *why]) == 2
        assert f"name the corpus itself, {str(mine)!r}" in capfd.readouterr().err
    assert call(["repair", str(hostile), "--yes"]) == 2
    assert f"name the corpus itself, {str(mine)!r}" in capfd.readouterr().err
    with pytest.raises(UserError, match=f"elsewhere, {mine}"):
        maintenance.delete_run(str(hostile), "golden", "x")
    both = tmp_path / "both"
    shutil.copytree(GOLDEN, both / "corpus")
    (both / "corpus.uri").write_text(str(mine))
    assert call(["corpus", "delete-run", "golden", str(both), "--why", "x"]) == 0, "what is read is what is changed"
    assert "is at" not in capfd.readouterr().err
    assert (store.open(str(both)).count(), store.open(str(mine)).count()) == (0, count)
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "corpus").symlink_to(mine)
    assert call(["corpus", "delete-run", "golden", str(linked), "--why", "x"]) == 2
    assert call(["repair", str(linked), "--yes"]) == 2
    (linked / "corpus").unlink()
    for name in ("episodes", "annotations", "released"):
        own = Path(shutil.copytree(GOLDEN, tmp_path / name))
        shutil.rmtree(own / name, ignore_errors=True)
        (own / name).symlink_to(mine / "episodes")
        with pytest.raises(UserError, match="is a link to"):
            itself(str(own))
    assert store.open(str(mine)).count() == count and not (mine / "released").exists()
    assert call(["corpus", "stats", str(hostile)]) == 2
    assert f"name the corpus itself, {str(mine)!r}" in capfd.readouterr().err
    assert call(["corpus", "delete-run", "golden", str(hostile), "--why", "x", "--elsewhere"]) == 0
    assert store.open(str(mine)).count() == 0
