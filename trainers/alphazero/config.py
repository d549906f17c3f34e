"""The settings of a run: an experiment = environment + net + search + self-play + learner + evaluation.

One frozen pydantic model with `extra="forbid"`: a key that nothing reads is an error, and so is an inconsistent pair of
values. A recipe is a TOML file of these keys (`trainers.recipe`); the resolved configuration is saved as JSON in
the run folder. Values inside nets and searches are in [-1, 1] from the point of view of the seat to act.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from selfplay.net_limits import MOST
from trainers.run.settings import Experiment, NonNegative, Positive, RunSettings, Settings, Share, first_change

Opponent = Annotated[str, Field(pattern=r"^(random|checkpoints|mcts[1-9][0-9]{0,6})\z")]


class EnvConfig(Settings):
    id: Annotated[str, Field(min_length=1)]
    """What is played: an id ("connect_four", "connect_four-v0"), a path ("./my_game.py") or "openspiel:…"."""


class NetSettings(Settings):
    trunk: Literal["auto", "resnet", "mlp"] = "auto"
    """"auto": a residual net for observations of three dimensions, else an MLP."""
    channels: Annotated[int, Field(ge=1, le=MOST["channels"])] = 32
    """Channels of the residual trunk."""
    blocks: Annotated[int, Field(ge=1, le=MOST["blocks"])] = 4
    """Residual blocks."""
    hidden: Annotated[int, Field(ge=1, le=MOST["hidden"])] = 128
    """Width of the MLP trunk."""
    layers: Annotated[int, Field(ge=1, le=MOST["layers"])] = 3
    """Layers of the MLP trunk."""


class SearchSettings(Settings):
    algorithm: Literal["gumbel", "puct"] = "gumbel"
    """Root and tree policy: Gumbel AlphaZero (Danihelka et al. 2022) or PUCT (Silver et al. 2018)."""
    simulations: Positive = 32
    """Simulations of a full search in self-play."""
    considered: Positive = 16
    """Gumbel: actions that enter sequential halving at the root."""
    c_visit: Annotated[float, Field(ge=0)] = 50.0
    """Gumbel: sigma(q) = (c_visit + max visits) * c_scale * q, q in [0, 1]."""
    c_scale: Annotated[float, Field(gt=0)] = 0.2
    """Gumbel: see c_visit; in self-play and in its policy targets."""
    c_init: Annotated[float, Field(ge=0)] = 1.25
    """PUCT: exploration constant."""
    c_base: Annotated[float, Field(gt=0)] = 19652.0
    """PUCT: visits at which exploration starts to grow."""
    fpu_reduction: Annotated[float, Field(ge=0)] = 0.2
    """PUCT: an unvisited action is worth the node's value minus this times sqrt(visited prior)."""
    dirichlet_alpha: Annotated[float, Field(gt=0)] | None = None
    """PUCT: concentration of the root noise; none: 10 / the number of legal actions."""
    dirichlet_fraction: Share = 0.25
    """PUCT: share of the root noise in the priors."""
    cheap_simulations: NonNegative = 8
    """Playout-cap randomisation: simulations of a cheap search, which yields no policy target; 0: raw policy."""
    full_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Playout-cap randomisation: share of moves that get a full search; 1 turns it off."""

    @model_validator(mode="after")
    def _cheaper(self) -> SearchSettings:
        if self.full_fraction < 1 and self.cheap_simulations >= self.simulations:
            raise ValueError(f"cheap_simulations must be below simulations ({self.simulations})")
        return self


class SelfplaySettings(Settings):
    actors: Positive | Literal["auto"] = "auto"
    """Self-play processes; "auto": one for each core that the learner and the evaluation leave."""
    games: Annotated[int, Field(ge=1, le=4096)] = 128
    """Games that one actor plays in lock-step; also the largest batch given to the net."""
    opening_fraction: Share = 0.7
    """Share of games that start with random moves."""
    opening_plies: NonNegative = 8
    """At most this many random moves at the start, uniform from 1."""
    opening_choices: Annotated[int, Field(ge=1, le=64)] = 1
    """Random openings drawn for such a game; the one whose value the net puts nearest to even is played."""
    temperature: Annotated[float, Field(ge=0)] = 1.0
    """PUCT: moves are drawn from visits^(1/temperature) for the first temperature_plies."""
    temperature_plies: NonNegative = 8
    """PUCT: plies played with a temperature, after that the most visited move. Gumbel noise needs none."""
    resign_threshold: Annotated[float, Field(gt=0, le=1)] | None = None
    """A seat whose search value stays below minus this for resign_moves of its moves resigns; none: never."""
    resign_moves: Positive = 3
    """See resign_threshold."""
    resign_playon: Share = 0.2
    """Share of would-be resignations that are played to the end, to measure how many were wrong."""
    ply_limit: Positive | None = None
    """Moves after which a game ends as `truncated`; none: the environment's own limit."""
    truncated_value_weight: Share = 0.5
    """Weight of a truncated game's value target, which is the last search value; 0: none."""
    cache_entries: NonNegative = 200_000
    """Evaluations kept by each actor, keyed by net input, cleared at every version; 0: no cache."""
    refresh_moves: Positive = 16
    """Rounds of moves between two looks for newer weights."""
    dtype: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    """Arithmetic of the forward pass; "auto": what is fastest here and exact enough, found by trying."""
    backend: Literal["auto", "openvino", "torch"] = "auto"
    """What computes a convolutional net on a CPU; "auto": what is fastest here, found by trying."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the actors evaluate the net; "cuda" on a machine without a GPU is an error."""


