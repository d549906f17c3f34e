"""A small release, and what the one-file verifier says of it, for tests of releases and of proofs."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any

import pyspiel
import pytest

from selfplay import signing, store
from selfplay.environments import registry
from selfplay.environments.playthrough import ruleset_digest
from selfplay.episode import Episode, Provenance, random_episode, to_batch
from selfplay.store import release as releases
from selfplay.store.release.verifier import program

NODES = 9


def episode(number: int) -> Episode:
    spec = registry.find("tic_tac_toe")
    origin = Provenance("run", spec.id, spec.version, ruleset_digest(spec), None, "0.1.0", "here", "CC0-1.0")
    game = pyspiel.load_game("tic_tac_toe")
    return random_episode(game, number, origin, slot="a", epoch=1000, number=number)


def archive(uri: str, episodes: list[Episode]) -> store.Corpus:
    committer = store.Committer(uri, "run", 1)
    committer.register("a")
    committer.commit([store.write_block(uri, to_batch(episodes), "a", 1000, 0)])
    now = datetime(2026, 1, 2, 3, 4, 5, 678, UTC)
    store.append(uri, "runs", [{"run_id": "run", "epoch": 1, "started_at": now, "env_id": "tic_tac_toe-v0"}])
    store.append(uri, "policies", [{"policy_id": "run", "version": 0, "digest": "d" * 64, "run_id": "run"}])
    return store.open(uri)


def alone(uri: str, monkeypatch: pytest.MonkeyPatch, capsys: Any, *words: str, name: str = "first") -> dict[str, Any]:
    """What the one-file verifier says; `code` is its exit code."""
    words = (uri, "--certificate", f"{uri}/released/{name}/certificate.json", *words) if uri else words
    monkeypatch.setattr(sys, "argv", ["verify_corpus.py", *words, "--json"])
    capsys.readouterr()
    code = program.main()
    out, err = capsys.readouterr()
    return {"code": code, "err": err, **(json.loads(out) if out else {})}


def made(uri: str) -> str:
    """Makes a corpus with a signed release, `first`, and an unsigned one, `bare`."""
    corpus = archive(uri, [episode(n) for n in range(NODES)])
    releases.release(corpus, "first", "To test with.", key=signing.make)
    releases.release(corpus, "bare")
    return uri
