"""Exports of reasoning: conversations that `datasets` loads, trajectories that `atif` accepts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfplay import store
from selfplay.episode import Episode, PolicySpan, Provenance, to_batch
from selfplay.errors import UserError
from selfplay.store.export import Exported, export, job, shards
from selfplay.store.export.chat_pairs import pairs
from selfplay.store.table.maintenance import compact

ACCEPTED, REJECTED, UNVERIFIABLE = "accepted", "rejected", "unverifiable"
FORMATS = ("messages", "prompt-completion", "dpo", "kto", "atif")
UNICODE = 'Zwölf 🤖 – 十二\n\t"quoted" \\ \' \u2028 end'


def turn(role: str, text: str | None, parent: int | None = None, seat: int = 0, loss: bool | None = None) -> dict:
    """Its tokens are the bytes of its text, and an end of turn."""
    tokens = [*(text or "").encode(), 256]
    sampled = role == "assistant"
    return {
        **{"seat": seat, "role": role, "parent": parent, "suffix_ids": [300 + seat], "token_ids": tokens},
        "logprobs": [-0.1 * (1 + at) for at in range(len(tokens))] if sampled else None,
        "loss_mask": [sampled if loss is None else loss] * len(tokens),
        **{"finish_reason": "stop" if sampled else None, "text": text},
    }


def verdict(state: str, seat: int = 0) -> dict:
    failed = state == UNVERIFIABLE
    criterion = {
        **{"criterion": "answer", "verifier_id": "exact", "verifier_version": "1", "low": 0.0, "high": 1.0},
        **{"score": None if failed else float(state == ACCEPTED), "reason": state},
    }
    reward = criterion["score"]
    return {"seat": seat, "state": state, "reward": reward, "error": "it hung" if failed else None} | {
        "criteria": [criterion]
    }


def episode(
    number: int,
    turns: Sequence[dict],
    verdicts: Sequence[dict] | None,
    group: str | None = None,
    slot: str = "a",
    status: str = "ok",
    trainable: bool = True,
    run_id: str = "run",
    **changed: Any,
) -> Episode:
    reasoning = {
        **{"problem_seed": 1, "difficulty": 2.5, "problem_digest": "f" * 64, "group_id": group},
        **{"sample_index": number, "tokenizer": "bytes", "temperature": 1.0, "top_k": None, "top_p": None},
        **{"answer": "4", "turns": list(turns)},
    }
    made = Provenance(run_id, "sums-v0", 0, "a" * 64, "b" * 64, "0.1.0", "here", "CC0-1.0", origin="cot_rl")
    return Episode(
        **{"provenance": made, "slot": slot, "epoch": 1, "number": number, "status": status, "trainable": trainable},
        **{"seats": 1 + max((t["seat"] for t in turns), default=0), "returns": None, "seed": number, "wall_ms": 1500},
        started_at=1_760_000_000_123_456 + number,
        policy_spans=(PolicySpan(0, 0, 9, "run", 3, "c" * 64),),
        reasoning=reasoning,
        verdicts=None if verdicts is None else tuple(verdicts),
        **changed,
    )


def sample(number: int, state: str, group: str = "g", prompt: str = "2 + 2?", **changed: Any) -> Episode:
    turns = [turn("system", "Think."), turn("user", prompt, 0), turn("assistant", f"answer {number}", 1)]
    return episode(number, turns, [verdict(state)], group, **changed)


def branched() -> list[dict]:
    """Two calls of a tool; the second begins again after the question."""
    return [
        turn("user", UNICODE, None),
        turn("assistant", "call one", 0),
        turn("tool", "one failed", 1),
        turn("assistant", "call two", 0),
        turn("tool", "two: äöü", 3),
        turn("assistant", f"so {UNICODE}", 4),
    ]


def all_episodes() -> list[Episode]:
    """Numbers 0 to 5 are one group, drawn by two slots; the others are what their comments say."""
    states = (ACCEPTED, REJECTED, UNVERIFIABLE, REJECTED, ACCEPTED, REJECTED)
    group = [sample(n, state, slot="ab"[n % 2]) for n, state in enumerate(states)]
    two_seats = [
        turn("user", "Debate.", None, seat=-1),
        turn("assistant", "for", 0, seat=0),
        turn("user", "Against?", None, seat=-1),
        turn("assistant", "against", 2, seat=1),
    ]
    nothing = turn("assistant", "", 0) | {"token_ids": [], "logprobs": [], "loss_mask": [], "finish_reason": "abort"}
    return [
        *group,
        episode(6, branched(), [verdict(ACCEPTED)]),
        episode(7, two_seats, [verdict(REJECTED, 0), verdict(UNVERIFIABLE, 1)]),
        sample(8, ACCEPTED, trainable=False),
        episode(9, [turn("user", "Say nothing."), turn("assistant", "", 0)], [verdict(ACCEPTED)], "empty"),
        episode(10, [turn("user", "Say."), nothing], [verdict(REJECTED)], "empty"),  # not even an end of turn
        episode(11, [], None, status="error", trainable=False, error=("actor", "it broke: äöü")),
        sample(12, ACCEPTED, "other prompts", "1 + 1?"),
        sample(13, REJECTED, "other prompts", "1 + 2?"),
        sample(14, ACCEPTED, run_id="second"),  # the group of another run
        episode(15, [turn("assistant", "unasked")], None),
        episode(16, [turn("user", "x"), turn("assistant", None, 0)], None),
        episode(17, [turn("user", "x", 1), turn("assistant", "y", 0)], None),
    ]


def archive(uri: str, episodes: Sequence[Episode]) -> store.Corpus:
    """One block an episode: files that compaction joins."""
    for run_id in sorted({e.provenance.run_id for e in episodes}):
        committer = store.Committer(uri, run_id, 1)
        for slot in sorted({e.slot for e in episodes if e.provenance.run_id == run_id}):
            epoch = committer.register(slot).epoch
            mine = [e for e in episodes if (e.provenance.run_id, e.slot) == (run_id, slot)]
            for at, one in enumerate(mine):
                sealed = Episode(**{f: getattr(one, f) for f in one.__slots__} | {"epoch": epoch})
                committer.commit([store.write_block(uri, to_batch([sealed]), slot, epoch, at)])
    return store.open(uri)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> store.Corpus:
    return archive(str(tmp_path_factory.mktemp("run") / "corpus"), all_episodes())


@pytest.fixture(scope="module")
def by_number(corpus: store.Corpus) -> dict[int, Episode]:
    return {e.number: e for e in corpus.records()}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """`datasets` reads its settings when it is imported, which may have been by another test."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf" / "datasets"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    yield


