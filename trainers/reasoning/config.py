"""The settings of a reasoning run: a task, a policy, how it generates, how it is warmed up and how it learns.

A recipe with a section [task] is one of these; one with [env] is of self-play (`trainers.alphazero.config`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from selfplay.contract import TaskSpec
from selfplay.errors import UserError
from trainers.reasoning.algorithms.table import ALGORITHMS
from trainers.run.settings import Experiment, NonNegative, Positive, RunSettings, Settings, Share, first_change

Unit = Annotated[float, Field(gt=0, le=1)]
Rate = Annotated[float, Field(gt=0)]
#: Problems of the development split where a decision needs them and no number is set.
DEVELOPMENT = 256
Levels = Annotated[tuple[float, ...], Field(strict=False)]


class TaskSettings(Settings):
    id: Annotated[str, Field(min_length=1)]
    """What is solved: an id ("parity", "parity-v0"), or a path ("./my_task.py", "./problems.jsonl")."""
    difficulties: Levels = ()
    """Levels that problems are drawn from; empty: all that the task has."""
    timeout: Literal["unverifiable", "rejected"] = "unverifiable"
    """What an answer gets whose verification takes too long: no verdict, or a rejection with reward 0, so that a policy
    is pushed back from such answers. A crash, a lost process and a used-up budget are never a rejection."""
    budget_s: Rate = 120.0
    """Seconds that a batch of answers may wait for verdicts with nothing else to do; what is left is unverifiable."""
    judges: Positive | Literal["auto"] = "auto"
    """Answers that one generating process has judged at once; "auto": one for each core of its share, at least two."""


class PolicySettings(Settings):
    path: str | None = None
    """A Hugging Face model directory; none: a fresh small transformer over characters."""
    layers: Positive = 4
    """Fresh: layers."""
    hidden: Positive = 128
    """Fresh: width."""
    heads: Positive = 4
    """Fresh: attention heads."""
    context: Positive = 512
    """Fresh: most tokens of a prompt with all its answers."""
    positions: Literal["rotary", "first", "none"] = "rotary"
    """Fresh: layers with rotary positions: all; the first, which names neighbours, so that the others find things by
    what they are and not by where they stand (which carries over to longer texts, arXiv:2305.19466); or none."""
    alphabet: str = ""
    """Fresh: characters that there are tokens for; empty: those that the task's problems and solutions use."""
    value_head: bool = False
    """One more output: the expected reward, which PPO needs."""
    lora_rank: NonNegative = 0
    """Train low-rank adapters of this rank instead of all weights; 0: all weights. Needs a path."""
    lora_alpha: Positive = 32
    """Scale of the adapters."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of generation and arithmetic; weights that are trained are float32, as bfloat16 would swallow small steps."""

    @model_validator(mode="after")
    def _consistent(self) -> PolicySettings:
        if self.lora_rank and self.path is None:
            raise ValueError("lora_rank needs a policy.path: a fresh policy has all its weights to learn")
        if self.path is None and (self.hidden % self.heads or self.hidden // self.heads % 2):
            raise ValueError(f"hidden must be a multiple of twice heads ({self.heads})")
        return self


class GenerationSettings(Settings):
    engine: Literal["own", "vllm"] = "own"
    """What generates: this project's engine, or vLLM, which needs a GPU and the extra of that name."""
    actors: Positive | Literal["auto"] = "auto"
    """Generating processes; "auto": one a core, or one a GPU that the learner leaves."""
    prompts: Positive = 32
    """Problems of a round."""
    group: Positive = 16
    """Samples of each problem, drawn together."""
    rows: Positive = 512
    """Most answers under way at once in an actor."""
    max_tokens: Positive = 256
    """Of one answer."""
    temperature: Annotated[float, Field(ge=0)] = 1.0
    """Of sampling; log-probabilities include it."""
    top_k: Positive | None = None
    """Sample from the k likeliest tokens only; none: from all."""
    top_p: Unit | None = None
    """Sample from the likeliest tokens with this probability together only; none: from all."""
    stop: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Texts that end an answer, besides the tokenizer's end of text."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where actors generate; "cuda" on a machine without a GPU is an error."""
    gpu_memory: Unit = 0.5
    """vLLM: share of a GPU's memory that it takes; the learner may need the rest."""


class WarmSettings(Settings):
    episodes: NonNegative = 0
    """Solver episodes to learn from before anything else; 0: no warm start."""
    difficulties: Levels = ()
    """Their levels; empty: the task's."""
    corpus: str | None = None
    """Instead of the solver's: the newest accepted episodes of the task in this corpus, whoever wrote them (a
    teacher: distillation). Their tokens are taken as they are, so the tokenizer must be the same."""
    answer_only: Share = 0.0
    """Share of them in which the answer stands alone, without the worked solution."""
    steps: NonNegative = 0
    """Steps of supervised learning on them."""
    batch: Positive = 256
    """Episodes of a step."""
    lr: Rate = 2e-3
    """Learning rate, after a short rise; falls to a tenth along a half cosine."""


class EndpointSettings(Settings):
    url: str | None = None
    """Of a server that speaks OpenAI's chat completions, up to and with "/v1": a frozen policy that takes part."""
    model: str = ""
    """The model's name there."""
    key_variable: str | None = None
    """Environment variable that holds the key, on every machine that generates; none: there is no key."""
    teaches: bool = False
    """The warm start imitates its right answers instead of the solver's."""
    seats: Annotated[tuple[NonNegative, ...], Field(strict=False)] = ()
    """Seats of the task that it answers for, as an opponent or a partner; what it writes there is not learned from."""
    in_flight: Positive = 8
    """Most requests at once of one generating process."""
    timeout_s: Rate = 120.0
    """Of one attempt at an answer."""


def _known(name: str) -> str:
    if name not in ALGORITHMS:
        *others, last = map(repr, ALGORITHMS)
        raise ValueError(f"{name!r} is no algorithm; there are {', '.join(others)} and {last}")
    return name


class LearnerSettings(Settings):
    algorithm: Annotated[str, AfterValidator(_known)] = "grpo"
    """What follows the warm start: reinforcement learning (grpo, rloo, ppo), expert iteration on what the policy solved
    itself, or nothing but more supervised learning."""
    lr: Rate = 3e-4
    """Learning rate."""
    warmup_steps: NonNegative = 5
    """Steps over which the rate rises."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Of matrices."""
    grad_clip: Rate = 1.0
    """Largest global gradient norm."""
    epochs: Positive = 1
    """Passes over the samples of a round."""
    minibatches: Positive = 1
    """Optimiser steps of a pass."""
    gaps: NonNegative = 0
    """Imitation: up to so many positions are left out, at random, before a token, so that a policy does not learn to
    count what it can find by what it is, and masters longer texts than it saw (arXiv:2305.16843); 0: none."""
    micro_tokens: Positive = 16_384
    """Most tokens, padding included, of one forward pass; gradients of several are added up."""
    normalise: bool = False
    """GRPO: divide advantages by the group's standard deviation; false: subtract the mean only (Dr. GRPO)."""
    clip_low: Unit = 0.2
    """Smallest probability ratio that is followed: 1 minus this."""
    clip_high: Rate = 0.28
    """Largest probability ratio that is followed: 1 plus this (clip-higher, DAPO)."""
    average: Literal["token", "sequence", "constant"] = "token"
    """Loss as a mean over tokens (DAPO), over sequences (GRPO), or a sum over tokens by max_tokens (Dr. GRPO)."""
    overlong: Literal["keep", "mask", "penalty"] = "keep"
    """Samples cut at max_tokens: trained with their reward, left out of the loss, or given a soft penalty (DAPO)."""
    kl: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the KL divergence to the policy that reinforcement learning began with; 0: off."""
    max_staleness: NonNegative = 0
    """Versions that a sample may be older than the policy that learns from it; above 0 actors generate meanwhile."""
    importance_cap: Rate | None = 2.0
    """Truncated importance weights for stale samples and unlike arithmetic; none: no correction."""
    gamma: Unit = 1.0
    """PPO: discount a token."""
    lam: Share = 0.95
    """PPO: lambda of generalised advantage estimation."""
    value_coef: Annotated[float, Field(ge=0)] = 0.5
    """PPO: weight of the value loss."""
    value_clip: Rate | None = 0.2
    """PPO: largest change of a value that is followed; none: any."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the policy is trained."""
    bf16: bool | Literal["auto"] = "auto"
    """bfloat16 autocast in training; "auto": where policy.dtype says so, or a GPU has it."""
    threads: Positive | Literal["auto"] = "auto"
    """Of the learner on a CPU; "auto": all cores while nobody generates, else half of them."""


class ExpertSettings(Settings):
    start: float | None = None
    """First level of the frontier; none: the lowest above the warm start's."""
    gate: Unit = 0.95
    """Solve rate on the development split from which on the frontier moves to the next level."""
    steps: Positive = 100
    """Steps of supervised learning a round."""
    base_share: Share = 0.4
    """Share of a step's samples that come from the warm start's episodes."""
    per_problem: Positive = 4
    """Most different solutions kept of one problem."""
    development: Positive = 256
    """Problems of the development split that the gate is measured on."""
    window: Positive = 20_000
    """Newest kept samples that steps draw from."""


class CurriculumSettings(Settings):
    kind: Literal["learnability", "uniform"] = "learnability"
    """Levels are drawn by p (1 - p) of their measured solve rate p, with a floor; or all alike."""
    floor: Share = 0.1
    """Share that is spread evenly over all levels, so that none is forgotten."""
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.998
    """What each judged sample leaves of the weight of older ones at its level; 0.998 remembers some 500."""


class EvaluationSettings(Settings):
    problems: Positive = 256
    """Held-out problems, over all levels; never trained on, and nothing is decided by them. Each gets one greedy
    answer."""
    development: Positive | None = None
    """Problems of the development split, over all levels, which decide what held-out ones must not: when run.target is
    reached, and which trial of `selfplay tune` is best. none: 256 where one of these is asked for."""
    difficulties: Levels = ()
    """Levels that are measured; empty: the task's."""
    every_s: Rate = 20.0
    """Seconds between two measurements."""


class ReasoningRunSettings(RunSettings):
    minutes: Rate = 5.0
    """Length of the run, warm start and all."""
    rounds: Positive | None = None
    """End after this many rounds, if that is sooner."""
    target: Unit | None = None
    """End when the accuracy on the development split, which is neither trained on nor held out, has been at least this
    twice in a row, if that is sooner. It is measured whenever the held-out problems are."""
    checkpoint_every_s: Rate = 30.0
    """Seconds between two checkpoints."""
    keep_checkpoints: Positive = 3
    """The newest checkpoints kept."""


class ReasoningConfig(Experiment):
    """One experiment of reasoning, complete."""

    task: TaskSettings
    policy: PolicySettings = PolicySettings()
    generation: GenerationSettings = GenerationSettings()
    warm: WarmSettings = WarmSettings()
    endpoint: EndpointSettings = EndpointSettings()
    learner: LearnerSettings = LearnerSettings()
    expert: ExpertSettings = ExpertSettings()
    curriculum: CurriculumSettings = CurriculumSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    run: ReasoningRunSettings = ReasoningRunSettings()

    @model_validator(mode="after")
    def _consistent(self) -> ReasoningConfig:
        name, algorithm = self.learner.algorithm, ALGORITHMS[self.learner.algorithm]
        if algorithm.value_head and not self.policy.value_head:
            raise ValueError(f"learner.algorithm = {name} needs policy.value_head = true")
        if algorithm.compares == "group" and self.generation.group < 2:
            raise ValueError(f"learner.algorithm = {name} compares the samples of a group: generation.group >= 2")
        if algorithm.follows != "nothing" and self.generation.temperature == 0:
            raise ValueError("generation.temperature = 0 explores nothing")
        if self.warm.steps and not self.warm.episodes:
            raise ValueError("warm.steps needs warm.episodes to learn from")
        if (self.endpoint.teaches or self.endpoint.seats) and not (self.endpoint.url and self.endpoint.model):
            raise ValueError("endpoint.teaches and endpoint.seats need endpoint.url and endpoint.model")
        if self.endpoint.teaches and self.warm.corpus is not None:
            raise ValueError("endpoint.teaches and warm.corpus are two teachers: choose one")
        if algorithm.warm and not self.warm.steps:
            raise ValueError(f"learner.algorithm = {name} begins with a warm start: warm.episodes and warm.steps")
        return self


def refuse_unfit(config: ReasoningConfig, spec: TaskSpec) -> None:
    """Raises `UserError` where a task lacks what the settings need of it."""
    solver = not config.endpoint.teaches and config.warm.corpus is None
    if config.warm.episodes and solver and spec.gold is None and spec.solve is None:
        raise UserError(
            f"warm.episodes = {config.warm.episodes} needs worked solutions, and {spec.id} has neither `solve` nor "
            "`gold`; set warm.episodes=0, or let warm.corpus or endpoint.teaches bring the episodes to imitate"
        )
    if config.task.timeout == "rejected" and spec.seats > 1:
        raise UserError(f"task.timeout = rejected is for tasks of one seat; {spec.id} has {spec.seats}")


def incompatible(old: ReasoningConfig, new: ReasoningConfig) -> str | None:
    """Why a run begun as `old` cannot go on as `new`, in words, or None. Task and policy must stay as they are."""
    endpoint = ("endpoint.model", "endpoint.teaches", "endpoint.seats")
    return first_change(old, new, ("name", "task.id", "policy", "warm", "run.corpus", *endpoint))
