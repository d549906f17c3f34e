"""The corpus as a torch dataset: every row once, whoever reads which part, and from where one stopped."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from selfplay import store
from selfplay.environments import registry
from selfplay.environments.game import load
from selfplay.episode import Episode, Provenance, to_batch
from selfplay.episode.training import TargetSettings, rows_from
from selfplay.errors import UserError
from selfplay.play.generator import Generator, PlaySettings
from selfplay.search import SearchConfig
from selfplay.search.hash_net import HashNet
from selfplay.store.corpus import torch_dataset as feeds
from selfplay.store.corpus.tokens import count_sequences, sequences_from
from selfplay.store.corpus.torch_dataset import Batch, Feed, _turns
from selfplay.store.export import export
from selfplay.store.table.maintenance import compact

GAME = load(registry.find("tic_tac_toe"))
TARGETS = TargetSettings("gumbel", 50.0, 0.2, z_weight=0.5, q_weight=0.25, truncated_weight=0.5)
CONFIG = {
    "search": {"algorithm": "gumbel", "c_visit": 50.0, "c_scale": 0.2},
    "learner": {"z_weight": 0.5, "q_weight": 0.25},
    "selfplay": {"truncated_value_weight": 0.5},
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> store.Corpus:
    """Ten files of some games each, by two slots."""
    uri = str(tmp_path_factory.mktemp("run") / "corpus")
    provenance = Provenance("run", "tic_tac_toe-v0", 0, "a" * 64, "b" * 64, "0.1.0", "here", "CC0-1.0")
    settings = PlaySettings(slots=8, simulations=8, opening_fraction=0.5, opening_plies=2, ply_limit=9)
    committer = store.Committer(uri, "run", 1)
    for slot in ("a", "b"):
        epoch = committer.register(slot).epoch
        rng = np.random.default_rng(ord(slot))
        net = HashNet(GAME.num_actions, value_range=1.0)
        one = Generator(GAME, net, SearchConfig(), settings, provenance, slot, epoch, 0, rng)
        for block in range(5):
            played = one.play(lambda sealed, _, least=4 + block: sealed >= least)
            committer.commit([store.write_block(uri, to_batch(played), slot, epoch, block)])
    store.append(uri, "runs", [{"run_id": "run", "epoch": 1, "config": json.dumps(CONFIG)}])
    return store.open(uri)


def rows_of(batches: Iterable[Batch]) -> list[tuple[bytes, ...]]:
    """Every row as bytes."""
    names = ("observation", "policy", "legal", "z", "q", "value", "value_weight")
    return [
        tuple(batch[name][i].numpy().tobytes() for name in names) for batch in batches for i in range(len(batch["z"]))
    ]


def test_rows_are_those_of_the_learner(corpus: store.Corpus) -> None:
    direct = rows_from(GAME, corpus.to_arrow().combine_chunks(), TARGETS)
    plain = [feeds._decisions(direct, GAME.num_actions)]
    batches = list(corpus.to_torch(batch=32))
    assert Counter(rows_of(batches)) == Counter(rows_of(plain))
    assert [len(batch["z"]) for batch in batches[:-1]] == [32] * (len(batches) - 1)
    first = batches[0]
    assert first["observation"].shape[1:] == GAME.encoder.shape and first["observation"].dtype == torch.float32
    assert torch.allclose(first["policy"].sum(1), torch.ones(32)) and not (first["policy"] * ~first["legal"]).any()
    mean = (0.5 * first["z"] + 0.25 * first["q"]) / 0.75
    assert torch.allclose(first["value"], mean, atol=1e-6)  # no truncated game: every z is known


def test_order_follows_from_seed_and_epoch(corpus: store.Corpus) -> None:
    one, other = corpus.to_torch(batch=16, seed=3), corpus.to_torch(batch=16, seed=3)
    first = rows_of(one)
    assert rows_of(one) == first == rows_of(other)
    one.set_epoch(1)
    assert rows_of(one) != first and Counter(rows_of(one)) == Counter(first)
    assert rows_of(corpus.to_torch(batch=16, seed=4)) != first
    unshuffled = rows_of(corpus.to_torch(batch=16, shuffle=False))
    assert unshuffled != first and unshuffled == rows_of(corpus.to_torch(batch=7, shuffle=False))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_share_without_overlap(corpus: store.Corpus, world: int) -> None:
    whole = Counter(rows_of(corpus.to_torch(batch=16)))
    parts = [rows_of(corpus.to_torch(batch=16, rank=rank, world=world, even=False)) for rank in range(world)]
    assert sum((Counter(part) for part in parts), Counter()) == whole
    even = [len(list(corpus.to_torch(batch=16, rank=rank, world=world))) for rank in range(world)]
    assert len(set(even)) == 1


def loaded(monkeypatch: pytest.MonkeyPatch, feed: Feed, workers: int) -> list[Batch]:
    """What a loader with so many workers gives: each in turn, who has none left is passed over."""
    given, state = [], (feed.epoch, feed._skip)
    for worker in range(workers):
        info = SimpleNamespace(id=worker, num_workers=workers)
        monkeypatch.setattr(feeds, "get_worker_info", lambda info=info: info)
        feed.epoch, feed._skip = state  # every worker has a copy of its own
        given.append(list(feed))
    return [part[i] for i in range(max(map(len, given))) for part in given if i < len(part)]


@pytest.mark.parametrize("workers", [1, 2, 3, 11])
def test_going_on_repeats_nothing_and_skips_nothing(
    corpus: store.Corpus, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = corpus.to_torch(batch=8, seed=1)
    alone = Counter(rows_of(feed))
    whole = loaded(monkeypatch, feed, workers)
    assert Counter(rows_of(whole)) == alone
    stops = {0, 1, 2, len(whole) - 1, len(whole), *range(3, len(whole), 13)}
    for batches in sorted(stops):  # from wherever it was stopped, as often as it was
        feed.load_state_dict({"epoch": 0, "batches": batches})
        feed.set_epoch(0)  # as a loop over epochs does
        assert rows_of(loaded(monkeypatch, feed, workers)) == rows_of(whole[batches:])


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_a_loader_with_processes(corpus: store.Corpus, how: str) -> None:
    feed = corpus.to_torch(batch=16)
    loader = DataLoader(feed, batch_size=None, num_workers=2, multiprocessing_context=how)
    batches = list(loader)
    assert Counter(rows_of(batches)) == Counter(rows_of(feed))
    feed.load_state_dict({"epoch": 0, "batches": 3})
    assert rows_of(batches[3:]) == rows_of(loader)


def test_where_it_stands(corpus: store.Corpus) -> None:
    feed = corpus.to_torch(batch=8)
    for count, _ in enumerate(feed, 1):
        assert feed.state_dict() == {"epoch": 0, "batches": count}
        if count == 4:
            break


@given(st.lists(st.integers(0, 6), min_size=1, max_size=5), st.integers(0, 40))
def test_turns(batches: list[int], count: int) -> None:
    given_, left = [0] * len(batches), count
    while left and any(g < most for g, most in zip(given_, batches, strict=True)):
        for worker, most in enumerate(batches):
            if given_[worker] < most and left:
                given_[worker], left = given_[worker] + 1, left - 1
    assert _turns(batches, count) == given_


def test_a_feed_survives_compaction_and_reads_its_version(corpus: store.Corpus) -> None:
    before = corpus.to_torch(batch=16)
    rows = rows_of(before)
    compact(corpus.uri)
    assert rows_of(before) == rows
    after = store.open(corpus.uri).to_torch(batch=16)
    assert len(after.chunks) < len(before.chunks) and Counter(rows_of(after)) == Counter(rows)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": "control"}, "cannot be fed"),
        ({"env_id": "go-v0"}, "say which: tic_tac_toe-v0"),
        ({"rank": 2, "world": 2}, "out of range"),
    ],
)
def test_refused(corpus: store.Corpus, options: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        corpus.to_torch(**options)


def test_a_run_that_does_not_say_how_it_searched(corpus: store.Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "targets_of", lambda corpus: feeds.Targets())
    with pytest.raises(UserError, match="does not say how run run searched"):
        next(iter(corpus.to_torch()))
    assert len(next(iter(corpus.to_torch(targets=TARGETS, batch=8)))["z"]) == 8


def test_a_run_of_an_unknown_algorithm_is_not_taught_as_another() -> None:
    configs = [CONFIG, {**CONFIG, "search": {**CONFIG["search"], "algorithm": "third"}}]
    rows = [
        {"run_id": f"run{i}", "epoch": 1, "config": json.dumps(one), "config_digest": None}
        for i, one in enumerate(configs)
    ]
    told = SimpleNamespace(rows=lambda name: rows)
    assert set(feeds.targets_of(told).by_run) == {"run0"}  # type: ignore[arg-type]


def digest_of(config: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def test_a_run_that_went_on_with_other_settings_has_targets_of_both(tmp_path: Path) -> None:
    """Each game's are those of the configuration under which it was played, in a feed and in an export."""
    uri = str(tmp_path / "corpus")
    learner, search = {"z_weight": 0.0, "q_weight": 1.0}, {**CONFIG["search"], "algorithm": "puct"}
    configs = [CONFIG, {**CONFIG, "search": search, "learner": learner}]
    expected: Counter[tuple[bytes, ...]] = Counter()
    for epoch, config in enumerate(configs, 1):
        committer = store.Committer(uri, "run", epoch)
        writer, digest = committer.register("a").epoch, digest_of(config)
        provenance = Provenance("run", "tic_tac_toe-v0", 0, "a" * 64, digest, "0.1.0", "here", "CC0-1.0")
        net, rng = HashNet(GAME.num_actions, value_range=1.0), np.random.default_rng(epoch)
        settings = PlaySettings(slots=4, simulations=8, ply_limit=9)
        one = Generator(GAME, net, SearchConfig(), settings, provenance, "a", writer, 0, rng)
        played = to_batch(one.play(lambda sealed, _: sealed >= 4))
        committer.commit([store.write_block(uri, played, "a", writer, 0)])
        row = {"run_id": "run", "epoch": epoch, "config": json.dumps(config, indent=2), "config_digest": digest}
        store.append(uri, "runs", [row])
        own = TargetSettings("gumbel", 50.0, 0.2, 0.5, 0.25, 0.5), TargetSettings("puct", 50.0, 0.2, 0.0, 1.0, 0.5)
        expected += Counter(rows_of([feeds._decisions(rows_from(GAME, played, own[epoch - 1]), GAME.num_actions)]))
    compact(uri)
    corpus = store.open(uri)
    assert len(corpus.files()) == 1 and Counter(rows_of(corpus.to_torch(batch=16))) == expected
    export(corpus, "npz", str(tmp_path / "out"))
    parts = [np.load(path) for path in sorted((tmp_path / "out").glob("*.npz"))]
    assert sum(len(part["z"]) for part in parts) == expected.total()
    assert [set(part["z_weight"].tolist()) for part in parts] == [{0.5}, {0.0}]
    assert all(np.isfinite(part["z"]).all() for part in parts), "an outcome is one, however much it counts"
    changed = {**CONFIG, "search": {**CONFIG["search"], "c_scale": 20.0}}
    row = {"run_id": "run", "epoch": 3, "config": json.dumps(changed), "config_digest": digest_of(CONFIG)}
    store.append(uri, "runs", [row])
    with pytest.raises(UserError, match="configuration of run run .* is not the one whose digest it names"):
        store.open(uri).to_torch()
    assert rows_of(store.open(uri).to_torch(targets=TARGETS))


