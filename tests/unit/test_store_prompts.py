"""Prompts that a chat template frames are rendered again, and never by whoever verifies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

pytest.importorskip("tokenizers")

from selfplay.contract import Message  # noqa: E402
from selfplay.environments import registry  # noqa: E402
from selfplay.environments.task import Task, ruleset_digest  # noqa: E402
from selfplay.episode import Episode, Provenance  # noqa: E402
from selfplay.nets.language import framing  # noqa: E402
from selfplay.nets.language.framing import Framing  # noqa: E402
from selfplay.nets.language.tokenizer import Tokenizer, of_characters  # noqa: E402
from selfplay.rollout.recorder import Assignment, Recorder  # noqa: E402
from selfplay.store.coverage import TEMPLATE  # noqa: E402
from selfplay.store.verify.prompts import Prompt  # noqa: E402
from selfplay.store.verify.spelling import kept  # noqa: E402
from selfplay.store.verify.verify import Rules, verify_episode  # noqa: E402

SPEC = registry.find_task("parity")
LETTERS = of_characters(map(chr, range(10, 127)))
TURNS = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}\n{% endfor %}"
TEMPLATED = TURNS + "{% if add_generation_prompt %}[assistant]{% endif %}"


def with_template(template: str) -> dict[str, str]:
    return {**LETTERS.files, "chat_template.jinja": template}


class Framed(Tokenizer):
    """One that frames the one message of a problem as `TEMPLATED` does, without the library for that."""

    def opening(self, messages: Sequence[Message]) -> list[int]:
        return self.encode("".join(f"[{one.role}]{one.content}\n" for one in messages) + "[assistant]")


@cache
def solved() -> Episode:
    task = Task(SPEC)
    provenance = Provenance("run", SPEC.id, 0, ruleset_digest(task), "b" * 64, "0.1", "here", "CC0-1.0", None, "solver")
    posed = next(one for one in (task.pose(seed, 8.0) for seed in range(50)) if one.side == "training")
    return Recorder(provenance, "a", 1, task).worked(
        Assignment(posed, "w000000", 0), task.gold(posed.problem), Framed(with_template(TEMPLATED))
    )


def with_prompt(episode: Episode, ids: list[int], **more: Any) -> Episode:
    assert episode.reasoning is not None
    *told, last = episode.reasoning["turns"]
    turns = [*told, {**last, "suffix_ids": ids}]
    return replace(episode, reasoning={**episode.reasoning, "turns": turns}, **more)


class Answers:
    """Says the same of all prompts, and remembers them."""

    def __init__(self, answer: bool | None) -> None:
        self.answer, self.asked = answer, list[Prompt]()

    def agree(self, digest: str, files: str, prompts: Sequence[Prompt]) -> list[bool | None]:
        assert kept(with_template(TEMPLATED)) == (digest, files)
        self.asked += prompts
        return [self.answer] * len(prompts)


def test_what_is_said_of_a_prompt_decides() -> None:
    files = dict([kept(with_template(TEMPLATED)) or ("", "")])
    for answer, state, covered in ((True, "true", True), (None, "true", False), (False, "false", True)):
        renders = Answers(answer)
        check = verify_episode(solved(), Rules([], (), files, renders))
        assert check.state == state and (TEMPLATE not in check.uncovered) == covered, check
        ((last, ((role, text),), ids),) = renders.asked
        assert (last, role) == (None, "user") and LETTERS.decode(ids) == f"[user]{text}\n[assistant]"
    assert "turn 1: the tokens before it are not what its tokenizer makes" in check.reason
    old = verify_episode(replace(solved(), schema_version=1), Rules([], (), files, Answers(False)))
    assert old.state == "true" and TEMPLATE in old.uncovered, "older code wrote spelled special tokens otherwise"
    alone = verify_episode(solved(), Rules([], (), files))
    assert alone.state == "true" and TEMPLATE in alone.uncovered


@pytest.mark.slow
def test_prompts_are_rendered_in_a_process_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    renders = Framing()
    rules = Rules([], (), dict([kept(with_template(TEMPLATED)) or ("", "")]), renders)
    check = verify_episode(solved(), rules)
    assert check.state == "true" and TEMPLATE not in check.uncovered, check
    assert solved().reasoning is not None
    ids = solved().reasoning["turns"][-1]["suffix_ids"]
    assert verify_episode(with_prompt(solved(), ids[:-1]), rules).state == "false"
    digest, files = kept(with_template(TEMPLATED)) or ("", "")
    later = tuple(LETTERS.encode("\n[user]b\n[assistant]"))
    told = (("user", "b"),)
    assert renders.agree(digest, files, [(7, told, later), (7, told, tuple(ids)), (None, (("user", "é"),), ())]) == [
        True, False, None
    ]  # fmt: skip
    process = renders._process
    dated, chance = "{{ strftime_now('%Y') }}" + TEMPLATED, "{{ [1, 2] | random }}"
    for template in (dated, chance, "{{ raise_exception('no') }}", "{{ 1"):
        digest, files = kept(with_template(template)) or ("", "")
        assert renders.agree(digest, files, [(None, told, (5,))]) == [None], template
    assert renders._process is process, "these harm nobody"
    digest, files = kept({"tokenizer.json": "{}"}) or ("", "")
    assert renders.agree(digest, files, [(None, told, (5,))]) == [None]
    monkeypatch.setattr(framing, "PORTION_S", 3.0)
    endless = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    for template in (endless, "{% set s = 'a' * 10**11 %}{{ s }}"):
        digest, files = kept(with_template(template)) or ("", "")
        assert renders.agree(digest, files, [(None, told, (5,))]) == [None], template
    digest, files = kept(with_template(TEMPLATED)) or ("", "")
    first = tuple(LETTERS.encode("[user]b\n[assistant]"))
    assert renders.agree(digest, files, [(None, told, first)]) == [True], "another process has taken its place"
    renders.close()
