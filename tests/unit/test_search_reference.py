"""The reference search against the papers' claims, hand-computed numbers and golden trees.

`pytest --force-regen tests/unit/test_search_reference.py` writes the golden trees again; review them as text.
"""

from __future__ import annotations

import functools
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyspiel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest_regressions.file_regression import FileRegressionFixture

from selfplay.environments.game import Game, load, spec_from_string
from selfplay.search import reference
from selfplay.search.hash_net import HashNet
from selfplay.search.reference import Evaluate, Gumbel, Node, Puct, SearchRecord, gumbel_search, puct_search

GOLDEN = Path(__file__).parents[1] / "golden" / "trees"


@functools.cache
def game_of(name: str) -> Game:
    return load(spec_from_string(name))


def hash_evaluate(game: Game, net: HashNet) -> Evaluate:
    """A hash net behind the reference's door: one state at a time."""

    def evaluate(state: pyspiel.State) -> tuple[Sequence[float], float]:
        logits, values = net(game.encoder.encode(state)[None])
        return logits[0].tolist(), float(values[0])

    return evaluate


def uniform(state: pyspiel.State) -> tuple[Sequence[float], float]:
    """Knows nothing: every action alike, every state even."""
    return [0.0] * state.num_distinct_actions(), 0.0


def search(
    algorithm: str, game: Game, state: pyspiel.State, evaluate: Evaluate, simulations: int, **given: Any
) -> SearchRecord:
    run = gumbel_search if algorithm == "gumbel" else puct_search
    return run(state, evaluate, game.value_scale, simulations, **given)


def exact_value(state: pyspiel.State) -> float:
    """Minimax, point of view of the seat to act; for states a few plies from the end."""
    seat = state.current_player()
    best = -math.inf
    for action in state.legal_actions():
        child = state.child(action)
        if child.is_terminal():
            value = child.returns()[seat]
        else:
            value = exact_value(child) * (1 if child.current_player() == seat else -1)
        best = max(best, value)
    return best


def random_state(game: Game, plies: int, seed: int) -> pyspiel.State:
    """The state after `plies` random moves, or fewer where the game ends sooner; never terminal."""
    rng = random.Random(seed)
    state = game.new_initial_state()
    for _ in range(plies):
        child = state.child(rng.choice(state.legal_actions()))
        if child.is_terminal():
            break
        state = child
    return state


def bandit(prior: Sequence[float], visits: Sequence[int], q: Sequence[float], raw_value: float = 0.0) -> Node:
    """A node with the given statistics and no state."""
    return Node(
        state=None,
        history=(),
        player=0,
        raw_value=raw_value,
        actions=list(range(len(prior))),
        log_prior=[math.log(p) for p in prior],
        prior=list(prior),
        visits=list(visits),
        total=[n * x for n, x in zip(visits, q, strict=True)],
    )


ALGORITHMS = ("gumbel", "puct")
GAMES = ("tic_tac_toe", "connect_four", "dots_and_boxes(num_rows=2,num_cols=2)", "mancala", "hex(board_size=3)")


# ------------------------------------------------------------------------------------------------ sequential halving


def test_schedule_of_the_papers_figure() -> None:
    """Figure 1: 16 actions and 200 simulations, about 50 for each of the 16, 8, 4 and 2 left."""
    schedule = reference.considered_visits(16, 200)
    assert schedule[: 3 * 16] == [0] * 16 + [1] * 16 + [2] * 16
    assert schedule[48:96] == sum(([v] * 8 for v in range(3, 9)), [])
    assert schedule[96:144] == sum(([v] * 4 for v in range(9, 21)), [])
    assert schedule[144:] == sum(([v] * 2 for v in range(21, 49)), [])


