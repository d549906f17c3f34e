"""An answer about an episode, and the words for what it could not cover: they stand here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass

TRUE, FALSE, NOT_CHECKABLE = "true", "false", "not checkable"

NO_PLUGIN, OTHER_RULES, REFUSED, NEWER_SCHEMA = "no plug-in", "other rules", "not loaded", "newer schema"
NO_VERIFIER, CANNOT_TELL, NOT_TOLD, TIMED_OUT = "no verifier", "verifier cannot tell", "not told", "timed out"

#: Why an episode is not checkable: classes, under which the reasons are counted.
WHY = {
    NO_PLUGIN: "its environment is not installed here",
    OTHER_RULES: "its environment is installed here with other rules or another verifier",
    REFUSED: "its environment is not loaded because data says so, or needs a package that is not here",
    NEWER_SCHEMA: "its columns are those of a newer version of this package",
    NO_VERIFIER: "nothing here can judge episodes of its kind",
    CANNOT_TELL: "the verifier of its environment failed here",
    NOT_TOLD: "the verifier of its environment failed when it was sealed, so that there is nothing to compare",
    TIMED_OUT: "it was rejected because its verification took too long, which may differ here",
}

WEIGHTS, SURPRISE, TOKENS, TEMPLATE = "weights", "surprise", "tokens", "template"
ANSWER, SPLIT, GROUP, CONFIG = "answer", "split", "group", "configuration"
CHAIN = "chain"

#: What may be uncovered in an episode that is otherwise true.
UNCOVERED = {
    WEIGHTS: "that raw values, priors and log-probabilities are those of the weights that its spans name",
    SURPRISE: "surprise and policy target: the settings of its search are not here",
    TOKENS: "that its text is what its tokens say: the tokenizer of its run is not here",
    TEMPLATE: "that its prompts are what the template makes of the messages: it is not here",
    ANSWER: "the answer that the verifier read",
    SPLIT: "that its problem is one to train on",
    GROUP: "the size of its group: the settings of its run are not here",
    CONFIG: "what its settings bound: the configuration of its run is not here",
    CHAIN: "that nothing was removed, reordered or put in before it: rows of schema version 1 are not linked",
}


@dataclass(frozen=True)
class Check:
    """The answer for one episode, for a run or a table, or for one file (`subject` is then its path).

    state: "true", "false" or "not checkable". reason: what is wrong, or what is missing; "" if true. why: of what is
    not checkable, its class, a key of `WHY`; else "". uncovered: of what is true, what could not be looked at, keys of
    `UNCOVERED`.
    """

    subject: str
    state: str
    reason: str = ""
    why: str = ""
    uncovered: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.why in WHY) != (self.state == NOT_CHECKABLE) or not UNCOVERED.keys() >= set(self.uncovered):
            raise ValueError(f"no such class: {self.why!r}, {self.uncovered}")


def unknown(subject: str, why: str, reason: str) -> Check:
    """An episode that is not checkable, for a reason of the class `why`."""
    return Check(subject, NOT_CHECKABLE, reason, why)
