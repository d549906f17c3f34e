"""Where the actors of a run go on a cluster: what must not vanish stays on nodes that stay, players go anywhere.

A node that stays (on demand, not spot) declares the resource "steady". Archivist, weights, learner and examiner of a
run, and who compacts its archive, share a placement group there, with a GPU if the node has one: nobody who comes
earlier can take it. A head that does no work declares "apart": then a run waits for a steady node, which an autoscaler
brings, rather than settle where nothing should run. Where there is neither, as on one machine, actors go wherever there
is room.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from selfplay.errors import UserError

STEADY = "steady"
APART = "apart"
#: Of the resource "steady" (1 a node): what a run takes, and what each of its actors takes of that.
_OF_RUN, _OF_ACTOR = 0.01, 0.001
_NODE_S, _GPU_S = 900.0, 30.0
#: Actors that wait longer than this for room are told of.
TELL_S = 60.0
#: Options of an actor that may be anywhere; without them it would share the bundle of a driver that Ray Tune placed.
ANYWHERE: dict[str, Any] = {"scheduling_strategy": "DEFAULT"}


@dataclass(frozen=True)
class Place:
    """Where the actors that stay go. group: a placement group of one bundle, None: anywhere. gpus: the learner's."""

    group: Any = None
    gpus: float = 0.0

    def options(self) -> dict[str, Any]:
        """Of an actor or task that must outlive spot nodes."""
        if self.group is None:
            return dict(ANYWHERE)
        here = PlacementGroupSchedulingStrategy(self.group, placement_group_bundle_index=0)
        return {"scheduling_strategy": here, "resources": {STEADY: _OF_ACTOR}}


def reserve(learner: str, tell: Callable[[str], None]) -> Place:
    """A place for the actors of one run that stay; it is free again when the driver is gone.

    learner: its device, "auto", "cpu" or "cuda". tell: is given a word where one has to wait. Raises `UserError` where
    no steady node comes, or another run's learner has its GPU.
    """
    if not {STEADY, APART} & set(ray.cluster_resources()):
        return Place()
    group = placement_group([{STEADY: _OF_RUN}])
    if not group.wait(1.0):
        tell("waiting for a steady node")
        if not group.wait(_NODE_S):
            raise UserError(
                f"no node with the resource {STEADY!r} came within {_NODE_S / 60:.0f} minutes, and the head does no "
                "work; see `ray status`"
            )
    if learner == "cpu" or not any(has.get(STEADY) and has.get("GPU") for has in _alive()):
        return Place(group)
    remove_placement_group(group)
    group = placement_group([{STEADY: _OF_RUN, "GPU": 1}])
    if group.wait(_GPU_S):
        return Place(group, 1.0)
    raise UserError("the steady node's GPU is taken, by another run's learner perhaps; say learner.device=cpu or wait")


class Shortage:
    """Tells of actors that wait for room, and ends a run for which there is none at all.

    who: "players". needs: of each, "core". tell: is given a sentence.
    """

    def __init__(self, who: str, needs: str, tell: Callable[[str], None]) -> None:
        self._who, self._needs, self._tell = who, needs, tell
        self._since: float | None = None  # when the oldest of those that wait began
        self._idle: float | None = None  # since when nobody has room
        self._told = 0

    def look(self, waiting: int, at_work: int) -> None:
        """waiting: actors without room; at_work: those with. Raises `UserError` where long nobody has had any."""
        if not waiting:
            self._since, self._idle, self._told = None, None, 0
            return
        now = time.monotonic()
        self._since = self._since or now
        self._idle = None if at_work else self._idle or now
        if now - self._since < TELL_S:
            return
        there = f"{cores()} cores and {gpus()} GPUs on {len(_alive())} nodes"
        said = f"{self._who} wait for a {self._needs}; Ray has {there}"
        if waiting != self._told:
            self._told = waiting
            self._tell(f"{waiting} of {waiting + at_work} {said}: add some, or `ray status` says what is on its way")
        if self._idle is not None and now - self._idle > _NODE_S:
            raise UserError(f"for {_NODE_S / 60:.0f} minutes all {waiting} {said}: add some, or ask for fewer")


def steady_alone() -> bool:
    """Whether nobody plays where the learner learns: it may use all cores there."""
    return any(STEADY in has and not has.get("CPU") for has in _alive())


def cores() -> int:
    """Of all nodes alive, on which actors may run."""
    return int(sum(has.get("CPU", 0) for has in _alive()))


def cores_of_largest() -> int:
    """Of one node, at least 1."""
    return max([1, *(int(has.get("CPU", 0)) for has in _alive())])


def gpus() -> int:
    """Of all nodes alive."""
    return int(sum(has.get("GPU", 0) for has in _alive()))


def _alive() -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
