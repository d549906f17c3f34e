"""The batched search equals the slow reference node by node, whatever else its slots are busy with."""

from __future__ import annotations

import functools
import json
import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyspiel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfplay.environments.game import Game, load, spec_from_string
from selfplay.search import BatchedSearch, SearchConfig, SearchResult
from selfplay.search.hash_net import HashNet
from selfplay.search.reference import Gumbel, History, NodeRecord, Puct, SearchRecord, gumbel_search, puct_search

GOLDEN = sorted((Path(__file__).parents[1] / "golden" / "trees").glob("*.json"))
Array = np.ndarray[Any, Any]
Net = Callable[[Array], tuple[Array, Array]]

#: In dots and boxes, mancala and oware (a seat without seeds) the same seat may move twice in a row.
GAMES = (
    "tic_tac_toe",
    "connect_four",
    "dots_and_boxes(num_rows=2,num_cols=2)",
    "mancala",
    "oware",
    "hex(board_size=3)",
    "breakthrough(rows=4,columns=3)",
    "othello",
)


@functools.cache
def game_of(name: str) -> Game:
    return load(spec_from_string(name))


@dataclass(frozen=True)
class Job:
    """One search to make."""

    state: pyspiel.State
    simulations: int
    noise: Array | None


@dataclass(frozen=True)
class Found:
    """One search made by the batched search: its result, and its tree in the reference's form."""

    result: SearchResult
    nodes: dict[History, NodeRecord]


def random_state(game: Game, plies: int, rng: random.Random) -> pyspiel.State:
    """The state after `plies` random moves, or fewer where the game ends sooner; never terminal."""
    state = game.new_initial_state()
    for _ in range(plies):
        child = state.child(rng.choice(state.legal_actions()))
        if child.is_terminal():
            break
        state = child
    return state


def random_job(game: Game, config: SearchConfig, rng: random.Random, most: int) -> Job:
    state = random_state(game, rng.randrange(40), rng)
    legal = len(state.legal_actions())
    numbers = np.random.default_rng(rng.randrange(2**32))
    noise = None
    if rng.random() < 0.5:
        noise = numbers.gumbel(size=legal) if config.algorithm == "gumbel" else numbers.dirichlet([0.5] * legal)
    return Job(state, rng.randint(0, most), noise)


def by_batch(
    game: Game, net: Net, config: SearchConfig, jobs: Sequence[Job], slots: int, most: int, cache_entries: int = 0
) -> list[Found]:
    """All jobs through one batched search: a slot that ends takes the next job at once."""
    search = BatchedSearch(game, net, config, slots=slots, max_simulations=most, cache_entries=cache_entries)
    waiting = deque(enumerate(jobs))
    running: dict[int, int] = {}
    found: dict[int, Found] = {}

    def begin(slot: int) -> None:
        if waiting:
            running[slot], job = waiting.popleft()
            search.start(slot, job.state, job.simulations, noise=job.noise)

    for slot in range(slots):
        begin(slot)
    for _ in range(10_000):
        if not running:
            break
        for slot in search.tick():
            found[running.pop(slot)] = Found(search.result(slot), nodes_of(search, slot))
            begin(slot)
    return [found[i] for i in range(len(jobs))]


def nodes_of(search: BatchedSearch, slot: int) -> dict[History, NodeRecord]:
    """The batched search's tree in the reference's form, which has no nodes for terminal states."""
    return {
        tuple(int(action) for action in path.split()): NodeRecord(
            player=node["player"],
            raw_value=node["value"],
            actions=node["actions"],
            visits=node["visits"],
            q=[math.nan if q is None else q for q in node["q"]],
            prior=node["prior"],
        )
        for path, node in search.tree(slot).items()
        if not node["terminal"]
    }


def by_reference(game: Game, net: Net, config: SearchConfig, job: Job) -> SearchRecord:
    def evaluate(state: pyspiel.State) -> tuple[Sequence[float], float]:
        logits, values = net(game.encoder.encode(state)[None])
        return logits[0].tolist(), float(values[0])

    noise = None if job.noise is None else job.noise.tolist()
    if config.algorithm == "gumbel":
        gumbel = Gumbel(config.considered, config.c_visit, config.c_scale)
        return gumbel_search(job.state, evaluate, game.value_scale, job.simulations, noise, gumbel)
    puct = Puct(
        config.c_init, config.c_base, config.fpu_reduction, config.root_fpu_reduction, config.dirichlet_fraction
    )
    return puct_search(job.state, evaluate, game.value_scale, job.simulations, noise, puct)


