"""Edits of dialogues and walks: of what was asked and said, of tokens, of verdicts."""

from __future__ import annotations

from typing import Any

from tests.tampering.cases import CHAIN, FALSE, NOT_CHECKABLE, TRUE, WEIGHTS, Case, put


def said(path: str, value: Any) -> Any:
    """An edit of the last turn."""
    return put(f"reasoning.turns.-1.{path}", value)


_UNKNOWN = NOT_CHECKABLE
_R = "reasoning"
_V = "verdicts[]"
CASES = [
    Case(f"{_R}.problem_seed", "dialogue", put("reasoning.problem_seed", 5), FALSE, _UNKNOWN, "is another"),
    Case(f"{_R}.difficulty", "dialogue", put("reasoning.difficulty", lambda one: one + 1), FALSE, _UNKNOWN, ""),
    Case(f"{_R}.problem_digest", "dialogue", put("reasoning.problem_digest", "0" * 64), FALSE, _UNKNOWN, "is another"),
    Case(f"{_R}.group_id", "dialogue", put("reasoning.group_id", "r000009-0000"), FALSE, _UNKNOWN, "group"),
    Case(f"{_R}.sample_index", "dialogue", put("reasoning.sample_index", 17), FALSE, _UNKNOWN, "group"),
    Case(f"{_R}.tokenizer", "dialogue", put("reasoning.tokenizer", "other"), TRUE, _UNKNOWN, caught=CHAIN),
    Case(f"{_R}.temperature", "dialogue", put("reasoning.temperature", 9.0), TRUE, _UNKNOWN, caught=CHAIN),
    Case(f"{_R}.top_k", "dialogue", put("reasoning.top_k", 5), TRUE, _UNKNOWN, caught=CHAIN),
    Case(f"{_R}.top_p", "dialogue", put("reasoning.top_p", 0.5), TRUE, _UNKNOWN, caught=CHAIN),
    Case(f"{_R}.answer", "dialogue", put("reasoning.answer", "x"), TRUE, _UNKNOWN, caught=CHAIN),
    Case(f"{_R}.turns[].seat", "dialogue", said("seat", 3), FALSE, _UNKNOWN, "by seat 3"),
    Case(f"{_R}.turns[].role", "dialogue", said("role", "tool"), TRUE, _UNKNOWN, caught=CHAIN),
    Case(f"{_R}.turns[].parent", "dialogue", said("parent", 50), FALSE, _UNKNOWN, "does not come before"),
    Case(f"{_R}.turns[].suffix_ids[]", "dialogue", said("suffix_ids", [1]), TRUE, _UNKNOWN, caught=CHAIN),
    Case(f"{_R}.turns[].token_ids[]", "dialogue", said("token_ids.0", 2), TRUE, _UNKNOWN, caught=CHAIN),
    Case(f"{_R}.turns[].logprobs[]", "dialogue", said("logprobs.0", -0.001), TRUE, _UNKNOWN, caught=WEIGHTS),
    Case(f"{_R}.turns[].logprobs[]", "dialogue", said("logprobs.0", 0.5), FALSE, _UNKNOWN, "above zero"),
    Case(f"{_R}.turns[].loss_mask[]", "dialogue", said("loss_mask.0", False), TRUE, _UNKNOWN, caught=CHAIN),
    Case(f"{_R}.turns[].finish_reason", "dialogue", said("finish_reason", "abort"), TRUE, _UNKNOWN, caught=CHAIN),
    Case(f"{_R}.turns[].text", "solved", said("text", "no"), FALSE, _UNKNOWN, "was judged"),
    Case(f"{_V}.seat", "dialogue", put("verdicts.0.seat", 1), FALSE, _UNKNOWN, "about seat 1"),
    Case(f"{_V}.state", "solved", put("verdicts.0.state", "rejected"), FALSE, _UNKNOWN, "was judged"),
    Case(f"{_V}.reward", "solved", put("verdicts.0.reward", 0.5), FALSE, _UNKNOWN, ""),
    Case(f"{_V}.error", "solved", put("verdicts.0.error", "lost"), FALSE, _UNKNOWN, "its verifier failed"),
    Case(f"{_V}.criteria[].criterion", "solved", put("verdicts.0.criteria.0.criterion", "x"), TRUE, _UNKNOWN,
         caught=CHAIN),
    Case(f"{_V}.criteria[].verifier_id", "solved", put("verdicts.0.criteria.0.verifier_id", "x"), TRUE, _UNKNOWN,
         caught=CHAIN),
    Case(f"{_V}.criteria[].verifier_version", "solved", put("verdicts.0.criteria.0.verifier_version", "x"), TRUE,
         _UNKNOWN, caught=CHAIN),
    Case(f"{_V}.criteria[].score", "solved", put("verdicts.0.criteria.0.score", 77.0), FALSE, _UNKNOWN, "outside"),
    Case(f"{_V}.criteria[].low", "solved", put("verdicts.0.criteria.0.low", 77.0), FALSE, _UNKNOWN, "outside"),
    Case(f"{_V}.criteria[].high", "solved", put("verdicts.0.criteria.0.high", -77.0), FALSE, _UNKNOWN, "outside"),
    Case(f"{_V}.criteria[].reason", "solved", put("verdicts.0.criteria.0.reason", "x"), TRUE, _UNKNOWN, caught=CHAIN),
    Case("control.observation_shape[]", "walk", put("control.observation_shape", [3]), FALSE, _UNKNOWN, "follow from"),
    Case("control.action_shape[]", "walk", put("control.action_shape", [4]), FALSE, _UNKNOWN, "follow from"),
    Case("control.observations[]", "walk", put("control.observations", [0.0]), FALSE, _UNKNOWN, "follow from"),
    Case("control.actions[]", "walk", put("control.actions", [0.0]), FALSE, _UNKNOWN, "follow from"),
    Case("control.rewards[]", "walk", put("control.rewards.0", 5.0), FALSE, _UNKNOWN, "its rewards sum to"),
    Case("control.logprobs[]", "walk", put("control.logprobs", [0.0]), FALSE, _UNKNOWN, "log-probabilities for"),
]  # fmt: skip
