"""Where an episode comes from, and what became of it: both ways along weights, from the tables of the corpus alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from selfplay.errors import UserError
from selfplay.io import storage
from selfplay.store.table.snapshot import Snapshot


@dataclass(frozen=True)
class WeightsOrigin:
    """A published policy. kept: whether its bytes are still where `uri` says; None where it says nothing, or where
    nobody has looked.

    parents: digests that it was trained from, the nearest first. steps: (first, last) that made it of the nearest, or
    None where the table of uses says nothing. episodes: how many it played in, as far as this version of the corpus has
    them.
    """

    policy_id: str
    version: int
    digest: str
    run_id: str
    uri: str | None
    kept: bool | None
    training_steps: int
    training_samples: int
    parents: tuple[str, ...]
    steps: tuple[int, int] | None
    episodes: int


@dataclass(frozen=True)
class EpisodeOrigin:
    """An episode's environment, code, seed, and who played which steps (`spans`: rows of `policy_spans`).

    learned_by: versions of the run's net: the first published after it had come into the window, and the newest that
    is known; `trainers.alphazero.provenance` tells which of them sampled it. None where no learner took it in as it was
    archived.
    """

    episode_id: str
    run_id: str
    env_id: str
    ruleset_digest: str
    seed: int
    code_commit: str | None
    config_digest: str
    package_version: str
    parents: tuple[dict[str, str], ...]
    spans: tuple[dict[str, Any], ...]
    learned_by: tuple[int, int] | None


def of_episode(corpus: Snapshot, episode_id: str) -> EpisodeOrigin:
    """Raises `UserError` if the episode is not in this version of the corpus."""
    episode = corpus.get(episode_id)
    p = episode.provenance
    rows = [row for row in corpus.rows("uses") if row["run_id"] == p.run_id]
    rows = [row for row in rows if row["version_out"] is not None]
    learned = sorted(row["version_out"] for row in rows if _came_in(row, episode.slot, episode.epoch, episode.number))
    return EpisodeOrigin(
        episode_id=episode.episode_id,
        run_id=p.run_id,
        env_id=p.env_id,
        ruleset_digest=p.ruleset_digest,
        seed=episode.seed,
        code_commit=p.code_commit,
        config_digest=p.config_digest,
        package_version=p.package_version,
        parents=tuple({"episode_id": parent, "relation": relation} for parent, relation in episode.parents),
        spans=tuple(asdict(span) for span in episode.policy_spans),
        learned_by=(learned[0], max(row["version_out"] for row in rows)) if learned else None,
    )


def _came_in(row: dict[str, Any], slot: str, epoch: int, number: int) -> bool:
    return any(
        event is not None
        and event["what"] == "add"
        and (event["slot"], event["epoch"]) == (slot, epoch)
        and None not in (event["first"], event["last"])
        and event["first"] <= number <= event["last"]
        for event in row["events"] or ()
    )


def of_weights(corpus: Snapshot, digest: str, run_uri: str | None = None, elsewhere: bool = False) -> WeightsOrigin:
    """digest: of the weights, or its first characters (8 or more). Raises `UserError` where none or several fit.

    Whether they are still there is only looked for in the corpus, in the run's folder around it and in `run_uri`: a
    corpus may be a stranger's, and name any place. elsewhere: look there, too.
    """
    policies = [row for row in corpus.rows("policies") if row["digest"] is not None]
    made: dict[str, dict[str, Any]] = {}
    for policy in sorted(policies, key=_says_less):
        made.setdefault(policy["digest"], policy)
    fitting = [known for known in made if len(digest) >= 8 and known.startswith(digest)]
    if len(fitting) != 1:
        what = "no weights have" if not fitting else f"{len(fitting)} weights have"
        raise UserError(f"{what} a digest that begins with {digest!r} in the corpus at {corpus.uri}")
    row = made[fitting[0]]
    parents = dict[str, None]()  # an ordered set
    parent = row["parent_digest"]
    while parent and parent != row["digest"] and parent not in parents:
        parents[parent] = None
        parent = made.get(parent, {}).get("parent_digest")
    uses = [use for use in corpus.rows("uses") if use["digest_out"] == row["digest"]]
    steps = next(((use["first_step"], use["last_step"]) for use in uses if use["first_step"] is not None), None)
    return WeightsOrigin(
        policy_id=row["policy_id"],
        version=row["version"],
        digest=row["digest"],
        run_id=row["run_id"],
        uri=row["uri"],
        kept=_kept(row["uri"], [corpus.uri, corpus.uri.removesuffix("/corpus"), run_uri or corpus.uri], elsewhere),
        training_steps=row["training_steps"] or 0,
        training_samples=row["training_samples"] or 0,
        parents=tuple(parents),
        steps=steps,
        episodes=_played(corpus, row["run_id"], row["digest"]),
    )


def _says_less(policy: dict[str, Any]) -> tuple[bool, int]:
    """Orders rows of the same weights: first the version by which they came to be.

    A driver that goes on from a checkpoint may publish the same weights again: their parent is then they themselves.
    """
    return policy["parent_digest"] in (None, policy["digest"]), policy["version"] or 0


def _kept(uri: str | None, near: list[str], elsewhere: bool) -> bool | None:
    if not uri:
        return None
    if not elsewhere and not any(storage.is_below(uri, place) for place in near):
        return None
    return storage.exists(uri)


def _played(corpus: Snapshot, run_id: str, digest: str) -> int:
    count = 0
    for batch in corpus.episodes(pc.field("run_id") == run_id, ["policy_spans"]):
        spans = batch.column("policy_spans")
        digests = pc.struct_field(pc.list_flatten(spans), "digest")
        row = pc.list_parent_indices(spans)
        mine = pc.fill_null(pc.equal(digests, pa.scalar(digest)), False)
        count += len(pc.unique(pc.filter(row, mine)))
    return count
