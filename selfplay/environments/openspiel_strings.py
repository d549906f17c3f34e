"""Which OpenSpiel game strings may be loaded when a stranger wrote them: into a row, a run folder or a release.

Some of OpenSpiel's games read files that a parameter names, and many take sizes that cost gigabytes or minutes to load.
A string from data is therefore read here first, by a grammar that is stricter than OpenSpiel's, and loaded only if

- its game needs no parameters, so none that names a file or another game, and is registered in this process;
- each parameter is one that the game declares, and has its default value, or is a switch, or a number within bounds.

`turn_based_simultaneous_game` and `misere` wrap one such game. What a user types himself is not looked at here.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass
from functools import cache

#: Longest string that is looked at, characters.
MOST_CHARACTERS = 300
#: Largest whole number of a parameter; its default may be larger.
MOST = 32
#: Parameters whose cost grows faster than the board: (game, parameter) -> largest value.
TIGHTER: dict[tuple[str, str], int] = {
    ("blotto", "coins"): 12,
    ("blotto", "fields"): 4,
    ("gomoku", "dims"): 3,
    ("negotiation", "num_items"): 4,
    ("yacht", "dice_sides"): 6,
    ("yacht", "num_dice"): 5,
}
#: Games that end the whole process, or take minutes, with some parameters within the bounds: loaded without any.
FRAGILE = ("bridge_uncontested_bidding", "hanabi", "universal_poker")
#: Games that need a game to wrap, and nothing else.
WRAPPERS = ("misere", "turn_based_simultaneous_game")
#: Texts that choose a variant: (parameter) -> the values that are known to be harmless.
VARIANTS: dict[str, tuple[str, ...]] = {
    "bidding_rule": ("reset-face", "reset-quantity"),
    "gameversion": ("adh", "adth", "cdh", "cdth", "classical", "abrupt"),
    "observation_type": ("minimal", "card_knowledge", "seer"),
    "obstype": ("reveal-nothing", "reveal-numturns"),
    "points_order": ("random", "descending", "ascending"),
    "returns_type": ("win_loss", "point_difference", "total_points"),
    "scoring_type": ("winloss_scoring", "enable_gammons", "full_scoring"),
    "string_rep": ("standard", "explicit"),
}
_WORD = r"[A-Za-z0-9_][A-Za-z0-9_.+-]*|[+-]?[0-9][0-9.e+-]*"
_NAME = re.compile(r"[a-z0-9][a-z0-9_]*")
_PART = re.compile(rf"([a-z0-9_]+)=({_WORD})(?:,|\Z)")
_CALL = re.compile(r"([a-z0-9][a-z0-9_]*)(?:\((.*)\))?")
_WRAPPED = re.compile(r"game=(.+)")
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,8})")


@dataclass(frozen=True)
class _Parts:
    """A string, taken apart. given: parameter -> its value as written."""

    name: str
    given: dict[str, str]


def refusal(game_string: str) -> str | None:
    """Why this string is not loaded when it comes from data, in words; None if it may be. Loads and opens nothing."""
    if len(game_string) > MOST_CHARACTERS:
        return f"a game string of {len(game_string)} characters is too long to be looked at"
    found = _CALL.fullmatch(game_string)
    if found is not None and found[1] in WRAPPERS:
        inner = _WRAPPED.fullmatch(found[2] or "")
        if inner is None or inner[1].partition("(")[0] in WRAPPERS:
            return f"{_short(game_string)} does not wrap one game"
        return refusal(inner[1])
    parts = _parts(game_string)
    if parts is None:
        return f"{_short(game_string)} is not a game string of the plain form name(parameter=value)"
    declared = _declared(parts.name)
    if declared is None:
        near = difflib.get_close_matches(parts.name, [name for name in _games() if _games()[name] is not None], 1)
        hint = f"; the nearest name is {near[0]!r}" if near else ""
        return f"OpenSpiel has no game {parts.name!r} here that can be loaded by its name alone{hint}"
    if parts.given and parts.name in FRAGILE:
        return f"{parts.name} is loaded without parameters only, and {_short(game_string)} has some"
    for key, value in parts.given.items():
        if key not in declared:
            return f"{parts.name} has no parameter {key!r}"
        reason = _value_refusal(parts.name, key, value, declared[key])
        if reason is not None:
            return f"{reason} (in {_short(game_string)})"
    return None


def _parts(game_string: str) -> _Parts | None:
    found = _CALL.fullmatch(game_string)
    if found is None:
        return None
    given: dict[str, str] = {}
    at, text = 0, found[2] or ""
    while at < len(text):
        part = _PART.match(text, at)
        if part is None or part[1] in given:
            return None
        given[part[1]] = part[2]
        at = part.end()
    return None if text.endswith(",") else _Parts(found[1], given)


def _value_refusal(name: str, key: str, text: str, default: object) -> str | None:
    """Why a parameter may not have this value; None if it may."""
    if isinstance(default, bool):
        return None if text in ("true", "false", "True", "False") else f"{key}={text} is neither true nor false"
    if isinstance(default, int):
        most = max(TIGHTER.get((name, key), MOST), default)
        low = min(1, default)
        if not _INTEGER.fullmatch(text) or not low <= int(text) <= most:
            return f"{key}={text} is not a whole number from {low} to {most}"
        return None
    if isinstance(default, float):
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        return None if math.isfinite(value) and abs(value) <= 1e6 else f"{key}={text} is not a number of at most 1e6"
    if text == default or text in VARIANTS.get(key, ()):
        return None
    return f"the text {key}={text} is not one that is known to be harmless"


def _declared(name: str) -> dict[str, object] | None:
    """The parameters of a game and their defaults; None where it cannot be loaded by its name alone."""
    if not _NAME.fullmatch(name):
        return None
    games = _games()
    if name not in games:
        _games.cache_clear()  # one of our own may have been registered meanwhile
        games = _games()
    return games.get(name)


@cache
def _games() -> dict[str, dict[str, object] | None]:
    import pyspiel

    return {
        kind.short_name: dict(kind.parameter_specification) if kind.default_loadable else None
        for kind in pyspiel.registered_games()
    }


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}…")
