"""Settings of a search."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from selfplay.errors import UserError

GUMBEL = 0
PUCT = 1
#: Name -> number in compiled code, which knows these two alone.
ALGORITHMS = {"gumbel": GUMBEL, "puct": PUCT}
_MOST_CONSIDERED = 1_000_000


class Constants(NamedTuple):
    """The numbers of a `SearchConfig` that compiled code reads."""

    algorithm: int
    c_visit: float
    c_scale: float
    c_init: float
    c_base: float
    fpu_reduction: float
    root_fpu_reduction: float
    dirichlet_fraction: float


@dataclass(frozen=True)
class SearchConfig:
    """How a tree search chooses.

    algorithm: "gumbel" is Gumbel AlphaZero (Danihelka et al. 2022, "Policy improvement by planning with Gumbel"),
      "puct" is AlphaZero (Silver et al. 2018).
    considered: Gumbel: how many root actions sequential halving starts from (m in section 3.3).
    c_visit, c_scale: Gumbel: sigma(q) = (c_visit + max_b N(b)) * c_scale * q with q in [0, 1] (section 3.4).
    c_init, c_base: PUCT's exploration rate log((1 + N + c_base) / c_base) + c_init.
    fpu_reduction: PUCT: an unvisited action is worth the raw value of its state less this times the square root of
      the prior already visited. `root_fpu_reduction` is the same at a root whose priors carry noise.
    dirichlet_fraction: PUCT: share of noise in the root's priors; 0 where a search is started without noise.
    """

    algorithm: Literal["gumbel", "puct"] = "gumbel"
    considered: int = 16
    c_visit: float = 50.0
    c_scale: float = 0.2
    c_init: float = 1.25
    c_base: float = 19652.0
    fpu_reduction: float = 0.2
    root_fpu_reduction: float = 0.0
    dirichlet_fraction: float = 0.25

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise UserError(f"search algorithm {self.algorithm!r} is unknown; it is {' or '.join(ALGORITHMS)}")
        if not 1 <= self.considered <= _MOST_CONSIDERED:
            raise UserError(f"search considered must be from 1 to {_MOST_CONSIDERED}, got {self.considered}")
        for name in ("c_visit", "c_scale", "c_init", "c_base", "fpu_reduction", "root_fpu_reduction"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"search {name} must be a finite number of 0 or more, got {getattr(self, name)}")
        if not 0 <= self.dirichlet_fraction <= 1:
            raise UserError(f"search dirichlet_fraction must be from 0 to 1, got {self.dirichlet_fraction}")

    def constants(self) -> Constants:
        return Constants(
            ALGORITHMS[self.algorithm],
            float(self.c_visit),
            float(self.c_scale),
            float(self.c_init),
            float(self.c_base),
            float(self.fpu_reduction),
            float(self.root_fpu_reduction),
            float(self.dirichlet_fraction),
        )
