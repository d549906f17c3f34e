"""Did the nets say what this release records? One file that needs pyarrow, deltalake, open_spiel and torch.

    python verify_weights.py --weights FOLDER                beside certificate.json, in the released corpus
    python verify_weights.py CORPUS --weights FOLDER --sample 1000

FOLDER holds weights as the run kept them (*.safetensors). Each is known by its digest, sha256 over its tensors, which
the policy spans of a game name; no path that stands in the corpus is followed.

For every searched move of a game whose weights are there, the raw value and the priors are computed again. They may
differ from those recorded by EXACT. Where they differ by more, they may have been computed in bfloat16 or int8, and
then be apart by REDUCED, or ROOM times as far as bfloat16 moves the numbers of this net. Rows of schema version 1 may
be of code that went on with a search when new weights came: the first decision of a game under a version is not judged
there. Searches are not made again, nor are log-probabilities of language models: `selfplay corpus verify --weights`
does both. verify_corpus.py checks all else.

Exit codes: 0 all that could be computed again is as recorded; 1 something is not; 2 it cannot be read.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable

from selfplay.store.release.verifier.games import Rules
from selfplay.store.release.verifier.nets import Net, digest_of, shown_to_net, stated, tensors_of
from selfplay.store.release.verifier.rows import MOST_CERTIFICATE_BYTES, MOST_FILE_BYTES, UNITS, Lie, Row, Unknown
from selfplay.store.release.verifier.table import (
    certificate_of,
    located,
    options,
    read,
    refuse_outside,
    rows_of,
    shown,
)

#: Of values in [-1, 1] and of probabilities; half a unit of storage is 1.6e-5.
EXACT, REDUCED, ROOM = 1e-4, 0.05, 8.0
#: From this schema version on no search is of two nets.
ONE_NET_SINCE = 2


class Weights:
    """The nets whose weights are in some folders, by their digest."""

    def __init__(self, folders: list[str], policies: list[Row]) -> None:
        self.rows = {row["digest"]: row for row in policies}
        self.files: dict[str, Path] = {}
        self.nets: dict[str, Net] = {}
        for file in sorted(one for folder in folders for one in Path(folder).rglob("*.safetensors")):
            try:
                self.files[digest_of(tensors_of(file.read_bytes()))] = file
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue  # other tensors: nothing names them

    def net(self, digest: str) -> Net | None:
        if digest not in self.files:
            return None
        if digest not in self.nets:
            self.nets[digest] = stated(self.rows.get(digest), tensors_of(self.files[digest].read_bytes()))
        return self.nets[digest]


def row_weighed(row: Row, rules: Rules, weights: Weights) -> int:
    """How many decisions of the game were computed again. Raises `Lie`, and `Unknown` where none was."""
    if row["kind"] != "game":
        raise Unknown(f"episodes of kind {row['kind']} are not weighed here")
    game = rules.find(row)
    state, asked, count = game.new_initial_state(), dict[str, list[tuple[int, Row, Any]]](), 0
    for ply, step in enumerate(row["game"]["steps"]):
        legal = state.legal_actions()
        if step["seat"] != state.current_player() or step["action"] not in legal:
            raise Unknown("its moves are not those of its game: see verify_corpus.py")
        if step["source"] == "search" and [one["action"] for one in step["candidates"]] == legal:
            span = next((one for one in row["policy_spans"] if one["seat"] == step["seat"]
                         and one["first_step"] <= ply <= one["last_step"] and one["digest"]), None)  # fmt: skip
            net = None if span is None else weights.net(span["digest"])
            if span is not None and net is not None:
                asked.setdefault(span["digest"], []).append((ply, step, shown_to_net(state, row["env_id"], net.shape)))
        state.apply_action(step["action"])
    for digest, some in asked.items():
        judged = some[row["schema_version"] < ONE_NET_SINCE :]
        if judged:
            decisions_lie(weights.nets[digest], judged, weights.rows[digest]["version"])
            count += len(judged)
    if not count:
        raise Unknown("the weights that it names are not in the folders given, or it names none")
    return count


def decisions_lie(net: Net, some: list[tuple[int, Row, Any]], version: Any) -> None:
    x = np.stack([shown_there for _, _, shown_there in some])
    logits, values = net(x)
    rough: Any = None
    for i, (ply, step, _) in enumerate(some):
        priors = _priors(logits[i], step)
        recorded = np.array([one["prior"] for one in step["candidates"]]) / UNITS
        raw = np.nan if step["raw_value"] is None else step["raw_value"] / UNITS
        apart, off = abs(values[i] - raw), float(np.abs(priors - recorded).max())
        if apart <= EXACT and off <= EXACT:
            continue
        rough = rough or net(x, True)
        moved = max(abs(rough[1] - values))
        shifted = max(float(np.abs(_priors(rough[0][j], s) - _priors(logits[j], s)).max())
                      for j, (_, s, _) in enumerate(some))  # fmt: skip
        if not apart <= max(REDUCED, ROOM * moved):
            raise Lie(f"step {ply}: its raw value is {raw:.4f} of its scale, and version {version}'s {values[i]:.4f}")
        if not off <= max(REDUCED, ROOM * shifted):
            raise Lie(f"step {ply}: a prior is {off:.4f} apart from version {version}'s")


def _priors(logits: Any, step: Row) -> Any:
    chosen = logits[[one["action"] for one in step["candidates"]]]
    parts = np.exp(chosen - chosen.max())
    return parts / parts.sum()


def weigh(corpus: str, certificate: Row, folders: list[str], sample: int | None, seed: int) -> Row:
    """Counts and lies, of all rows or a sample of the released version."""
    policies = DeltaTable(f"{corpus}/policies", storage_options=options())
    refuse_outside(policies)
    table = DeltaTable(f"{corpus}/episodes", version=certificate["table_version"], storage_options=options())
    refuse_outside(table)
    schema = pa.schema(table.schema().to_arrow())
    rules, weights = Rules(certificate), Weights(folders, policies.to_pyarrow_table().to_pylist())
    files = sorted(pa.table(table.get_add_actions(flatten=True)).to_pylist(), key=lambda file: str(file["path"]))
    total = sum(file["num_records"] for file in files)
    drawn = set(range(total)) if sample is None else set(random.Random(seed).sample(range(total), min(sample, total)))
    found: Row = {"weighed": 0, "decisions": 0, "falsehoods": [], "missing": {}, "versions": len(weights.files)}
    before = 0
    for file in files:
        chosen = {i - before for i in drawn if before <= i < before + file["num_records"]}
        before += file["num_records"]
        if not chosen:
            continue
        partition = {key.removeprefix("partition."): file[key] for key in file if key.startswith("partition.")}
        for row in rows_of(read(f"{corpus}/episodes", file["path"], MOST_FILE_BYTES), partition, schema, chosen):
            try:
                found["decisions"] += row_weighed(row, rules, weights)
                found["weighed"] += 1
            except Unknown as reason:
                found["missing"][str(reason)] = found["missing"].get(str(reason), 0) + 1
            except Lie as lie:
                found["falsehoods"].append({"subject": row["episode_id"], "reason": str(lie)})
            except (TypeError, ValueError, LookupError, AttributeError, RuntimeError) as error:
                said = f"the row cannot be weighed: {type(error).__name__}"
                found["falsehoods"].append({"subject": str(row["episode_id"]), "reason": said})
    return found


def main() -> int:
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description="Checks that the nets of a release said what it records.")
    parser.add_argument("corpus", nargs="?", default=os.path.dirname(os.path.dirname(here)), help="folder or s3://...")
    parser.add_argument("--certificate", default=os.path.join(here, "certificate.json"), help="default: beside me")
    parser.add_argument("--weights", action="append", required=True, metavar="FOLDER", help="may be repeated")
    parser.add_argument("--sample", type=int, metavar="N", help="only N episodes, drawn evenly")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.parse_args()
    try:
        folder, _, name = located(asked.certificate).rpartition("/")
        certificate = certificate_of(read(folder, name, MOST_CERTIFICATE_BYTES))
        found = weigh(located(asked.corpus), certificate, asked.weights, asked.sample, asked.seed)
    except Exception as error:
        print(f"cannot be read: {shown((str(error) or type(error).__name__).splitlines()[0])}", file=sys.stderr)
        return 2
    if asked.json:
        print(json.dumps(found))
    else:
        for lie in found["falsehoods"]:
            print(f"false {shown(lie['subject'])}: {shown(lie['reason'])}")
        for reason, count in found["missing"].items():
            print(f"not weighed ({count:,} episodes): {shown(reason)}")
        print(f"{found['weighed']:,} games and {found['decisions']:,} decisions are as their nets say")
    return 1 if found["falsehoods"] else 0


if __name__ == "__main__":
    sys.exit(main())
