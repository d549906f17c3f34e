"""The formats there are. What each needs is imported only when it is asked for."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field

from selfplay.errors import UserError


@dataclass(frozen=True)
class Format:
    """One format.

    module: has `write(job: Job) -> None`. kinds: of episodes that it can hold. needs: import names of the packages that
    the base install lacks, extra: what brings them. options: name -> what it means, of `--option NAME=VALUE`.
    """

    name: str
    summary: str
    module: str
    kinds: tuple[str, ...]
    needs: tuple[str, ...] = ()
    extra: str = "export"
    options: dict[str, str] = field(default_factory=dict)


_HERE = "selfplay.store.export"
_GAMES, _CHATS = ("game",), ("reasoning",)

FORMATS: dict[str, Format] = {
    one.name: one
    for one in (
        Format(
            "npz",
            "training rows of games: inputs, policy and value targets",
            f"{_HERE}.npz",
            _GAMES,
            options={"env": "which environment, where the corpus has several"},
        ),
        Format("pgn", "chess games with comments, for chess programs", f"{_HERE}.pgn", _GAMES, ("chess",)),
        Format("sgf", "go games with comments, for go programs", f"{_HERE}.sgf", _GAMES),
        Format(
            "minari",
            "Minari datasets, one an environment and seat",
            f"{_HERE}.minari",
            ("game", "control"),
            ("minari", "h5py"),
        ),
        Format(
            "rllib",
            "RLlib offline data, one a seat: SingleAgentEpisodes in Parquet",
            f"{_HERE}.rllib",
            ("game", "control"),
            ("ray", "gymnasium", "msgpack_numpy"),
            "factory",
        ),
        Format("messages", "chats in Parquet: column messages", f"{_HERE}.chat", _CHATS),
        Format("prompt-completion", "Parquet with columns prompt and completion", f"{_HERE}.chat", _CHATS),
        Format("dpo", "pairs of an accepted and a rejected answer to one prompt, in Parquet", f"{_HERE}.chat", _CHATS),
        Format("kto", "answers with a label, in Parquet", f"{_HERE}.chat", _CHATS),
        Format("atif", "one ATIF trajectory (JSON) an episode", f"{_HERE}.atif", _CHATS, ("atif",)),
    )
}


def find(name: str) -> Format:
    """Raises `UserError` for an unknown one, naming the nearest."""
    if name not in FORMATS:
        near = difflib.get_close_matches(name, FORMATS, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(FORMATS)}"
        raise UserError(f"there is no export format {name!r}; {hint}")
    return FORMATS[name]