def load(folder: Path, cache: Path) -> list[dict[str, Any]]:
    """By the ways of the documentation; all give the same."""
    datasets = pytest.importorskip("datasets")
    found = [
        datasets.load_dataset("parquet", data_dir=str(folder / "data"), cache_dir=str(cache / "1")),
        datasets.load_dataset("parquet", data_dir=str(folder), cache_dir=str(cache / "2")),
        datasets.load_dataset(str(folder), cache_dir=str(cache / "3")),
    ]
    assert [list(one) for one in found] == [["train"]] * 3
    first, *others = ([dict(row) for row in each["train"]] for each in found)
    assert all(other == first for other in others)
    return first


def exported(corpus: store.Corpus, name: str, tmp_path: Path, **options: str) -> tuple[Exported, list[dict[str, Any]]]:
    done = export(corpus, name, str(tmp_path / name), options=options)
    return done, load(tmp_path / name, tmp_path / "cache" / name)


def texts(one: Episode, *indices: int) -> list[dict[str, str]]:
    assert one.reasoning is not None
    turns = [one.reasoning["turns"][index] for index in indices]
    return [{"role": t["role"], "content": t["text"]} for t in turns]


def told(folder: Path) -> dict[tuple[str, int], list[tuple[str, int | None]]]:
    """(file, row) -> the episodes and seats of that row, by the sidecar."""
    found: dict[tuple[str, int], list[tuple[str, int | None]]] = {}
    for row in pq.read_table(folder / job.ROWS).to_pylist():
        found.setdefault((row["file"], row["row"]), []).append((row["episode_id"], row["seat"]))
    return found


