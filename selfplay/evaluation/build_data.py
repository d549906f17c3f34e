"""Makes the files of selfplay/evaluation/data: `python -m selfplay.evaluation.build_data` (half an hour of a core)."""

from __future__ import annotations

import argparse
from pathlib import Path

from selfplay.environments.game import load
from selfplay.environments.registry import find
from selfplay.evaluation.baselines import make
from selfplay.evaluation.exact import connect_four_sets, to_npz
from selfplay.evaluation.openings import connect_four_openings, to_json

DATA = Path(__file__).parent / "data"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["positions", "openings", "baselines", "all"], nargs="?", default="all")
    what = parser.parse_args().what
    spec = find("connect_four-v0")
    if spec.exact is None:
        raise SystemExit(f"{spec.id} declares no exact solver")
    game, solver = load(spec), spec.exact()
    DATA.mkdir(exist_ok=True)
    if what in ("positions", "all"):
        (DATA / f"{spec.id}.positions.npz").write_bytes(to_npz(connect_four_sets(game, solver)))
    if what in ("openings", "all"):
        (DATA / f"{spec.id}.openings.json").write_text(to_json(connect_four_openings(game, solver)))
    if what in ("baselines", "all"):
        for one in (spec, find("tic_tac_toe-v0")):
            (DATA / f"{one.id}.baselines.npz").write_bytes(make(load(one)))


if __name__ == "__main__":
    main()
