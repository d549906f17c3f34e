"""Edits of the side tables: what they make of the episodes that they speak of.

A victim is the index of a row of the table. What no episode contradicts is caught by the signature of a release, whose
certificate holds a digest of every row.
"""

from __future__ import annotations

from datetime import timedelta

from tests.tampering.cases import CHAIN, FALSE, FREELY, SIGNATURE, TRUE, Case, put

_SIGNED = [
    "environments.game_string", "environments.package", "environments.package_version", "environments.source_digest",
    "environments.source", "environments.licence", "environments.added_at", "runs.run_uri", "policies.run_id",
    "policies.parent_digest", "policies.training_steps", "policies.training_samples", "policies.uri", "policies.net",
    "policies.metrics", "releases.name", "releases.table_version", "releases.created_at", "releases.note",
    "releases.certificate", "tokenizers.digest", "tokenizers.files", "tokenizers.added_at",
]  # fmt: skip
_SAID = [f"annotations.{name}" for name in "episode_id step name value author source recorded_at".split()]
_SAID += [
    "uses.run_id", "uses.version_in", "uses.digest_in", "uses.version_out", "uses.digest_out", "uses.first_step",
    "uses.last_step", "uses.table_version", "uses.events[].what", "uses.events[].table_version", "uses.events[].slot",
    "uses.events[].epoch", "uses.events[].first", "uses.events[].last", "uses.events[].first_step",
    "uses.events[].last_step", "uses.sampler", "uses.code_commit", "uses.episodes[]", "uses.recorded_at",
]  # fmt: skip

#: What says where the chains of writers end: tests/unit/test_chain.py edits each, against chains in files. What is no
#: part of a chain (how a driver ended, what was lost, when) only the signature tells.
_CHAINED = [
    *(f"closings.{name}" for name in "run_id epoch table_version episodes".split()),
    *(f"closings.writers[].{name}" for name in "slot epoch episodes head".split()),
    *(f"deletions.{name}" for name in "run_id episodes".split()),
    *(f"deletions.writers[].{name}" for name in "slot epoch first last head".split()),
]
_SIGNED += [
    *(f"closings.{name}" for name in "how aborted lost writers[].aborted closed_at".split()),
    *(f"deletions.{name}" for name in "table_version reason command deleted_at".split()),
]

#: Columns of side tables that no episode depends on: their edits leave every episode as it was.
LEFT = {name: SIGNATURE for name in _SIGNED} | {name: FREELY for name in _SAID} | {name: CHAIN for name in _CHAINED}

CASES = [
    Case("environments.env_id", "0", put("env_id", "other-v0"), FALSE, TRUE, "the table of environments has no"),
    Case("environments.ruleset_digest", "0", put("ruleset_digest", "0" * 64), FALSE, TRUE, "the table of environments"),
    Case("runs.run_id", "0", put("run_id", "other"), TRUE, TRUE, caught=SIGNATURE),
    Case("runs.epoch", "0", put("epoch", 7), FALSE, TRUE, "has no driver 1"),
    Case("runs.started_at", "0", put("started_at", lambda time: time + timedelta(days=2)), FALSE, TRUE, "before its"),
    Case("runs.env_id", "0", put("env_id", "hex-v0"), FALSE, TRUE, "its env_id is"),
    Case("runs.config", "0", put("config", lambda text: text.replace('"simulations": 8', '"simulations": 9')), FALSE,
         TRUE, "does not have its digest"),
    Case("runs.config", "0", put("config", "[" * 10**5), FALSE, TRUE, "is no JSON"),
    Case("runs.config_digest", "0", put("config_digest", "0" * 64), FALSE, TRUE, "does not have its digest"),
    Case("runs.code_commit", "0", put("code_commit", "d" * 40), FALSE, TRUE, "its code_commit is"),
    Case("runs.package_version", "0", put("package_version", "9.9"), FALSE, TRUE, "its package_version is"),
    Case("runs.host", "0", put("host", "elsewhere"), TRUE, TRUE, caught=SIGNATURE),
    Case("policies.policy_id", "0", put("policy_id", "other"), FALSE, TRUE, "has no version 1"),
    Case("policies.version", "0", put("version", 9), FALSE, TRUE, "has no version 1"),
    Case("policies.digest", "0", put("digest", "d" * 64), FALSE, TRUE, "has no version 1"),
    Case("policies.created_at", "0", put("created_at", lambda time: time + timedelta(days=2)), FALSE, TRUE,
         "was published"),
]  # fmt: skip