def test_messages_are_the_turns_of_the_seat(
    corpus: store.Corpus, by_number: dict[int, Episode], tmp_path: Path
) -> None:
    done, rows = exported(corpus, "messages", tmp_path)
    found = {(row["episode_id"], row["seat"]): row for row in rows}
    assert len(found) == len(rows) == done.rows
    group = [found[by_number[n].episode_id, 0] for n in range(6)]
    assert [row["messages"] for row in group] == [texts(by_number[n], 0, 1, 2) for n in range(6)]
    assert [row["verdict"] for row in group] == [by_number[n].verdicts[0]["state"] for n in range(6)]
    assert [row["reward"] for row in group] == [1.0, 0.0, None, 0.0, 1.0, 0.0]
    assert {(row["env_id"], row["status"], row["difficulty"], row["group_id"]) for row in group} == {
        ("sums-v0", "ok", 2.5, "g")
    }
    branch = found[by_number[6].episode_id, 0]
    assert branch["turns"] == [0, 3, 4, 5] and branch["loss"] == [False, True, False, True]
    assert branch["messages"] == texts(by_number[6], 0, 3, 4, 5) and branch["messages"][0]["content"] == UNICODE
    both = by_number[7]
    assert found[both.episode_id, 0]["messages"] == texts(both, 0, 1)
    assert found[both.episode_id, 1]["messages"] == texts(both, 2, 3)
    assert [found[both.episode_id, seat]["verdict"] for seat in (0, 1)] == [REJECTED, UNVERIFIABLE]
    assert found[by_number[9].episode_id, 0]["messages"][-1] == {"role": "assistant", "content": ""}
    assert done.left_out == {
        "not trainable": 2,
        "no turn carries loss": 1,
        "a turn without text": 1,
        "a turn whose parent is no earlier turn": 1,
    }
    assert done.episodes + sum(done.left_out.values()) == corpus.count()
    assert told(tmp_path / "messages") == {
        ("data/train-00000.parquet", at): [(row["episode_id"], row["seat"])] for at, row in enumerate(rows)
    }


def test_not_trainable_ones_only_on_demand(corpus: store.Corpus, by_number: dict[int, Episode], tmp_path: Path) -> None:
    for name in ("messages", "prompt-completion", "dpo", "kto"):
        without = export(corpus, name, str(tmp_path / f"{name}-0"))
        ids = {episode_id for pair in told(tmp_path / f"{name}-0").values() for episode_id, _ in pair}
        assert by_number[8].episode_id not in ids and without.left_out["not trainable"] == 2
        kept = export(corpus, name, str(tmp_path / f"{name}-1"), options={"untrainable": "keep"})
        assert "not trainable" not in kept.left_out and kept.episodes == without.episodes + 1
    with pytest.raises(UserError, match="option untrainable of format kto can only be 'keep', not 'yes'"):
        export(corpus, "kto", str(tmp_path / "no"), options={"untrainable": "yes"})


def test_prompt_and_completion(corpus: store.Corpus, by_number: dict[int, Episode], tmp_path: Path) -> None:
    done, rows = exported(corpus, "prompt-completion", tmp_path)
    found = {(row["episode_id"], row["seat"]): row for row in rows}
    branch = found[by_number[6].episode_id, 0]
    assert branch["prompt"] == texts(by_number[6], 0, 3, 4) and branch["completion"] == texts(by_number[6], 5)
    assert found[by_number[9].episode_id, 0]["completion"] == [{"role": "assistant", "content": ""}]
    assert (by_number[15].episode_id, 0) not in found and done.left_out["no turn with the prompt"] == 1
    only = export(corpus, "prompt-completion", str(tmp_path / "only"), options={"accepted": "only"})
    rows = pq.read_table(tmp_path / "only" / "data").to_pylist()
    assert {row["verdict"] for row in rows} == {ACCEPTED} and only.left_out["not accepted"] == 7
    assert {row["episode_id"] for row in rows} == {by_number[n].episode_id for n in (0, 4, 6, 9, 12, 14)}


def test_pairs_for_dpo(corpus: store.Corpus, by_number: dict[int, Episode], tmp_path: Path) -> None:
    done, rows = exported(corpus, "dpo", tmp_path)
    ids = {e.episode_id: e for e in by_number.values()}
    assert len(rows) == 4, "the cap of the one group that has both sides"
    for at, row in enumerate(rows):
        chosen, rejected = ids[row["chosen_id"]], ids[row["rejected_id"]]
        assert chosen.verdicts[0]["state"] == ACCEPTED and rejected.verdicts[0]["state"] == REJECTED
        assert row["prompt"] == texts(chosen, 0, 1) == texts(rejected, 0, 1)
        assert row["chosen"] == texts(chosen, 2) and row["rejected"] == texts(rejected, 2)
        assert row["group_id"] == "g" and chosen.provenance.run_id == rejected.provenance.run_id == "run"
        both = [(row["chosen_id"], 0), (row["rejected_id"], 0)]
        assert told(tmp_path / "dpo")["data/train-00000.parquet", at] == both
    assert Counter(row["chosen_id"] for row in rows).most_common()[-1][1] == 2
    assert len({row["rejected_id"] for row in rows}) == 3
    assert done.left_out == {
        "not trainable": 2,
        "unverifiable": 1,
        "in no group": 2,
        "no turn carries loss": 1,
        "no rejected answer to the same prompt in its group": 3,
        "no accepted answer to the same prompt in its group": 1,
        "not judged": 1,
        "a turn without text": 1,
        "a turn whose parent is no earlier turn": 1,
    }
    assert done.episodes == 5 and done.episodes + sum(done.left_out.values()) == corpus.count()
    one = export(corpus, "dpo", str(tmp_path / "one"), options={"pairs": "1"})
    assert one.episodes == 2 and one.left_out["its group has all its pairs without it"] == 3
    most = export(corpus, "dpo", str(tmp_path / "most"), options={"pairs": "100"})
    assert most.rows == 6
    for wrong in ("0", "-1", "many", "1.5"):
        with pytest.raises(UserError, match="option pairs must be a whole number of at least 1"):
            export(corpus, "dpo", str(tmp_path / "wrong"), options={"pairs": wrong})


