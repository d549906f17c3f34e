"""What a run's folder names outside it is used without a question only where this user's own command named it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from selfplay import store, vouched
from selfplay.cli.main import call
from selfplay.cli.run import configuration
from selfplay.errors import Damaged, UserError
from selfplay.io import run_files, scratch, sealed
from selfplay.nets.language.config import PolicySpec, small
from selfplay.nets.language.tokenizer import of_characters
from selfplay.store.corpus import lineage
from selfplay.store.table.table import ELSEWHERE
from trainers.kinds import REASONING, SELF_PLAY
from trainers.reasoning.actors import _kept, _kept_policy
from trainers.reasoning.config import ReasoningConfig
from trainers.recipe import load_recipe
from trainers.run.reach import reach
from trainers.run.run_folder import RunFolder
from trainers.run.settings import Experiment

GOLDEN = Path(__file__).parents[1] / "golden" / "corpus_v1"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state folder of this user, and what makes him another one."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def stranger(state: Path) -> None:
    """From now on whatever was vouched for is somebody else's word."""
    shutil.rmtree(state)


def begun(place: Path, config: Experiment, agent: str = "{}") -> str:
    RunFolder(str(place), config, SELF_PLAY).begin(agent)
    return str(place)


def test_the_secret_is_kept_for_this_user_alone(state: Path) -> None:
    secret = scratch.secret()
    (path,) = (state / "selfplay").iterdir()
    assert len(secret) == 32 and scratch.secret() == secret and path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b"")  # a disk has lost it
    assert len(scratch.secret()) == 32 and scratch.secret() == scratch.secret() != secret


def test_only_what_this_user_wrote_is_his(tmp_path: Path, state: Path) -> None:
    vouched.write(str(tmp_path / "a"), {"run.corpus": "s3://mine/corpus"})
    assert vouched.read(str(tmp_path / "a")) == {"run.corpus": "s3://mine/corpus"}
    found = sealed.read(str(tmp_path / "a" / vouched.FILE))
    for changed in ({"reach": {"run.corpus": "s3://theirs"}}, {"signature": ""}, {"signature": "ä"}, {"reach": None}):
        sealed.write(str(tmp_path / "b" / vouched.FILE), {**found, **changed})
        assert vouched.read(str(tmp_path / "b")) == {}
    for text in ("", "[]", '{"reach": {}}'):
        (tmp_path / "b" / vouched.FILE).write_text(text)
        assert vouched.read(str(tmp_path / "b")) == {}
    stranger(state)
    assert vouched.read(str(tmp_path / "a")) == {}


def test_what_a_run_reaches(tmp_path: Path) -> None:
    (tmp_path / "run" / "mine").mkdir(parents=True)
    (tmp_path / "run" / "link").symlink_to(tmp_path)
    run = str(tmp_path / "run")
    for value, outside in (("run/mine", False), ("run/link/other", True), ("run/../other", True), ("other", True)):
        config = load_recipe("tic_tac_toe", [f"run.corpus={tmp_path / value}"])
        assert bool(reach(config, run)) is outside, value
    assert reach(load_recipe("tic_tac_toe", ["run.corpus=s3://b/run/c"]), "s3://b/run") == {}
    assert reach(load_recipe("tic_tac_toe", ["run.corpus=s3://b/runs"]), "s3://b/run") == {"run.corpus": "s3://b/runs"}
    settings = ["endpoint.url=http://h/v1", "endpoint.model=m", "endpoint.key_variable=KEY", "warm.corpus=/c"]
    config = load_recipe("parity_cot", settings)
    assert reach(config, "/") == {"endpoint.url": "http://h/v1", "endpoint.key_variable": "KEY"}
    assert set(reach(config, run)) == {"endpoint.url", "endpoint.key_variable", "warm.corpus"}


def test_a_stranger_s_run_is_asked_about_and_an_own_one_is_not(tmp_path: Path, state: Path) -> None:
    corpus = tmp_path / "corpus"
    run = begun(tmp_path / "run", load_recipe("tic_tac_toe", [f"run.corpus={corpus}"]))
    assert configuration(None, run, ["run.minutes=3"]).run.corpus == str(corpus)
    moved = str(shutil.move(run, tmp_path / "moved"))
    assert configuration(None, moved, []).run.corpus == str(corpus)
    config = json.loads(Path(moved, run_files.CONFIG_FILE).read_text())
    config["run"]["corpus"] = "s3://theirs/corpus"
    Path(moved, run_files.CONFIG_FILE).write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"reaches out of its folder.*run.corpus = 's3://theirs/corpus'.*--trust"):
        configuration(None, moved, [])
    assert configuration(None, moved, [f"run.corpus={corpus}"]).run.corpus == str(corpus)  # named here and now
    assert configuration(None, moved, [], trust=True).run.corpus == "s3://theirs/corpus"
    plain = begun(tmp_path / "plain", load_recipe("tic_tac_toe"))
    stranger(state)
    with pytest.raises(UserError, match="was not begun by this user"):
        configuration(None, moved, [])
    assert configuration(None, plain, []).run.corpus is None  # it stays in its folder


