"""Finds environments by names that a stranger may have written: in a row, a run folder, a release.

What stands in data is a name, never a path and never code. Found are only

- environments of installed distributions, and members of their families, by their ids;
- files that the user named himself in this process (`registry.find_any`, `--env`), by the ids they declare;
- OpenSpiel's own games, by strings that `openspiel_strings` lets through or that the user named himself.

Nothing here opens, imports or runs anything by a name that it is given. `registry.find` does, and is for what the user
types.
"""

from __future__ import annotations

import re

from selfplay.contract import ENV_ID, EnvSpec, GameSpec, TaskSpec
from selfplay.environments import registry
from selfplay.environments.openspiel_strings import refusal
from selfplay.errors import UserError

#: What may name an installed environment in the settings of a run: an id, with or without its version.
_REFERENCE = re.compile(r"[a-z][a-z0-9_]*(?:/[a-z0-9][a-z0-9_]*)?(?:-v(?:0|[1-9][0-9]{0,8}))?")
_OPENSPIEL_ID = "openspiel/"


class NotInstalled(UserError):
    """The name is an environment's, and no environment of that name is installed here."""


def find(env_id: str, game_string: str | None = None) -> EnvSpec:
    """The environment of an archived episode.

    game_string: of its row or table; needed for OpenSpiel's own games, whose ids begin with "openspiel/".
    Raises `NotInstalled`, and `UserError` for what is no name, or may not be loaded because data says so.
    """
    if not isinstance(env_id, str) or not ENV_ID.fullmatch(env_id):
        raise UserError(f"{_short(env_id)} is not the id of an environment, such as connect_four-v0")
    if env_id.startswith(_OPENSPIEL_ID):
        spec = game_of(game_string or "")
        if spec.id != env_id:
            raise UserError(f"{_short(game_string)} is the game of {spec.id}, not of {env_id}")
        return spec
    known = registry.known(env_id)
    if known is None:
        raise NotInstalled(f"{env_id} is not installed")
    return known


def find_game(env_id: str, game_string: str | None = None) -> GameSpec:
    """As `find`; raises `UserError` for a task, too."""
    spec = find(env_id, game_string)
    if not isinstance(spec, GameSpec):
        raise UserError(f"{env_id} is a task here, and the record is of a game")
    return spec


def find_task(env_id: str) -> TaskSpec:
    """As `find`; raises `UserError` for a game, too."""
    spec = find(env_id)
    if not isinstance(spec, TaskSpec):
        raise UserError(f"{env_id} is a game here, and the record is of a task")
    return spec


def game_of(game_string: str) -> GameSpec:
    """OpenSpiel's own game of this string. Raises `UserError` where it may not or cannot be loaded."""
    from selfplay.environments.game import spec_from_string

    if game_string not in registry.named_strings():
        reason = refusal(game_string)
        if reason is not None:
            raise UserError(f"{reason}; such a game is loaded only if you name it yourself")
    return spec_from_string(game_string)


def find_reference(reference: str) -> EnvSpec:
    """The environment that the files of a run name: an id, a name without its version, or "openspiel:…".

    Raises `UserError` for a path and for everything else that is not installed.
    """
    if not isinstance(reference, str):
        raise UserError(f"{_short(reference)} is not the name of an environment")
    if reference.startswith(registry.OPENSPIEL):
        return game_of(reference.removeprefix(registry.OPENSPIEL))
    if not _REFERENCE.fullmatch(reference):
        raise UserError(f"{_short(reference)} is not the name of an installed environment")
    return registry.find_any(reference)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
