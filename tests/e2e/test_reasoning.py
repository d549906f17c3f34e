"""A reasoning run from the shell: it learns, it is stopped and killed, it goes on, and all of it is in the archive."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from selfplay import store
from selfplay.environments import registry
from selfplay.environments.task import Task
from selfplay.io import run_files
from trainers.reasoning.problems import Problems

Start = Callable[..., Any]

TINY = [
    "--set=task.difficulties=[12,16]", "--set=policy.hidden=16", "--set=policy.layers=1", "--set=policy.heads=1",
    "--set=warm.episodes=200", "--set=warm.batch=32", "--set=generation.prompts=6", "--set=generation.group=4",
    "--set=generation.max_tokens=20", "--set=evaluation.problems=16", "--set=evaluation.every_s=1",
]  # fmt: skip
PROMPTS, GROUP = 6, 4


def rows_of(out: Path) -> list[dict[str, Any]]:
    """Every archived episode, once each, and all of them true, to the last token: the archive has the tokenizer."""
    from selfplay.episode import from_batch
    from selfplay.store.verify.episode import verify_episode
    from selfplay.store.verify.verify import rules_of

    corpus = store.open(str(out))
    table: pa.Table = corpus.to_arrow()
    ids = table["episode_id"].to_pylist()
    assert len(ids) == len(set(ids)), "an episode is there twice"
    rules = rules_of(corpus)
    checks = [verify_episode(episode, rules) for episode in from_batch(table)]
    assert {check.state for check in checks} <= {"true"}, [check for check in checks if check.state != "true"][:3]
    assert not any(check.uncovered for check in checks), [check for check in checks if check.uncovered][:3]
    return table.select(["origin", "trainable", "status", "reasoning", "policy_spans"]).to_pylist()


def rounds_are_whole(rows: list[dict[str, Any]], rounds: int) -> None:
    """Each round has all its groups with all their samples, and no problem was asked for twice."""
    sampled = [row["reasoning"] for row in rows if row["origin"] == "cot_rl"]
    groups = Counter(one["group_id"] for one in sampled)
    wanted = {f"r{number:06d}-{i:04d}" for number in range(rounds) for i in range(PROMPTS)}
    assert set(groups) == wanted, f"missing {sorted(wanted - set(groups))[:3]}, more {sorted(set(groups) - wanted)[:3]}"
    assert set(groups.values()) == {GROUP}
    asked = {one["group_id"]: (one["difficulty"], one["problem_seed"]) for one in sampled}
    assert len(set(asked.values())) == len(wanted), "a problem was asked for twice"
    solved = [row["reasoning"] for row in rows if row["origin"] == "solver"]
    worked = {(one["difficulty"], one["problem_seed"]) for one in solved}
    task = Task(registry.find_task("parity"))
    for level in {level for level, _ in asked.values()}:
        seeds = sorted(seed for known, seed in {*asked.values(), *worked} if known == level)
        first = Problems(task, [level], 0, {})
        assert seeds == [first.next(level) for _ in seeds], "a problem was skipped"


def test_a_run_learns_and_leaves_a_model_that_transformers_loads(start: Start, tmp_path: Path) -> None:
    out = tmp_path / "run"
    driver = start("parity_cot", "--out", out, *TINY, "--set=warm.steps=5", "--set=run.rounds=3", "--json")
    assert driver.wait() == 0, driver.told
    summary = driver.summary()
    rows = rows_of(out)
    assert summary["ended_by"] == "rounds" and summary["status"]["rounds"] == 3
    assert summary["status"]["episodes"] == len(rows)
    rounds_are_whole(rows, 3)
    origins = Counter(row["origin"] for row in rows)
    assert origins["solver"] == 200 and origins["cot_rl"] == 3 * PROMPTS * GROUP and origins["evaluation"] >= 32
    for row in rows:
        turns = row["reasoning"]["turns"]
        if row["origin"] == "evaluation":
            assert not row["trainable"]
        if row["origin"] == "cot_rl":
            assert turns[0]["role"] == "chance" and 0 < json.loads(turns[0]["text"])["probability"] < 1
            assert len(turns[-1]["token_ids"]) == len(turns[-1]["logprobs"]) == sum(turns[-1]["loss_mask"])
    corpus = store.open(str(out))
    versions = sorted(row["version_out"] for row in corpus.table("uses").to_pylist())
    assert versions == sorted(row["version"] for row in corpus.table("policies").to_pylist())[1:]
    assert [(row["how"], row["lost"]) for row in corpus.table("closings").to_pylist()] == [("finished", 0)]
    held_out = {row["reasoning"]["problem_digest"] for row in rows if row["origin"] == "evaluation"}
    learned = {row["reasoning"]["problem_digest"] for row in rows if row["origin"] != "evaluation"}
    assert not held_out & learned, "a held-out problem was learned from"

    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(out / "policy")
    tokenizer = AutoTokenizer.from_pretrained(out / "policy")
    asked = tokenizer("010101010101=", return_tensors="pt", add_special_tokens=False)
    assert model.generate(**asked, max_new_tokens=4, do_sample=False).shape[1] > asked["input_ids"].shape[1]


@pytest.mark.slow
def test_time_that_is_over_ends_the_warm_start_and_more_time_goes_on_with_it(start: Start, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = ["parity_cot", "--out", out, *TINY, "--set=warm.steps=20", "--set=run.rounds=1", "--json"]
    driver = start(*command, "--set=run.minutes=0.01")
    assert driver.wait() == 0, driver.told
    assert driver.summary()["ended_by"] == "time" and not run_files.read_state(str(out))["warm_steps"]
    driver = start(*command, "--set=run.minutes=30")
    assert driver.wait() == 0, driver.told
    assert driver.summary()["ended_by"] == "rounds"
    rows = rows_of(out)
    rounds_are_whole(rows, 1)
    assert sum(row["origin"] == "solver" for row in rows) == 200


@pytest.mark.slow
@pytest.mark.parametrize("staleness", [0, 1])
def test_stopped_and_killed_it_goes_on_and_asks_for_every_problem_once(
    start: Start, tmp_path: Path, staleness: int
) -> None:
    out = tmp_path / "run"
    command = ["parity_cot", "--out", out, *TINY, "--set=warm.steps=60", "--set=run.checkpoint_every_s=3"]
    command += ["--set=run.minutes=30", f"--set=learner.max_staleness={staleness}"]

    def rounds() -> int:
        try:
            groups = [row["reasoning"]["group_id"] for row in store.open(str(out)).to_arrow().to_pylist()]
        except Exception:
            return 0
        return len({group[:7] for group in groups if group.startswith("r")})

    driver = start(*command)
    driver.until(lambda: "warming" in driver.told, "the warm start")
    driver.interrupt()
    assert driver.wait() == 0, driver.told

    for until in (3, 8):  # kill -9 in full swing, between checkpoints
        driver = start(*command)
        driver.until(lambda until=until: rounds() >= until, f"round {until}")
        driver.kill()
        driver.until_gone()

    driver = start(*command)
    for kind in ("Reasoner", "Tutor", "Archivist", "WeightServer"):
        before = rounds()
        victim = driver.until(lambda kind=kind: driver.actor(kind), kind)
        victim.kill()
        driver.until(lambda v=victim, kind=kind: (p := driver.actor(kind)) and p.pid != v.pid, f"another {kind}")
        driver.until(lambda before=before: rounds() >= before + 2, "two more rounds")
    driver.interrupt()
    assert driver.wait() == 0, driver.told
    done = run_files.read_state(str(out))["round"]

    driver = start(*command, "--set", f"run.rounds={done + 2}", "--json")
    assert driver.wait() == 0, driver.told
    rows = rows_of(out)
    rounds_are_whole(rows, done + 2)
    assert sum(row["origin"] == "solver" for row in rows) == 200


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe",
    [
        ["countdown_ppo", "--set=task.difficulties=[3]"],
        ["parity_cot", "--set=learner.algorithm=rloo", "--set=learner.average=constant", "--set=learner.kl=0.01"],
        ["parity_cot", "--set=learner.max_staleness=1", "--set=learner.epochs=2", "--set=learner.minibatches=2"],
        ["addition_expert", "--set=warm.difficulties=[1,2]", "--set=task.difficulties=[1,2,3]", "--set=expert.steps=2",
         "--set=expert.development=16"],
    ],
    ids=["ppo", "rloo", "stale", "expert"],
)  # fmt: skip
def test_every_algorithm_runs_to_its_end(start: Start, tmp_path: Path, recipe: list[str]) -> None:
    small = [word for word in TINY if not word.startswith("--set=task")]
    out = tmp_path / "run"
    driver = start(*recipe, *small, "--out", out, "--set=warm.steps=3", "--set=run.rounds=3", "--json")
    assert driver.wait() == 0, driver.told
    rows = rows_of(out)
    sampled = [row for row in rows if row["origin"] == "cot_rl"]
    assert len(sampled) == 3 * PROMPTS * GROUP and driver.summary()["status"]["rounds"] == 3


@pytest.mark.slow
def test_a_student_imitates_what_another_run_archived(start: Start, tmp_path: Path) -> None:
    teacher, student = tmp_path / "teacher", tmp_path / "student"
    driver = start("parity_cot", "--out", teacher, *TINY, "--set=warm.steps=2", "--set=run.rounds=1")
    assert driver.wait() == 0, driver.told
    imitate = ["parity_cot", *TINY, f"--set=warm.corpus={teacher}", "--set=warm.steps=2", "--set=run.rounds=1"]
    driver = start(*imitate, "--out", student, "--json")
    assert driver.wait() == 0, driver.told
    rows = rows_of(student)
    assert {row["origin"] for row in rows} == {"cot_rl", "evaluation"}, "the student needs no solver"
    driver = start(*imitate, "--out", tmp_path / "other", "--set=policy.alphabet=01=x")
    assert driver.wait() == 2 and "another tokenizer" in driver.told, driver.told


@pytest.fixture
def served() -> Iterator[Callable[[Callable[[str], str]], str]]:
    """Serves chat completions on loopback: gives a server's URL for a function from the last message to the answer."""
    servers = []

    def serve(answer: Callable[[str], str]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][-1]["content"]
                choice = {"message": {"role": "assistant", "content": answer(asked)}, "finish_reason": "stop"}
                told = json.dumps({"choices": [choice]}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(told)))
                self.end_headers()
                self.wfile.write(told)

            def log_message(self, *_: object) -> None:
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_address[1]}/v1"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.slow
def test_a_teacher_behind_an_endpoint_is_imitated_where_it_is_right(
    start: Start, tmp_path: Path, served: Callable[[Callable[[str], str]], str]
) -> None:
    def answer(asked: str) -> str:
        """Right but for problems that begin with 00."""
        return str((asked.count("1") + asked.startswith("00")) % 2)

    url, out = served(answer), tmp_path / "run"
    taught = [f"--set=endpoint.url={url}", "--set=endpoint.model=m", "--set=endpoint.teaches=true"]
    command = ["parity_cot", *TINY, *taught, "--set=warm.steps=2", "--set=warm.answer_only=0"]
    driver = start(*command, "--set=run.rounds=1", "--out", out, "--json")
    assert driver.wait() == 0, driver.told
    rows = rows_of(out)
    teacher = [row for row in rows if row["origin"] == "teacher"]
    assert len(teacher) == 200 and not any(row["origin"] == "solver" for row in rows)
    assert {row["policy_spans"][0]["policy_id"] for row in teacher} == {"endpoint:m"}
    assert {row["status"] for row in teacher} == {"ok"}
    driver = start(*command, "--set=run.rounds=2", "--out", out, "--json")
    assert driver.wait() == 0, driver.told
    assert sum(row["origin"] == "teacher" for row in rows_of(out)) == 200, "it was asked again for what it had answered"
    wrong = ["--set=endpoint.url=" + served(lambda asked: "?"), "--out", tmp_path / "wrong"]
    driver = start(*command, *wrong, "--set=policy.alphabet=01=?")
    assert driver.wait() == 2 and "the teacher has solved none of 200 problems" in driver.told, driver.told


