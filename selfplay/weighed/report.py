"""What is said of a corpus that was checked with weights."""

from __future__ import annotations

from dataclasses import dataclass, field

TRUE, FALSE, NOT_WEIGHED = "true", "false", "not weighed"

#: Why something was not weighed.
GONE = "its weights are not on hand"
MIXED = "it may be of two nets: it was searched while weights changed, by a version that went on with the search"
UNSEEDED = "its settings are not known: its search cannot be made again"
OTHER_DRAWS = "the random numbers of its run are not drawn here as they were there: its searches cannot be made again"


@dataclass(frozen=True)
class Weighed:
    """The answer for one episode, or for a run (`subject` is then "run ID").

    state: "true": all of it that could be computed again is as recorded; "false"; "not weighed": nothing could be.
    reason: what is wrong, or missing.
    """

    subject: str
    state: str
    reason: str = ""


@dataclass
class Counts:
    """What was weighed. decisions: searched moves; searches: made again; repeated: of these, to the same visits.

    tokens: sampled. versions: digests of the weights that were used. left_out: reason -> decisions and answers.
    worst: the largest distance of a raw value or prior, of a log-probability (nats).
    """

    decisions: int = 0
    searches: int = 0
    repeated: int = 0
    tokens: int = 0
    positions: int = 0
    versions: set[str] = field(default_factory=set)
    left_out: dict[str, int] = field(default_factory=dict)
    worst: tuple[float, float] = (0.0, 0.0)

    def leave_out(self, reason: str, count: int = 1) -> None:
        self.left_out[reason] = self.left_out.get(reason, 0) + count
