"""One process for all games: a generator plays thousands in lock-step against the device. Who waits for whom?"""

from __future__ import annotations

import contextlib
import cProfile
import pstats
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nets import TINY, config_of, opinionated
from plain_game import PlainConnectFour
from report import Report, Wrong

from selfplay.environments.game import Game
from selfplay.episode.record import Provenance
from selfplay.nets import Evaluator
from selfplay.play.draws import PlaySettings
from selfplay.play.generator import Generator, Policy
from selfplay.search import SearchConfig, lockstep

_OURS = ("selfplay", "envs", "gpu")


def main(report: Report, device: str, small: bool) -> None:
    """The check. small: sizes for seconds on a CPU."""
    game, rules = load()
    report.case(f"compiling the search, {rules}", compiling, game)
    large = [("64x5", 1024), ("64x5", 2048), ("64x5", 4096), ("128x10", 4096), ("256x20", 4096)]
    plans = [(TINY, 64)] if small else large
    simulations = 16 if small else 64
    each = min(10.0, report.left / (len(plans) + 1))
    for net, games in plans:
        report.case(f"{net}, {games} games, {rules}", playing, game, net, games, device, simulations, each)
    net, games = plans[-1] if small else ("64x5", 4096)
    report.case(f"{net}, {games} games: where time goes", profiled, game, net, games, device, simulations, each)


def load() -> tuple[Any, str]:
    """Connect four, by OpenSpiel where it is installed, and whose rules these are."""
    try:
        import pyspiel  # noqa: F401
    except ImportError:
        return PlainConnectFour(), "rules in Python"
    from envs.games.connect_four import SPEC

    return Game(SPEC), "rules by OpenSpiel"


def _generator(game: Any, net: str, games: int, device: str, simulations: int) -> tuple[Generator, Evaluator]:
    config = config_of(net)
    evaluate = Evaluator(config, "auto", device, torch.get_num_threads())
    evaluate.load(opinionated(config, device))
    made = Provenance("run", "connect_four-v0", 0, "a" * 64, "b" * 64, "0", "here", "CC0-1.0")
    settings = PlaySettings(slots=games, simulations=simulations)
    rng = np.random.default_rng(0)
    generator = Generator(game, evaluate, SearchConfig(), settings, made, "p0", 0, 0, rng)
    generator.set_policy(Policy("net", 1, "c" * 64))
    return generator, evaluate


def _for(seconds: float) -> Any:
    end = time.perf_counter() + seconds
    return lambda episodes, decisions: time.perf_counter() > end


def compiling(game: Any) -> dict[str, Any]:
    """The first moves, in which the search's kernels are compiled or found on disk; `seconds` says how long."""
    generator, _ = _generator(game, TINY, 4, "cpu", 4)
    generator.play(lambda episodes, decisions: decisions >= 8)
    return {"simulations": generator.search.stats.simulations}


def playing(game: Any, net: str, games: int, device: str, simulations: int, seconds: float) -> dict[str, Any]:
    """Rates a second and microseconds a simulation, in the net and beside it, after some play."""
    generator, evaluate = _generator(game, net, games, device, simulations)
    generator.play(_for(seconds / 4))
    stats = generator.search.stats
    net_s, evaluations, batches = stats.net_s, stats.evaluations, stats.batches
    before, lookups, hits = stats.simulations, stats.lookups, stats.hits
    began = time.perf_counter()
    episodes = generator.play(_for(seconds))
    spent = time.perf_counter() - began
    done, asked = stats.simulations - before, stats.evaluations - evaluations
    if not done or any(episode.status != "ok" for episode in episodes):
        raise Wrong("no simulation was made, or a game did not end as it should", simulations=done)
    in_net = stats.net_s - net_s
    return {
        "positions_per_s": asked / spent,
        "simulations_per_s": done / spent,
        "games": len(episodes),
        "mean_batch": asked / max(1, stats.batches - batches),
        "net_share": in_net / spent,
        "net_us": in_net / done * 1e6,
        "beside_us": (spent - in_net) / done * 1e6,
        "cached": (stats.hits - hits) / max(1, stats.lookups - lookups),
        "dtype": evaluate.dtype,
    }


def profiled(game: Any, net: str, games: int, device: str, simulations: int, seconds: float) -> dict[str, Any]:
    """Shares of the time by function, what it calls apart; the profiler makes functions of Python look dearer."""
    generator, _ = _generator(game, net, games, device, simulations)
    generator.play(_for(seconds / 4))
    profile = cProfile.Profile(builtins=False)
    with _named_kernels():
        profile.enable()
        generator.play(_for(seconds))
        profile.disable()
    times: dict[str, float] = {}
    for (file, _, function), (_, _, own, _, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        place = Path(file)
        name = f"{place.stem}.{function}" if set(place.parts) & set(_OURS) else "libraries"
        times[name] = times.get(name, 0.0) + own
    total = sum(times.values())
    largest = sorted(times.items(), key=lambda item: -item[1])[:10]
    return {name: spent / total for name, spent in largest}


@contextlib.contextmanager
def _named_kernels() -> Iterator[None]:
    """Compiled functions of a round as functions of Python meanwhile, so that a profile tells them apart."""
    kept = {name: kernel for name, kernel in vars(lockstep).items() if hasattr(kernel, "py_func")}
    for name, kernel in kept.items():
        setattr(lockstep, name, _named(name, kernel))
    try:
        yield
    finally:
        for name, kernel in kept.items():
            setattr(lockstep, name, kernel)


def _named(name: str, kernel: Callable[..., Any]) -> Callable[..., Any]:
    def run(*arguments: Any) -> Any:
        return kernel(*arguments)

    run.__code__ = run.__code__.replace(co_name=name, co_filename=str(lockstep.__file__))
    return run