def test_no_question_is_answered_for_whoever_cannot_be_asked(
    tmp_path: Path, state: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = begun(tmp_path / "run", load_recipe("tic_tac_toe", ["run.corpus=/theirs\x1b[2J"]))
    stranger(state)
    assert call(["run", "--out", run]) == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert line.startswith("error: the run in") and "\x1b" not in line
    assert not Path("/theirs\x1b[2J").exists()


def test_a_folder_leads_to_a_corpus_only_for_who_made_it(
    tmp_path: Path, state: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    corpus = Path(shutil.copytree(GOLDEN, tmp_path / "corpus"))
    run = begun(tmp_path / "run", load_recipe("tic_tac_toe", [f"run.corpus={corpus}"]))
    assert store.open(run).uri == str(corpus)
    assert call(["corpus", "stats", run]) == 0
    capfd.readouterr()
    stranger(state)
    with pytest.raises(UserError, match=f"leads to a corpus elsewhere, {corpus}.*name it itself"):
        store.open(run)
    for words in (["corpus", "stats", run], ["corpus", "tail", run, "--after", "-1", "--seconds", "0"],
                  ["corpus", "export", "npz", run, str(tmp_path / "out")], ["repair", run]):  # fmt: skip
        assert call(words) == 2
        assert f"name the corpus itself, {str(corpus)!r}" in capfd.readouterr().err
    (tmp_path / "run" / ELSEWHERE).write_text("s3://nobody-asks-for-this/corpus")
    assert call(["corpus", "stats", run]) == 2


def test_the_model_of_a_run_is_the_one_that_its_settings_name(tmp_path: Path) -> None:
    config = load_recipe("parity_cot")
    assert isinstance(config, ReasoningConfig)
    tokenizer = of_characters(set("ab"))
    spec = PolicySpec(None, small(tokenizer.size, 1, 8, 2, 16, "rotary"), tokenizer.files, 16)
    place = tmp_path / "run"

    def kept(spec: PolicySpec) -> PolicySpec | None:
        agent = json.dumps({"policy": json.loads(spec.to_json())})
        sealed.write(str(place / run_files.AGENT_FILE), json.loads(agent))
        folder = RunFolder(str(place), config, REASONING)
        return _kept_policy(folder, config, _kept(folder))

    RunFolder(str(place), config, REASONING).begin(json.dumps({"policy": json.loads(spec.to_json())}))
    assert kept(spec) == spec
    with pytest.raises(Damaged, match="its model is in /theirs, and policy.path is None"):
        kept(replace(spec, path="/theirs"))


def test_lineage_looks_into_the_corpus_and_its_run_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    corpus = Path(shutil.copytree(GOLDEN, tmp_path / "run" / "corpus"))
    (tmp_path / "run" / "here").touch()
    (tmp_path / "there").touch()
    places = {"a": "run/here", "b": "run/gone", "c": "there", "d": "run/../there"}
    now = datetime.now(UTC)
    rows = [{"policy_id": "p", "version": n, "digest": letter * 64, "run_id": "r", "created_at": now, "uri": uri}
            for n, (letter, uri) in enumerate([*((k, str(tmp_path / v)) for k, v in places.items()),
                                               ("e", "s3://nobody-asks-for-this/w"), ("f", "a\0b")])]  # fmt: skip
    store.append(str(corpus), "policies", rows)
    opened = store.open(str(corpus))
    kept = [lineage.of_weights(opened, letter * 64).kept for letter in "abcdef"]
    assert kept == [True, False, None, None, None, None]
    assert lineage.of_weights(opened, "c" * 64, elsewhere=True).kept is True
    assert lineage.of_weights(opened, "c" * 64, run_uri=str(tmp_path)).kept is True
    assert call(["corpus", "lineage", str(corpus), "--weights", "c" * 64]) == 0
    assert "--elsewhere" in capfd.readouterr().out


def test_a_recipe_that_names_a_program_is_asked_about(tmp_path: Path) -> None:
    """A recipe looks like settings alone. Whoever names the program himself has agreed to it."""
    program, recipe = str(tmp_path / "game.py"), tmp_path / "mine.toml"
    text = (Path(__file__).parents[2] / "trainers/recipes/tic_tac_toe.toml").read_text()
    recipe.write_text(text.replace('env.id = "tic_tac_toe"', f"env.id = {json.dumps(program)}"))
    with pytest.raises(UserError, match=r"mine.toml runs the code in .*game.py; if you trust it, say --trust"):
        configuration(str(recipe), None, [])
    assert configuration(str(recipe), None, [], trust=True).env.id == program
    assert configuration(str(recipe), None, [f"env.id={json.dumps(program)}"]).env.id == program
    recipe.write_text(text)
    assert configuration(str(recipe), None, []).env.id == "tic_tac_toe"
