"""The game of a row, against the rules of OpenSpiel."""

from __future__ import annotations

import hashlib
import re
from importlib import metadata
from typing import Any

from selfplay.store.release.verifier.rows import CHANCE, FRAGILE, SIMULTANEOUS, Lie, Row, Unknown, whole


def harmless(text: str) -> bool:
    """Whether a stranger's game string may be loaded: its game needs no file or other game, and no value is large.

    `selfplay corpus verify` knows more games and larger ones.
    """
    import pyspiel

    found = re.fullmatch(r"([a-z0-9_]+)(?:\(((?:[a-z0-9_]+=[A-Za-z0-9.-]+(?:,(?!\Z))?)*)\))?", text[:300])
    games = {kind.short_name: kind for kind in pyspiel.registered_games() if kind.default_loadable}
    if found is None or found[0] != text or found[1] not in games or (found[2] and found[1] in FRAGILE):
        return False
    declared = games[found[1]].parameter_specification
    given = [part.split("=") for part in (found[2] or "").split(",") if part]
    for name, value in given:
        default = declared.get(name)
        number = re.fullmatch(r"-?[0-9]{1,6}(\.[0-9]{1,6})?", value) is not None
        small = number and (value == str(default) or min(1, default or 0) <= float(value) <= max(20, default or 0))
        if not (value.lower() in ("true", "false") if isinstance(default, bool)
                else small if isinstance(default, int | float) else value == default):  # fmt: skip
            return False
    return len({name for name, _ in given}) == len(given)


class Rules:
    """The games of OpenSpiel as installed here, each loaded once, and how runs searched.

    searches: settings of runs by the digests of their configurations; see `settings_of`.
    """

    def __init__(self, certificate: Row) -> None:
        self.searches: dict[str, Row] = {}
        self.installed = metadata.version("open_spiel")
        self.certified = certificate["packages"].get("open_spiel", self.installed)
        self.rulesets = {(one["env_id"], one["ruleset_digest"]): one for one in certificate["rulesets"]}
        self.games: dict[str, Any] = {}

    def find(self, row: Row) -> Any:
        import pyspiel

        text, ruleset = row["game"]["game_string"], self.rulesets.get((row["env_id"], row["ruleset_digest"]))
        if ruleset is None or ruleset.get("game_string") != text:
            raise Lie(f"it names the game {text}, and that is not {row['env_id']} in the certificate")
        if text not in self.games:
            try:
                self.games[text] = pyspiel.load_game(text) if harmless(text) else None
            except RuntimeError:
                self.games[text] = None
        if self.games[text] is None:
            package = ruleset.get("package") or "the package that brings it"
            raise Unknown(f"the rules of {row['env_id']} are not in OpenSpiel, or not loaded by a stranger's word: "
                          f"install {package} and what made this corpus, and run `selfplay corpus verify`")  # fmt: skip
        return self.games[text]

    def doubt(self, reason: str) -> None:
        """A contradiction to the rules is a lie only where the rules are those that the release was checked with."""
        if self.installed != self.certified:
            raise Unknown(f"it contradicts the rules of open_spiel {self.installed}, and the release was checked with "
                          f"{self.certified}: install open_spiel=={self.certified}")  # fmt: skip
        raise Lie(reason)


def game_lies(row: Row, game: Any, rules: Rules) -> None:
    """Replays the game. The replay digest is a sha256 over what the rules say, all numbers int64, little endian:

    a decision: b"d", seat, number of legal actions, those ascending, the action taken;
    all seats at once: b"s", number of seats, for each the number of legal actions, those, and its action;
    chance: b"c", number of outcomes, each outcome and round(1e9 * its probability), the outcome taken;
    the end: b"t" if the game is over, else b"o"; length in bytes of str(state) and it; if over, the number of seats
    and round(1e9 * return) of each.
    """
    if str(game) != row["game"]["game_string"] or game.num_players() != row["seats"]:
        rules.doubt(f"it names {row['game']['game_string']} with {row['seats']} seats, and the game is {game}")
    state, digest = game.new_initial_state(), hashlib.sha256()
    for ply, step in enumerate(row["game"]["steps"]):
        if state.is_terminal():
            rules.doubt(f"step {ply}: the game was over before it")
        if state.is_simultaneous_node():
            legal_of = [state.legal_actions(seat) for seat in range(game.num_players())]
            joint = step["joint"]
            if step["seat"] != SIMULTANEOUS or joint is None or len(joint) != len(legal_of):
                rules.doubt(f"step {ply}: all seats move at once here, and the record holds seat {step['seat']}")
            flat = [len(legal_of)]
            for seat, (legal, action) in enumerate(zip(legal_of, joint, strict=True)):
                if legal and action not in legal:
                    rules.doubt(f"step {ply}: action {action} is not legal for seat {seat}")
                flat += [len(legal), *legal, action]
            digest.update(b"s" + whole(flat))
            state.apply_actions(joint)
            continue
        seat, action, legal = state.current_player(), step["action"], state.legal_actions()
        if state.is_chance_node():
            seat = CHANCE
        if step["seat"] != seat:
            rules.doubt(f"step {ply}: seat {seat} is to move, and the record holds seat {step['seat']}")
        if action not in legal:
            rules.doubt(f"step {ply}: action {action} is not legal")
        if seat == CHANCE:
            odds = [number for outcome, p in state.chance_outcomes() for number in (outcome, round(p * 1_000_000_000))]
            digest.update(b"c" + whole([len(odds) // 2, *odds, action]))
        else:
            if step["candidates"] and [one["action"] for one in step["candidates"]] != legal:
                rules.doubt(f"step {ply}: the candidates are not the legal actions")
            digest.update(b"d" + whole([seat, len(legal), *legal, action]))
        state.apply_action(action)
    text = str(state).encode()
    digest.update((b"t" if state.is_terminal() else b"o") + whole([len(text)]) + text)
    if state.is_terminal():
        digest.update(whole([game.num_players(), *(round(value * 1_000_000_000) for value in state.returns())]))
    if digest.hexdigest() != row["game"]["replay_digest"]:
        rules.doubt("replayed, the rules say otherwise than its replay digest")
    end_lies(row, game, state, rules)


def end_lies(row: Row, game: Any, state: Any, rules: Rules) -> None:
    """What the rules say of the end, and of the units in which values are stored."""
    ended_by, returns = row["game"]["ended_by"], row["returns"]
    largest = max(abs(game.min_utility()), abs(game.max_utility()))
    unit = largest if 0 < largest < 2.0**63 else 1.0  # of games whose utilities have no bound
    if row["game"]["value_scale"] != unit:
        rules.doubt(f"its values are in units of {row['game']['value_scale']}, and the largest utility is {unit}")
    if state.is_terminal() != (ended_by == "terminal"):
        rules.doubt(f"it ended by {ended_by}, and the game {'was' if state.is_terminal() else 'was not'} over")
    if ended_by == "terminal":
        if not all(abs(told - true) <= 1e-9 for told, true in zip(returns, state.returns(), strict=True)):
            rules.doubt(f"its returns are {returns}, and the rules give {list(state.returns())}")
    elif returns is not None and not all(game.min_utility() <= value <= game.max_utility() for value in returns):
        rules.doubt("a return lies outside the utilities of the game")
    told = any(step["seat_values"] is not None for step in row["game"]["steps"])
    if told and row["seats"] == 2 and str(game.get_type().utility).endswith("ZERO_SUM"):
        raise Lie("it has values of both seats, and in a zero-sum game one is the negative of the other")
