"""`selfplay play`: a person against what was trained, in the terminal or through a pipe."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group
from rich.markup import escape
from rich.text import Text

from selfplay.cli import screen
from selfplay.cli.console import Console, plain_markup
from selfplay.cli.corpus.common import EnvOption, load_envs
from selfplay.errors import UserError
from trainers.alphazero.status import Candidate

if TYPE_CHECKING:
    import pyspiel

    from selfplay.agent import Agent

HELP = "a move · [bold]moves[/] lists them · [bold]hint[/] asks the net · [bold]undo[/] · [bold]quit[/]"


def play(
    run: Annotated[str, typer.Argument(help="A run folder, a path or s3://….", show_default=False)],
    simulations: Annotated[int, typer.Option(min=0, help="Of its search, a move; 0: the raw policy.")] = 256,
    seat: Annotated[str, typer.Option(help="first or second: whether you begin.")] = "first",
    version: Annotated[int | None, typer.Option(help="Of the net; 0 is the untrained one. [newest]")] = None,
    env: EnvOption = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Run the rules of a one-file game from the source kept in the run.")
    ] = False,
) -> None:
    """Play against what was trained.

    Type a move as it is listed, or "hint" to see what the net thinks of yours.

    Examples:  selfplay play runs/connect_four  ·  selfplay play runs/connect_four --seat second --simulations 1000  ·
    selfplay play runs/my_game --env ./my_game.py
    """
    if seat not in ("first", "second"):
        raise UserError(f"--seat {seat}: say first or second")
    from selfplay.agent import Agent

    load_envs(env)
    console = Console(highlight=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        agent = Agent.load(run, version=version, trust=trust)
    for warning in caught:
        console.print(f"[{screen.FAIR}]{escape(str(warning.message))}[/]", soft_wrap=True)
    read = _prompt(console) if sys.stdin.isatty() else _piped(console)
    Match(agent, console, read, simulations, 0 if seat == "first" else 1).play()


def _prompt(console: Console) -> Callable[[], str | None]:
    def read() -> str | None:
        try:
            return console.input("[bold]your move[/] › ").strip()
        except EOFError:
            return None

    return read


def _piped(console: Console) -> Callable[[], str | None]:
    """Reads moves from a pipe and shows them, so that the output reads like a game."""

    def read() -> str | None:
        line = sys.stdin.readline()
        if not line:
            return None
        console.print(f"your move › {escape(line.strip())}")
        return line.strip()

    return read


class Match:
    """One game between a person and an agent.

    read: gives the next line of the person, None at the end of input.
    seat: the person's, 0 or 1.
    """

    def __init__(
        self, agent: Agent, console: Console, read: Callable[[], str | None], simulations: int, seat: int
    ) -> None:
        self._agent = agent
        self._game = agent.game
        self._console = console
        self._read = read
        self._simulations = simulations
        self._seat = seat
        self._actions: list[int] = []

    def play(self) -> None:
        """Until the end of the game, "quit" or the end of input."""
        self._console.print(f"[{screen.DIM}]{HELP}[/]")
        state = self._show()
        while not state.is_terminal():
            if state.current_player() == self._seat:
                if not self._person(state):
                    self._console.print("good game; until next time")
                    return
            else:
                self._opponent(state)
            state = self._show()
        mine = state.returns()[self._seat]
        self._console.print("[bold]you win[/]" if mine > 0 else "[bold]you lose[/]" if mine < 0 else "[bold]a draw[/]")

    def _show(self) -> pyspiel.State:
        state = self._game.after(self._actions)
        drawn = self._game.draw(state)
        self._console.print()
        self._console.print(screen.markup(drawn) if self._game.spec.draw else Text(drawn))
        return state

    def _opponent(self, state: pyspiel.State) -> None:
        with self._console.status("thinking"):
            result = self._agent.search(state, self._simulations)
        text = plain_markup(self._game.action_text(state, result.action))
        stands = f"it sees itself at {result.root_value:+.2f}, from -1 lost to +1 won"
        self._console.print(f"it plays [bold]{text}[/] [{screen.DIM}]({stands})[/]")
        self._actions.append(result.action)

    def _person(self, state: pyspiel.State) -> bool:
        """Reads until there is a move (or an undo); False when the person leaves."""
        while True:
            line = self._read()
            if line is None or line.lower() in ("quit", "exit", "q"):
                return False
            word = line.lower()
            if word in ("help", "?", ""):
                self._console.print(HELP)
            elif word == "moves":
                self._console.print(", ".join(escape(text) for text in self._texts(state)))
            elif word == "hint":
                self._console.print(self._hint(state))
            elif word == "undo":
                self._undo()
                return True
            else:
                action = self._parse(state, line)
                if action is not None:
                    self._actions.append(action)
                    return True

    def _undo(self) -> None:
        """Back to the person's move before this one."""
        while self._actions:
            self._actions.pop()
            if self._game.after(self._actions).current_player() == self._seat:
                return

    def _texts(self, state: pyspiel.State) -> dict[str, int]:
        return {self._game.action_text(state, action): action for action in state.legal_actions()}

    def _parse(self, state: pyspiel.State, line: str) -> int | None:
        """The legal action that `line` names; capitals matter only where they decide."""
        texts = self._texts(state)
        if line in texts:
            return texts[line]
        matches = [action for text, action in texts.items() if text.lower() == line.lower()]
        if len(matches) == 1:
            return matches[0]
        shown = list(texts)[:12]
        more = f" and {len(texts) - len(shown)} more" if len(texts) > len(shown) else ""
        self._console.print(f"{escape(line)} is not a move here; the moves are {escape(', '.join(shown))}{more}")
        return None

    def _hint(self, state: pyspiel.State) -> Group:
        """What the net and its search think of the person's moves."""
        result = self._agent.search(state, self._simulations)
        rows = [
            Candidate(
                text=self._game.action_text(state, int(action)),
                visits=int(result.visits[i]),
                prior=float(result.prior[i]),
                q=None if math.isnan(result.q[i]) else float(result.q[i]),
                chosen=int(action) == result.action,
            )
            for i, action in enumerate(result.actions)
        ]
        return Group(Text(f"you stand at {result.root_value:+.2f}", screen.DIM), screen.candidates(rows, 6))
