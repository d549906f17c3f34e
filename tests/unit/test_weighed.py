"""With weights at hand, what nets and models said is computed again: edits that fit everything else are false."""

from __future__ import annotations

import json
import random
import runpy
import shutil
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from deltalake import write_deltalake
from typer.testing import CliRunner

from selfplay import store
from selfplay.cli.corpus import app
from selfplay.environments import registry
from selfplay.environments.game import load
from selfplay.environments.playthrough import ruleset_digest
from selfplay.environments.task import Task
from selfplay.environments.task import ruleset_digest as task_digest
from selfplay.episode import EPISODES, Episode, Provenance, content_digests, to_batch
from selfplay.errors import UserError
from selfplay.io import storage
from selfplay.nets import build, to_arrays, weights
from selfplay.nets.inference import Evaluator
from selfplay.nets.language import fresh
from selfplay.nets.language.config import PolicySpec, small
from selfplay.nets.language.tokenizer import of_characters
from selfplay.play.draws import PlaySettings
from selfplay.play.generator import Generator, Policy
from selfplay.rollout.continuous import ContinuousEngine
from selfplay.rollout.dialogue import Assignment, Dialogues, Recorder, Speaker
from selfplay.rollout.sampling import Sampling
from selfplay.store import Committer, write_block
from selfplay.store.release.carried import carry
from selfplay.store.release.certificate import Verified, facts
from selfplay.store.release.check import check_release, released_version
from selfplay.store.release.job import described
from selfplay.store.table.table import append
from selfplay.weighed import games as weighed_games
from selfplay.weighed.check import FALSE, NOT_WEIGHED, TRUE, WeightCheck
from selfplay.weighed.kept import Kept
from selfplay.weighed.report import GONE, MIXED
from selfplay.weighed.values import Net
from tests.tampering.weights import CASES, OTHER, WeightCase
from trainers.alphazero.actors import net_config, search_config
from trainers.alphazero.config import RunConfig

torch.set_num_threads(1)
Tables = dict[str, list[dict[str, Any]]]
CHARACTERS = "".join(map(chr, range(32, 127))) + "\n"


def loud(tensors: weights.Tensors, seed: int) -> weights.Tensors:
    """Weights of a net that has opinions: those of an untrained one are even."""
    rng = np.random.default_rng(seed)
    return {
        name: t + rng.normal(0, 0.3, t.shape).astype(np.float32) if name.startswith(("policy", "value")) else t
        for name, t in tensors.items()
    }


def config_of(algorithm: str, trunk: str = "mlp", dtype: str = "float32") -> RunConfig:
    search = {"simulations": 12, "cheap_simulations": 3, "full_fraction": 0.6, "algorithm": algorithm}
    play = {"games": 6, "opening_fraction": 0.5, "opening_plies": 2, "dtype": dtype, "device": "cpu"}
    play["opening_choices"] = 3 if algorithm == "gumbel" else 1
    net = {"hidden": 24, "layers": 2, "trunk": trunk, "channels": 8, "blocks": 1}
    data = {"name": algorithm, "env": {"id": "tic_tac_toe"}, "search": search, "selfplay": play, "net": net}
    return RunConfig.model_validate(data)


