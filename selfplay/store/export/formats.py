"""The formats there are. What each needs is imported only when it is asked for."""

from __future__ import annotations

import difflib

from selfplay.errors import UserError
from selfplay.store.export.job import Format, Job


def _npz(job: Job) -> None:
    from selfplay.store.export import npz

    npz.write(job)


def _pgn(job: Job) -> None:
    from selfplay.store.export import pgn

    pgn.write(job)


def _sgf(job: Job) -> None:
    from selfplay.store.export import sgf

    sgf.write(job)


def _minari(job: Job) -> None:
    from selfplay.store.export import minari

    minari.write(job)


def _rllib(job: Job) -> None:
    from selfplay.store.export import rllib

    rllib.write(job)


def _chat(job: Job) -> None:
    from selfplay.store.export import chat

    chat.write(job)


def _atif(job: Job) -> None:
    from selfplay.store.export import atif

    atif.write(job)


_GAMES, _CHATS = ("game",), ("reasoning",)
_ACCEPTED = {"accepted": "`only` leaves rejected answers out"}
_UNTRAINABLE = {"untrainable": "`keep` includes episodes that are not trainable"}

FORMATS: dict[str, Format] = {
    one.name: one
    for one in (
        Format(
            "npz",
            "training rows of games: inputs, policy and value targets",
            _npz,
            _GAMES,
            options={"env": "the environment to export, if the corpus has several"},
        ),
        Format("pgn", "chess games with comments, for chess programs", _pgn, _GAMES, ("chess",)),
        Format(
            "sgf",
            "go games with comments, for go programs",
            _sgf,
            _GAMES,
            options={"per_file": "games in each file; default 1"},
        ),
        Format(
            "minari",
            "Minari datasets, one an environment and seat",
            _minari,
            ("game", "control"),
            ("minari", "h5py"),
            options={"seat": "the only seat to export", "policy": "`no` leaves out the policy targets of games"},
        ),
        Format(
            "rllib",
            "RLlib offline data, one a seat: SingleAgentEpisodes in Parquet",
            _rllib,
            ("game", "control"),
            ("ray", "gymnasium", "msgpack_numpy"),
            "factory",
            options={"seat": "the only seat to export"},
        ),
        Format(
            "messages", "chats in Parquet: column messages", _chat, _CHATS, options=_ACCEPTED | _UNTRAINABLE
        ),
        Format(
            "prompt-completion",
            "Parquet with columns prompt and completion",
            _chat,
            _CHATS,
            options=_ACCEPTED | _UNTRAINABLE,
        ),
        Format(
            "dpo",
            "pairs of an accepted and a rejected answer to one prompt, in Parquet",
            _chat,
            _CHATS,
            options={"pairs": "the most pairs from each group; default 4"} | _UNTRAINABLE,
        ),
        Format("kto", "answers with a label, in Parquet", _chat, _CHATS, options=_UNTRAINABLE),
        Format("atif", "one ATIF trajectory (JSON) an episode", _atif, _CHATS, ("atif",)),
    )
}


def find(name: str) -> Format:
    """Raises `UserError` for an unknown one, naming the nearest."""
    if name not in FORMATS:
        near = difflib.get_close_matches(name, FORMATS, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(FORMATS)}"
        raise UserError(f"there is no export format {name!r}; {hint}")
    return FORMATS[name]
