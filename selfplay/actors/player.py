"""The actor that plays: pulls weights, generates games, seals and writes them, and hands them on.

A call returns two objects: a small report for the driver, and the sealed episodes as Arrow for the learner, which the
driver passes on by reference once the committer has acknowledged them. A call that dies loses its games in flight; they
are counted, never replayed under their ids.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from selfplay.actors import notice
from selfplay.actors.weights import Published
from selfplay.environments import registry
from selfplay.environments.game import Game, load
from selfplay.episode import EPISODES, Episode, Provenance
from selfplay.io import storage
from selfplay.nets.choice import Choice
from selfplay.nets.config import NetConfig
from selfplay.nets.inference import Backend, Dtype, Evaluator
from selfplay.play.generator import Generator, PlaySettings, Policy
from selfplay.search import SearchConfig
from selfplay.store.table.table import episodes_uri
from selfplay.store.table.write import Block, Writer

#: Random positions by which the evaluation of the net is chosen.
_TRIED = 128


@dataclass(frozen=True)
class PlayerJob:
    """Everything a player is told once.

    seed: of this incarnation's games. measure: whether to find out what evaluates its net fastest by trying it.
    """

    env: registry.Portable
    net: str
    search: SearchConfig
    play: PlaySettings
    provenance: Provenance
    corpus: str
    policy_id: str
    slot: str
    epoch: int
    first_number: int
    first_block: int
    seed: tuple[int, ...]
    dtype: Dtype
    backend: Backend
    device: str
    threads: int
    measure: bool


@dataclass(frozen=True)
class Showcase:
    """The newest finished game for people: its last searched position.

    candidates: (action as text, visits, prior, q or None in utility units, chosen), most visited first.
    """

    board: str
    caption: str
    result: str
    plies: int
    candidates: tuple[tuple[str, int, float, float | None, bool], ...]
    episode_id: str


@dataclass(frozen=True)
class Report:
    """What a call did.

    block: where the episodes were written, None if none were. decisions: searched moves made.
    in_flight: (games, moves) that are lost if the actor dies now. seconds: of the call, cpu_s: of the processor;
    net_s: in the net. inference: how the net is evaluated, and what decided it.
    resignable: (games played on past a resignation, those of them that the seat then did not lose).
    leaving: its node has been given notice; the games under way are sealed as aborted, in the block.
    """

    slot: str
    block: Block | None
    episodes: int
    decisions: int
    archived_decisions: int
    version: int
    in_flight: tuple[int, int]
    seconds: float
    cpu_s: float
    net_s: float
    inference: Choice
    simulations: int
    evaluations: int
    batches: int
    lookups: int
    hits: int
    resignable: tuple[int, int]
    showcase: Showcase | None
    leaving: bool = False


class Player:
    """Plays with the newest weights. `weights` is the handle of a `WeightServer`, or None for untrained play."""

    def __init__(self, job: PlayerJob, weights: Any) -> None:
        storage.refuse_unseen(episodes_uri(job.corpus))
        self._job = job
        self._weights = weights
        self._version = -1
        self._writer = Writer(job.corpus, job.slot, job.epoch, job.first_block)
        self._sealed: list[Episode] = []  # and not yet written
        self._game: Game = load(registry.unpack(job.env))
        seen = self._game.random_observations(_TRIED, 0) if job.measure else None
        net = NetConfig.from_json(job.net)
        self._evaluate = Evaluator(net, job.dtype, job.device, job.threads, seen, job.backend)
        self._generator = Generator(
            self._game,
            self._evaluate,
            job.search,
            job.play,
            replace(job.provenance, host=os.uname().nodename),
            job.slot,
            job.epoch,
            job.first_number,
            np.random.Generator(np.random.PCG64(np.random.SeedSequence(job.seed))),
        )

    def pid(self) -> int:
        """The process, for who wants to watch or to kill it."""
        return os.getpid()

    @ray.method(num_returns=2)
    def play(
        self,
        decisions: int,
        seconds: float | None,
        episodes: int | None = None,
        write: bool = True,
        newest: Published | None = None,
    ) -> tuple[Report, pa.RecordBatch]:
        """Plays until `decisions` moves were searched, `seconds` passed or `episodes` ended.

        seconds: None for no limit, so that what is played depends on nothing but seeds and weights. write: writes what
        has ended since the last block; else it is kept, and counts as in flight. newest: version known to whoever asks;
        a weight server that has just been restarted knows of none.
        """
        began, cpu = time.perf_counter(), time.process_time()
        made = settled = self._pull(newest)

        def until(ended: int, count: int) -> bool:
            nonlocal made
            made = settled + count
            late = seconds is not None and time.perf_counter() - began >= seconds
            return late or count >= decisions or (episodes is not None and ended >= episodes) or notice.leaving()

        self._sealed += self._generator.play(until)
        leaving = notice.leaving()
        if leaving:
            self._sealed += self._generator.abort()
        return self._hand_over(began, cpu, made, write or leaving, leaving)

    @ray.method(num_returns=2)
    def finish(self) -> tuple[Report, pa.RecordBatch]:
        """Seals the games under way as aborted, and writes them."""
        began, cpu = time.perf_counter(), time.process_time()
        self._sealed += self._generator.abort()
        return self._hand_over(began, cpu, 0)

    def _pull(self, newer: Published | None) -> int:
        """Takes newer weights, if there are any, after the searches under way: no search is of two nets.

        Returns how many decisions these were.
        """
        decisions = 0
        if self._weights is not None:
            newer = ray.get(self._weights.newer_than.remote(self._version)) or newer
        if newer is not None and newer.version > self._version:
            tensors = newer.fetch()
            episodes, decisions = self._generator.settle(notice.leaving)
            self._sealed += episodes
            self._evaluate.load(tensors)
            self._version = newer.version
            self._generator.set_policy(Policy(self._job.policy_id, newer.version, newer.digest))
        return decisions

    def _hand_over(
        self, began: float, cpu: float, made: int, write: bool = True, leaving: bool = False
    ) -> tuple[Report, pa.RecordBatch]:
        episodes: list[Episode] = []
        if write:
            episodes, self._sealed = self._sealed, []
        block, batch = self._writer.write(episodes) if episodes else (None, pa.RecordBatch.from_pylist([], EPISODES))
        stats, (games, plies) = self._generator.search.stats, self._generator.in_flight
        report = Report(
            slot=self._job.slot,
            block=block,
            episodes=len(episodes),
            decisions=made,
            archived_decisions=sum(step.source == "search" for e in episodes if e.game for step in e.game.steps),
            version=self._version,
            in_flight=(games + len(self._sealed), plies + sum(len(e.game.steps) for e in self._sealed if e.game)),
            seconds=time.perf_counter() - began,
            cpu_s=time.process_time() - cpu,
            net_s=stats.net_s,
            inference=self._evaluate.choice,
            simulations=stats.simulations,
            evaluations=stats.evaluations,
            batches=stats.batches,
            lookups=stats.lookups,
            hits=stats.hits,
            resignable=resignable(episodes),
            showcase=_newest_finished(self._game, episodes),
            leaving=leaving,
        )
        return report, batch


def resignable(episodes: list[Episode]) -> tuple[int, int]:
    """(games played on where a seat would have resigned, those in which it did not lose): false positives by count."""
    played_on = wrong = 0
    for episode in episodes:
        seat = episode.game.would_have_resigned_seat if episode.game else None
        if seat is not None and episode.returns is not None:
            played_on += 1
            wrong += episode.returns[seat] > min(episode.returns)
            wrong += min(episode.returns) == max(episode.returns)
    return played_on, wrong


def _newest_finished(game: Game, episodes: list[Episode]) -> Showcase | None:
    finished = [episode for episode in episodes if episode.status != "aborted"]
    return showcase(game, finished[-1]) if finished else None


def showcase(game: Game, episode: Episode, most: int = 6) -> Showcase | None:
    """The last searched position of a game, drawn, with what the search preferred there."""
    assert episode.game is not None
    steps = episode.game.steps
    last = max((i for i, step in enumerate(steps) if len(step.actions)), default=None)
    if last is None:
        return None
    state = game.after([step.action for step in steps[:last]])
    step = steps[last]
    played = int(np.flatnonzero(step.actions == step.action)[0])
    order = sorted(range(len(step.actions)), key=lambda i: (-int(step.visits[i]), -float(step.prior[i])))
    order = order[:most] if played in order[:most] else [*order[: most - 1], played]
    candidates = tuple(
        (
            game.action_text(state, int(step.actions[i])),
            int(step.visits[i]),
            float(step.prior[i]),
            float(step.q[i]) if step.visits[i] else None,
            i == played,
        )
        for i in order
    )
    caption = f"last move by seat {step.seat}: {game.action_text(state, step.action)}"
    state.apply_action(step.action)
    return Showcase(
        board=game.draw(state),
        caption=caption,
        result=_result(episode),
        plies=len(steps),
        candidates=candidates,
        episode_id=episode.episode_id,
    )


def _result(episode: Episode) -> str:
    assert episode.game is not None
    if episode.game.resigned_seat is not None:
        return f"seat {episode.game.resigned_seat} resigns"
    if episode.returns is None:
        return "cut off" if episode.game.ended_by == "ply_limit" else "not finished"
    best = max(episode.returns)
    if min(episode.returns) == best:
        return "draw"
    return f"seat {episode.returns.index(best)} wins"
