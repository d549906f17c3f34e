"""`selfplay bench strength`: how strong a run's net is, against fixed opponents and against exact play."""

from __future__ import annotations

import json
import multiprocessing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfplay import machine
from selfplay.cli.corpus.common import EnvOption, load_envs
from selfplay.cli.untrusted import say
from selfplay.commands import command
from selfplay.errors import UserError

if TYPE_CHECKING:
    from selfplay.registry import Portable


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
    from selfplay import registry
    from selfplay.agent import Agent

    load_envs(env)
    loaded = Agent.load(run, version, trust=trust)
    n = processes or machine.cores()
    tasks = [(run, loaded.version, name, simulations, games, part, n) for name in names for part in range(n)]
    if positions:
        tasks += [(run, loaded.version, "exact", s, positions, part, n) for s in (simulations, 0) for part in range(n)]
    with multiprocessing.get_context("spawn").Pool(n, _begin, (registry.named(), trust)) as pool:
        parts = pool.starmap(_part, tasks, chunksize=1)
    report: dict[str, Any] = {"run": run, "version": loaded.version, "simulations": simulations}
    report["matches"] = {name: _match([p for t, p in zip(tasks, parts, strict=True) if t[2] == name]) for name in names}
    report["mistakes"], report["intervals"] = {}, {}
    for s in (simulations, 0) if positions else ():
        found = [p for t, p in zip(tasks, parts, strict=True) if t[2] == "exact" and t[3] == s]
        how = "raw" if s == 0 else str(s)
        report["mistakes"][how], report["intervals"][how] = _mistakes(found), _intervals(found)
    report |= _compared(loaded, positions)
    if as_json:
        print(json.dumps(report))
        return
    say(f"{loaded.spec.id}, net {loaded.version}, {simulations} simulations")
    say("")
    for name, m in report["matches"].items():
        wide, counts = _wide((m["low"], m["high"])), f"{m['wins']}-{m['draws']}-{m['losses']} (won-drawn-lost)"
        say(f"  against {name:<9} {m['score']:7.1%} ({wide})   {counts}")
    for how, by_label in report["mistakes"].items():
        if by_label:
            ends_of = {label: f" ({_wide(ends)})" for label, ends in report["intervals"][how].items()}
            shown = "  ".join(f"{label} {share:.1%}{ends_of.get(label, '')}" for label, share in by_label.items())
            say(f"  moves that lose value, {'raw policy' if how == 'raw' else how + ' simulations'}: {shown}")
    if report.get("baselines"):
        shown = "  ".join(
            f"{name} {one['mistakes']:.1%}" + (f" ({_wide((one['low'], one['high']))})" if "low" in one else "")
            for name, one in report["baselines"].items()
        )
        say(f"  the same positions, simple players: {shown}")
        say(f"  the positions are reached by random moves; {report['safe']:.0%} of them cannot be misplayed")
    say("  in brackets: 95% confidence intervals (Wilson), per cent")
    say("")
    say(f"next: `{command('play', run)}`")


_trust = False


def _begin(named: list[Portable], trust: bool) -> None:
    """In each process: what the user named on the command line is known there, too."""
    global _trust
    from selfplay import registry

    _trust = trust
    for portable in named:
        registry.unpack_any(portable)


def _part(
    run: str, version: int, opponent: str, simulations: int, count: int, part: int, parts: int
) -> dict[str, tuple[int, int, int]]:
    """One process's share: (wins, draws or cut, losses) of a match, or by label (wrong, 0, positions)."""
    from selfplay.agent import Agent
    from selfplay.arena.exact import Positions, mistakes, test_sets
    from selfplay.arena.match import play_match
    from selfplay.arena.openings import openings
    from selfplay.arena.players import mcts_player, random_player

    agent = Agent.load(run, version, trust=_trust)

    def player(states: list[Any]) -> list[int]:
        return agent.act_many(states, simulations)

    if opponent == "exact":
        found = {}
        for one in test_sets(agent.game):
            head = one.head(count)
            mine = Positions(one.label, head.lines[part::parts], head.values[part::parts])
            if len(mine):
                result = mistakes(agent.game, player, mine)
                found[one.label] = (result.wrong, 0, result.positions)
        return found
    lines = [opening.line for opening in openings(agent.game, count // 2)][part::parts]
    other = random_player(part) if opponent == "random" else mcts_player(agent.game, int(opponent[4:]), part)
    match = play_match(agent.game, player, other, lines)
    return {"match": (match.wins, match.draws + match.unfinished, match.losses)}


def _match(parts: list[dict[str, tuple[int, int, int]]]) -> dict[str, Any]:
    from selfplay.arena.match import wilson

    wins, draws, losses = (sum(part["match"][i] for part in parts) for i in range(3))
    played = wins + draws + losses
    low, high = wilson(wins + draws / 2, played)
    score = (wins + draws / 2) / max(1, played)
    return {"wins": wins, "draws": draws, "losses": losses, "score": score, "low": low, "high": high}


def _wide(ends: tuple[float, float]) -> str:
    """An interval of a share, in per cent."""
    return "–".join(f"{100 * end:.1f}" for end in ends)


def _intervals(parts: list[dict[str, tuple[int, int, int]]]) -> dict[str, tuple[float, float]]:
    """The 95% interval of the share of mistakes on each set of positions, and of all of them together ("mean")."""
    from selfplay.arena.match import wilson

    labels = dict.fromkeys(label for part in parts for label in part)
    counts = {label: [p[label] for p in parts if label in p] for label in labels}
    if len(counts) > 1:  # the sets are equally large
        counts["mean"] = [one for some in counts.values() for one in some]
    return {label: wilson(sum(p[0] for p in some), sum(p[2] for p in some)) for label, some in counts.items()}


def _compared(agent: Any, count: int) -> dict[str, Any]:
    """What simple players do on the same positions, all sets together, and the share that cannot be misplayed."""
    from selfplay.arena.baselines import RANDOM, compared
    from selfplay.arena.exact import test_sets
    from selfplay.arena.match import wilson

    sets = [compared(agent.game, one.head(count)) for one in test_sets(agent.game)] if count else []
    total = sum(one.positions for one in sets)
    if not total:
        return {}
    found: dict[str, Any] = {}
    for name in dict.fromkeys(other.player for one in sets for other in one.baselines):
        wrong = sum(other.wrong for one in sets for other in one.baselines if other.player == name)
        low, high = wilson(wrong, total)
        found[name] = {"mistakes": wrong / total, **({} if name == RANDOM else {"low": low, "high": high})}
    return {"baselines": found, "safe": 1 - sum(one.misplayable for one in sets) / total}


def _mistakes(parts: list[dict[str, tuple[int, int, int]]]) -> dict[str, float]:
    labels = list(dict.fromkeys(label for part in parts for label in part))
    shares = {
        label: sum(p[label][0] for p in parts if label in p) / sum(p[label][2] for p in parts if label in p)
        for label in labels
    }
    if len(shares) > 1:
        shares["mean"] = sum(shares.values()) / len(shares)
    return shares
