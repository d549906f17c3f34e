"""A proof that one episode is in a release, as `selfplay corpus prove` writes it: checked without the release."""

from __future__ import annotations

import json
import re
import struct
from typing import Any

import pyarrow as pa

from selfplay.store.release.verifier.rows import COLUMNS, Lie, Row, content_digest
from selfplay.store.release.verifier.signed import leaf, root_above, signer
from selfplay.store.release.verifier.table import shown

DIGEST = re.compile(r"[0-9a-f]{64}")
MOST_PROOF_BYTES, MOST_PATH = 64 * 2**20, 64
PROOF_FORMAT = "selfplay-factory proof 1"
#: What the columns of a row hold, here where no table tells: "whole" also of booleans, and of times in microseconds.
WHOLE, FLOAT, TEXT = "whole", "float", "text"
SPAN = {"seat": WHOLE, "first_step": WHOLE, "last_step": WHOLE, "policy_id": TEXT, "version": WHOLE, "digest": TEXT}
CRITERION = {"criterion": TEXT, "verifier_id": TEXT, "verifier_version": TEXT, "score": FLOAT, "low": FLOAT,
             "high": FLOAT, "reason": TEXT}  # fmt: skip
VERDICT = {"seat": WHOLE, "state": TEXT, "reward": FLOAT, "error": TEXT, "criteria": [CRITERION]}
CANDIDATE = {"action": WHOLE, "visits": WHOLE, "prior": WHOLE, "q": WHOLE}
STEP = {"seat": WHOLE, "action": WHOLE, "joint": [WHOLE], "source": TEXT, "simulations": WHOLE, "full_search": WHOLE,
        "root_value": WHOLE, "raw_value": WHOLE, "surprise": FLOAT, "seat_values": [FLOAT],
        "candidates": [CANDIDATE]}  # fmt: skip
GAME = {"game_string": TEXT, "value_scale": FLOAT, "replay_digest": TEXT, "ended_by": TEXT, "resigned_seat": WHOLE,
        "would_have_resigned_seat": WHOLE, "played_on_after_resignation": WHOLE, "steps": [STEP]}  # fmt: skip
TURN = {"seat": WHOLE, "role": TEXT, "parent": WHOLE, "suffix_ids": [WHOLE], "token_ids": [WHOLE],
        "logprobs": [FLOAT], "loss_mask": [WHOLE], "finish_reason": TEXT, "text": TEXT}  # fmt: skip
REASONING = {"problem_seed": WHOLE, "difficulty": FLOAT, "problem_digest": TEXT, "group_id": TEXT,
             "sample_index": WHOLE, "tokenizer": TEXT, "temperature": FLOAT, "top_k": WHOLE, "top_p": FLOAT,
             "answer": TEXT, "turns": [TURN]}  # fmt: skip
CONTROL = {"observation_shape": [WHOLE], "action_shape": [WHOLE], "observations": [FLOAT], "actions": [FLOAT],
           "rewards": [FLOAT], "logprobs": [FLOAT]}  # fmt: skip
SHAPES: dict[str, Any] = {
    **dict.fromkeys("schema_version epoch number trainable env_version seed started_at wall_ms seats n_steps".split(),
                    WHOLE),
    **dict.fromkeys("episode_id kind run_id slot status origin licence env_id ruleset_digest code_commit config_digest "
                    "package_version host previous_digest".split(), TEXT),
    "error": {"kind": TEXT, "message": TEXT}, "parents": [{"episode_id": TEXT, "relation": TEXT}], "returns": [FLOAT],
    "policy_spans": [SPAN], "verdicts": [VERDICT], "game": GAME, "reasoning": REASONING, "control": CONTROL,
}  # fmt: skip


def kind_of(shape: Any) -> pa.DataType:
    if isinstance(shape, dict):
        return pa.struct([(name, kind_of(inner)) for name, inner in shape.items()])
    if isinstance(shape, list):
        return pa.list_(kind_of(shape[0]))
    return {WHOLE: pa.int64(), FLOAT: pa.float64(), TEXT: pa.string()}[shape]


