"""An answer about an episode, what "true" covers, and what it does not: the words for it stand here alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

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
ANSWER, SPLIT, GROUP, CONFIG, WHOLE_CONFIG = "answer", "split", "group", "configuration", "whole configuration"
RUN, NEIGHBOURS, GAPS, CHAIN, END, TIMES = "run", "neighbours", "gaps", "chain", "end", "times"

#: What may be uncovered in an episode that is otherwise true.
UNCOVERED = {
    WEIGHTS: "that raw values, priors and log-probabilities are those of the weights that its spans name",
    SURPRISE: "surprise and policy target: the settings of its search are not here",
    TOKENS: "that its tokens spell its texts: its tokenizer is not in the corpus, or not one that is read as data",
    TEMPLATE: "that its prompts are what its chat template makes of the messages: it fails, names a date or chance or "
    "takes too long, or its library or the confinement of its process is not here",
    ANSWER: "the answer that the verifier read",
    SPLIT: "that its problem is not of the development split: it was recorded by hand before rows were asked that",
    GROUP: "the size of its group: the settings of its run are not here",
    CONFIG: "what its settings bound: the configuration of its run is not here",
    WHOLE_CONFIG: "that its configuration has the digest that it was sealed with: a redacted copy keeps a part of it",
    CHAIN: "that nothing was removed, reordered or put in before it: rows of schema version 1 are not linked",
    RUN: "settings, code, rules, policies and seeds against those of its run: the table of runs has no row of it",
    GAPS: "that nothing is missing: numbers are, as after a repair or a deletion by versions that entered neither",
    END: "that nothing is missing at the end of its writer: no closing says how much its driver had archived",
    TIMES: "when it was made: times of its run go back by more than ten minutes, as where a clock was set",
    NEIGHBOURS: "what follows from other episodes: not all were looked at, or not all can be read",
}

#: What "true" covers of an episode, line by line.
COVERED = (
    "its row is as it was sealed, by its content digest, and its file as it was written, by its name",
    "a game: every step is legal under the rules installed here, every search weighed just the legal actions, the "
    "rules say along the way what its replay digest holds, and give its end, its returns and its unit of values",
    "searches add up: visits sum to simulations, the value of the root is the mean of all that was backed up, the "
    "action played was visited, priors and values are within bounds",
    "searches are those of their run: as long, visited as sequential halving does, played as Gumbel or PUCT plays, "
    "and as surprising as priors, visits and values make them, all within what rounding hides",
    "each decision of a game lies in one policy span, of a policy that can have made it; error, origin and whether it "
    "may be learned from agree with its steps and its end",
    "a seat of self-play resigned when, and only when, the values of its searches and the settings of its run say so, "
    "and a game that was cut had as many moves as its run allows",
    "a dialogue: the problem, made again from its seed, is the one that was asked, the task says to each seat what it "
    "was told, and its verifier gives state, reward and criteria of every verdict again, from the text",
    "the tokens of an answer spell its text, and those before it what its seat was told, by the tokenizer that the "
    "corpus keeps; a chat template is rendered again, in a process of its own that is confined; how a byte-level "
    "tokenizer without one splits a prompt is not done again",
    "each answer is of one policy, and all or none of its tokens are to be learned from, as its origin says; its "
    "log-probabilities are possible under its sampling, its length and its end under the limits of its run",
    "what is trainable was judged, is no evaluation, and is of a problem that is neither held out nor for development; "
    "a problem has the digest of what was asked",
    "a walk in a control environment: shapes, lengths and the sum of its rewards; its steps are not taken again",
    "none is missing: the numbers of each writer begin with 0 and leave none out, each row names the digest of the one "
    "before it, and a writer whose driver has ended has as many as it ended with, but for deletions with an entry; "
    "where a later driver of a run has gone on, the closing of each earlier one is there",
    "none is there twice: not under its own name, nor under another, begun in the same microsecond or, as a game of "
    "the run's policy, with the same seed",
    "the games of a writer have the seeds that it drew, each once",
    "within a writer, versions of the policy never go back, nor times by more than a clock may be set, a day",
    "the samples of a group are all there, as many as the settings of the run say",
    "its configuration, code, rules and environment are those of its run, and the configuration has its digest",
    "the policies that played in it are in the table of policies, and were published before it ended",
    "episodes that it was made from are there, if their run is",
)
#: What it does not cover, whatever is installed.
NOT_COVERED = (
    "that the log-probabilities, priors and values are those of the weights named: `--weights` compares them",
    "that no episode was left out at the end of a run that has not ended, no whole run with all that tells of it, and "
    "that the rows of a writer were not all sealed anew, and its closing with them: a signature tells",
    "that who sealed the episodes had not made them up: who can seal can say what he likes, and a signature names him",
    "that a group of samples was not copied as a whole, under another name and at another time: the chain tells",
    "host, licence, texts such as reasons and messages of errors, and wall-clock times within a day: clocks are set; "
    "what goes back by more than ten minutes is told",
    "annotations, and what a learner says it learned from (the table of uses): they are their authors' word",
)


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


@dataclass
class Tally:
    """What a check of a corpus has found so far.

    lies: what is false. reasons: (class, reason) -> episodes that are not checkable for it. uncovered: what could not
    be looked at -> episodes that are otherwise true.
    """

    true: int = 0
    lies: list[Check] = field(default_factory=list)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    uncovered: Counter[str] = field(default_factory=Counter)

    def add(self, check: Check) -> None:
        if check.state == TRUE:
            self.true += 1
            self.uncovered.update(check.uncovered)
        elif check.state == FALSE:
            self.lies.append(check)
        else:
            self.reasons[check.why, check.reason] += 1

    @property
    def not_checkable(self) -> int:
        return self.reasons.total()

    @property
    def by_class(self) -> dict[str, int]:
        """How many are not checkable, by class."""
        found = Counter[str]()
        for (why, _), count in self.reasons.items():
            found[why] += count
        return dict(sorted(found.items()))

    @property
    def by_reason(self) -> dict[str, int]:
        """How many are not checkable, by reason."""
        return {reason: count for (_, reason), count in sorted(self.reasons.items())}


def meaning(uncovered: dict[str, int], not_checked: Iterable[str] = (WEIGHTS,)) -> str:
    """In one sentence what "true" covered. uncovered: as of a `Tally`. not_checked: what was not asked for."""
    missing = [f"{what} (run with --{what})" for what in not_checked]
    missing += [f"{what} of {count:,} episodes" for what, count in sorted(uncovered.items()) if count]
    covered = "True here means: all of a row that follows from itself, from the rules, from its neighbours and its run"
    return f"{covered}; not covered: {', '.join(missing)}" if missing else covered


def as_fields(tally: Tally, not_checked: Iterable[str] = (WEIGHTS,)) -> dict[str, Any]:
    """What reports say besides the counts, JSON."""
    return {
        "classes": tally.by_class,
        "uncovered": dict(sorted(tally.uncovered.items())),
        "meaning": meaning(tally.uncovered, not_checked),
    }


def told(uncovered: Iterable[str] = ()) -> str:
    """The whole list, covered and not covered, as Markdown. uncovered: keys of `UNCOVERED` that had to be left out."""
    here = [f"{UNCOVERED[what]} (of some episodes)" for what in sorted(set(uncovered))]
    parts = ["True is an episode of which this was found to hold:", *(f"- {line};" for line in COVERED)]
    parts += ["", "It is not said by that:", *(f"- {line};" for line in (*NOT_COVERED, *here))]
    return "\n".join(parts)
