"""What a run tells the person who watches it: plain values, no ray, no torch; the display draws them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Phase = Literal["starting", "playing", "draining", "finished"]


@dataclass(frozen=True)
class StrengthRow:
    """One match of a version against a fixed opponent, from the version's point of view.

    opponent: "random", "mcts100", "version 3", ….
    version: of the net that played; 0 is the untrained net.
    score: share of points, draws count half; low, high: its 95% interval (Wilson).
    elapsed_s: seconds into the run when the match ended.
    """

    opponent: str
    version: int
    wins: int
    draws: int
    losses: int
    score: float
    low: float
    high: float
    elapsed_s: float = 0.0


@dataclass(frozen=True)
class ExactRow:
    """Share of positions, in [0, 1], in which the chosen move has less than the best exact value.

    label: the set of positions and the player, such as "12 plies, 64 simulations", "quiet, 12 plies, raw policy" or
    "all positions, raw policy". low, high: 95% interval (Wilson).
    """

    label: str
    version: int
    mistakes: float
    positions: int
    low: float = 0.0
    high: float = 1.0


@dataclass(frozen=True)
class MistakesRow:
    """Mistakes as in `ExactRow`, on all test positions of one kind together.

    kind: "random positions", "quiet positions" (random ones in which no move ends the game at once), "all positions".
    player: "64 simulations", "raw policy". by_set: of each set of positions, such as ("12 plies", 0.03).
    safe: share of the positions in which no move is a mistake; None where an older version of this program measured.
    """

    kind: str
    player: str
    version: int
    mistakes: float
    positions: int
    low: float
    high: float
    by_set: tuple[tuple[str, float], ...] = ()
    safe: float | None = None


@dataclass(frozen=True)
class BaselineRow:
    """A simple player's mistakes on all test positions of one kind together on which the net was measured last.

    kind: as in `MistakesRow`. low, high: equal to the share where it is known exactly, as of random moves.
    """

    kind: str
    player: str
    mistakes: float
    positions: int
    low: float
    high: float


@dataclass(frozen=True)
class RatingPoint:
    """A version's rating in Elo, with its 95% interval, on the scale of the run's fixed opponents."""

    version: int
    elo: float
    low: float
    high: float


@dataclass(frozen=True)
class Candidate:
    """One move that a search weighed.

    prior: probability in [0, 1]. q: expected return in the game's units from the point of view of the seat to act;
    None where the search never visited it. chosen: whether it was played.
    """

    text: str
    visits: int
    prior: float
    q: float | None
    chosen: bool = False


@dataclass(frozen=True)
class LastGame:
    """The newest finished game.

    board: its last position (or the one before the candidates), drawn with rich markup.
    candidates: what the search weighed at that position, most visited first.
    result: "first player wins", "draw", "cut off after 200 plies", ….
    """

    board: str
    caption: str
    result: str
    plies: int
    candidates: tuple[Candidate, ...] = ()
    episode_id: str = ""


@dataclass(frozen=True)
class LostGames:
    """Games lost in flight (a process died): not archived; counted with their moves, as losing long ones is a bias."""

    count: int = 0
    plies: int = 0


@dataclass(frozen=True)
class Status:
    """A run at one moment. A new one is made each time (`dataclasses.replace`), never changed.

    activity: what goes on besides the phase, "" for nothing; for activity_s by now, of about activity_expected_s.
    elapsed_s: since the first game of this session's clock; total_s: the run's length.
    episodes, positions: finished and archived, over the whole run; positions_per_s: over the last seconds.
    window_rows, window_capacity: positions in the replay window.
    policy_loss, value_loss: newest, None before training; loss_history: (policy, value), oldest first.
    exact: newest mistakes on each set of test positions; mistakes: on each kind of them; first_…: the first version's.
    baselines: simple players on the same positions.
    strength: newest match of each opponent; first_strength: each opponent's first, for comparison.
    players: self-play processes now. staleness: versions between the oldest that plays and the newest, None before a
    game.
    queued_blocks: written and not yet committed; archive_lag_s: age of the oldest of them. owed_samples: training
    samples that archived positions still owe.
    sizing: what the run chose for this machine, one line. choices: what it chose by measuring, "inference" or
    "training" -> way in use -> that with its cost. cores: of the machine or cluster; busy: "players", "learner",
    "evaluation" -> cores at work, on average over the last seconds.
    messages: newest last; only what a person must know.
    """

    recipe: str
    env: str
    out: str
    corpus: str
    phase: Phase = "starting"
    activity: str = ""
    activity_s: float = 0.0
    activity_expected_s: float | None = None
    elapsed_s: float = 0.0
    total_s: float = 0.0
    episodes: int = 0
    positions: int = 0
    positions_per_s: float = 0.0
    version: int = 0
    learner_steps: int = 0
    window_rows: int = 0
    window_capacity: int = 0
    policy_loss: float | None = None
    value_loss: float | None = None
    loss_history: tuple[tuple[float, float], ...] = ()
    strength: tuple[StrengthRow, ...] = ()
    first_strength: tuple[StrengthRow, ...] = ()
    exact: tuple[ExactRow, ...] = ()
    first_exact: tuple[ExactRow, ...] = ()
    mistakes: tuple[MistakesRow, ...] = ()
    first_mistakes: tuple[MistakesRow, ...] = ()
    baselines: tuple[BaselineRow, ...] = ()
    ratings: tuple[RatingPoint, ...] = ()
    last_game: LastGame | None = None
    lost: LostGames = field(default_factory=LostGames)
    players: int = 0
    staleness: float | None = None
    queued_blocks: int = 0
    archive_lag_s: float = 0.0
    owed_samples: float = 0.0
    sizing: str = ""
    choices: dict[str, dict[str, str]] = field(default_factory=dict)
    cores: int = 0
    busy: Mapping[str, float] = field(default_factory=dict)
    messages: tuple[str, ...] = ()

    @property
    def cores_at_work(self) -> float:
        """On average over the last seconds."""
        return sum(self.busy.values())


@dataclass(frozen=True)
class Summary:
    """How a run ended.

    ended_by: "time" or "interrupted" (Ctrl-C).
    status: the last one; its first_… fields hold the net the run began with.
    """

    run_id: str
    ended_by: Literal["time", "interrupted"]
    status: Status

    def to_dict(self) -> dict[str, Any]:
        """For `selfplay run --json`: plain JSON values."""
        return asdict(self)