@pytest.mark.slow
def test_an_opponent_behind_an_endpoint_is_not_learned_from(
    start: Start, tmp_path: Path, served: Callable[[Callable[[str], str]], str]
) -> None:
    small = [word for word in TINY if not word.startswith(("--set=task", "--set=warm", "--set=evaluation.every"))]
    small += [f"--set=endpoint.url={served(lambda asked: '#a1')}", "--set=endpoint.model=m"]
    out = tmp_path / "run"
    driver = start("nim", *small, "--set=endpoint.seats=[1]", "--out", out, "--set=run.rounds=2", "--json")
    assert driver.wait() == 0, driver.told
    rows = [row for row in rows_of(out) if row["origin"] == "cot_rl"]
    assert len(rows) == 2 * PROMPTS * GROUP
    by = {span["policy_id"] for row in rows for span in row["policy_spans"] if span["seat"] == 1}
    assert by <= {"endpoint:m"} and not any(
        any(turn["loss_mask"]) for row in rows for turn in row["reasoning"]["turns"] if turn["seat"] == 1
    )
    driver = start("nim", *small, "--set=endpoint.seats=[0,1]", "--out", tmp_path / "both")
    assert driver.wait() == 2 and "leaves one to learn" in driver.told, driver.told


@pytest.mark.slow
@pytest.mark.parametrize("task", ["guess_number", "nim"])
def test_tasks_of_several_turns_and_seats_are_learned(start: Start, tmp_path: Path, task: str) -> None:
    out = tmp_path / "run"
    small = [word for word in TINY if not word.startswith(("--set=task", "--set=warm", "--set=evaluation.every"))]
    driver = start(task, *small, "--out", out, "--set=run.rounds=2", "--json")
    assert driver.wait() == 0, driver.told
    rows = [row for row in rows_of(out) if row["origin"] == "cot_rl"]
    assert len(rows) == 2 * PROMPTS * GROUP


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "part"),
    [
        (["policy.path=/nowhere"], "no directory"),
        (["learner.algorithm=ppo"], "needs policy.value_head"),
        (["task.difficulties=[13]"], "no difficulty 13; it has 8, 12"),
        (["policy.context=8", "warm.episodes=0", "warm.steps=0"], "the policy's context 8"),
        (["policy.alphabet=01"], "no token for '='"),
        (["policy.lora_rank=4"], "lora_rank needs a policy.path"),
        (["generation.engine=vllm"], "needs a GPU, and Ray sees none here"),
        (["endpoint.teaches=true"], "need endpoint.url and endpoint.model"),
        (["endpoint.url=ftp://x", "endpoint.model=m"], "an endpoint is http"),
        (["policy.hidden=100000", "policy.layers=100", "policy.heads=1000"], "parameters fit with"),
    ],
)
def test_what_cannot_work_is_one_sentence(start: Start, tmp_path: Path, settings: list[str], part: str) -> None:
    words = [f"--set={one}" for one in settings]
    driver = start("parity_cot", "--out", tmp_path / "run", "--set=warm.episodes=8", "--set=warm.steps=1", *words)
    assert driver.wait() == 2, driver.told
    last = driver.told.strip().splitlines()[-1]
    assert part in driver.told and "Traceback" not in driver.told, driver.told
    assert last
