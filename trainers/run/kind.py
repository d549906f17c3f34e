"""A kind of run, such as self-play or reasoning, as one record: all that the rest of the house must know of it.

A third kind is a folder beside `alphazero/` and `reasoning/` and a row in `trainers.kinds`, or an entry point of
another distribution in the group `selfplay.run_kinds`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol

from selfplay.contract import EnvSpec
from trainers.run.run_state import AnyState
from trainers.run.settings import Experiment

if TYPE_CHECKING:
    from selfplay.store import Lease
    from trainers.run.placement import Place


class RunStatus(Protocol):
    """What every status of a run has, whatever the kind: a frozen dataclass of plain values, made anew each time.

    recipe, env, out, corpus: names and places. phase: such as "playing". episodes: archived. messages: newest last.
    """

    @property
    def recipe(self) -> str: ...
    @property
    def env(self) -> str: ...
    @property
    def out(self) -> str: ...
    @property
    def corpus(self) -> str: ...
    @property
    def phase(self) -> str: ...
    @property
    def activity(self) -> str: ...
    @property
    def elapsed_s(self) -> float: ...
    @property
    def total_s(self) -> float: ...
    @property
    def episodes(self) -> int: ...
    @property
    def version(self) -> int: ...
    @property
    def messages(self) -> tuple[str, ...]: ...


class RunSummary(Protocol):
    """How a run ended."""

    @property
    def run_id(self) -> str: ...
    @property
    def ended_by(self) -> str: ...
    @property
    def status(self) -> Any: ...

    def to_dict(self) -> dict[str, Any]:
        """For `selfplay run --json`: plain JSON values."""


@dataclass(frozen=True)
class Start:
    """What the loop of a run begins with, once Ray is there.

    out: URI of the run's folder. joined: whether Ray is somebody else's. on_status: to be given every `RunStatus`.
    stop: is set when the run shall end in order.
    """

    out: str
    lease: Lease
    joined: bool
    place: Place
    on_status: Callable[[Any], None]
    stop: threading.Event


@dataclass(frozen=True)
class RunKind(Generic[AnyState]):
    """One kind of run.

    name: as `status.json` has it. section: of the settings, whose `id` names the environment; a recipe that has it is
      of this kind. environment: what the environment is called, "game" or "task"; spec: the type of its spec.
    config, state: the models of its settings and of what it remembers.
    find: the environment that a user named. refuse: raises `UserError` for settings that do not fit an environment.
    incompatible: why a run begun with the first settings cannot go on with the second, in words, or None.
    first_status: of settings, an environment's id, the run's URI and an activity: the status before it has begun.
    preload: imports what the loop needs; in the background, while Ray starts.
    run: plays until the time is over or `Start.stop` is set, and returns a `RunSummary`.
    in_brief: of settings: the net, and how it learns, for the table of recipes.
    rate: the field of its status that is 0 while nothing moves. lost: how many episodes died with a process, by the
      name of that metric and the status.
    score: of a status, in [0, 1], higher is better, None before it is known. for_trial: settings, as "KEY=VALUE", of a
      trial of `selfplay tune` with so many cores.
    """

    name: str
    section: str
    environment: str
    spec: type[Any]
    config: type[Experiment]
    state: type[AnyState]
    find: Callable[[str], EnvSpec]
    refuse: Callable[[Any, EnvSpec], None]
    incompatible: Callable[[Any, Any], str | None]
    first_status: Callable[[Any, str, str, str], Any]
    preload: Callable[[], None]
    run: Callable[[Any, Any, Start], Any]
    in_brief: Callable[[Any], tuple[str, str]]
    rate: str
    lost: tuple[str, Callable[[Any], int]]
    score: Callable[[Any], float | None]
    for_trial: Callable[[Any, int], list[str]]

    def environment_of(self, config: Experiment) -> str:
        """The environment, as such settings name it."""
        name: str = getattr(config, self.section).id
        return name

    def learner_device(self, config: Experiment) -> str:
        """Where such settings put the learner: "auto", "cpu" or "cuda"."""
        return str(getattr(getattr(config, "learner", None), "device", "auto"))
