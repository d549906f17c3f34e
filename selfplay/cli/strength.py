"""`selfplay bench strength`: how strong a run's net is, against fixed opponents and against exact play."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfplay import machine
from selfplay.cli.corpus.common import EnvOption, load_envs
from selfplay.cli.untrusted import say
from selfplay.commands import command
from selfplay.errors import UserError

if TYPE_CHECKING:
    from selfplay.environments.registry import Portable
    from trainers.alphazero.status import BaselineRow


def strength(
    run: Annotated[str, typer.Argument(help="Run folder, a path or s3://….")],
    opponents: Annotated[str, typer.Option(help="Comma-separated: random, mctsN.")] = "mcts100,mcts1000",
    games: Annotated[int, typer.Option(min=2, help="Games against each, both sides of the listed openings.")] = 400,
    positions: Annotated[int, typer.Option(min=0, help="Positions a depth against exact play; 0: none.")] = 1000,
    simulations: Annotated[int, typer.Option(min=0, help="Simulations a move.")] = 64,
    version: Annotated[int | None, typer.Option(help="Of the net; the newest if not given.")] = None,
    processes: Annotated[int, typer.Option(min=0, help="Processes; 0: one a core.")] = 0,
    env: EnvOption = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Run the rules of a one-file game from the source kept in the run.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The last line is one JSON object.")] = False,
) -> None:
    """Measures a net without noise: match scores, and the share of positions where its move loses game value.

    Example:  selfplay bench strength runs/connect_four --games 400 --json
    """
    names = [name.strip() for name in opponents.split(",") if name.strip()]
    for name in names:
        if name != "random" and not (name.startswith("mcts") and name[4:].isdigit()):
            raise UserError(f"--opponents {name!r} is unknown; say random or mctsN, such as mcts100")
    from selfplay.agent import Agent
    from selfplay.cli import screen
    from selfplay.environments import registry
    from trainers.alphazero import exact_results

    load_envs(env)
    loaded = Agent.load(run, version, trust=trust)
    n = processes or machine.cores()
    tasks = [(run, loaded.version, name, simulations, games, part, n) for name in names for part in range(n)]
    ways = list(dict.fromkeys((simulations, 0))) if positions else []
    tasks += [(run, loaded.version, "exact", s, positions, part, n) for s in ways for part in range(n)]
    with multiprocessing.get_context("spawn").Pool(n, _begin, (registry.named(), trust)) as pool:
        parts = pool.starmap(_part, tasks, chunksize=1)
    report: dict[str, Any] = {"run": run, "version": loaded.version, "simulations": simulations}
    report["matches"] = {name: _match([p for t, p in zip(tasks, parts, strict=True) if t[2] == name]) for name in names}
    rows: list[dict[str, Any]] = []
    report["mistakes"], report["intervals"] = {}, {}
    for s in ways:
        found = [p for t, p in zip(tasks, parts, strict=True) if t[2] == "exact" and t[3] == s]
        these, how = _rows(loaded, found, positions, s), "raw" if s == 0 else str(s)
        report["mistakes"][how], report["intervals"][how] = _by_label(these)
        rows += these
    kinds, others = exact_results.by_kind(rows), exact_results.baselines(rows)
    report["safe"] = {row.kind: row.safe for row in kinds}
    report["baselines"] = {kind: _players(others, kind) for kind in report["safe"]}
    if as_json:
        print(json.dumps(report))
        return
    say(f"{loaded.spec.id}, net {loaded.version}, {simulations} simulations")
    say("")
    for name, m in report["matches"].items():
        counts = f"{m['wins']}-{m['draws']}-{m['losses']} (won-drawn-lost)"
        say(f"  against {name:<9} {m['score']:7.1%} ({_wide(m['low'], m['high'])})   {counts}")
    for row in kinds:
        each = ", ".join(f"{name} {share:.1%}" for name, share in row.by_set)
        share = f"{row.mistakes:.1%} ({_wide(row.low, row.high)})" + (f": {each}" if len(row.by_set) > 1 else "")
        say(f"  moves that lose value, {row.kind}, {row.player}: {share}")
    for text in screen.compared(kinds, others):
        say(f"  {text.plain}")
    say("  in brackets: 95% confidence intervals (Wilson), per cent")
    say("")
    say(f"next: `{command('play', run)}`")


#: In the report, the mean over all sets of a kind.
_MEANS = {"random positions": "mean", "quiet positions": "quiet, mean"}
_trust = False


def _begin(named: list[Portable], trust: bool) -> None:
    """In each process: what the user named on the command line is known there, too."""
    global _trust
    from selfplay.environments import registry

    _trust = trust
    for portable in named:
        registry.unpack_any(portable)


def _part(
    run: str, version: int, opponent: str, simulations: int, count: int, part: int, parts: int
) -> dict[str, tuple[int, int, int]]:
    """One process's share: (wins, draws or cut, losses) of a match, or by label (wrong, 0, positions)."""
    from selfplay.agent import Agent
    from selfplay.evaluation.exact import mistakes, test_sets
    from selfplay.evaluation.match import play_match
    from selfplay.evaluation.openings import openings
    from selfplay.evaluation.players import mcts_player, random_player

    agent = Agent.load(run, version, trust=_trust)

    def player(states: list[Any]) -> list[int]:
        return agent.act_many(states, simulations)

    if opponent == "exact":
        found = {}
        for one in test_sets(agent.game):
            mine = one.head(count)[part::parts]
            for result in mistakes(agent.game, player, mine) if len(mine) else ():
                found[result.label] = (result.wrong, 0, result.positions)
        return found
    lines = [opening.line for opening in openings(agent.game, count // 2)][part::parts]
    other = random_player(part) if opponent == "random" else mcts_player(agent.game, int(opponent[4:]), part)
    match = play_match(agent.game, player, other, lines)
    return {"match": (match.wins, match.draws + match.unfinished, match.losses)}


def _match(parts: list[dict[str, tuple[int, int, int]]]) -> dict[str, Any]:
    from selfplay.evaluation.match import wilson

    wins, draws, losses = (sum(part["match"][i] for part in parts) for i in range(3))
    played = wins + draws + losses
    low, high = wilson(wins + draws / 2, played)
    score = (wins + draws / 2) / max(1, played)
    return {"wins": wins, "draws": draws, "losses": losses, "score": score, "low": low, "high": high}


def _wide(low: float, high: float) -> str:
    """An interval of a share, in per cent."""
    return f"{100 * low:.1f}–{100 * high:.1f}"


def _rows(
    agent: Any, parts: list[dict[str, tuple[int, int, int]]], count: int, simulations: int
) -> list[dict[str, Any]]:
    """What a run would keep of an exam at this length, from what the processes found."""
    from selfplay.actors.examiner import Exam, Marks
    from selfplay.evaluation.baselines import compared
    from selfplay.evaluation.exact import test_sets
    from trainers.alphazero import exact_results

    player = f"{simulations} simulations" if simulations else "raw policy"
    found: list[tuple[str, float, int]] = []
    for label in dict.fromkeys(label for part in parts for label in part):
        some = [part[label] for part in parts if label in part]
        wrong, total = sum(p[0] for p in some), sum(p[2] for p in some)
        if total:
            found.append((f"{label}, {player}", wrong / total, total))
    sets = tuple(kind for one in test_sets(agent.game) for kind in compared(agent.game, one.head(count)))
    exam = Exam(agent.version, "exact", 0, count, simulations)
    return exact_results.added([], Marks(exam, mistakes=tuple(found), sets=sets))


def _by_label(rows: list[dict[str, Any]]) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Of the rows of one player, by set and, where a kind has several, by kind: shares; their 95% intervals."""
    from trainers.alphazero import exact_results

    shares, ends = {}, {}
    for one in exact_results.by_set(rows):
        label = one.label.rpartition(", ")[0]
        shares[label], ends[label] = one.mistakes, (one.low, one.high)
    for row in exact_results.by_kind(rows):
        if len(row.by_set) > 1:
            label = _MEANS[row.kind]
            shares[label], ends[label] = row.mistakes, (row.low, row.high)
    return shares, ends


def _players(others: Iterable[BaselineRow], kind: str) -> dict[str, dict[str, float]]:
    """What simple players do on the positions of a kind; of random moves the share is known, and has no interval."""
    return {
        row.player: {"mistakes": row.mistakes} | ({"low": row.low, "high": row.high} if row.low < row.high else {})
        for row in others
        if row.kind == kind
    }
