"""`selfplay corpus show`: one episode, as boards with what each search considered, or as turns with their verdict."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfplay.cli.console import Console, plain_markup
from selfplay.cli.corpus.common import (
    AsOfOption,
    CorpusArgument,
    EnvOption,
    JsonOption,
    VersionOption,
    load_envs,
    open_corpus,
)
from selfplay.cli.untrusted import cell, one_line, tame
from selfplay.errors import UserError

if TYPE_CHECKING:
    import pyspiel
    from rich.console import RenderableType

    from selfplay.environments.game import Game
    from selfplay.episode import Episode, Step
    from selfplay.store import Corpus

#: How many candidates of a decision are printed.
_TOP = 5


def show(
    episode: Annotated[str, typer.Argument(help='An episode id, or "latest".')],
    corpus: CorpusArgument,
    top: Annotated[int, typer.Option(help="Candidates to print at each decision.", min=1)] = _TOP,
    version: VersionOption = None,
    as_of: AsOfOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print an episode: a game as boards, with what each search considered; reasoning turn by turn, with its verdict.

    Values are from the point of view of the seat to act, in the game's own utility units.

    Examples:  selfplay corpus show latest runs/connect_four  ·
    selfplay corpus show run/actor-0/1000/17 runs/connect_four --json  ·
    selfplay corpus show latest runs/my_game --env ./my_game.py
    """
    from selfplay.store.corpus.annotations import labels_of

    load_envs(env)
    opened = open_corpus(corpus, version, as_of)
    found = _episode(opened, episode)
    labels = labels_of(opened, found.episode_id)
    if as_json:
        typer.echo(json.dumps({**_plain(found), "annotations": labels}, default=str))
        return
    from rich.text import Text

    console = Console(highlight=False)
    _print_episode(console, found, top)
    for label in labels:
        place = "" if label["step"] is None else f" of step {label['step']}"
        said, by = f"{cell(label['name'])}{place} = {cell(label['value'], 5000)}", (label["author"], label["source"])
        console.print(Text(f"{said}  ({', '.join(map(cell, by))})"))


def _episode(corpus: Corpus, episode: str) -> Episode:
    if episode == "latest":
        import pyarrow.compute as pc

        newest = corpus.newest(1, pc.field("status") != "aborted") or corpus.newest(1)
        if not newest:
            raise UserError(f"the corpus at {corpus.uri} holds no episode yet")
        episode = newest[0]
    return corpus.get(episode)


def _plain(episode: Episode) -> dict[str, Any]:
    """The episode as JSON can hold it: the row of the corpus, values in utility units, NaN as null."""
    from selfplay.episode import to_batch

    (row,) = to_batch([episode]).to_pylist()
    row["started_at"] = row["started_at"].isoformat()
    if episode.game is not None:
        for stored, step in zip(row["game"]["steps"], episode.game.steps, strict=True):
            stored["root_value"], stored["raw_value"] = _number(step.root_value), _number(step.raw_value)
            for candidate, prior, q in zip(stored["candidates"], step.prior, step.q, strict=True):
                candidate["prior"], candidate["q"] = _number(prior), _number(q)
    return dict(row)


def _number(value: float) -> float | None:
    return None if value != value else round(float(value), 4)


def _print_episode(console: Console, episode: Episode, top: int) -> None:
    outcome = "no outcome" if episode.returns is None else " : ".join(f"{value:+g}" for value in episode.returns)
    console.print(
        f"[bold]{plain_markup(episode.episode_id)}[/]  {plain_markup(episode.provenance.env_id)}  "
        f"{plain_markup(episode.status)}"
    )
    for span in episode.policy_spans:
        console.print(
            f"[dim]seat {span.seat}, steps {span.first_step}-{span.last_step}: {plain_markup(span.policy_id)} "
            f"version {span.version}[/]"
        )
    if episode.reasoning is not None:
        for line in _dialogue(episode):
            console.print(line)
        return
    if episode.game is None:
        console.print_json(data=_plain(episode))
        return
    for part in _boards(episode, top):
        console.print(part)
    console.print(f"{plain_markup(episode.game.ended_by)}, {episode.n_steps} steps, returns {outcome}")


