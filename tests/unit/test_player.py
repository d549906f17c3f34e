"""What a player seals, it writes: at once, or later with what it sealed meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from selfplay import store
from selfplay.actors.player import Player, PlayerJob
from selfplay.actors.weights import Published
from selfplay.environments import registry
from selfplay.environments.game import load
from selfplay.environments.playthrough import ruleset_digest
from selfplay.episode import Provenance
from selfplay.nets import NetConfig, build, to_arrays
from selfplay.play.generator import PlaySettings
from selfplay.store.verify.verify import verify_corpus
from trainers.alphazero.actors import net_config, search_config
from trainers.recipe import load_recipe


@pytest.fixture
def committer(tmp_path: Path) -> store.Committer:
    return store.Committer(str(tmp_path), "run", 1)


@pytest.fixture
def player(committer: store.Committer) -> Player:
    """One of tic-tac-toe that plays four games at once, with an untrained net."""
    config = load_recipe("tic_tac_toe", ["net.hidden=16"])
    spec = registry.find("tic_tac_toe")
    provenance = Provenance("run", spec.id, spec.version, ruleset_digest(spec), "b" * 64, "0", "here", "CC0-1.0")
    slot = committer.register("p0000")
    job = PlayerJob(
        env=registry.pack(spec), net=net_config(config, load(spec)).to_json(), search=search_config(config),
        play=PlaySettings(slots=4, simulations=2), provenance=provenance, corpus=committer.corpus_uri, policy_id="run",
        slot=slot.slot, epoch=slot.epoch, first_number=0, first_block=0, seed=(0,), dtype="float32",
        backend="auto", device="cpu",
        threads=1, measure=False,
    )  # fmt: skip
    return Player(job, None)


def test_what_is_kept_is_in_flight_and_written_with_the_next(player: Player, committer: store.Committer) -> None:
    kept, batch = player.play(1_000, None, 3, write=False)
    assert kept.block is None and kept.episodes == kept.archived_decisions == batch.num_rows == 0
    games, plies = kept.in_flight
    assert games >= 4 + 3 and plies >= 3 * 5  # no game of tic-tac-toe ends before the fifth move
    report, batch = player.play(1_000, None, 3)
    assert report.block is not None and report.episodes == batch.num_rows >= 6
    assert report.in_flight[0] == 4
    last, _ = player.finish()
    assert last.in_flight == (0, 0)
    committer.commit([one for one in (report.block, last.block) if one is not None])
    corpus = store.open(committer.corpus_uri)
    assert sorted(corpus.to_arrow()["number"].to_pylist()) == list(range(report.episodes + last.episodes))
    assert all(check.state == "true" for check in verify_corpus(corpus))


def test_a_player_has_the_newest_weights_also_where_the_server_knows_of_none(player: Player) -> None:
    class AtHand(Published):
        def fetch(self) -> dict[str, Any]:
            return to_arrays(build(NetConfig.from_json(player._job.net), 5))

    def played(number: int) -> set[tuple[str, int, str]]:
        _, batch = player.play(1_000, None, 3, newest=AtHand(number, f"{number:064d}", [], ""))
        return {(one["policy_id"], one["version"], one["digest"]) for spans in batch["policy_spans"].to_pylist()
                for one in spans if one["policy_id"] != "random"}  # fmt: skip

    assert played(7) == {("run", 7, f"{7:064d}")}
    assert ("run", 7, f"{7:064d}") in played(6)  # and not an older one


def test_searches_under_way_end_before_new_weights_come(player: Player) -> None:
    """None of them is made twice, their moves are the older version's, and they are counted."""

    class AtHand(Published):
        def fetch(self) -> dict[str, Any]:
            return to_arrays(build(NetConfig.from_json(player._job.net), self.version))

    made = rows = 0
    for version in range(1, 5):
        report, batch = player.play(7, None, newest=AtHand(version, f"{version:064d}", [], ""))
        made += report.decisions
        rows += report.archived_decisions
    left = player.finish()[0]
    assert player._generator.search.stats.wasted == 0
    assert made == rows + left.archived_decisions > 4 * 7  # the calls counted what they ended for others, too


def test_the_end_writes_what_was_kept(player: Player) -> None:
    player.play(1_000, None, 3, write=False)
    report, batch = player.finish()
    statuses = batch.column("status").to_pylist()
    assert report.episodes == len(statuses) and statuses.count("ok") >= 3


def test_notice_writes_everything(player: Player, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    player.play(1_000, None, 3, write=False)
    (tmp_path / "notice").touch()
    monkeypatch.setenv("SELFPLAY_NOTICE", str(tmp_path / "notice"))
    report, batch = player.play(1_000, None, write=False)
    assert report.leaving and report.in_flight == (0, 0)
    assert {"ok", "aborted"} <= set(batch.column("status").to_pylist())
