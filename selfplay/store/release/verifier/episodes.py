"""A row as a whole: sealed as it stands, and true by what can judge its kind."""

from __future__ import annotations

import pyarrow as pa

from selfplay.store.release.verifier.dialogues import Tokenizers, dialogue_lies, walk_lies
from selfplay.store.release.verifier.games import Rules, game_lies
from selfplay.store.release.verifier.played import played_lies
from selfplay.store.release.verifier.rows import SCHEMA_VERSION, Lie, Row, Unknown, content_digest


def row_lies(row: Row, schema: pa.Schema, rules: Rules, tokenizers: Tokenizers) -> None:
    """Raises `Lie` or `Unknown` unless the row is true."""
    if row["schema_version"] > SCHEMA_VERSION:
        raise Unknown(f"it has schema version {row['schema_version']}, and this verifier knows {SCHEMA_VERSION}")
    if content_digest(row, schema) != row["content_digest"]:
        raise Lie("the row was changed after sealing: its content digest does not fit")
    if row["episode_id"] != f"{row['run_id']}/{row['slot']}/{row['epoch']}/{row['number']}":
        raise Lie("its id contradicts its run, slot, epoch and number")
    if [kind for kind in ("game", "reasoning", "control") if row[kind] is not None] != [row["kind"]]:
        raise Lie("its kind contradicts its payload")
    if row["kind"] == "reasoning":
        dialogue_lies(row, tokenizers)
    if row["kind"] == "control":
        walk_lies(row)
    if row["kind"] != "game":
        raise Unknown(f"nothing here can check episodes of kind {row['kind']}: the project that made this corpus can, "
                      "with `selfplay corpus verify`")  # fmt: skip
    if row["n_steps"] != len(row["game"]["steps"]):
        raise Lie("its number of steps is not that of its steps")
    played_lies(row, rules.searches.get(row["config_digest"]))
    game_lies(row, rules.find(row), rules)