# Reasoning: tokens and masks.


def turn(seat: int, role: str, parent: int | None, suffix: list[int], own: list[int], learn: bool) -> dict[str, object]:
    logprobs = [-0.5 * token for token in own] if role == "assistant" else None
    return {
        "seat": seat, "role": role, "parent": parent, "suffix_ids": suffix, "token_ids": own, "logprobs": logprobs,
        "loss_mask": [learn] * len(own), "finish_reason": "stop", "text": "",
    }  # fmt: skip


def test_reasoning_becomes_lines_of_tokens(tmp_path_factory: pytest.TempPathFactory) -> None:
    uri = str(tmp_path_factory.mktemp("cot") / "corpus")
    turns = [
        turn(0, "user", None, [1, 2], [], False),
        turn(0, "assistant", 0, [3], [4, 5], True),
        turn(0, "tool", 1, [], [6], False),
        turn(0, "assistant", 2, [7], [8], True),
        turn(0, "assistant", 0, [3], [9], True),  # another answer to the same question
        turn(0, "assistant", 0, [3], [10], False),  # nothing to learn from
    ]
    provenance = Provenance("cot", "sums-v0", 0, "a" * 64, "b" * 64, "0.1.0", "here", "CC0-1.0", origin="cot_rl")
    verdict = {"seat": 0, "state": "accepted", "reward": 0.75, "error": None, "criteria": []}
    reasoning = {"problem_seed": 1, "difficulty": 1.0, "group_id": "g", "sample_index": 0, "turns": turns}
    committer = store.Committer(uri, "cot", 1)
    epoch = committer.register("a").epoch
    judged = [(verdict,), ({**verdict, "state": "unverifiable", "reward": None},)]
    episodes = [
        Episode(provenance, "a", epoch, i, "ok", True, 1, (0.75,), 7, 0, 1, reasoning=reasoning, verdicts=verdicts)
        for i, verdicts in enumerate(judged)
    ]
    committer.commit([store.write_block(uri, to_batch(episodes), "a", epoch, 0)])
    (batch,) = store.open(uri).to_torch(kind="reasoning", batch=9, shuffle=False)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 9, 0, 0, 0, 0]] * 2
    assert batch["loss_mask"].tolist()[0] == [False, False, False, True, True, False, False, True]
    assert batch["attention_mask"].sum(1).tolist() == [8, 4, 8, 4]
    assert batch["logprobs"].tolist()[1] == [0, 0, 0, -4.5, 0, 0, 0, 0]
    assert batch["reward"].tolist()[:2] == [0.75, 0.75] and batch["reward"][2:].isnan().all()


