"""`selfplay bench`: how fast self-play searches on this machine, without ray and without archive."""

from __future__ import annotations

import json
import multiprocessing
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfplay import machine
from selfplay.cli.strength import strength
from selfplay.cli.untrusted import say
from selfplay.commands import command
from selfplay.errors import UserError

if TYPE_CHECKING:
    from selfplay.environments.game import Game
    from selfplay.nets.config import NetConfig
    from selfplay.nets.inference import Dtype

app = typer.Typer(help="Measure this machine, or a run's net.", no_args_is_help=True)
app.command()(strength)

_WARM_S = 3.0


@dataclass(frozen=True)
class Work:
    """What one process does. version_positions: positions after which the cache is emptied, as new weights would."""

    game: str
    channels: int
    blocks: int
    simulations: int
    games: int
    seconds: float
    cache: int
    version_positions: int
    dtype: Dtype
    algorithm: str
    number: int


@dataclass(frozen=True)
class Counts:
    """What one process did in `seconds`; net_s of them in the net."""

    positions: int
    simulations: int
    evaluations: int
    batches: int
    lookups: int
    hits: int
    net_s: float
    seconds: float
    dtype: str


@app.command()
def search(
    game: Annotated[str, typer.Option(help="Environment id, file or openspiel:… string.")] = "connect_four",
    net: Annotated[str, typer.Option(help="CHANNELSxBLOCKS of an untrained residual net.")] = "64x5",
    simulations: Annotated[int, typer.Option(min=1, help="Simulations a move.")] = 64,
    seconds: Annotated[float, typer.Option(min=0.1, help="Measured time, after a warm-up.")] = 20.0,
    games: Annotated[int, typer.Option(min=1, help="Games side by side in each process.")] = 128,
    processes: Annotated[int, typer.Option(min=0, help="Processes; 0: one a core.")] = 0,
    cache: Annotated[int, typer.Option(min=0, help="Cached evaluations a process; 0: no cache.")] = 200_000,
    version_positions: Annotated[
        int, typer.Option(min=1, help="Positions of all processes after which the cache is emptied.")
    ] = 12_500,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or int8.")] = "auto",
    algorithm: Annotated[str, typer.Option(help="gumbel or puct.")] = "gumbel",
    as_json: Annotated[bool, typer.Option("--json", help="The last line is one JSON object.")] = False,
) -> None:
    """Plays games against itself with an untrained net and counts.

    Example:  selfplay bench search --game connect_four --net 64x5 --simulations 64 --seconds 20 --json
    """
    try:
        channels, blocks = (int(part) for part in net.split("x"))
    except ValueError:
        raise UserError(f"--net {net!r} is not of the form CHANNELSxBLOCKS, such as 64x5") from None
    from selfplay.search.config import ALGORITHMS

    if algorithm not in ALGORITHMS:
        raise UserError(f"--algorithm {algorithm!r} is unknown; it is {' or '.join(ALGORITHMS)}")
    if dtype not in ("auto", "float32", "bfloat16", "int8"):
        raise UserError(f"--dtype {dtype!r} is unknown; it is auto, float32, bfloat16 or int8")
    from selfplay.environments import registry
    from selfplay.environments.game import load, unsearchable

    spec = registry.find(game)
    reason = unsearchable(load(spec))
    if reason is not None:
        raise UserError(f"{spec.id} cannot be played by this search: {reason}")
    n = processes or machine.cores()
    work = [
        Work(
            game, channels, blocks, simulations, games, seconds, cache, max(1, version_positions // n), dtype,  # type: ignore[arg-type]
            algorithm, number,
        )
        for number in range(n)
    ]
    report = measure(work)
    if as_json:
        print(json.dumps(report))
        return
    for name, value in report.items():
        say(f"{name:>20}  {value:,.3f}" if isinstance(value, float) else f"{name:>20}  {value}")
    say("")
    say(f"next: `{command('run', spec.name)}` plays and learns; --help lists what else can be measured")


def measure(work: list[Work]) -> dict[str, Any]:
    """Runs one process for each piece of work, all at the same time, and adds up."""
    if len(work) == 1:
        counts = [count(work[0], None)]
    else:
        context = multiprocessing.get_context("spawn")
        barrier = context.Barrier(len(work))
        queue = context.SimpleQueue()
        started = [context.Process(target=_child, args=(piece, barrier, queue)) for piece in work]
        for process in started:
            process.start()
        counts = [Counts(**queue.get()) for _ in started]
        for process in started:
            process.join()
    total = {name: sum(getattr(c, name) for c in counts) for name in Counts.__dataclass_fields__ if name != "dtype"}
    rate = {name: sum(getattr(c, name) / c.seconds for c in counts) for name in ("positions", "simulations")}
    per_simulation = 1e6 * total["seconds"] / max(1, total["simulations"])
    net_share = total["net_s"] / total["seconds"]
    return {
        "positions_per_s": rate["positions"],
        "simulations_per_s": rate["simulations"],
        "net_share": net_share,
        "net_evals_per_s": sum(c.evaluations / c.seconds for c in counts),
        "cache_hit_rate": total["hits"] / max(1, total["lookups"]),
        "batch": total["evaluations"] / max(1, total["batches"]),
        "dtype": counts[0].dtype,
        "processes": len(counts),
        "us_per_simulation": per_simulation,
        "us_per_simulation_beyond_net": per_simulation * (1.0 - net_share),
        "us_per_net_eval": 1e6 * total["net_s"] / max(1, total["evaluations"]),
    }


def _child(work: Work, barrier: Any, queue: Any) -> None:
    queue.put(asdict(count(work, barrier)))


def count(work: Work, barrier: Any) -> Counts:
    """One process's share: warms up, waits for the others, plays for the time given."""
    import numpy as np

    from selfplay.environments import registry
    from selfplay.environments.game import load
    from selfplay.episode import Provenance
    from selfplay.nets.config import NetConfig
    from selfplay.nets.inference import Evaluator
    from selfplay.play.generator import Generator, PlaySettings, Policy
    from selfplay.search import SearchConfig

    game = load(registry.find(work.game))
    config = NetConfig(
        game.encoder.shape,
        game.num_actions,
        game.outcomes is not None,
        channels=work.channels,
        blocks=work.blocks,
        policy_planes=game.spec.policy_planes,
    )
    evaluate = Evaluator(config, dtype=work.dtype, threads=1, positions=game.random_observations(128, 0))
    evaluate.load(_seen_positions(game, config))
    provenance = Provenance("bench", game.spec.id, game.spec.version, "", "", "", "", game.spec.licence)
    generator = Generator(
        game,
        evaluate,
        SearchConfig(algorithm=work.algorithm),  # type: ignore[arg-type]
        PlaySettings(
            slots=work.games,
            simulations=work.simulations,
            ply_limit=game.spec.ply_limit,
            cache_entries=work.cache,
        ),
        provenance,
        "bench",
        1,
        0,
        np.random.default_rng(work.number),
    )
    generator.set_policy(Policy("bench", 0, "00"))
    _play(generator, _WARM_S, 1 << 62)
    if barrier is not None:
        barrier.wait()
    before = Counts(**_counts(generator, 0, evaluate.dtype, 0.0))
    began = time.perf_counter()
    positions = _play(generator, work.seconds, work.version_positions)
    after = _counts(generator, positions, evaluate.dtype, time.perf_counter() - began)
    changed = {name: value if name == "dtype" else value - getattr(before, name) for name, value in after.items()}
    return Counts(**changed)


def _seen_positions(game: Game, config: NetConfig) -> dict[str, Any]:
    """First weights whose normalisation and ranges are those of random positions, as after the first training steps."""
    import torch

    from selfplay.nets.policy_value import build, to_arrays

    inputs = torch.from_numpy(game.random_observations(512, 0))
    net = build(config, 0).train()
    with torch.no_grad():
        for _ in range(20):
            net(inputs)
    return to_arrays(net)


def _play(generator: Any, seconds: float, version_positions: int) -> int:
    """Plays for `seconds`, under a new version every `version_positions`; returns the positions searched."""
    from selfplay.play.generator import Policy

    until = time.perf_counter() + seconds
    total = 0
    while time.perf_counter() < until:
        made = 0

        def enough(_: int, decisions: int) -> bool:
            nonlocal made
            made = decisions
            return decisions >= version_positions or time.perf_counter() >= until

        _, settled = generator.settle()
        generator.set_policy(Policy("bench", generator.policy.version + 1, f"{generator.policy.version + 1:032x}"))
        generator.play(enough)
        total += settled + made
    return total


def _counts(generator: Any, positions: int, dtype: str, seconds: float) -> dict[str, Any]:
    s = generator.search.stats
    return {
        "positions": positions,
        "simulations": s.simulations,
        "evaluations": s.evaluations,
        "batches": s.batches,
        "lookups": s.lookups,
        "hits": s.hits,
        "net_s": s.net_s,
        "seconds": seconds,
        "dtype": dtype,
    }