def fits(shape: Any, value: Any) -> bool:
    """Whether a value is what a column of that shape holds, with nothing beside it."""
    if value is None:
        return True
    if isinstance(shape, dict):
        same = isinstance(value, dict) and value.keys() == shape.keys()
        return same and all(fits(inner, value[name]) for name, inner in shape.items())
    if isinstance(shape, list):
        return isinstance(value, list) and all(fits(shape[0], one) for one in value)
    kinds: dict[str, Any] = {WHOLE: int, FLOAT: (float, int), TEXT: str}
    return isinstance(value, kinds[shape])


def row_of_proof_lies(row: Any, proof: Row) -> None:
    """Raises `Lie` unless the row is one of an episode, and has the id and the content digest of the proof."""
    names = {*COLUMNS, "previous_digest"} if isinstance(row, dict) and row.get("schema_version") != 1 else {*COLUMNS}
    if not isinstance(row, dict) or row.keys() != names or not fits(SHAPES, {**dict.fromkeys(SHAPES), **row}):
        raise Lie("its row does not have the columns of an episode")
    try:
        digest = content_digest(row, pa.schema([(name, kind_of(shape)) for name, shape in SHAPES.items()]))
    except (TypeError, ValueError, OverflowError, struct.error):
        raise Lie("its row is not an episode") from None
    if (digest, row["episode_id"]) != (proof["content_digest"], proof["episode_id"]):
        raise Lie("its row does not have its content digest, or is of another episode")


def proof_of(data: bytes) -> Row:
    """A proof that one episode is in a release, as `selfplay corpus prove` writes it. Raises `ValueError`."""
    try:
        found = json.loads(data)
    except RecursionError:
        raise ValueError("the proof is nested too deeply") from None
    kinds = {"format": str, "episode_id": str, "content_digest": str, "index": int, "path": list, "release": str,
             "table_version": int, "episodes": int, "merkle_root": str, "certificate_sha256": str}  # fmt: skip
    for name, kind in kinds.items():
        if not isinstance(found, dict) or type(found.get(name)) is not kind:
            raise ValueError(f"the proof has no field {name} that is {kind.__name__}")
    if found["format"] != PROOF_FORMAT:
        raise ValueError(f"the proof does not have the format {PROOF_FORMAT}")
    digests = [found["content_digest"], *found["path"]]
    if len(digests) > MOST_PATH + 1 or not all(isinstance(one, str) and DIGEST.fullmatch(one) for one in digests):
        raise ValueError("the proof's content digest and path are not at most 65 sha256 in hex")
    return dict(found)


def prove(proof: Row, wanted: str | None) -> str:
    """Checks a proof: its row, the way up to the root, the signature. What to say of it. Raises `Lie`."""
    if not 0 <= proof["index"] < proof["episodes"] < 1 << 63:
        raise Lie(f"a release of {proof['episodes']} episodes has none with the number {proof['index']}")
    row = proof.get("row")
    if row is not None:
        row_of_proof_lies(row, proof)
    start = leaf(proof["episode_id"], proof["content_digest"])
    path = [bytes.fromhex(one) for one in proof["path"]]
    if root_above(start, proof["index"], proof["episodes"], path).hex() != proof["merkle_root"]:
        raise Lie("its path leads to another Merkle root")
    said = signer(proof, proof["certificate_sha256"], proof.get("signature"), wanted)[1]
    content = f"the content digest {proof['content_digest']}" if row is None else "its row as given"
    return (f"{shown(proof['episode_id'])}, with {content}, is number {proof['index']:,} (from 0) of "
            f"{proof['episodes']:,} episodes of release {shown(proof['release'])}, Merkle root "
            f"{shown(proof['merkle_root'])}; {said}")  # fmt: skip
