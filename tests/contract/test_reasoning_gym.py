"""Every data set of reasoning-gym is a task that keeps the contract, or is refused with the reason."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

pytest.importorskip("reasoning_gym")

from reasoning_gym.factory import DATASETS  # noqa: E402

from envs.tasks._gym_scored import SCORED  # noqa: E402
from envs.tasks._gym_sets import CHECKS, LEFT_OUT, VERSION  # noqa: E402
from envs.tasks.reasoning_gym import FAMILY  # noqa: E402
from selfplay.contract import Transcript, Turn, Verdict  # noqa: E402
from selfplay.environments import registry  # noqa: E402
from selfplay.environments.checks.task_check import check_task  # noqa: E402
from selfplay.environments.task import Task, said  # noqa: E402
from selfplay.errors import UserError  # noqa: E402

SHIPPED = sorted({*CHECKS, *SCORED})
#: Prints three problems of every level of the data sets whose names it is given, each with what is asked.
REMAKE = """
import json, sys
from selfplay.environments import author
from selfplay.environments import registry
made = {}
for name in sys.argv[1:]:
    spec = registry.find_task(f"reasoning_gym/{name}")
    posed = [author.pose(spec, seed, level) for level in spec.difficulties for seed in (0, 1, 2**60)]
    made[name] = [(dict(problem.data), [message.content for message in asked]) for problem, asked, _ in posed]
print(json.dumps(made))
"""


def test_each_data_set_is_shipped_or_left_out_for_a_reason() -> None:
    assert not set(SHIPPED) & set(LEFT_OUT) and not set(CHECKS) & set(SCORED)
    assert {*SHIPPED, *LEFT_OUT} == set(DATASETS)
    for name, reason in LEFT_OUT.items():
        with pytest.raises(UserError) as raised:
            registry.find_task(f"reasoning_gym/{name}")
        assert str(raised.value) == f"reasoning_gym/{name}-v{VERSION} is left out: {reason}"


@pytest.mark.parametrize("name", ["countdown", "gcd", "graph_color", "spiral_matrix"])
def test_it_keeps_the_contract(name: str) -> None:
    report = check_task(registry.find_task(FAMILY.id_of(name)))
    assert report.ok, [finding for finding in report.findings if finding.problem is not None]


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_every_one_keeps_the_contract(name: str) -> None:
    report = check_task(registry.find_task(FAMILY.id_of(name)))
    assert report.ok, [finding for finding in report.findings if finding.problem is not None]


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_its_own_answers_are_right_and_those_of_others_are_not_all(name: str) -> None:
    task = Task(registry.find_task(FAMILY.id_of(name)))
    gold = task.spec.gold
    assert gold is not None
    try:
        for level in task.spec.difficulties:
            posed = [task.pose(seed, level) for seed in range(100, 105)]
            for one, other in zip(posed, [*posed[1:], posed[0]], strict=True):
                assert task.judge(one.problem, said(one, [gold(one.problem)]))[0].state == "accepted"
                inside = gold(one.problem).removesuffix("</answer>")
                assert task.judge(one.problem, said(one, [f"{inside} or so</answer>"]))[0].state == "rejected"
                if one.problem.data["answer"] != other.problem.data["answer"]:
                    assert task.judge(one.problem, said(one, [gold(other.problem)]))[0].state != "unverifiable"
    finally:
        task.close()


#: Near-misses of a right answer that are right in no data set: name -> what is made of it.
NEAR = {
    "denied": "not {}", "called false": "It is false that {}", "hedged": "{} or not", "commented": "{} is wrong",
    "said twice": "{0} {0}", "said on two lines": "{0}\n{0}", "negated": "-({})", "with zoo": "{} + zoo",
    "over nothing": "{} + 1/0", "with nan": "{} + nan", "with oo": "{} + oo", "with a line": "{}\nx",
    "listed": "{0},{0}", "after a line": "0\n{}", "with a unit": "{} apples", "named": "x = {}", "chained": "1 = {}",
    "in per cent": "{}%",
    "with a comment": "{} # x", "invisible": "{}\u200b", "null": "{}\0", "nothing": "", "no number": "nan",
    "inf": "inf", "JSON": '{{"answer": 1}}', "None": "None",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_near_misses_are_wrong_and_verdicts_are_quick(name: str) -> None:
    spec = registry.find_task(FAMILY.id_of(name))
    for level in (spec.difficulties[0], spec.difficulties[-1]):
        for seed in range(3):
            problem = spec.sample(seed, level)
            own = str(problem.data["answer"]).strip()
            for what, made in NEAR.items():
                text = made.format(own)
                if text.strip() != own:
                    verdict = spec.verify(problem, Transcript((Turn(0, "assistant", f"<answer>{text}</answer>"),)))
                    assert isinstance(verdict, Verdict) and verdict.state == "rejected", (what, text[:200])
            began = time.process_time()
            spec.verify(problem, Transcript((Turn(0, "assistant", f"<answer>{own}</answer>"),)))
            assert time.process_time() - began < spec.timeout_s / 4


@pytest.mark.slow
def test_problems_do_not_depend_on_the_process() -> None:
    told = []
    for seed in ("1", "2"):
        names = SHIPPED if seed == "1" else SHIPPED[::-1]
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        made = subprocess.run(
            [sys.executable, "-c", REMAKE, *names], env=environment, capture_output=True, text=True, check=True
        )
        told.append(json.loads(made.stdout))
    assert told[0] == told[1]
