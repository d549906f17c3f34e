"""Go games as SGF (FF[4]): moves, who played, who won, and in a comment of every move what the search saw.

One game a file, `00000/00000000.sgf`, a thousand to a folder: most readers (and `sgfmill.sgf.Sgf_game`) see only the
first game of a file. Option per_file puts that many into one, `games-00000.sgf`: an SGF collection, which
`sgfmill.sgf_grammar.parse_sgf_collection` reads; better where games count by the million.

EV is the run, RO the number of the game, GN the episode id, PB and PW the last policy of the seat, CP the licence.
RE is `B+` or `W+` (`B+R` after a resignation), `0` for a draw, `Void` for a game without an outcome. RU is Chinese:
area scoring without suicide; unlike there, a repeated position ends the game as a draw, and no stone is removed.
A comment such as `v=+0.12 n=64 D4:20 E5:18 C3:9` means: value +0.12 after the search, in utility units for the seat to
act; 64 simulations; the three points that most of them went through. Where no search chose, it says who: `random`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from selfplay.environments import archived
from selfplay.environments.game import Game, load
from selfplay.episode import Episode, Step
from selfplay.episode.replay import ReplayError, advance
from selfplay.errors import UserError
from selfplay.store.release.markdown import visible

if TYPE_CHECKING:
    import pyspiel

    from selfplay.store.export.job import Job

#: Of a game of which the rules here say something else than its record.
NOT_LEGAL = "the rules installed here do not allow its moves"
ENDS_OTHERWISE = "the rules installed here end it otherwise than its record"
_FOLDER_GAMES = 1000
_CANDIDATES = 3
_COLUMNS = "ABCDEFGHJKLMNOPQRSTUVWXYZ"


class Rules:
    """Games by their OpenSpiel string, loaded once each. name: the only short name that is wanted."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._loaded: dict[str, Game | None] = {}

    def find(self, episode: Episode) -> Game | str:
        """The game of the episode, or in words why there is none."""
        assert episode.game is not None
        text = episode.game.game_string
        name = text.split("(", 1)[0]
        if name != self.name:
            return f"a game of {name}, not of {self.name}"
        if text not in self._loaded:
            try:
                self._loaded[text] = load(archived.game_of(text))
            except UserError:
                self._loaded[text] = None
        return self._loaded[text] or f"the installed OpenSpiel cannot load {text}"


def comment(step: Step, written: Callable[[int], str]) -> str:
    """What was seen before the move; written: an action as a person writes it."""
    if not len(step.actions):
        return "" if step.source == "search" else step.source
    value = [] if math.isnan(step.root_value) else [f"v={step.root_value:+.2f}"]
    most = sorted(range(len(step.actions)), key=lambda i: (-int(step.visits[i]), i))[:_CANDIDATES]
    seen = [f"{written(int(step.actions[i]))}:{int(step.visits[i])}" for i in most if step.visits[i] > 0]
    return " ".join([*value, f"n={step.simulations}", *seen])


def player(episode: Episode, seat: int) -> str:
    """The policy that made the seat's last steps, as "run-x v12"; "?" where it made none."""
    spans = [span for span in episode.policy_spans if span.seat == seat]
    if not spans:
        return "?"
    last = max(spans, key=lambda span: span.last_step)
    return f"{last.policy_id} v{last.version}"