def assert_equal(found: Found, expected: SearchRecord, job: Job, config: SearchConfig) -> None:
    """Structure, visits and the action exactly; floats to rounding (the result's arrays are float32)."""
    assert set(found.nodes) == set(expected["nodes"])
    for history, node in expected["nodes"].items():
        mine = found.nodes[history]
        assert mine["player"] == node["player"], history
        assert mine["actions"] == node["actions"], history
        assert mine["visits"] == node["visits"], history
        assert mine["raw_value"] == pytest.approx(node["raw_value"], abs=1e-12), history
        assert mine["q"] == pytest.approx(node["q"], abs=1e-12, nan_ok=True), history
        assert mine["prior"] == pytest.approx(node["prior"], abs=1e-12), history
    root, result = expected["nodes"][()], found.result
    assert result.actions.tolist() == root["actions"]
    assert result.visits.tolist() == root["visits"]
    assert result.simulations == job.simulations == sum(root["visits"])
    assert result.action == expected["action"]
    assert result.root_value == pytest.approx(expected["root_value"], abs=1e-12)
    assert result.raw_value == pytest.approx(root["raw_value"], abs=1e-12)
    np.testing.assert_allclose(result.q, root["q"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(result.policy_target, expected["policy_target"], rtol=0, atol=1e-6)
    assert result.policy_target.sum() == pytest.approx(1.0, abs=1e-6)
    if config.algorithm == "gumbel" or job.noise is None:
        np.testing.assert_allclose(result.prior, root["prior"], rtol=0, atol=1e-6)
    else:  # the result holds the net's own prior, the tree the one mixed with noise
        share = config.dirichlet_fraction
        mixed = (1 - share) * result.prior + share * job.noise
        np.testing.assert_allclose(mixed, root["prior"], rtol=0, atol=1e-6)


def assert_same_bits(a: Found, b: Found) -> None:
    for field in ("actions", "visits", "prior", "q", "policy_target"):
        np.testing.assert_array_equal(getattr(a.result, field), getattr(b.result, field))
    for field in ("action", "root_value", "raw_value", "simulations"):
        assert getattr(a.result, field) == getattr(b.result, field)
    assert repr(a.nodes) == repr(b.nodes)


configs = st.one_of(
    st.builds(
        SearchConfig,
        algorithm=st.just("gumbel"),
        considered=st.integers(1, 20),
        c_visit=st.sampled_from([50.0, 10.0, 0.0]),
        c_scale=st.sampled_from([0.2, 1.0, 0.05]),
    ),
    st.builds(
        SearchConfig,
        algorithm=st.just("puct"),
        c_init=st.sampled_from([1.25, 3.0]),
        c_base=st.sampled_from([19652.0, 30.0]),
        fpu_reduction=st.sampled_from([0.2, 0.0, 0.5]),
        root_fpu_reduction=st.sampled_from([0.0, 0.1]),
        dirichlet_fraction=st.sampled_from([0.25, 1.0]),
    ),
)


@pytest.mark.parametrize("name", GAMES)
@settings(max_examples=60, deadline=None)
@given(
    config=configs,
    slots=st.integers(1, 6),
    jobs=st.integers(1, 8),
    most=st.integers(1, 48),
    cache_entries=st.sampled_from([0, 0, 40, 4000]),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_reference(
    name: str, config: SearchConfig, slots: int, jobs: int, most: int, cache_entries: int, seed: int
) -> None:
    """Any game, settings, positions, simulations, noise, number of slots and cache size."""
    game = game_of(name)
    rng = random.Random(seed)
    net = HashNet(game.num_actions, salt=seed % 5)
    work = [random_job(game, config, rng, most) for _ in range(jobs)]
    for job, found in zip(work, by_batch(game, net, config, work, slots, most, cache_entries), strict=True):
        assert_equal(found, by_reference(game, net, config, job), job, config)


@pytest.mark.parametrize("name", ["connect_four", "dots_and_boxes(num_rows=2,num_cols=2)"])
@settings(max_examples=30, deadline=None)
@given(
    config=configs,
    slots=st.integers(2, 16),
    others=st.integers(1, 24),
    cache_entries=st.sampled_from([0, 30, 4000]),
    seed=st.integers(0, 2**32 - 1),
)
def test_batched_is_single_game(
    name: str, config: SearchConfig, slots: int, others: int, cache_entries: int, seed: int
) -> None:
    """A search alone in one slot and the same search in company, with or without a cache: equal to the last bit."""
    game = game_of(name)
    rng = random.Random(seed)
    net = HashNet(game.num_actions)
    work = [random_job(game, config, rng, 40) for _ in range(1 + others)]
    rng.shuffle(work)
    together = by_batch(game, net, config, work, slots, 40, cache_entries)
    for job, found in zip(work, together, strict=True):
        assert_same_bits(found, by_batch(game, net, config, [job], 1, 40)[0])


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_equals_golden_tree(path: Path) -> None:
    """The trees under tests/golden/trees, which a person has read."""
    golden = json.loads(path.read_text())
    game = game_of(golden["game"])
    hash_net = HashNet(game.num_actions)

    def uniform(batch: Array) -> tuple[Array, Array]:
        return np.zeros((len(batch), game.num_actions)), np.zeros(len(batch))

    config = SearchConfig(algorithm=golden["algorithm"], **golden["settings"])
    noise = None if golden["noise"] is None else np.array(golden["noise"])
    job = Job(game.after(golden["opening"]), golden["simulations"], noise)
    found = by_batch(game, uniform if golden["net"] == "uniform" else hash_net, config, [job], 1, job.simulations)[0]
    nodes = {tuple(int(a) for a in path.split()): node for path, node in golden["nodes"].items()}
    assert set(found.nodes) == set(nodes)
    for history, node in nodes.items():
        mine, edges = found.nodes[history], list(node["edges"].values())
        assert mine["player"] == node["player"]
        assert mine["actions"] == [int(action) for action in node["edges"]]
        assert mine["visits"] == [edge["visits"] for edge in edges]
        assert mine["raw_value"] == pytest.approx(node["raw_value"], abs=2e-6)
        expected_q = [math.nan if edge["q"] is None else edge["q"] for edge in edges]
        assert mine["q"] == pytest.approx(expected_q, abs=2e-6, nan_ok=True)
        assert mine["prior"] == pytest.approx([edge["prior"] for edge in edges], abs=2e-6)
    assert found.result.action == golden["action"]
    assert found.result.root_value == pytest.approx(golden["root_value"], abs=2e-6)
    assert found.result.policy_target == pytest.approx(golden["policy_target"], abs=2e-6)


@pytest.mark.parametrize("algorithm", ["gumbel", "puct"])
@pytest.mark.parametrize(
    ("name", "position"),
    [("chess", "R6R/3Q4/1Q4Q1/4Q3/2Q4Q/Q4Q2/pp1Q4/kBNN1KB1 w - - 0 1"), ("hex(board_size=19)", None)],
)
def test_many_legal_actions(algorithm: str, name: str, position: str | None) -> None:
    """218 legal moves, the most that chess allows, and 361 in hex: the arrays grow while trees of other slots live."""
    game = game_of(name)
    state = game.game.new_initial_state(position) if position else game.new_initial_state()
    config = SearchConfig(algorithm=algorithm)  # type: ignore[arg-type]
    net = HashNet(game.num_actions)
    legal = len(state.legal_actions())
    assert legal == (218 if position else 361)
    noise = np.random.default_rng(3).gumbel(size=legal) if algorithm == "gumbel" else np.full(legal, 1 / legal)
    jobs = [Job(game.new_initial_state(), 20, None), Job(state, 24, noise), Job(game.new_initial_state(), 24, None)]
    for cache_entries in (0, 1000):
        for job, found in zip(jobs, by_batch(game, net, config, jobs, 3, 24, cache_entries), strict=True):
            assert_equal(found, by_reference(game, net, config, job), job, config)


@pytest.mark.parametrize("algorithm", ["gumbel", "puct"])
def test_net_in_float32(algorithm: str) -> None:
    """A torch net answers in float32; the tree is in float64 all the same."""
    game = game_of("connect_four")
    config = SearchConfig(algorithm=algorithm)  # type: ignore[arg-type]
    exact = HashNet(game.num_actions)

    def single(batch: Array) -> tuple[Array, Array]:
        logits, values = exact(batch)
        return logits.astype(np.float32), values.astype(np.float32)

    rng = random.Random(1)
    work = [random_job(game, config, rng, 48) for _ in range(12)]
    for job, found in zip(work, by_batch(game, single, config, work, 5, 48), strict=True):
        assert_equal(found, by_reference(game, exact, config, job), job, config)


def test_far_apart_logits() -> None:
    """Priors that underflow keep their log, so that noise and values can still lift their edges."""
    game = game_of("connect_four")
    net = HashNet(game.num_actions, logit_range=1024.0)
    rng = random.Random(2)
    for algorithm in ("gumbel", "puct"):
        config = SearchConfig(algorithm=algorithm)  # type: ignore[arg-type]
        work = [random_job(game, config, rng, 48) for _ in range(12)]
        for job, found in zip(work, by_batch(game, net, config, work, 4, 48), strict=True):
            assert_equal(found, by_reference(game, net, config, job), job, config)


def test_the_net_is_asked_once_a_position() -> None:
    """No slot's question is put twice: evaluations without a cache are the nodes of all trees."""
    game = game_of("connect_four")
    asked = []
    net = HashNet(game.num_actions)

    def counting(batch: Array) -> tuple[Array, Array]:
        assert batch.dtype == np.float32 and batch.shape[1:] == game.encoder.shape
        asked.append(len(batch))
        return net(batch)

    config = SearchConfig()
    rng = random.Random(4)
    work = [random_job(game, config, rng, 32) for _ in range(20)]
    found = by_batch(game, counting, config, work, 8, 32)
    assert sum(asked) == sum(len(f.nodes) for f in found)
    assert max(asked) <= 8