def test_each_seat_of_a_dialogue_learns_its_own_words() -> None:
    turns = [turn(0, "assistant", None, [1], [2, 3], True), turn(1, "assistant", 0, [4], [5], True)]
    turns[0]["logprobs"] = [-0.5, None]
    verdicts = [
        {"seat": 0, "state": "rejected", "reward": 0.0, "error": None, "criteria": []},
        {"seat": 1, "state": "accepted", "reward": 1.0, "error": None, "criteria": []},
    ]
    row = {"reasoning": {"turns": turns}, "verdicts": verdicts, "returns": [0.0, 1.0]}
    episodes = pa.Table.from_pylist([row])
    first, second = sequences_from(episodes).lines
    assert count_sequences(episodes) == 2
    assert first.ids.tolist() == second.ids.tolist() == [1, 2, 3, 4, 5]
    assert first.loss_mask.tolist() == [False, True, True, False, False] and first.reward == 0.0
    assert second.loss_mask.tolist() == [False, False, False, False, True] and second.reward == 1.0
    assert first.logprobs.tolist() == [0.0, -0.5, 0.0, 0.0, -2.5]
    verdicts[1]["error"] = "timed out"
    assert np.isnan(sequences_from(pa.Table.from_pylist([row])).lines[1].reward), "its verifier failed"
