"""Edits of dialogues and walks: of what was asked and said, of tokens, of verdicts.

The one-file verifier judges no answer again: what is true, or needs the task, is not checkable for it.
"""

from __future__ import annotations

from typing import Any

from tests.tampering.cases import FALSE, FREELY, NOT_CHECKABLE, TRUE, WEIGHTS, Case, both, put


def said(path: str, value: Any) -> Any:
    """An edit of the last turn."""
    return put(f"reasoning.turns.-1.{path}", value)


def all_of(value: Any) -> Any:
    """A list of the same length."""
    return lambda old: [value] * len(old)


def judged(state: str, reward: float | None, error: str | None = None) -> Any:
    """The verdict, its criterion and the returns, as if it had been so."""
    score = put("verdicts.0.criteria.0.score", reward)
    verdict = both(put("verdicts.0.state", state), put("verdicts.0.reward", reward), put("verdicts.0.error", error))
    return both(verdict, score, put("returns", None if reward is None else [reward]))


def _answered_rightly(row: dict[str, Any]) -> None:
    """The text is the right one, its tokens are those that were sampled."""
    for path in ("reasoning.turns.-1.text", "reasoning.answer"):
        put(path, "0")(row)
    judged("accepted", 1.0)(row)


def _as_if_to_learn_from(row: dict[str, Any]) -> None:
    """An answer to a held-out problem, made one of a round in all that is said of it."""
    both(put("origin", "cot_rl"), put("trainable", True), put("reasoning.group_id", "r000000-0007"))(row)
    both(put("reasoning.temperature", 1.0), put("reasoning.top_p", 0.95), said("loss_mask", all_of(True)))(row)


def _as_the_solver(row: dict[str, Any]) -> None:
    """All that is said of a sampled answer but its log-probabilities, as of a solver's."""
    both(put("origin", "solver"), put("reasoning.group_id", "w000009"), put("reasoning.sample_index", 0))(row)
    both(put("policy_spans.0.policy_id", "solver"), put("policy_spans.0.version", 0))(row)
    both(put("policy_spans.0.digest", None), put("status", "ok"), said("finish_reason", "stop"))(row)
    both(*(put(f"reasoning.{name}", None) for name in ("temperature", "top_k", "top_p")))(row)


