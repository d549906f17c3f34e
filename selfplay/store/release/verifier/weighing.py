"""Did the nets say what this release records? One file that needs pyarrow, deltalake, open_spiel and torch.

    python verify_weights.py                                 beside certificate.json, in a release that carries weights
    python verify_weights.py CORPUS --weights FOLDER         with weights as the run kept them (*.safetensors)
    python verify_weights.py s3://bucket/corpus --sample 1000 --searches 100

Weights are known by their digest, sha256 over their tensors, which the policy spans of an episode name; no path that
stands in the corpus is followed. Those that a release carries are files of it, of the sha256 that certificate.json has.

For every searched move of a game whose weights are there, the raw value and the priors are computed again. They may
differ from those recorded by EXACT. Where they differ by more, they may have been computed in bfloat16 or int8, and
then be apart by REDUCED, or ROOM times as far as bfloat16 moves the numbers of this net. Rows of schema version 1 may
be of code that went on with a search when new weights came: the first decision of a game under a version is not judged
there.

Some searches, drawn evenly (--searches), are made again from the papers (`search` below), with the noise that the seed
of their game draws, and must have the same visits and values. That can only be said of nets in float32 on a processor,
and of games of two seats and no chance whose settings the table `runs` has; the first moves of a game and the lengths
of its searches must be those that its seed draws, too. Where two moves are as good as equal, rounding decides: a search
that comes out otherwise is made again with numbers moved by up to 1e-5, and false is what none of these finds. If that
happens to many games of a run, its random numbers were drawn otherwise than here, and nothing is said of it.

The log-probability of every drawn token is computed again, by language models of the Llama family (llama, qwen2,
smollm3) whose weights are whole: SPOKEN_EXACTLY apart at most, for those that spoke in bfloat16 SPOKEN_ROUGHLY, or
SPOKEN_ROOM times as far as bfloat16 moves them. Adapters, other models and what vLLM generated are not weighed.

verify_corpus.py checks all else.

Exit codes: 0 all that could be computed again is as recorded; 1 something is not; 2 it cannot be read.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys

import pyarrow as pa

from selfplay.store.release.verifier.games import Rules
from selfplay.store.release.verifier.held import Weights
from selfplay.store.release.verifier.rows import MOST_CERTIFICATE_BYTES, MOST_FILE_BYTES, Row
from selfplay.store.release.verifier.table import (
    certificate_of,
    located,
    opened,
    read,
    refuse_outside,
    rows_of,
    shown,
    side_table,
)
from selfplay.store.release.verifier.weighed import Weighing


def weigh(corpus: str, certificate: Row, weights: Weights, searches: int, sample: int | None, seed: int) -> Weighing:
    """Weighs all rows of the released version, or a sample."""
    table = opened(f"{corpus}/episodes", certificate["table_version"])
    refuse_outside(table)
    schema = pa.schema(table.schema().to_arrow())
    files = sorted(pa.table(table.get_add_actions(flatten=True)).to_pylist(), key=lambda file: str(file["path"]))
    total, rng = sum(file["num_records"] for file in files), random.Random(seed)
    drawn = None if sample is None else set(rng.sample(range(total), min(sample, total)))
    found = Weighing(Rules(certificate), weights, side_table(corpus, "runs"), searches, rng)
    before = 0
    for number, file in enumerate(files):
        chosen = None if drawn is None else {i - before for i in drawn if before <= i < before + file["num_records"]}
        before += file["num_records"]
        if chosen is not None and not chosen:
            continue
        partition = {key.removeprefix("partition."): file[key] for key in file if key.startswith("partition.")}
        for row in rows_of(read(f"{corpus}/episodes", file["path"], MOST_FILE_BYTES), partition, schema, chosen):
            found.row(row)
        if sys.stderr.isatty():
            print(f"\r{number + 1:,} of {len(files):,} files", end="", file=sys.stderr)
    found.finish()
    return found


def main() -> int:
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description="Checks that the nets of a release said what it records.")
    parser.add_argument("corpus", nargs="?", default=os.path.dirname(os.path.dirname(here)), help="folder or s3://...")
    parser.add_argument("--certificate", default=os.path.join(here, "certificate.json"), help="default: beside me")
    parser.add_argument("--weights", action="append", default=[], metavar="FOLDER",
                        help="besides those that the release carries; may be repeated")  # fmt: skip
    parser.add_argument("--sample", type=int, metavar="N", help="only N episodes, drawn evenly")
    parser.add_argument("--searches", type=int, default=20, metavar="N", help="make N searches again (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    parser.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.parse_args()
    try:
        folder, _, name = located(asked.certificate).rpartition("/")
        certificate, corpus = certificate_of(read(folder, name, MOST_CERTIFICATE_BYTES)), located(asked.corpus)
        places = (folder, f"{corpus}/released/{certificate['release']}")
        weights = Weights(asked.weights, side_table(corpus, "policies"), places, certificate["release_files"])
        if not weights.files:
            raise ValueError("the release carries no weights; --weights FOLDER says where they are")
        found = weigh(corpus, certificate, weights, asked.searches, asked.sample, asked.seed)
    except Exception as error:
        print(f"cannot be read: {shown((str(error) or type(error).__name__).splitlines()[0])}", file=sys.stderr)
        return 2
    counts = {"weighed": len(found.good), "decisions": found.decisions, "searches": found.made,
              "repeated": found.repeated, "tokens": found.tokens, "versions": len(weights.files)}  # fmt: skip
    if asked.json:
        lies = [{"subject": subject, "reason": reason} for subject, reason in found.lies.items()]
        print(json.dumps({**counts, "falsehoods": lies, "missing": dict(found.missing)}))
    else:
        for subject, reason in found.lies.items():
            print(f"false {shown(subject)}: {shown(reason)}")
        for reason, count in found.missing.items():
            print(f"not weighed ({count:,}): {shown(reason)}")
        said = "{weighed:,} episodes are as their weights say: {decisions:,} decisions and {tokens:,} tokens; of "
        print((said + "{searches:,} searches, made again, {repeated:,} are the same").format(**counts))
    return 1 if found.lies else 0


if __name__ == "__main__":
    sys.exit(main())