def games(folder: Path, config: RunConfig, tables: Tables, ends: tuple[int, ...] = (6, 6)) -> list[Episode]:
    """Self-play with versions of a net, each coming in the middle of searches; rounded to bfloat16 if it says so."""
    algorithm, spec = config.name, registry.find("tic_tac_toe")
    game, net = load(spec), net_config(config, load(spec))
    c, s = config.selfplay, config.search
    settings = PlaySettings(
        c.games, s.simulations, s.cheap_simulations, s.full_fraction, c.opening_fraction, c.opening_plies,
        c.opening_choices, ply_limit=spec.ply_limit,
    )  # fmt: skip
    told = Provenance(algorithm, spec.id, spec.version, ruleset_digest(spec), config.digest, "0", "here", "CC0-1.0")
    exact, rough = Evaluator(net, "float32", "cpu"), list[Net]()

    def evaluate(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if config.selfplay.dtype == "float32":
            return exact(x)
        said = rough[-1].say(x, torch.bfloat16)
        return said.logits, said.values

    one = Generator(
        game, evaluate, search_config(config), settings, told, "p0000", 1000, 0, np.random.default_rng(1)
    )  # fmt: skip
    made: list[Episode] = []
    for version, wanted in enumerate(ends, 1):
        tensors = loud(to_arrays(build(net, version)), version + len(algorithm))
        assert weights.save_version(str(folder / algorithm), version, tensors, {}) == version
        exact.load(tensors)
        rough.append(Net(net, tensors))
        digest = weights.digest(tensors)
        one.set_policy(Policy(algorithm, version, digest))
        made += one.play(lambda sealed, _, wanted=wanted: sealed >= wanted)
        one.play(lambda _, decisions: True)  # searches are under way
        describe(tables, algorithm, version, digest, net.to_json())
    tables["runs"].append(run_row(algorithm, spec.id, config))
    return made + one.abort()


def dialogues(folder: Path, tables: Tables, dtype: str = "float32") -> list[Episode]:
    task = Task(registry.find_task("parity"))
    spec, tokenizer = task.spec, of_characters(CHARACTERS)
    policy_spec = PolicySpec(None, small(tokenizer.size, 1, 16, 2, 200), tokenizer.files, 200, dtype=dtype)
    told = Provenance(
        "words", spec.id, spec.version, task_digest(task), "c" * 64, "0", "here", "CC0-1.0", None, "cot_rl"
    )  # fmt: skip
    recorder, made = Recorder(told, "r0000", 1000, task), list[Episode]()
    samplings = (Sampling(0.8, None, 0.9, max_tokens=8), Sampling(1.0, 5, max_tokens=8))
    for version, sampling in enumerate(samplings, 1):
        policy = fresh(policy_spec, version)
        with torch.no_grad():
            policy.model.model.embed_tokens.weight.mul_(8)
        tensors = policy.to_arrays()
        assert weights.save_version(str(folder / "words"), version, tensors, {}) == version
        engine = ContinuousEngine(policy, 4, version)
        engine.version = version
        digest = weights.digest(tensors)
        speaker = Speaker(engine, tokenizer, "words", digest, 200)
        works = [Assignment(task.pose(seed, spec.difficulties[0]), f"g{seed}", 0) for seed in range(3)]
        made += Dialogues(recorder, {0: speaker}, sampling).hold(works)
        describe(tables, "words", version, digest, policy_spec.to_json())
    task.close()
    return made


def describe(tables: Tables, policy: str, version: int, digest: str, net: str) -> None:
    now = datetime.now(UTC)
    row = {"policy_id": policy, "version": version, "digest": digest, "run_id": policy, "created_at": now,
           "parent_digest": None, "training_steps": 0, "training_samples": 0, "uri": "/nowhere", "net": net,
           "metrics": None}  # fmt: skip
    tables["policies"].append(row)


def run_row(run_id: str, env_id: str, config: RunConfig) -> dict[str, Any]:
    return {"run_id": run_id, "epoch": 1, "started_at": datetime.now(UTC), "env_id": env_id,
            "config": config.to_json(), "config_digest": config.digest, "code_commit": None, "package_version": "0",
            "host": "here", "run_uri": ""}  # fmt: skip


def archived(folder: Path, runs: list[list[Episode]], tables: Tables) -> store.Corpus:
    place = str(folder / "corpus")
    for episodes in runs:
        run_id = episodes[0].provenance.run_id
        committer = Committer(place, run_id, 1)
        slot = committer.register("p0000")
        batch = to_batch([replace(one, slot=slot.slot, epoch=slot.epoch) for one in episodes])
        committer.commit([write_block(place, batch, slot.slot, slot.epoch, slot.next_number)])
        for name, rows in tables.items():
            mine = [row for row in rows if row["run_id"] == run_id]
            if mine:
                append(place, name, mine)
    return store.open(place)


class Made:
    """A corpus and its weights. victims: what a case names -> a row of it, the index of its run's first row."""

    def __init__(self, folder: Path) -> None:
        tables: Tables = {"policies": [], "runs": []}
        runs = [games(folder, config_of(name), tables) for name in ("gumbel", "puct")] + [dialogues(folder, tables)]
        self.corpus, self.folder = archived(folder, runs, tables), folder
        self.kept = Kept([str(folder / name) for name in ("gumbel", "puct", "words")])
        self.batch = to_batch([one for episodes in runs for one in episodes])
        self.runs, self.tables = runs, tables


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    one = Made(tmp_path_factory.mktemp("weighed"))
    for policy in ("gumbel", "puct", "words"):
        a, b = (row for row in one.tables["policies"] if row["policy_id"] == policy)
        OTHER[a["digest"]], OTHER[b["digest"]] = (2, b["digest"]), (1, a["digest"])
    return one


@pytest.fixture(autouse=True)
def one_net(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows are of code that begins searches anew, whatever the schema of this version is."""
    monkeypatch.setattr(weighed_games, "ONE_NET_SINCE", 0)


def sealed(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    """Plain rows as a batch, their content digests made anew."""
    batch = pa.RecordBatch.from_pylist(rows, EPISODES)
    columns = {name: batch.column(name) for name in EPISODES.names}
    columns["content_digest"] = pa.array(content_digests(columns), pa.string())
    return pa.RecordBatch.from_arrays([columns[name] for name in EPISODES.names], schema=EPISODES)


def test_what_is_honest_is_computed_and_searched_again(made: Made) -> None:
    check = WeightCheck(made.corpus, made.kept, searches=None)
    answers = list(check)
    no_search = {one.subject for one in answers if one.state == NOT_WEIGHED}  # games that were cut off in their opening
    assert [one for one in answers if one.state == FALSE] == [] and len(no_search) < 6
    counts = check.counts
    assert len(answers) == check.total == made.batch.num_rows and len(counts.versions) == 6
    assert counts.searches == counts.decisions > 150 and counts.repeated == counts.searches
    assert counts.tokens > 20 and not counts.left_out
    assert max(counts.worst) < 1e-4  # far below what is let through


def victim_of(case: WeightCase, made: Made) -> int:
    wanted = {"game": "gumbel", "puct game": "puct", "dialogue": "words"}[case.victim]
    rows = made.batch.column("run_id").to_pylist()
    status = made.batch.column("status").to_pylist()
    steps = made.batch.column("n_steps").to_pylist()
    of_run = [i for i, run in enumerate(rows) if run == wanted]
    return next(i for i in of_run if wanted == "words" or (status[i] == "ok" and steps[i] < 9))


def test_edits_that_fit_everything_else_are_false(made: Made) -> None:
    whole = made.batch.to_pylist()
    edited = [deepcopy(whole[victim_of(case, made)]) for case in CASES]
    for case, row in zip(CASES, edited, strict=True):
        case.edit(row)
        row["number"] = 10_000 + CASES.index(case)
        row["episode_id"] = f"{row['run_id']}/{row['slot']}/{row['epoch']}/{row['number']}"
    check = WeightCheck(made.corpus, made.kept, searches=None)
    answers = [*check.weigh(sealed([*whole, *edited])), *check.findings()]
    false = {one.subject: one.reason for one in answers if one.state == FALSE}
    wrong = []
    for case, row in zip(CASES, edited, strict=True):
        reason = false.pop(row["episode_id"], "")
        if not reason or case.words not in reason:
            wrong.append((case.column, case.victim, case.words, reason))
    assert not wrong, "\n".join(map(str, wrong))
    assert false == {}  # and nothing else is


def test_rows_of_older_code_may_be_of_two_nets_where_weights_changed(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first decision of a game under new weights may have been begun under the ones before."""
    monkeypatch.setattr(weighed_games, "ONE_NET_SINCE", 99)
    rows = made.batch.slice(0, len(made.runs[0])).to_pylist()
    changed = next(row for row in rows if len({span["version"] for span in row["policy_spans"]} - {0}) == 2)
    older, newer = sorted({span["version"] for span in changed["policy_spans"]} - {0})
    first = min(span["first_step"] for span in changed["policy_spans"] if span["version"] == newer)
    (own,) = (span for span in changed["policy_spans"] if span["first_step"] == first)
    tables = {row["version"]: row["digest"] for row in made.tables["policies"] if row["policy_id"] == "gumbel"}
    # Booked one move too early: the move before is the older net's.
    before = next(span for span in changed["policy_spans"] if span["version"] == older and span["last_step"] < first)
    if before["seat"] != own["seat"]:
        own = next(s for s in changed["policy_spans"] if s["version"] == newer and s["seat"] == before["seat"])
    moved = before["last_step"]
    own["first_step"], before["last_step"] = moved, moved - 2
    if before["last_step"] < before["first_step"]:
        changed["policy_spans"].remove(before)
    assert own["digest"] == tables[newer]
    check = WeightCheck(made.corpus, made.kept, searches=0)
    (answer,) = check.weigh(sealed([changed]))
    assert answer.state == TRUE and check.counts.left_out == {MIXED: 1}
    monkeypatch.setattr(weighed_games, "ONE_NET_SINCE", 0)
    (answer,) = WeightCheck(made.corpus, made.kept, searches=0).weigh(sealed([changed]))
    assert answer.state == FALSE and f"step {moved}: " in answer.reason


def test_weights_are_found_by_their_digest_alone(made: Made, tmp_path: Path) -> None:
    """Neither a path in a table nor a file's name says what weights are: only what they hold."""
    digest = made.tables["policies"][0]["digest"]
    (source,) = (p for p in (made.folder / "gumbel" / "weights").glob("000001.safetensors"))
    (tmp_path / "999999.safetensors").write_bytes(source.read_bytes())
    (tmp_path / "000001.safetensors").write_bytes(b"no weights")
    assert Kept([str(tmp_path)]).load(digest, 1) is not None
    other = Kept([str(made.folder / "puct")])
    assert other.load(digest, 1) is None
    check = WeightCheck(made.corpus, other, searches=0)
    assert {one.state for one in check} == {TRUE, NOT_WEIGHED} and check.counts.left_out[GONE] > 0
    check = WeightCheck(made.corpus, other, sample=8, searches=0)
    assert [one.state for one in check] == [TRUE] * 8 and not check.counts.left_out


def test_an_opening_is_the_evenest_of_those_drawn(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Honest ones are (above); where another line was played than the net prefers, that is said."""
    opened = weighed_games._opened
    asked = []

    def others(*given: Any) -> Any:
        one = opened(*given)
        asked.append(one)
        return one and replace(one, played=tuple(i for i in range(len(one.x)) if i not in one.played))

    monkeypatch.setattr(weighed_games, "_opened", others)
    check = WeightCheck(made.corpus, made.kept, searches=0)
    false = [one for one in check.weigh(made.batch.slice(0, len(made.runs[0]))) if one.state == FALSE]
    assert len([one for one in asked if one and len(one.played) < 3]) >= len(false) > 3
    assert all("is not the evenest that its seed draws" in one.reason for one in false)


def test_a_sample_has_every_version(made: Made) -> None:
    check = WeightCheck(made.corpus, made.kept, sample=7, searches=3)
    assert len(list(check)) == check.total == 7
    assert len(check.counts.versions) == 6 and check.counts.searches < check.counts.decisions


@pytest.mark.parametrize("net", ["", "[]", "{}", '{"input_shape": [99], "num_actions": 9, "outcome": true}'])
def test_a_row_that_describes_no_net_is_not_weighed(made: Made, net: str) -> None:
    check = WeightCheck(made.corpus, made.kept, searches=0)
    digest = made.tables["policies"][0]["digest"]
    check._policies = {digest: {**made.tables["policies"][0], "net": net}}
    (answer,) = check.weigh(made.batch.slice(0, 1))
    assert answer.state == NOT_WEIGHED and answer.reason
    words = next(row for row in made.tables["policies"] if row["policy_id"] == "words")
    check._policies = {words["digest"]: {**words, "net": net}}
    (answer,) = check.weigh(made.batch.slice(made.batch.num_rows - 6, 1))
    assert answer.state == NOT_WEIGHED and "describes no language model" in answer.reason


def test_json_of_a_language_model_with_giant_sizes_builds_nothing(made: Made) -> None:
    words = next(row for row in made.tables["policies"] if row["policy_id"] == "words")
    plain = json.loads(words["net"])
    plain["config"]["intermediate"] = 2**30
    check = WeightCheck(made.corpus, made.kept, searches=0)
    check._policies = {words["digest"]: {**words, "net": json.dumps(plain)}}
    (answer,) = check.weigh(made.batch.slice(made.batch.num_rows - 6, 1))
    assert answer.state == NOT_WEIGHED and "are not those of the model" in answer.reason


@pytest.mark.slow
def test_reduced_arithmetic_has_its_own_bounds(tmp_path: Path) -> None:
    """Nothing honest is false; what is further off than rounding can be is; searches only count together."""
    tables: Tables = {"policies": [], "runs": []}
    config = config_of("gumbel", "resnet", "bfloat16")
    corpus = archived(tmp_path, [games(tmp_path, config, tables, (8,))], tables)
    kept = Kept([str(tmp_path / "gumbel")])
    check = WeightCheck(corpus, kept, searches=None)
    states = {one.state for one in check}
    assert TRUE in states and FALSE not in states
    assert 1e-4 < check.counts.worst[0] < 0.05 and 0 < check.counts.repeated <= check.counts.searches
    (batch,) = corpus.to_arrow().combine_chunks().to_batches()
    rows = [row for row in batch.to_pylist() if row["status"] == "ok"][:2]
    CASES[0].edit(rows[0])
    answers = list(WeightCheck(corpus, kept, searches=0).weigh(sealed(rows)))
    assert [one.state for one in answers] == [FALSE, TRUE]


def test_a_model_in_bfloat16_has_its_own_bound(tmp_path: Path) -> None:
    """Also where rounding lets a token in that float32 would just leave out (top_k, top_p)."""
    tables: Tables = {"policies": [], "runs": []}
    corpus = archived(tmp_path, [dialogues(tmp_path, tables, "bfloat16")], tables)
    kept = Kept([str(tmp_path / "words")])
    check = WeightCheck(corpus, kept)
    assert {one.state for one in check} == {TRUE} and 1e-4 < check.counts.worst[1] < 1
    (batch,) = corpus.to_arrow().combine_chunks().to_batches()
    rows = batch.to_pylist()
    next(case for case in CASES if case.column == "reasoning.turns[].logprobs[]" and "-9" in case.words).edit(rows[0])
    states = [one.state for one in WeightCheck(corpus, kept).weigh(sealed(rows))]
    assert states == [FALSE, *[TRUE] * (len(rows) - 1)]


def released(made: Made, place: Path, rows: list[dict[str, Any]] | None = None) -> str:
    """A copy of the corpus with a release that carries weights. rows: what it holds instead, made up by a stranger."""
    uri = shutil.copytree(made.folder / "corpus", place).as_posix()
    if rows is not None:
        write_deltalake(f"{uri}/episodes", pa.Table.from_batches([sealed(rows)]), mode="overwrite")
    corpus = store.open(uri)
    found = facts(corpus, "first", "", Verified(corpus.count(), 0, {}, None, None))
    append(uri, "releases", [described(corpus, found, datetime.now(UTC), None, made.kept.file)])
    return uri


def test_a_stranger_finds_what_the_package_finds(made: Made, tmp_path: Path) -> None:
    """verify_weights.py shares no code with the package; it has the weights that the release carries."""
    uri = released(made, tmp_path / "copy")
    place = f"{uri}/released/first"
    one = runpy.run_path(f"{place}/verify_weights.py")
    certificate = json.loads(Path(place, "certificate.json").read_text())
    assert (certificate["weights"]["named"], certificate["weights"]["carried"]) == (6, 6)
    assert "the weights of 6 of the 6 versions" in Path(place, "README.md").read_text()
    weights_here = one["Weights"]([], made.tables["policies"], (place,), certificate["release_files"])
    found = one["weigh"](uri, certificate, weights_here, 60, None, 0)
    assert found.lies == {} and found.decisions > 150 and len(found.good) > 20 and found.tokens > 20
    assert found.made == found.repeated == 60
    whole = made.batch.to_pylist()
    edited = [deepcopy(whole[victim_of(case, made)]) for case in CASES]
    found = one["Weighing"](one["Rules"](certificate), weights_here, made.tables["runs"], 10_000, random.Random(0))
    for case, row in zip(CASES, edited, strict=True):
        case.edit(row)
        row["episode_id"] = f"edited {CASES.index(case)}"
    for row in [*whole, *edited]:
        found.row(row)
    found.finish()
    wrong = [(case.column, case.victim) for case, row in zip(CASES, edited, strict=True)
             if not found.lies.pop(row["episode_id"], "")]  # fmt: skip
    assert wrong == [] and found.lies == {}


@pytest.mark.slow
def test_a_stranger_needs_nothing_but_the_release(made: Made, tmp_path: Path) -> None:
    """Weights beside it, no package of ours; a value, visits and log-probabilities that were made up are found."""

    def alone(uri: str, *words: str) -> dict[str, Any]:
        script = [sys.executable, "-I", f"{uri}/released/first/verify_weights.py", "--json", *words]
        done = subprocess.run(script, capture_output=True, text=True, check=False, cwd="/")
        return {"code": done.returncode, "err": done.stderr, **json.loads(done.stdout or "{}")}

    honest = released(made, tmp_path / "honest")
    told = alone(honest)
    assert (told["code"], told["falsehoods"], told["searches"], told["repeated"]) == (0, [], 20, 20), told
    assert told["decisions"] > 150 and told["tokens"] > 20 and told["versions"] == 6
    rows, wanted = made.batch.to_pylist(), set()
    for column, victim in (("game.steps[].raw_value", "game"), ("game.steps[].candidates[].visits", "puct game"),
                           ("reasoning.turns[].logprobs[]", "dialogue")):  # fmt: skip
        case = next(case for case in CASES if (case.column, case.victim) == (column, victim))
        case.edit(rows[victim_of(case, made)])
        wanted.add(rows[victim_of(case, made)]["episode_id"])
    told = alone(released(made, tmp_path / "forged", rows), "--searches", "10000")
    assert told["code"] == 1 and {lie["subject"] for lie in told["falsehoods"]} == wanted, told
    changed = min(Path(honest, "released/first").glob("*.safetensors"))
    data = changed.read_bytes()
    changed.write_bytes(data[:-1] + bytes([255 - data[-1]]))
    told = alone(honest)
    assert told["code"] == 1 and "was changed" in told["falsehoods"][0]["reason"]
    (lie,) = check_release(*released_version(store.open(honest), "first"))[0]
    assert changed.name in lie.subject and "was changed" in lie.reason


def test_a_release_says_which_weights_were_not_kept(made: Made, tmp_path: Path) -> None:
    corpus, some = store.open(str(made.folder / "corpus")), Kept([str(made.folder / "gumbel")])
    (tmp_path / "old.safetensors").write_bytes(b"of a release that was killed")
    found = carry(corpus, str(tmp_path), some.file)
    assert found is not None and (found.named, len(found.files), len(found.gone)) == (6, 2, 4)
    assert found.said.endswith("not kept were those of version 1 of puct, version 2 of puct, version 1 of words, "
                               "version 2 of words")  # fmt: skip
    assert set(storage.names(str(tmp_path))) == set(found.files)
    assert Kept([str(tmp_path)]).digests() == {name.partition(".")[0] for name in found.files}
    assert carry(corpus, str(tmp_path), None) is None and not storage.names(str(tmp_path))
    with pytest.raises(UserError, match="of the 6 versions that its episodes name no weights are on hand"):
        carry(corpus, str(tmp_path), Kept([]).file)


@pytest.mark.slow
def test_the_command(made: Made) -> None:
    place = str(made.folder / "corpus")
    folders = [one for name in ("gumbel", "puct", "words") for one in ("--weights-from", str(made.folder / name))]
    asked = ["verify", place, "--weights", *folders, "--sample", "6", "--searches", "5"]
    told = CliRunner().invoke(app, [*asked, "--json"])
    said = json.loads(told.stdout)
    assert told.exit_code == 0 and said["falsehoods"] == []
    assert said["weights"]["versions"] == 6 and said["weights"]["decisions"] > 10 and said["weights"]["tokens"] > 1
    assert "with the weights of 6 of 6 versions, 6 of 6 episodes" in said["weights"]["sentence"]
    told = CliRunner().invoke(app, ["verify", place, "--weights-from", place])
    assert isinstance(told.exception, UserError) and "holds no weights" in str(told.exception)