class LearnerConfig(Settings):
    batch: Positive = 512
    """Rows of one training step, over all learners."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """AdamW for everything, or Muon for hidden kernels and AdamW for the rest; see `trainers.alphazero.optimizer`."""
    lr: Annotated[float, Field(gt=0)] = 2e-3
    """Learning rate at the start."""
    lr_final: Annotated[float, Field(gt=0)] = 1e-4
    """Learning rate at the end of the run."""
    lr_decay_from: Share = 0.5
    """Fraction of the run after which the rate falls linearly from lr to lr_final."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """Weight decay (kernels only)."""
    grad_clip: Annotated[float, Field(gt=0)] = 5.0
    """Largest global gradient norm."""
    samples_per_position: Annotated[float, Field(gt=0)] = 4.0
    """Training samples drawn for each new position: fixes the learner's pace to the actors'."""
    window_initial: Positive = 20_000
    """Positions before training starts, and the window's first capacity c0."""
    window_alpha: Annotated[float, Field(gt=0, le=1)] = 0.65
    """Power law of the window: c0 * (1 + beta * ((total / c0)^alpha - 1) / alpha)."""
    window_beta: Annotated[float, Field(gt=0, le=1)] = 0.4
    """See window_alpha."""
    window_max: Positive = 500_000
    """Largest capacity in positions."""
    z_weight: Annotated[float, Field(ge=0)] = 0.5
    """Weight of the game's outcome in the value target."""
    q_weight: Annotated[float, Field(ge=0)] = 0.5
    """Weight of the search's root value in the value target."""
    publish_every_samples: Positive = 50_000
    """Samples trained between two versions handed to the actors."""
    learners: NonNegative = 0
    """0: one learner inside the learner's actor; N: that many data-parallel processes."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the net is trained; "cuda" on a machine without a GPU is an error."""
    bf16: bool | Literal["auto"] = "auto"
    """bfloat16 autocast in the forward pass; "auto": where it is faster, found by trying."""
    layout: Literal["auto", "channels_last", "contiguous", "winograd"] = "auto"
    """Memory layout of a convolutional net in training, or Winograd's convolutions (on a CPU, in float32); "auto": what
    is fastest, found by trying."""
    threads: Positive | Literal["auto"] = "auto"
    """Of a learner on a CPU; "auto": a quarter of the cores, and those on which nobody plays just then."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of the averaged weights that are published, per step; 0: no averaging."""

    @model_validator(mode="after")
    def _consistent(self) -> LearnerConfig:
        if self.z_weight + self.q_weight <= 0:
            raise ValueError("z_weight + q_weight must be above 0, or the value head has no target")
        if self.window_max < self.window_initial:
            raise ValueError(f"window_max must be at least window_initial ({self.window_initial})")
        if self.layout == "winograd" and (self.bf16 is True or self.device == "cuda"):
            raise ValueError("layout=winograd needs a CPU and float32")
        if self.learners and self.batch % self.learners:
            raise ValueError(f"batch must be a multiple of learners ({self.learners})")
        return self


class EvaluationConfig(Settings):
    every_s: Annotated[float, Field(gt=0)] = 30.0
    """Seconds between two evaluations of the newest version, if the share of the CPU allows."""
    games: Positive = 40
    """Games of one match, half of them from each side."""
    opponents: Annotated[tuple[Opponent, ...], Field(strict=False)] = ("random", "mcts100", "mcts1000", "checkpoints")
    """Whom the newest net meets: random play, OpenSpiel's MCTS with N rollouts ("mctsN"), its own earlier versions."""
    simulations: NonNegative = 64
    """Simulations of the net's search in matches, without noise."""
    c_scale: Annotated[float, Field(gt=0)] = 1.0
    """Gumbel: c_scale at play (matches, `selfplay play`, Agent), where no later net averages out a wrong preference."""
    images: Positive = 2
    """At play, each evaluation is averaged over this many symmetric images of the position, as far as it has them."""
    exact_positions: NonNegative = 300
    """Positions a depth at which moves are compared with exact play, where a solver is known; 0: none."""
    cpu_share: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Largest share of the machine's processor time spent on evaluation."""


class SelfPlayRunSettings(RunSettings):
    minutes: Annotated[float, Field(gt=0)] = 10.0
    """Length of the run, counted from the first game."""
    positions: Positive | None = None
    """End after this many positions instead of after `minutes`."""
    deterministic: bool = False
    """Actors and learner take turns at fixed counts, so that the whole run repeats."""


class RunConfig(Experiment):
    """One experiment of self-play, complete."""

    env: EnvConfig
    net: NetSettings = NetSettings()
    search: SearchSettings = SearchSettings()
    selfplay: SelfplaySettings = SelfplaySettings()
    learner: LearnerConfig = LearnerConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    run: SelfPlayRunSettings = SelfPlayRunSettings()


def with_ply_limit(config: RunConfig, of_game: int) -> RunConfig:
    """The configuration as it takes effect: where it leaves the limit of moves to the environment, that one's.

    What is archived with episodes says it, as whoever checks them may have the environment in another version.
    """
    play = config.selfplay.model_copy(update={"ply_limit": config.selfplay.ply_limit or of_game})
    return config.model_copy(update={"selfplay": play})


def incompatible(old: RunConfig, new: RunConfig) -> str | None:
    """Why a run begun as `old` cannot go on as `new`, in words, or None. Game and net shape must stay as they are."""
    return first_change(old, new, ("name", "env.id", "net", "run.corpus"))