def began(episode: Episode) -> datetime:
    return datetime.fromtimestamp(episode.started_at // 1_000_000, UTC)


def agrees(state: pyspiel.State, episode: Episode) -> bool:
    """Whether a game that was played to its end ends in `state`, with the recorded returns."""
    assert episode.game is not None
    if episode.game.ended_by != "terminal":
        return True
    returns = episode.returns
    return bool(state.is_terminal()) and returns is not None and list(returns) == list(state.returns())


def write(job: Job) -> None:
    """Option per_file: games a file, 1 where it is not given."""
    rules, per_file, count = Rules("go"), _per_file(job.options.get("per_file", "1")), 0
    for episode in job.episodes():
        game = rules.find(episode)
        text, reason = _game(game, episode) if isinstance(game, Game) else ("", game)
        if reason:
            job.leave_out(reason)
            continue
        place = f"{count // _FOLDER_GAMES:05d}/{count:08d}.sgf"
        if per_file > 1:
            place = f"games-{count // per_file:05d}.sgf"
        path = job.folder / place
        path.parent.mkdir(exist_ok=True)
        with path.open("ab") as file:
            file.write(text.encode())
        job.row(place, count % per_file, episode.episode_id)
        count += 1


def _per_file(given: str) -> int:
    if not (given.isdecimal() and int(given) > 0):
        raise UserError(f"option per_file is how many games a file holds, such as 1000, not {given!r}")
    return int(given)


def _game(game: Game, episode: Episode) -> tuple[str, str]:
    """One game tree, or why there is none."""
    assert episode.game is not None
    size = int(game.game.get_parameters()["board_size"])
    nodes = [_root(game, episode, size)]
    state = game.new_initial_state()
    try:
        for ply, step in enumerate(episode.game.steps):
            said = _text(comment(step, lambda action: _person(action, size)))
            nodes.append(f";{'BW'[step.seat]}[{_point(step.action, size)}]" + (f"C[{said}]" if said else ""))
            advance(state, step, ply)
    except ReplayError:
        return "", NOT_LEGAL
    return ("(" + "\n".join(nodes) + ")\n", "") if agrees(state, episode) else ("", ENDS_OTHERWISE)


def _root(game: Game, episode: Episode, size: int) -> str:
    record, parameters = episode.game, game.game.get_parameters()
    assert record is not None
    said = [f"status {episode.status}", f"ended by {record.ended_by}", f"environment {episode.provenance.env_id}"]
    if record.resigned_seat is not None:
        said.append(f"resigned: {('Black', 'White')[record.resigned_seat]}")
    properties = {
        "FF": "4",
        "GM": "1",
        "CA": "UTF-8",
        "SZ": str(size),
        "KM": f"{float(parameters['komi']):g}",
        "RU": "Chinese",
        "EV": _text(episode.provenance.run_id),
        "RO": str(episode.number),
        "GN": _text(episode.episode_id),
        "DT": f"{began(episode):%Y-%m-%d}",
        "PB": _text(player(episode, 0)),
        "PW": _text(player(episode, 1)),
        "RE": _result(episode),
        "CP": _text(episode.provenance.licence),
        "GC": _text("; ".join(said)),
    }
    head = ";" + "".join(f"{name}[{value}]" for name, value in properties.items())
    handicap = int(parameters["handicap"])
    if handicap < 2:
        return head
    placed = "".join(f"[{_point(action, size)}]" for action in _stones(game.new_initial_state(), size))
    return f"{head}HA[{handicap}]AB{placed}PL[W]"


def _result(episode: Episode) -> str:
    assert episode.game is not None
    if episode.returns is None:
        return "Void"
    if episode.returns[0] == episode.returns[1]:
        return "0"
    winner = "B" if episode.returns[0] > episode.returns[1] else "W"
    return f"{winner}+{'R' if episode.game.resigned_seat is not None else ''}"


def _stones(state: pyspiel.State, size: int) -> list[int]:
    """The actions that would place the black stones of `state`, ascending."""
    rows = [line.split()[1] for line in str(state).splitlines() if re.fullmatch(r"\s*\d+ [+XO]+", line)]
    return sorted((size - 1 - r) * size + c for r, row in enumerate(rows) for c, x in enumerate(row) if x == "X")


def _point(action: int, size: int) -> str:
    """SGF counts rows from the top, OpenSpiel from the bottom; empty: a pass."""
    if action == size * size:
        return ""
    return chr(ord("a") + action % size) + chr(ord("a") + size - 1 - action // size)


def _person(action: int, size: int) -> str:
    return "pass" if action == size * size else f"{_COLUMNS[action % size]}{action // size + 1}"


def _text(value: str) -> str:
    """Escaped, on one line, without what a terminal would obey."""
    return re.sub(r"([\]\\])", r"\\\1", visible(value))