def _dialogue(episode: Episode) -> Iterator[RenderableType]:
    """The problem, what each turn said, and what the verifier made of it. Texts are strangers': tamed, never markup."""
    from rich.padding import Padding
    from rich.text import Text

    from selfplay.episode.schema import CHANCE_ROLE

    told = episode.reasoning
    assert told is not None
    turns = told["turns"] or ()
    choice = next((turn["text"] for turn in turns if turn["role"] == CHANCE_ROLE), None)
    drawn = "" if choice is None else f", {_drawn(choice)}"
    group = "" if told["group_id"] is None else f"sample {told['sample_index']} of group {told['group_id']}; "
    level = "" if told["difficulty"] is None else f" of level {told['difficulty']:g}"
    yield Text(one_line(f"problem {told['problem_seed']}{level}{drawn}", 500), "dim")
    yield Text(one_line(f"{group}origin {episode.provenance.origin}", 500), "dim")
    for place, turn in enumerate(turns):
        if turn["role"] == CHANCE_ROLE:
            continue
        wrote = turn["role"] == "assistant"
        who = one_line(f"{place}. seat {turn['seat']}, {turn['role']}", 100)
        yield Text.assemble("\n", (who, "bold cyan" if wrote else "bold"), (_tokens(turn) if wrote else "", "dim"))
        yield Padding(Text(tame(turn["text"] or "(no text)"), "" if wrote else "dim"), (0, 0, 0, 3))
    yield Text("")
    for verdict in episode.verdicts or ():
        state = one_line(str(verdict["state"]), 40)
        style = {"accepted": "bold green", "rejected": "bold red"}.get(state, "bold yellow")
        reward = "" if verdict["reward"] is None else f", reward {verdict['reward']:g}"
        why = "" if verdict["error"] is None else f": {one_line(verdict['error'], 1000)}"
        yield Text.assemble(f"seat {verdict['seat']}: ", (state, style), reward, why)
        for row in verdict["criteria"] or ():
            score = "no score" if row["score"] is None else f"{row['score']:g} of {row['low']:g} to {row['high']:g}"
            judge = f"{row['verifier_id']} version {row['verifier_version']}"
            reason = f": {row['reason']}" if row["reason"] else ""
            text = one_line(f"{row['criterion']} {score}{reason}", 1000)
            yield Text.assemble(f"  {text}", (f"  {one_line(judge, 200)}", "dim"))
    if not episode.verdicts:
        yield Text("no verdict", "bold yellow")
    if episode.error is not None:
        yield Text(one_line(f"error: {': '.join(map(str, episode.error))}", 1000), "red")


def _tokens(turn: Mapping[str, Any]) -> str:
    """How much was written, how it ended, and how likely it was."""
    import numpy as np

    count = len(turn["token_ids"])
    ended = f", {cell(turn['finish_reason'])}" if turn["finish_reason"] else ""
    sure = "" if not count or turn["logprobs"] is None else f", {np.mean(turn['logprobs']):.2f} nats a token"
    return f"  {count:,} tokens{ended}{sure}"


def _drawn(choice: str) -> str:
    """The probability with which the problem was chosen, of a turn of chance."""
    try:
        return f"drawn with probability {float(json.loads(choice)['probability']):.3g}"
    except (ValueError, TypeError, KeyError):
        return "drawn with a probability that cannot be read"


def _boards(episode: Episode, top: int) -> Iterator[RenderableType]:
    """What to print for each step, and the last board."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from selfplay.episode import advance

    assert episode.game is not None
    game = _game(episode)
    if game is None:
        name = cell(episode.provenance.env_id)
        yield Text(f"{name} is not installed here: actions are shown by number; --env names a file of rules", "yellow")
    state = None if game is None else game.new_initial_state()
    for ply, step in enumerate(episode.game.steps):
        row = Table.grid(padding=(0, 4))
        row.add_row(_drawing(game, state) if _is_board(state) else Text(""), _weighed(game, state, step, ply, top))
        yield Padding(row, (0, 0, 1, 0))
        if state is not None:
            advance(state, step, ply)
    if state is not None:
        yield _drawing(game, state)


def _is_board(state: pyspiel.State | None) -> bool:
    return state is not None and not state.is_chance_node()


def _game(episode: Episode) -> Game | None:
    from selfplay.environments import archived
    from selfplay.environments.game import load

    assert episode.game is not None
    env_id, game_string = episode.provenance.env_id, episode.game.game_string
    for find in (lambda: archived.find_game(env_id, game_string), lambda: archived.game_of(game_string)):
        try:
            return load(find())
        except UserError:
            continue
    return None


def _drawing(game: Game | None, state: pyspiel.State | None) -> RenderableType:
    from rich.errors import MarkupError
    from rich.text import Text

    assert game is not None and state is not None
    drawing = game.draw(state)
    if game.spec.draw is None:
        return Text(drawing)
    try:
        return Text.from_markup(drawing)
    except MarkupError:
        return Text(drawing)


def _weighed(game: Game | None, state: pyspiel.State | None, step: Step, ply: int, top: int) -> RenderableType:
    """Who did what at this step, and the candidates that were weighed, those with most visits first."""
    import numpy as np
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    def name(action: int) -> str:
        return str(action) if game is None or state is None else cell(game.action_text(state, action))

    if step.joint is not None:
        done = f"all seats at once: {', '.join(map(str, step.joint))}"
    elif step.seat < 0:
        done = f"chance: {'' if state is None else state.action_to_string(-1, step.action)} ({step.action})"
    else:
        done = f"seat {step.seat} plays {name(step.action)} ({cell(step.source)})"
    lines: list[RenderableType] = [Text.assemble((f"{ply + 1}. ", "dim"), (done, "bold"))]
    if not len(step.actions):
        return lines[0]
    kind = "full" if step.full_search else "cheap"
    values = f"value {step.root_value:+.2f}, net alone {step.raw_value:+.2f}"
    lines.append(Text(f"{step.simulations} simulations ({kind}), {values}", "dim"))
    table = Table("move", "visits", "prior", "value", box=None, pad_edge=False, header_style="dim")
    for column in table.columns[1:]:
        column.justify = "right"
    order = np.lexsort((-step.prior, -step.visits))
    played = step.actions[order] == step.action
    for i in [*order[:top], *order[top:][played[top:]]]:
        q = "" if np.isnan(step.q[i]) else f"{step.q[i]:+.2f}"
        style = "bold green" if step.actions[i] == step.action else ""
        figures = (str(step.visits[i]), f"{100 * step.prior[i]:.1f}%", q)
        table.add_row(Text(name(int(step.actions[i]))), *figures, style=style)
    return Group(*lines, table)
