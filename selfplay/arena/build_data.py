"""Makes the files under selfplay/arena/data/ anew: `python -m selfplay.arena.build_data` (half an hour of a core)."""

from __future__ import annotations

import argparse
from pathlib import Path

from selfplay.arena.exact import connect_four_sets, to_npz
from selfplay.arena.openings import connect_four_openings, to_json
from selfplay.game import load
from selfplay.registry import find

DATA = Path(__file__).parent / "data"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["positions", "openings", "both"], nargs="?", default="both")
    what = parser.parse_args().what
    spec = find("connect_four-v0")
    if spec.exact is None:
        raise SystemExit(f"{spec.id} declares no exact solver")
    game, solver = load(spec), spec.exact()
    DATA.mkdir(exist_ok=True)
    if what != "openings":
        (DATA / f"{spec.id}.positions.npz").write_bytes(to_npz(connect_four_sets(game, solver)))
    if what != "positions":
        (DATA / f"{spec.id}.openings.json").write_text(to_json(connect_four_openings(game, solver)))


if __name__ == "__main__":
    main()