@pytest.mark.parametrize(
    ("considered", "simulations", "expected"),
    [
        (1, 4, [0, 1, 2, 3]),
        (2, 5, [0, 0, 1, 1, 2]),
        (3, 8, [0, 0, 0, 1, 1, 2, 2, 3]),
        (4, 8, [0, 0, 0, 0, 1, 1, 2, 2]),
        (4, 16, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]),
        (7, 3, [0, 0, 0]),
        (16, 0, []),
    ],
)
def test_schedule_by_hand(considered: int, simulations: int, expected: list[int]) -> None:
    assert reference.considered_visits(considered, simulations) == expected


def explicit_halving(scores: Sequence[float], considered: int, simulations: int) -> list[int]:
    """Visits by the paper's algorithm 2 as it is written: phases that each drop the worse half of the survivors."""
    visits = [0] * len(scores)
    survivors = sorted(range(len(scores)), key=lambda a: -scores[a])[:considered]
    spent = 0
    phases = max(1, math.ceil(math.log2(considered)))
    while True:
        for _ in range(max(1, simulations // (phases * len(survivors)))):
            for action in survivors:
                if spent == simulations:
                    return visits
                visits[action] += 1
                spent += 1
        if considered > 1:
            survivors = survivors[: max(2, len(survivors) // 2)]


@given(st.integers(1, 20), st.integers(0, 200), st.randoms(use_true_random=False))
def test_schedule_is_sequential_halving(considered: int, simulations: int, rng: random.Random) -> None:
    """Where scores do not change, the schedule of visit counts visits what explicit halving visits."""
    scores = [rng.random() for _ in range(considered + rng.randrange(5))]
    visits = [0] * len(scores)
    for wanted in reference.considered_visits(considered, simulations):
        edge = reference.argmax([s if n == wanted else -math.inf for s, n in zip(scores, visits, strict=True)])
        assert visits[edge] == wanted
        visits[edge] += 1
    assert visits == explicit_halving(scores, considered, simulations)


# ------------------------------------------------------------------------------------------------ formulas, by hand


def test_mixed_value_by_hand() -> None:
    """v01 = 0.6; visited: 0.5 * 0.75 and 0.25 * 0.5 over 0.75 is 2/3; (0.6 + 4 * 2/3) / 5."""
    node = bandit([0.5, 0.25, 0.25], [3, 1, 0], [0.5, 0.0, 9.0], raw_value=0.2)
    assert reference.completed_q(node) == pytest.approx([0.75, 0.5, (0.6 + 4 * 2 / 3) / 5])


def test_completed_q_without_visits_is_the_raw_value() -> None:
    assert reference.completed_q(bandit([0.5, 0.5], [0, 0], [0, 0], raw_value=-0.5)) == [0.25, 0.25]


def test_sigma_by_hand() -> None:
    node = bandit([0.5, 0.5], [3, 7], [0, 0])
    assert reference.sigma(node, Gumbel()) == pytest.approx((50 + 7) * 0.2)
    assert reference.sigma(node, Gumbel(c_visit=10, c_scale=1.0)) == pytest.approx(17)


def test_puct_by_hand() -> None:
    """Edge 1 is not visited: worth 0.1 - 0.2 * sqrt(0.64) = -0.06; c is 1.25 + log(1 + 5 / 19652)."""
    node = bandit([0.64, 0.36], [4, 0], [0.3, 0.0], raw_value=0.1)
    c = 1.25 + math.log((1 + 4 + 19652) / 19652)
    scores = [0.3 + c * 0.64 * 2 / 5, -0.06 + c * 0.36 * 2]
    assert scores[1] > scores[0]
    assert reference.puct_edge(node, Puct(), 0.2) == 1
    assert reference.puct_edge(node, Puct(), 1.2) == 0  # -0.86 + 0.9 < 0.3 + 0.32


def test_first_puct_visit_goes_to_the_largest_prior() -> None:
    assert reference.puct_edge(bandit([0.2, 0.5, 0.3], [0, 0, 0], [0, 0, 0]), Puct(), 0.2) == 1


def test_ties_go_to_the_lowest_edge() -> None:
    assert reference.argmax([1.0, 3.0, 3.0]) == 1
    assert reference.puct_edge(bandit([0.25] * 4, [0] * 4, [0] * 4), Puct(), 0.2) == 0
    game = game_of("tic_tac_toe")
    result = gumbel_search(game.new_initial_state(), uniform, 1.0, 3, settings=Gumbel(considered=16))
    assert result["nodes"][()]["visits"] == [1, 1, 1, 0, 0, 0, 0, 0, 0]


def test_no_simulations_is_the_raw_policy() -> None:
    game = game_of("connect_four")
    evaluate = hash_evaluate(game, HashNet(7))
    state = game.new_initial_state()
    prior = reference.softmax(evaluate(state)[0])
    for algorithm in ALGORITHMS:
        result = search(algorithm, game, state, evaluate, 0)
        assert result["policy_target"] == pytest.approx(prior)
        assert result["action"] == reference.argmax(prior)
        assert result["root_value"] == evaluate(state)[1]


# ------------------------------------------------------------------------------------------------- what must be true


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@settings(max_examples=30, deadline=None)
@given(st.sampled_from(GAMES), st.integers(0, 10), st.integers(1, 40), st.integers(0, 10**6), st.booleans())
def test_tree_is_consistent(
    algorithm: str, name: str, plies: int, simulations: int, seed: int, with_noise: bool
) -> None:
    """Visits and values add up at every node, signs follow the seats, targets are distributions over legal actions."""
    game = game_of(name)
    state = random_state(game, plies, seed)
    legal = sorted(state.legal_actions())
    noise = [1.0 / len(legal)] * len(legal) if with_noise else None
    result = search(algorithm, game, state, hash_evaluate(game, HashNet(game.num_actions)), simulations, noise=noise)
    assert len(result["policy_target"]) == len(legal)
    assert sum(result["policy_target"]) == pytest.approx(1.0)
    assert all(p >= 0 for p in result["policy_target"])
    assert result["action"] in legal
    assert -1 <= result["root_value"] <= 1
    root = result["nodes"][()]
    assert sum(root["visits"]) == simulations
    assert root["actions"] == legal
    totals = {}
    for history, node in reversed(result["nodes"].items()):
        assert sum(node["prior"]) == pytest.approx(1.0)
        backed_up = [n * q for n, q in zip(node["visits"], node["q"], strict=True) if n]
        totals[history] = node["raw_value"] + sum(backed_up)
        for action, visits, q in zip(node["actions"], node["visits"], node["q"], strict=True):
            below = state.clone()
            for a in (*history, action):
                below.apply_action(a)
            child = result["nodes"].get((*history, action))
            if visits == 0:
                assert child is None and math.isnan(q)
            elif below.is_terminal():
                assert child is None and q == pytest.approx(below.returns()[node["player"]] / game.value_scale)
            else:
                assert child is not None and child["player"] == below.current_player()
                assert sum(child["visits"]) == visits - 1
                sign = 1 if child["player"] == node["player"] else -1
                assert visits * q == pytest.approx(sign * totals[(*history, action)])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", ["tic_tac_toe", "connect_four"])
def test_a_win_in_one_is_found(algorithm: str, name: str) -> None:
    """A net that knows nothing, both seats: the move that ends the game is played, and its q is exactly 1."""
    game = game_of(name)
    found = {0: 0, 1: 0}
    for seed in range(400):
        state = random_state(game, 4 + seed % (4 if name == "tic_tac_toe" else 20), seed)
        seat = state.current_player()
        wins = [a for a in state.legal_actions() if state.child(a).returns()[seat] == 1.0]
        if not wins:
            continue
        found[seat] += 1
        result = search(algorithm, game, state, uniform, 32)
        assert result["action"] in wins, (algorithm, str(state))
        root = result["nodes"][()]
        assert root["q"][root["actions"].index(result["action"])] == 1.0
        if algorithm == "puct":  # Gumbel's halving spends visits evenly on losing moves too
            assert result["root_value"] > 0
    assert min(found.values()) >= 10


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    ("name", "plies"), [("tic_tac_toe", 5), ("dots_and_boxes(num_rows=2,num_cols=2)", 8), ("hex(board_size=3)", 4)]
)
def test_close_to_the_end_it_plays_exactly(algorithm: str, name: str, plies: int) -> None:
    """With many simulations the chosen move keeps the exact value; in dots and boxes the same seat may move again."""
    game = game_of(name)
    moved_again = 0
    for seed in range(15):
        state = random_state(game, plies, seed)
        result = search(algorithm, game, state, uniform, 300)
        seats = {(h, n["player"]) for h, n in result["nodes"].items()}
        moved_again += sum((h[:-1], seat) in seats for h, seat in seats if h)
        child = state.child(result["action"])
        if child.is_terminal():
            value = child.returns()[state.current_player()]
        else:
            value = exact_value(child) * (1 if child.current_player() == state.current_player() else -1)
        assert value == exact_value(state), (seed, str(state))
        if algorithm == "puct" and abs(value) > 1e-9:  # Gumbel's halving spends visits evenly on losing moves too
            assert (result["root_value"] > 0) == (value > 0)
    assert (moved_again > 0) == name.startswith("dots")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_threat_is_blocked(algorithm: str) -> None:
    """o must stop x at 2, two plies ahead: a loss is seen with the sign of the seat that suffers it."""
    game = game_of("tic_tac_toe")
    result = search(algorithm, game, game.after([0, 4, 1]), uniform, 64)
    assert result["action"] == 2
    root = result["nodes"][()]
    assert min(q for a, q in zip(root["actions"], root["q"], strict=True) if a != 2) < -0.2


def test_a_drawn_last_move_is_worth_nothing() -> None:
    game = game_of("tic_tac_toe")
    state = game.after([0, 1, 2, 4, 3, 5, 7, 6])
    for algorithm in ALGORITHMS:
        result = search(algorithm, game, state, hash_evaluate(game, HashNet(9)), 8)
        assert result["nodes"][()]["q"] == [0.0]
        assert result["nodes"][()]["visits"] == [8]  # the terminal leaf is backed up again at each visit
        assert len(result["nodes"]) == 1
        assert result["policy_target"] == [1.0]


probabilities = st.lists(st.floats(0.01, 1.0), min_size=2, max_size=12).map(lambda x: [p / sum(x) for p in x])


@given(probabilities, st.randoms(use_true_random=False), st.floats(0.01, 2.0))
def test_improved_policy_improves(prior: list[float], rng: random.Random, c_scale: float) -> None:
    """Section 4: for exact q the expected q of pi' is at least that of the prior."""
    q = [rng.uniform(-1, 1) for _ in prior]
    node = bandit(prior, [rng.randint(1, 30) for _ in prior], q)
    policy = reference.improved_policy(node, Gumbel(c_scale=c_scale))
    assert (
        sum(p * x for p, x in zip(policy, q, strict=True)) >= sum(p * x for p, x in zip(prior, q, strict=True)) - 1e-9
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 9))
def test_chosen_action_improves_on_the_sampled_one(seed: int, considered: int, simulations: int) -> None:
    """Section 3: argmax(gumbel + logits) is a sample of the prior; with exact q the search never does worse than it."""
    game = game_of("tic_tac_toe")
    state = random_state(game, 4, seed)
    net = hash_evaluate(game, HashNet(9, salt=seed % 7))

    def exact(s: pyspiel.State) -> tuple[Sequence[float], float]:
        return net(s)[0], exact_value(s)

    rng = random.Random(seed)
    legal = state.legal_actions()
    gumbel = [-math.log(-math.log(rng.random())) for _ in legal]
    considered = max(considered, simulations)  # one visit each at most, so that every q is exact
    result = gumbel_search(state, exact, 1.0, min(simulations, len(legal)), gumbel, Gumbel(considered=considered))
    logits = net(state)[0]
    sampled = legal[reference.argmax([g + logits[a] for g, a in zip(gumbel, legal, strict=True)])]

    def value_of(action: int) -> float:
        child = state.child(action)
        return child.returns()[state.current_player()] if child.is_terminal() else -exact_value(child)

    assert value_of(result["action"]) >= value_of(sampled)


def test_dirichlet_noise_moves_the_root_only() -> None:
    game = game_of("tic_tac_toe")
    state = game.new_initial_state()
    noise = [0.0] * 8 + [1.0]
    plain = puct_search(state, uniform, 1.0, 30)
    noisy = puct_search(state, uniform, 1.0, 30, noise, Puct(dirichlet_fraction=0.5))
    assert noisy["nodes"][()]["prior"] == pytest.approx([0.5 / 9] * 8 + [0.5 / 9 + 0.5])
    assert noisy["nodes"][(8,)]["prior"] == pytest.approx([1 / 8] * 8)
    assert noisy["action"] == 8 and plain["action"] != 8


def test_the_state_given_is_left_alone() -> None:
    game = game_of("connect_four")
    state = game.after([3, 3])
    before = state.history()
    for algorithm in ALGORITHMS:
        search(algorithm, game, state, uniform, 20)
    assert state.history() == before


# ------------------------------------------------------------------------------------------------------ golden trees

SKIRMISH = [3, 3, 2, 4, 4, 2, 5, 2, 2, 4, 4, 3, 3]
ENDING = [0, 2, 1, 2, 1, 4, 6, 0, 2, 4, 6, 6, 3, 6, 4, 1, 6, 2, 2, 6, 5, 0, 5, 3, 1, 5, 5, 1, 3, 2, 5, 1, 4, 3, 3, 3, 0]

#: name -> (game, opening, net, algorithm, simulations, with noise, settings, what to look for)
CASES: dict[str, tuple[str, list[int], str, str, int, bool, dict[str, float], str]] = {}
for _algorithm in ALGORITHMS:
    CASES |= {
        f"tic_tac_toe_start_{_algorithm}": (
            "tic_tac_toe",
            [],
            "hash",
            _algorithm,
            16,
            False,
            {},
            "a net without knowledge at the empty board",
        ),
        f"tic_tac_toe_win_{_algorithm}": (
            "tic_tac_toe",
            [0, 3, 1, 4],
            "uniform",
            _algorithm,
            16,
            False,
            {},
            "x wins at once with 2",
        ),
        f"tic_tac_toe_block_{_algorithm}": (
            "tic_tac_toe",
            [0, 4, 1],
            "uniform",
            _algorithm,
            32,
            True,
            {},
            "o loses at once unless it plays 2",
        ),
        f"tic_tac_toe_last_{_algorithm}": (
            "tic_tac_toe",
            [0, 1, 2, 4, 3, 5, 7, 6],
            "hash",
            _algorithm,
            4,
            True,
            {},
            "one move left, a draw",
        ),
        f"tic_tac_toe_three_left_{_algorithm}": (
            "tic_tac_toe",
            [4, 0, 8, 2, 1, 7],
            "hash",
            _algorithm,
            24,
            False,
            {},
            "three moves left",
        ),
        f"connect_four_start_{_algorithm}": (
            "connect_four",
            [],
            "hash",
            _algorithm,
            16,
            True,
            {},
            "a net without knowledge at the empty board",
        ),
        f"connect_four_win_{_algorithm}": (
            "connect_four",
            [3, 6, 3, 6, 3, 5],
            "hash",
            _algorithm,
            24,
            False,
            {},
            "the first player wins with 3",
        ),
        f"connect_four_block_{_algorithm}": (
            "connect_four",
            [3, 0, 3, 0, 3],
            "uniform",
            _algorithm,
            32,
            False,
            {},
            "only 3 stops the column",
        ),
        f"connect_four_middle_{_algorithm}": (
            "connect_four",
            SKIRMISH,
            "hash",
            _algorithm,
            32,
            True,
            {},
            "a middle game",
        ),
        f"connect_four_ending_{_algorithm}": (
            "connect_four",
            ENDING,
            "hash",
            _algorithm,
            32,
            False,
            {},
            "five moves left: terminal leaves all around",
        ),
    }
CASES["connect_four_considered_gumbel"] = (
    "connect_four",
    SKIRMISH,
    "hash",
    "gumbel",
    32,
    True,
    {"considered": 4, "c_scale": 1.0},
    "four actions considered",
)
CASES["connect_four_eager_puct"] = (
    "connect_four",
    SKIRMISH,
    "hash",
    "puct",
    32,
    False,
    {"c_init": 2.5, "c_base": 100.0, "fpu_reduction": 0.0},
    "much exploration",
)


def noise_for(algorithm: str, count: int) -> list[float]:
    """A fixed sample, rounded so that it can be read: Gumbel(0, 1), or Dirichlet(1)."""
    rng = random.Random(count)
    if algorithm == "gumbel":
        return [round(-math.log(-math.log(rng.random())), 3) for _ in range(count)]
    cuts = sorted(rng.randrange(1001) for _ in range(count - 1))
    return [(b - a) / 1000 for a, b in zip([0, *cuts], [*cuts, 1000], strict=True)]


def readable(number: float) -> float | None:
    """Six decimals, no negative zero, null where not visited."""
    return None if math.isnan(number) else round(number, 6) + 0.0


def golden_text(case: dict[str, Any], result: SearchRecord) -> str:
    """JSON with one edge a line."""
    lines = ["{"]
    lines += [f" {json.dumps(key)}: {json.dumps(value)}," for key, value in case.items()]
    lines += [
        f' "action": {result["action"]},',
        f' "root_value": {readable(result["root_value"])},',
        f' "policy_target": {json.dumps([readable(p) for p in result["policy_target"]])},',
        ' "nodes": {',
    ]
    nodes = []
    for history, node in result["nodes"].items():
        columns = zip(node["actions"], node["visits"], node["q"], node["prior"], strict=True)
        edges = [
            f'    "{a}": {json.dumps({"visits": n, "q": readable(q), "prior": readable(p)})}' for a, n, q, p in columns
        ]
        head = f'"player": {node["player"]}, "raw_value": {readable(node["raw_value"])}, "edges": {{'
        nodes.append(f'  "{" ".join(map(str, history))}": {{{head}\n' + ",\n".join(edges) + "}}")
    return "\n".join(lines) + "\n" + ",\n".join(nodes) + "\n }\n}\n"


@pytest.mark.parametrize("name", CASES)
def test_golden_tree(name: str, file_regression: FileRegressionFixture) -> None:
    game_name, opening, net, algorithm, simulations, with_noise, changed, about = CASES[name]
    game = game_of(game_name)
    state = game.after(opening)
    noise = noise_for(algorithm, len(state.legal_actions())) if with_noise else None
    evaluate = uniform if net == "uniform" else hash_evaluate(game, HashNet(game.num_actions))
    chosen = Gumbel(**changed) if algorithm == "gumbel" else Puct(**changed)  # type: ignore[arg-type]
    result = search(algorithm, game, state, evaluate, simulations, noise=noise, settings=chosen)
    case = {
        "about": about,
        "game": game_name,
        "opening": opening,
        "board": str(state).rstrip().splitlines(),
        "net": net,
        "algorithm": algorithm,
        "settings": changed,
        "simulations": simulations,
        "noise": noise,
    }
    text = golden_text(case, result)
    assert json.loads(text)["nodes"][""]["player"] == state.current_player()
    file_regression.check(text, fullpath=GOLDEN / f"{name}.json")


def test_no_golden_tree_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(CASES)
