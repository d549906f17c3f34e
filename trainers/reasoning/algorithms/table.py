"""The algorithms that follow a warm start. To add one: a module beside this one, and a row here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from trainers.reasoning.algorithms.judged import Judged, Prepared


@dataclass(frozen=True)
class Algorithm:
    """One algorithm.

    follows: what is done with each round: "reinforce" (a policy gradient), "imitate" (expert iteration: what the policy
      solved itself) or "nothing".
    advantages: of "reinforce": what a round's lines are worth; it imports what it needs when it is called.
    compares: which answers are compared: those to the same problem ("group"), of the same round ("round"), or none.
    value_head: whether the policy needs one. warm: whether it begins with a warm start.
    """

    name: str
    follows: Literal["reinforce", "imitate", "nothing"]
    advantages: Callable[[Judged], Prepared] | None = None
    compares: Literal["group", "round", "none"] = "none"
    value_head: bool = False
    warm: bool = False


def _grpo(judged: Judged) -> Prepared:
    from trainers.reasoning.algorithms.grpo import advantages

    return advantages(judged)


def _rloo(judged: Judged) -> Prepared:
    from trainers.reasoning.algorithms.rloo import advantages

    return advantages(judged)


def _ppo(judged: Judged) -> Prepared:
    from trainers.reasoning.algorithms.ppo import advantages

    return advantages(judged)


ALGORITHMS = {
    one.name: one
    for one in (
        Algorithm("grpo", "reinforce", _grpo, "group"),
        Algorithm("rloo", "reinforce", _rloo, "group"),
        Algorithm("ppo", "reinforce", _ppo, "round", value_head=True),
        Algorithm("expert", "imitate", warm=True),
        Algorithm("sft", "nothing", warm=True),
    )
}
