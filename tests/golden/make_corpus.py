"""Writes the golden corpus of the present schema version: python tests/golden/make_corpus.py

Once for each version, before a change that raises it. What is there is never written again: later versions must read
what earlier ones wrote, not what they would write today.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from selfplay import store
from selfplay.environments import registry
from selfplay.environments.game import load
from selfplay.environments.playthrough import ruleset_digest
from selfplay.episode import Episode, Provenance
from selfplay.episode.schema import SCHEMA_VERSION
from selfplay.play.generator import Generator, PlaySettings, Policy
from selfplay.search import SearchConfig
from selfplay.search.hash_net import HashNet
from selfplay.store.corpus.annotations import Label, annotate
from selfplay.store.table.closings import Ledger
from selfplay.store.table.maintenance import compact

HERE = Path(__file__).parent
#: Rules that come with OpenSpiel: the corpus stays checkable whatever becomes of our own environments.
REFERENCE = "openspiel:tic_tac_toe"


def games(epoch: int) -> list[Episode]:
    spec = registry.find(REFERENCE)
    game = load(spec)
    provenance = Provenance(
        "golden", spec.id, spec.version, ruleset_digest(spec), "b" * 64, "0.1.0", "a-host", "CC0-1.0", "c" * 40
    )
    settings = PlaySettings(slots=4, simulations=8, opening_fraction=0.5, opening_plies=2, ply_limit=7)
    net = HashNet(game.num_actions, value_range=1.0)
    one = Generator(game, net, SearchConfig(), settings, provenance, "p0", epoch, 0, np.random.default_rng(0))
    one.set_policy(Policy("golden", 3, "d" * 64))
    return one.play(lambda sealed, _: sealed >= 12) + one.abort()


def others(epoch: int) -> list[list[Episode]]:
    """A dialogue that was judged, one whose verifier failed, and a walk in a control environment."""
    turns = [
        {"seat": 0, "role": "user", "parent": None, "suffix_ids": [1, 2], "token_ids": [], "logprobs": None,
         "loss_mask": [], "finish_reason": None, "text": "2 + 2 = ?"},
        {"seat": 0, "role": "assistant", "parent": 0, "suffix_ids": [3], "token_ids": [4, 5], "logprobs": [-0.5, -1.25],
         "loss_mask": [True, True], "finish_reason": "stop", "text": "It is 4, naturally – 四."},
    ]  # fmt: skip
    criterion = {"criterion": "answer", "verifier_id": "sums", "verifier_version": "1", "score": 1.0, "low": 0.0,
                 "high": 1.0, "reason": "equal"}  # fmt: skip
    judged = {"seat": 0, "state": "accepted", "reward": 1.0, "error": None, "criteria": [criterion]}
    failed = {"seat": 0, "state": "unverifiable", "reward": None, "error": "sandbox lost", "criteria": []}
    reasoning = {
        "problem_seed": 7, "difficulty": 1.0, "problem_digest": "e" * 64, "group_id": "g", "sample_index": 0,
        "tokenizer": "bytes", "temperature": 1.0, "top_k": None, "top_p": None, "answer": "4", "turns": turns,
    }  # fmt: skip
    control = {
        "observation_shape": [2], "action_shape": [], "observations": [0.0, 1.0, 0.5, 0.25], "actions": [1.0],
        "rewards": [-1.0], "logprobs": None,
    }  # fmt: skip
    said = Provenance("golden", "sums-v0", 0, "f" * 64, "b" * 64, "0.1.0", "a-host", "CC0-1.0", None, "cot_rl")
    walked = Provenance("golden", "walk-v0", 0, "f" * 64, "b" * 64, "0.1.0", "a-host", "CC0-1.0")
    dialogues = [
        Episode(said, "t0", epoch, 0, "ok", True, 1, (1.0,), 7, 10**15, 5, reasoning=reasoning, verdicts=(judged,)),
        Episode(
            said, "t0", epoch, 1, "error", False, 1, None, 8, 10**15, 6, reasoning=reasoning, verdicts=(failed,),
            error=("sandbox", "lost"), parents=((f"golden/t0/{epoch}/0", "retry"),),
        ),
    ]  # fmt: skip
    walks = [Episode(walked, "c0", epoch, 0, "truncated", True, 1, (-1.0,), 9, 10**15, 7, control=control)]
    return [dialogues, walks]


def main() -> None:
    place = HERE / f"corpus_v{SCHEMA_VERSION}"
    if place.exists():
        sys.exit(f"{place} is there already, and must never change")
    uri = str(place)
    committer = store.Committer(uri, "golden", 1)
    epochs = {slot: committer.register(slot).epoch for slot in ("p0", "t0", "c0")}
    played = games(epochs["p0"])
    writers = {slot: store.Writer(uri, slot, epoch) for slot, epoch in epochs.items()}
    ledger = Ledger()
    dialogues, walks = others(epochs["t0"])
    for slot, part in (("p0", played[:8]), ("p0", played[8:]), ("t0", dialogues), ("c0", walks)):
        block, _ = writers[slot].write(part)
        (receipt,) = committer.commit([block])
        ledger.archived(block, receipt)
    config = {
        "search": {"algorithm": "gumbel", "c_visit": 50.0, "c_scale": 0.2},
        "learner": {"z_weight": 0.5, "q_weight": 0.5},
        "selfplay": {"truncated_value_weight": 0.5},
    }
    store.append(uri, "runs", [{"run_id": "golden", "epoch": 1, "config": json.dumps(config)}])
    store.append(uri, "policies", [{"policy_id": "golden", "version": 3, "digest": "d" * 64, "run_id": "golden"}])
    annotate(uri, [Label(played[0].episode_id, "read_by_hand", True)], "the authors", "by hand")
    store.append(uri, "closings", [ledger.closing("golden", 1, "finished", 0)])
    compact(uri)
    rows = store.open(uri).to_arrow(columns=["episode_id", "content_digest"]).sort_by("episode_id").to_pylist()
    digests = {row["episode_id"]: row["content_digest"] for row in rows}
    (place / "digests.json").write_text(json.dumps(digests, indent=1) + "\n")


if __name__ == "__main__":
    main()
