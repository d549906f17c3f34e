"""verify_weights.py, the one file that a release carries to compute again what its nets said. It needs torch."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from selfplay.store.release import verifier

#: The part of `selfplay.store.release.verifier` that has its program and its docstring.
_PROGRAM = "weighing"


def weights_file(seat_planes: Mapping[str, Sequence[Sequence[int]]]) -> str:
    """The source of verify_weights.py. seat_planes: of the environments of a corpus, see `GameSpec.seat_planes`."""
    empty = "SEAT_PLANES: dict[str, list[list[int]]] = {}\n"
    source = verifier.one_file(_needed(_PROGRAM))
    assert empty in source
    planes = {env_id: [list(order) for order in of] for env_id, of in seat_planes.items()}
    return source.replace(empty, empty.replace("{}", json.dumps(planes)))


def _needed(part: str) -> list[str]:
    """The parts that a part imports, those that they import first, and last itself."""
    found: list[str] = []
    package = verifier.__name__ + "."
    for node in ast.parse(Path(verifier.__file__).with_name(f"{part}.py").read_text()).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(package):
            found += [one for one in _needed(str(node.module).removeprefix(package)) if one not in found]
    return [*found, part]