def test_labels_for_kto(corpus: store.Corpus, by_number: dict[int, Episode], tmp_path: Path) -> None:
    done, rows = exported(corpus, "kto", tmp_path)
    ids = {e.episode_id: e for e in by_number.values()}
    for row in rows:
        (state,) = [v["state"] for v in ids[row["episode_id"]].verdicts if v["seat"] == row["seat"]]
        assert state in (ACCEPTED, REJECTED) and row["label"] is (state == ACCEPTED)
    assert {row["label"] for row in rows} == {True, False}
    assert done.left_out["unverifiable"] == 1 and done.left_out["in part: unverifiable"] == 1
    assert [row["seat"] for row in rows if row["episode_id"] == by_number[7].episode_id] == [0]


def test_a_failed_verifier_is_no_zero_even_where_the_state_says_so(tmp_path: Path) -> None:
    odd = verdict(REJECTED) | {"error": "it hung"}, verdict(REJECTED) | {"reward": None}
    turns = [turn("user", "x"), turn("assistant", "y", 0)]
    episodes = [episode(n, turns, [one], "g") for n, one in enumerate([verdict(ACCEPTED), *odd])]
    episodes.append(episode(3, turns, [verdict(REJECTED), verdict(ACCEPTED)], "g"))
    found = archive(str(tmp_path / "corpus"), episodes)
    done = export(found, "kto", str(tmp_path / "kto"))
    assert done.rows == 1 and done.left_out == {"unverifiable": 2, "several verdicts for one seat": 1}
    with pytest.raises(UserError, match="there is no reasoning episode that format dpo can hold"):
        export(found, "dpo", str(tmp_path / "dpo"))
    assert not (tmp_path / "dpo").exists()


def test_atif(corpus: store.Corpus, by_number: dict[int, Episode], tmp_path: Path) -> None:
    atif = pytest.importorskip("atif")
    done = export(corpus, "atif", str(tmp_path / "atif"))
    assert done.rows == corpus.count() - 1 and done.left_out == {"a turn whose parent is no earlier turn": 1}
    for one in by_number.values():
        path = tmp_path / "atif" / one.provenance.run_id / f"{one.slot}-{one.epoch}-{one.number}.json"
        if one.number == 17:
            assert not path.exists()
            continue
        found = atif.Trajectory.model_validate_json(path.read_text("utf-8"))
        assert found.trajectory_id == one.episode_id and found.extra["status"] == one.status
        turns = one.reasoning["turns"]
        contexts: list[list[int]] = []
        for t in turns:
            before = [] if t["parent"] is None else contexts[t["parent"]] + turns[t["parent"]]["token_ids"]
            contexts.append(before + t["suffix_ids"])
        steps = {step.extra["turn"]: step for step in found.steps}
        seen = {**steps}
        for step in found.steps:
            for result in step.observation.results if step.observation else ():
                index = result.extra["turn"]
                seen[index] = result
                assert result.content == turns[index]["text"] and result.extra["token_ids"] == turns[index]["token_ids"]
        assert sorted(seen) == list(range(len(turns)))
        for index, step in steps.items():
            t = turns[index]
            assert step.message == (t["text"] or "") and step.extra.get("parent") == t["parent"]
            assert step.source == {"assistant": "agent"}.get(t["role"], t["role"])
            if t["role"] == "assistant":
                assert step.metrics.completion_token_ids == t["token_ids"]
                assert step.metrics.prompt_token_ids == contexts[index]
                np.testing.assert_array_equal(np.float32(step.metrics.logprobs), np.float32(t["logprobs"]))
                assert step.metrics.extra["loss_mask"] == t["loss_mask"]
        assert [v["state"] for v in found.extra.get("verdicts", [])] == [v["state"] for v in one.verdicts or ()]
    branch = json.loads((tmp_path / "atif" / "run" / f"a-{by_number[6].epoch}-6.json").read_text("utf-8"))
    assert [step["extra"]["turn"] for step in branch["steps"]] == [0, 1, 3, 5]
    assert branch["steps"][2]["observation"]["results"][0]["content"] == "two: äöü"
    assert branch["steps"][0]["timestamp"] == branch["extra"]["started_at"] == "2025-10-09T08:53:20.123462Z"
    failed = json.loads((tmp_path / "atif" / "run" / f"a-{by_number[11].epoch}-11.json").read_text("utf-8"))
    assert failed["steps"] == [] and failed["extra"]["error"] == {"kind": "actor", "message": "it broke: äöü"}


