"""verify_weights.py, the one file that a release carries to compute again what its nets said."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from selfplay.store.release.verifier import one_file

#: Its parts, see `selfplay.store.release.verifier`; `weighing` has its docstring. It needs torch.
PARTS = ("rows", "games", "table", "nets", "weighing")


def weights_file(seat_planes: Mapping[str, Sequence[Sequence[int]]]) -> str:
    """The source of verify_weights.py. seat_planes: of the environments of a corpus, see `GameSpec.seat_planes`."""
    empty = "SEAT_PLANES: dict[str, list[list[int]]] = {}\n"
    source = one_file(PARTS)
    assert empty in source
    planes = {env_id: [list(order) for order in of] for env_id, of in seat_planes.items()}
    return source.replace(empty, empty.replace("{}", json.dumps(planes)))
