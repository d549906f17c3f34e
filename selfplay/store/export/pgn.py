"""Chess games as PGN, in files of a thousand: `games-00000.pgn`, …

Event is the run, Site the writer (slot/epoch), Round the number of the game; Date is that of UTC. White and Black are
the policies that made the seats' last moves. Result is `*` without an outcome. Further headers: EpisodeId, Env, Status,
EndedBy, Licence, ResignedSeat (0 Black, 1 White) where a seat resigned; FEN, SetUp and Variant where the game did not
begin in the usual position. A comment such as `v=+0.12 n=64 e4:20 d4:18 c4:9` means: value +0.12 after the search, in
utility units for the side to move; 64 simulations; the three moves that most of them went through. Where no search
chose, it says who: `random`.

Every move is made on a board of python-chess, too, and both boards must agree after it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import chess
import chess.pgn

from selfplay.environments.game import Game
from selfplay.episode import Episode
from selfplay.episode.replay import ReplayError, advance
from selfplay.store.export.sgf import ENDS_OTHERWISE, NOT_LEGAL, Rules, agrees, began, comment, player
from selfplay.store.release.markdown import visible

if TYPE_CHECKING:
    import pyspiel

    from selfplay.store.export.job import Job

_FILE_GAMES = 1000
_NOT_CHESS = "OpenSpiel and python-chess do not agree on its moves"


def write(job: Job) -> None:
    rules, count = Rules("chess"), 0
    for episode in job.episodes():
        game = rules.find(episode)
        text, reason = _game(game, episode) if isinstance(game, Game) else ("", game)
        if reason:
            job.leave_out(reason)
            continue
        name = f"games-{count // _FILE_GAMES:05d}.pgn"
        with (job.folder / name).open("ab") as file:
            file.write(f"{text}\n\n".encode())
        job.row(name, count % _FILE_GAMES, episode.episode_id)
        count += 1


def _game(game: Game, episode: Episode) -> tuple[str, str]:
    """One game, or why there is none."""
    record = episode.game
    assert record is not None
    state, steps = game.new_initial_state(), list(record.steps)
    try:
        while steps and state.is_chance_node():  # Chess960 draws its first position
            advance(state, steps.pop(0))
        if state.is_chance_node():
            return "", "it ended before its first position was drawn"
        board = _board(state, game)
        written = chess.pgn.Game(_headers(episode))
        if board.fen() != chess.STARTING_FEN or board.chess960:
            written.setup(board)
        node: chess.pgn.GameNode = written
        for ply, step in enumerate(steps):
            seat = step.seat
            said = comment(step, lambda action, seat=seat: state.action_to_string(seat, action))  # type: ignore[misc]
            move = board.parse_san(state.action_to_string(seat, step.action))
            advance(state, step, ply)
            board.push(move)
            node = node.add_variation(move, comment=said)
            if not _same(board, _board(state, game)):
                return "", _NOT_CHESS
    except ReplayError:
        return "", NOT_LEGAL
    except ValueError:
        return "", _NOT_CHESS
    if not agrees(state, episode):
        return "", ENDS_OTHERWISE
    return written.accept(chess.pgn.StringExporter(columns=80, headers=True, comments=True, variations=False)), ""


def _board(state: pyspiel.State, game: Game) -> chess.Board:
    return chess.Board(str(state), chess960=bool(game.game.get_parameters()["chess960"]))


def _same(one: chess.Board, other: chess.Board) -> bool:
    """The same position and counters. En passant squares aside: not everybody names those that nobody can capture on.

    Castling rights as python-chess cleans them.
    """
    return (
        one.board_fen() == other.board_fen()
        and one.turn == other.turn
        and one.clean_castling_rights() == other.clean_castling_rights()
        and (one.halfmove_clock, one.fullmove_number) == (other.halfmove_clock, other.fullmove_number)
    )


def _headers(episode: Episode) -> dict[str, str]:
    record = episode.game
    assert record is not None
    headers = {
        "Event": episode.provenance.run_id,
        "Site": f"{episode.slot}/{episode.epoch}",
        "Date": f"{began(episode):%Y.%m.%d}",
        "Round": str(episode.number),
        "White": player(episode, 1),
        "Black": player(episode, 0),
        "Result": _result(episode),
        "EpisodeId": episode.episode_id,
        "Env": episode.provenance.env_id,
        "Status": episode.status,
        "EndedBy": record.ended_by,
        "Licence": episode.provenance.licence,
    }
    if record.resigned_seat is not None:
        headers["ResignedSeat"] = str(record.resigned_seat)
    return {name: visible(value).replace('"', "'").replace("\\", "/") for name, value in headers.items()}


def _result(episode: Episode) -> str:
    if episode.returns is None:
        return "*"
    black, white = episode.returns
    return "1/2-1/2" if black == white else "1-0" if white > black else "0-1"