def test_odd_tokens_in_atif(tmp_path: Path) -> None:
    """No log-probability for a token, and one of minus infinity: told, and still JSON."""
    pytest.importorskip("atif")
    odd = turn("assistant", "y", 0) | {"logprobs": [None, float("-inf")]}
    found = archive(str(tmp_path / "corpus"), [episode(0, [turn("tool", "x"), odd], None)])
    export(found, "atif", str(tmp_path / "atif"))
    (path,) = (tmp_path / "atif" / "run").iterdir()
    first, second = json.loads(path.read_text("utf-8"))["steps"]
    assert first["source"] == "system" and first["extra"]["role"] == "tool"
    assert "logprobs" not in second["metrics"] and second["metrics"]["extra"]["logprobs"] == [None, "-inf"]


def test_the_same_bytes_again_and_after_compaction(tmp_path: Path) -> None:
    corpus = archive(str(tmp_path / "corpus"), all_episodes())
    for name in FORMATS:
        export(corpus, name, str(tmp_path / "once" / name))
        export(corpus, name, str(tmp_path / "twice" / name))
    compacted = compact(corpus.uri)
    assert compacted.files_after < compacted.files_before
    for name in FORMATS:
        export(corpus.refresh(), name, str(tmp_path / "compacted" / name))
    once = contents(tmp_path / "once")
    assert once == contents(tmp_path / "twice")
    after = contents(tmp_path / "compacted")
    assert once.keys() == after.keys()
    for name, text in once.items():
        if name.endswith(job.SIDECAR):
            before, now = json.loads(text), json.loads(after[name])
            assert before.pop("corpus_version") < now.pop("corpus_version") and before == now
        else:
            assert text == after[name], name


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_shards_are_cut_by_rows_alone(corpus: store.Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "GROUP_ROWS", 2)
    monkeypatch.setattr(shards, "FILE_ROWS", 4)
    done, rows = exported(corpus, "messages", tmp_path)
    files = sorted((tmp_path / "messages" / "data").iterdir())
    assert [f.name for f in files] == [f"train-{at:05d}.parquet" for at in range(len(files))]
    about = [pq.read_metadata(file) for file in files]
    sizes = [[one.row_group(at).num_rows for at in range(one.num_row_groups)] for one in about]
    assert all(size == [2, 2] for size in sizes[:-1]) and sum(map(sum, sizes)) == len(rows) == done.rows
    for (file, at), [(episode_id, seat)] in told(tmp_path / "messages").items():
        row = pq.read_table(tmp_path / "messages" / file).slice(at, 1).to_pylist()[0]
        assert (row["episode_id"], row["seat"]) == (episode_id, seat)


sides = st.tuples(st.integers(0, 7), st.integers(0, 7))


@settings(deadline=None, max_examples=200)
@given(st.lists(sides, min_size=1, max_size=3), st.integers(1, 60))
def test_pairing(sizes: list[tuple[int, int]], cap: int) -> None:
    """Whatever the verdicts: the cap, accepted with rejected of one bucket, no pair twice, all used alike."""
    buckets = [
        ([(at, ACCEPTED, n) for n in range(good)], [(at, REJECTED, n) for n in range(bad)])
        for at, (good, bad) in enumerate(sizes)
    ]
    found = pairs(buckets, cap)
    assert len(found) == min(cap, sum(good * bad for good, bad in sizes)) == len(set(found))
    assert all(a[0] == r[0] and (a[1], r[1]) == (ACCEPTED, REJECTED) for a, r in found)
    for at, bucket in enumerate(buckets):
        mine = [pair for pair in found if pair[0][0] == at]
        for side in (0, 1):
            uses = Counter(pair[side] for pair in mine)
            often = [uses[one] for one in bucket[side]]
            assert not mine or max(often) - min(often) <= 1