_UNKNOWN = NOT_CHECKABLE
_R, _T, _V, _C = "reasoning", "reasoning.turns[]", "verdicts[]", "verdicts[].criteria[]"
CASES = [
    Case(f"{_R}.problem_seed", "dialogue", put("reasoning.problem_seed", 5), FALSE, FALSE, "its seed is"),
    Case(f"{_R}.problem_seed", "dialogue", both(put("reasoning.problem_seed", 5), put("seed", 5)), FALSE, _UNKNOWN,
         "is another"),
    Case(f"{_R}.difficulty", "dialogue", put("reasoning.difficulty", lambda one: one + 1), FALSE, FALSE, "of chance"),
    Case(f"{_R}.problem_digest", "dialogue", put("reasoning.problem_digest", "0" * 64), FALSE, FALSE, "by its digest"),
    Case(f"{_R}.problem_digest", "dialogue", put("reasoning.problem_digest", "f" * 64), FALSE, FALSE,
         "not that of what was asked"),
    Case(f"{_R}.problem_digest", "dialogue", put("reasoning.problem_digest", lambda one: "f" * 16 + one[16:]), FALSE,
         _UNKNOWN, "is another"),
    Case(f"{_R}.problem_digest", "dialogue", put("reasoning.problem_digest", "none"), FALSE, FALSE, "64 hexadecimal"),
    Case(f"{_R}.group_id", "measured", put("reasoning.group_id", lambda one: "d" + one[1:]), FALSE, FALSE,
         "for development"),
    Case(f"{_R}.group_id", "developed", put("reasoning.group_id", lambda one: "h" + one[1:]), FALSE, _UNKNOWN,
         "held out for testing"),
    Case(f"{_R}.group_id", "dialogue", put("reasoning.group_id", "r000009-0000"), FALSE, _UNKNOWN, "group"),
    Case(f"{_R}.group_id", "dialogue", put("reasoning.group_id", "w000009"), FALSE, FALSE, "is of origin solver"),
    Case(f"{_R}.sample_index", "dialogue", put("reasoning.sample_index", 17), FALSE, _UNKNOWN, "sample 17"),
    Case(f"{_R}.sample_index", "dialogue", put("reasoning.sample_index", -1), FALSE, FALSE, "sample -1"),
    Case(f"{_R}.tokenizer", "dialogue", put("reasoning.tokenizer", "other"), FALSE, _UNKNOWN, "by its digest"),
    Case(f"{_R}.tokenizer", "dialogue", put("reasoning.tokenizer", "0" * 64), TRUE, _UNKNOWN, caught=WEIGHTS),
    Case(f"{_R}.temperature", "dialogue", put("reasoning.temperature", 9.0), FALSE, _UNKNOWN, "its run samples with"),
    Case(f"{_R}.temperature", "dialogue", put("reasoning.temperature", -1.0), FALSE, FALSE, "its temperature is -1"),
    Case(f"{_R}.temperature", "dialogue", put("reasoning.temperature", 0.0), FALSE, FALSE, "the likeliest tokens"),
    Case(f"{_R}.top_k", "dialogue", put("reasoning.top_k", 5), FALSE, _UNKNOWN, "its run samples with"),
    Case(f"{_R}.top_k", "dialogue", put("reasoning.top_k", 0), FALSE, FALSE, "its top_k is 0"),
    Case(f"{_R}.top_p", "dialogue", put("reasoning.top_p", 0.5), FALSE, _UNKNOWN, ""),
    Case(f"{_R}.top_p", "dialogue", put("reasoning.top_p", 1.5), FALSE, FALSE, "top_p 1.5"),
    Case(f"{_R}.answer", "dialogue", put("reasoning.answer", "x"), FALSE, FALSE, "its answer is not the last text"),
    Case(f"{_T}.seat", "dialogue", said("seat", 3), FALSE, FALSE, "by seat 3"),
    Case(f"{_T}.role", "dialogue", said("role", "tool"), FALSE, FALSE, ""),
    Case(f"{_T}.role", "dialogue", said("role", "robot"), FALSE, FALSE, "role 'robot'"),
    Case(f"{_T}.parent", "dialogue", said("parent", 50), FALSE, FALSE, "does not come before"),
    Case(f"{_T}.parent", "dialogue", said("parent", None), FALSE, FALSE, "continues turn None"),
    Case(f"{_T}.suffix_ids[]", "dialogue", said("suffix_ids", [1]), FALSE, FALSE, "do not spell what its seat"),
    Case(f"{_T}.suffix_ids[]", "dialogue", said("suffix_ids", lambda ids: ids[::-1]), FALSE, FALSE, "do not spell"),
    Case(f"{_T}.suffix_ids[]", "dialogue", said("suffix_ids", lambda ids: [0, *ids]), FALSE, FALSE, "do not spell"),
    Case(f"{_T}.token_ids[]", "dialogue", said("token_ids", all_of(2)), FALSE, FALSE, "spell another text"),
    Case(f"{_T}.token_ids[]", "dialogue", said("token_ids.0", 10**6), FALSE, FALSE, "turn 2: "),
    Case(f"{_T}.token_ids[]", "dialogue", both(said("token_ids", []), said("logprobs", []), said("loss_mask", [])),
         FALSE, FALSE, "no token"),
    Case(f"{_T}.token_ids[]", "dialogue", said("token_ids.0", 1), FALSE, FALSE, "turn 2: "),
    Case(f"{_T}.logprobs[]", "dialogue", said("logprobs", all_of(-0.001)), TRUE, _UNKNOWN, caught=WEIGHTS),
    Case(f"{_T}.logprobs[]", "dialogue", said("logprobs", all_of(-9.0)), FALSE, _UNKNOWN, "no token below"),
    Case(f"{_T}.logprobs[]", "dialogue", said("logprobs", all_of(-200.0)), FALSE, FALSE, "no token below"),
    Case(f"{_T}.logprobs[]", "dialogue", said("logprobs.0", 0.5), FALSE, FALSE, "above zero"),
    Case(f"{_T}.logprobs[]", "dialogue", said("logprobs.0", float("nan")), FALSE, FALSE, ""),
    Case(f"{_T}.logprobs[]", "dialogue", said("logprobs", None), FALSE, FALSE, "no log-probability"),
    Case(f"{_T}.logprobs[]", "measured", said("logprobs.0", -0.25), FALSE, FALSE, "the likeliest tokens were taken"),
    Case(f"{_T}.logprobs[]", "solved", said("logprobs", lambda _: [-0.5]), FALSE, FALSE, ""),
    Case(f"{_T}.loss_mask[]", "dialogue", said("loss_mask.0", False), FALSE, FALSE, "loss_mask"),
    Case(f"{_T}.loss_mask[]", "dialogue", said("loss_mask", all_of(False)), FALSE, FALSE, "not to be learned from"),
    Case(f"{_T}.loss_mask[]", "measured", said("loss_mask", all_of(True)), FALSE, FALSE, "is to be learned from"),
    Case(f"{_T}.finish_reason", "dialogue", said("finish_reason", "abort"), FALSE, FALSE, "ended by 'abort'"),
    Case(f"{_T}.finish_reason", "dialogue", said("finish_reason", "stop"), FALSE, _UNKNOWN, ""),
    Case(f"{_T}.finish_reason", "solved", said("finish_reason", "length"), FALSE, FALSE, "ended by 'length'"),
    Case(f"{_T}.text", "solved", said("text", "no"), FALSE, FALSE, "its answer is not"),
    Case(f"{_T}.text", "solved", both(said("text", "no"), put("reasoning.answer", "no")), FALSE, FALSE, "another"),
    Case(f"{_T}.text", "dialogue", _answered_rightly, FALSE, FALSE, "spell another text"),
    Case(f"{_T}.text", "dialogue", put("reasoning.turns.1.text", "1="), FALSE, FALSE, "do not spell"),
    Case(f"{_T}.text", "dialogue", put("reasoning.turns.0.text", '{"difficulty": 2, "probability": 7}'), FALSE, FALSE,
         "of chance"),
    Case(f"{_T}.text", "dialogue", put("reasoning.turns.0.text", lambda text: text.replace("0.5", "0.0001")), FALSE,
         _UNKNOWN, "was drawn with probability 0.0001"),
    Case(f"{_V}.seat", "dialogue", put("verdicts.0.seat", 1), FALSE, FALSE, "about seat 1"),
    Case(f"{_V}.state", "solved", put("verdicts.0.state", "rejected"), FALSE, _UNKNOWN, "was judged"),
    Case(f"{_V}.state", "solved", judged("rejected", 0.0), FALSE, _UNKNOWN, "was judged"),
    Case(f"{_V}.state", "solved", judged("unverifiable", None, "it hung"), FALSE, FALSE, "marked trainable"),
    Case(f"{_V}.state", "solved", both(judged("unverifiable", None, "it hung"), put("trainable", False)),
         NOT_CHECKABLE, _UNKNOWN, "nobody could tell"),
    Case(f"{_V}.state", "solved", both(judged("unverifiable", None), put("trainable", False)), FALSE, FALSE, "error"),
    Case(f"{_V}.state", "solved", put("verdicts", []), FALSE, FALSE, ""),
    Case(f"{_V}.reward", "solved", put("verdicts.0.reward", 0.5), FALSE, FALSE, ""),
    Case(f"{_V}.error", "solved", put("verdicts.0.error", "lost"), FALSE, FALSE, "its verifier failed"),
    Case(f"{_C}.criterion", "solved", put("verdicts.0.criteria.0.criterion", "x"), FALSE, _UNKNOWN, "it was judged by"),
    Case(f"{_C}.verifier_id", "solved", put("verdicts.0.criteria.0.verifier_id", "x"), FALSE, FALSE, "is by x"),
    Case(f"{_C}.verifier_version", "solved", put("verdicts.0.criteria.0.verifier_version", "x"), FALSE, FALSE,
         "version x"),
    Case(f"{_C}.score", "solved", put("verdicts.0.criteria.0.score", 77.0), FALSE, FALSE, "outside"),
    Case(f"{_C}.score", "solved", put("verdicts.0.criteria.0.score", 0.5), FALSE, _UNKNOWN, "it was judged by"),
    Case(f"{_C}.low", "solved", put("verdicts.0.criteria.0.low", 77.0), FALSE, FALSE, "outside"),
    Case(f"{_C}.high", "solved", put("verdicts.0.criteria.0.high", -77.0), FALSE, FALSE, "outside"),
    Case(f"{_C}.reason", "solved", put("verdicts.0.criteria.0.reason", "x"), TRUE, _UNKNOWN, caught=FREELY),
    # What several columns say together.
    Case("origin", "dialogue", put("origin", "solver"), FALSE, FALSE, ""),
    Case("origin", "dialogue", _as_the_solver, FALSE, FALSE, "by chance"),
    Case("origin", "dialogue", put("origin", "evaluation"), FALSE, FALSE, ""),
    Case("trainable", "measured", _as_if_to_learn_from, FALSE, _UNKNOWN, ""),
    Case("trainable", "developed", _as_if_to_learn_from, FALSE, FALSE, "by its digest, is held out or for development"),
    Case("trainable", "developed", both(_as_if_to_learn_from, put("reasoning.group_id", "mine")), FALSE, FALSE,
         "by its digest, is held out or for development"),
    Case("schema_version", "developed", both(_as_if_to_learn_from, put("schema_version", 1)), FALSE, FALSE,
         "by its digest, is held out"),
    Case("trainable", "solved", put("trainable", False), FALSE, _UNKNOWN, "nothing speaks against it"),
    Case("status", "dialogue", put("status", "error"), FALSE, FALSE, ""),
    Case("error.kind", "dialogue", put("error", {"kind": "x", "message": "y"}), FALSE, FALSE, "its error"),
    Case("env_version", "dialogue", put("env_version", 5), FALSE, FALSE, ""),
    Case("seed", "dialogue", put("seed", lambda seed: seed + 1), FALSE, FALSE, "its seed is"),
    Case("policy_spans[].seat", "dialogue", put("policy_spans", []), FALSE, FALSE, "no policy span"),
    Case("policy_spans[].first_step", "dialogue", put("policy_spans.0.first_step", 0), FALSE, FALSE, "covers turn 0"),
    Case("control.observation_shape[]", "walk", put("control.observation_shape", [3]), FALSE, FALSE, "follow from"),
    Case("control.observation_shape[]", "walk", put("control.observation_shape", [-2]), FALSE, FALSE, ""),
    Case("control.action_shape[]", "walk", put("control.action_shape", [4]), FALSE, FALSE, "follow from"),
    Case("control.observations[]", "walk", put("control.observations", [0.0]), FALSE, FALSE, "follow from"),
    Case("control.actions[]", "walk", put("control.actions", [0.0]), FALSE, FALSE, "follow from"),
    Case("control.actions[]", "walk", put("control.actions.0", 0.5), FALSE, FALSE, "whole number"),
    Case("control.rewards[]", "walk", put("control.rewards.0", 5.0), FALSE, FALSE, "its rewards sum to"),
    Case("control.logprobs[]", "walk", put("control.logprobs", [0.0]), FALSE, FALSE, "log-probabilities for"),
    Case("control.logprobs[]", "walk", put("control.logprobs.0", 0.5), FALSE, FALSE, "above zero"),
]  # fmt: skip
