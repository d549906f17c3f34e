"""Using what was trained: from a run's folder, without ray."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from selfplay import agent as agents
from selfplay.agent import Agent, describe
from selfplay.environments import registry
from selfplay.environments.game import load, spec_from_string
from selfplay.errors import UserError
from selfplay.io.run_files import AGENT_FILE, versions, weights_uri
from selfplay.nets import Evaluator, NetConfig, build, to_arrays, weights
from selfplay.search import SearchConfig
from selfplay.search.hash_net import HashNet

SEARCH = SearchConfig(considered=9, c_scale=1.0)


def write_run(folder: Path, kept: tuple[int, ...] = (0, 3), reference: str = "tic_tac_toe") -> NetConfig:
    """What a run leaves for an agent: its description and the weights of the versions it keeps."""
    game = load(registry.find(reference))
    net = NetConfig(game.encoder.shape, game.num_actions, game.outcomes is not None, channels=8, blocks=1)
    folder.mkdir(exist_ok=True)
    (folder / AGENT_FILE).write_text(describe(game, net, SEARCH, "a-run"))
    for version in kept:
        tensors = to_arrays(build(net, seed=version))
        weights.save(weights_uri(str(folder), version), tensors, {"kind": "weights", "version": version})
    return net


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_run(folder)
    return folder


def hashing(name: str = "connect_four", search: SearchConfig = SEARCH, logit_range: float = 2.0) -> Agent:
    """An agent with a net that says something else of every position."""
    game = load(spec_from_string(name))
    net = HashNet(game.num_actions, logit_range, value_range=logit_range / 4)
    return Agent(game, net, search, 1, "hash")


def test_the_newest_version_is_loaded_or_the_one_asked_for(run: Path) -> None:
    assert versions(str(run)) == [0, 3]
    newest, first = Agent.load(str(run)), Agent.load(str(run), 0)
    assert (newest.version, first.version) == (3, 0)
    assert newest.spec.id == "tic_tac_toe-v0" and newest.policy_id == "a-run"
    state = newest.game.after([4])
    assert newest.evaluate(state)[1] != first.evaluate(state)[1]


def test_it_evaluates_as_the_net_does(run: Path) -> None:
    one = Agent.load(str(run))
    net = Evaluator(write_run(run), device="cpu")
    net.load(weights.load(weights_uri(str(run), 3))[0])
    for line in ([], [4], [0, 4, 8]):
        state = one.game.after(line)
        policy, value = one.evaluate(state)
        logits, values = net(one.game.encoder.encode(state)[None])
        legal = state.legal_actions()
        expected = np.zeros(9)
        expected[legal] = np.exp(logits[0, legal] - logits[0, legal].max())
        assert policy.dtype == np.float32 and policy.shape == (9,)
        np.testing.assert_allclose(policy, expected / expected.sum(), atol=1e-5)
        assert value == pytest.approx(float(values[0]), abs=1e-6)
        assert one.act(state, simulations=0) == int(policy.argmax()) == legal[int(logits[0, legal].argmax())]


def test_images_of_a_position_are_evaluated_alike(tmp_path: Path) -> None:
    """Averaged over all eight images, a position and its images get one value and the same policy, turned."""
    net = write_run(tmp_path)
    place = tmp_path / AGENT_FILE
    about = json.loads(place.read_text())
    place.write_text(json.dumps(about | {"images": 8}))
    one = Agent.load(str(tmp_path))
    plain = Evaluator(net, device="cpu", dtype="float32")
    plain.load(weights.load(weights_uri(str(tmp_path), 3))[0])
    symmetries = one.game.encoder.symmetries()
    assert len(symmetries) == 7
    line = [0, 4, 5]
    state, legal = one.game.after(line), one.game.after(line).legal_actions()
    policy, value = one.evaluate(state)
    values, logits = [], []  # of the eight images, by hand
    for actions in (tuple(range(9)), *(symmetry.actions for symmetry in symmetries)):
        image = one.game.after([actions[a] for a in line])
        turned, same = one.evaluate(image)
        np.testing.assert_allclose(turned[list(actions)], policy, atol=2e-3)
        assert same == pytest.approx(value, abs=2e-3)
        raw, of = plain(one.game.encoder.encode(image)[None])
        values.append(float(of[0]))
        logits.append(raw[0, list(actions)])
    expected = np.exp(np.mean(logits, 0)[legal])
    np.testing.assert_allclose(policy[legal], expected / expected.sum(), atol=2e-3)
    assert value == pytest.approx(np.mean(values), abs=2e-3)
    assert np.ptp(values) > 1e-3, "a net that is symmetric by itself shows nothing"
    assert one.act(state, 16) in legal


@pytest.mark.parametrize("algorithm", ["gumbel", "puct"])
def test_no_simulations_is_the_raw_policy(algorithm: str) -> None:
    one = hashing(search=SearchConfig(algorithm=algorithm))  # type: ignore[arg-type]
    for line in ([], [3], [3, 3, 2], [0, 1, 0, 1, 0]):
        state = one.game.after(line)
        policy, value = one.evaluate(state)
        assert one.act(state, 0) == int(policy.argmax())
        assert policy.sum() == pytest.approx(1, abs=1e-6) and -0.5 <= value <= 0.5
        assert set(np.flatnonzero(policy)) == set(state.legal_actions())


def test_values_are_in_the_games_own_units() -> None:
    one = hashing("dots_and_boxes(num_rows=2,num_cols=2,utility_margin=true)")
    state = one.game.new_initial_state()
    _, value = one.evaluate(state)
    _, raw = HashNet(one.game.num_actions, value_range=0.5)(one.game.encoder.encode(state)[None])
    assert one.game.value_scale == 4 and value == pytest.approx(4 * raw[0])


@pytest.mark.parametrize("algorithm", ["gumbel", "puct"])
def test_it_takes_a_win_and_stops_one(algorithm: str) -> None:
    one = hashing(search=SearchConfig(algorithm=algorithm), logit_range=0.25)  # type: ignore[arg-type]
    assert one.act(one.game.after([3, 0, 3, 0, 3, 0]), 64) == 3  # seat 0 completes its column
    assert one.act(one.game.after([3, 0, 3, 0, 6, 0, 6]), 64) == 0  # seat 1 completes its own
    assert one.act(one.game.after([3, 0, 3, 0, 3]), 200) == 3  # seat 1 must stop seat 0


def test_many_states_side_by_side_are_searched_as_one_by_one() -> None:
    one = hashing()
    rng = np.random.default_rng(0)
    states = []
    for plies in rng.integers(0, 12, 300):  # more than are searched at once
        state = one.game.new_initial_state()
        for _ in range(plies):
            child = state.child(int(rng.choice(state.legal_actions())))
            state = state if child.is_terminal() else child
        states.append(state)
    before = [str(state) for state in states]
    together = one.act_many(states, 8)
    assert [str(state) for state in states] == before  # left as they were
    assert len(together) == 300 and one.act_many([], 8) == []
    some = range(0, 300, 23)
    assert [together[i] for i in some] == [one.act(states[i], 8) for i in some]
    assert one.act_many(states[:5], 100) == [one.act(s, 100) for s in states[:5]]  # more simulations than ever before
    assert one.act_many(states[:5], 8) == together[:5]  # and fewer again: nothing is left of them


def test_without_noise_it_repeats_itself() -> None:
    one, other = hashing(), hashing()
    state = one.game.after([3, 2])
    found = [a.search(state, 32) for a in (one, one, other)]
    assert len({(r.action, r.root_value, r.visits.tobytes()) for r in found}) == 1


def test_wrong_calls_say_so(run: Path) -> None:
    one = Agent.load(str(run))
    with pytest.raises(ValueError, match="simulations must be 0 or more"):
        one.act(one.game.new_initial_state(), -1)
    finished = one.game.after([0, 3, 1, 4, 2])
    assert finished.is_terminal()
    for call in (one.act, one.evaluate):
        with pytest.raises(ValueError, match="finished game"):
            call(finished)
    assert one.act(one.game.after([0, 3, 1, 4]), 32) == 2  # it can still be used


def test_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run"):
        Agent.load(str(tmp_path / "nothing"))
    write_run(tmp_path, kept=())
    with pytest.raises(UserError, match="no weights yet"):
        Agent.load(str(tmp_path))


def test_a_version_that_is_not_kept(run: Path) -> None:
    with pytest.raises(UserError, match="keeps no version 2; it has 0, 3"):
        Agent.load(str(run), 2)


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path)
    place = tmp_path / AGENT_FILE
    about = json.loads(place.read_text())
    place.write_text(json.dumps(about | {"schema": agents.SCHEMA + 1}))
    with pytest.raises(UserError, match="newer than"):
        Agent.load(str(tmp_path))
    place.write_text(json.dumps(about | {"net": about["net"] | {"schema": 99}}))
    with pytest.raises(UserError, match="newer than"):
        Agent.load(str(tmp_path))
    place.write_text(json.dumps(about))
    tensors, meta = weights.load(weights_uri(str(tmp_path), 3))
    data = weights.to_bytes(tensors, meta).replace(b'\\"schema\\": 1', b'\\"schema\\": 9')
    Path(weights_uri(str(tmp_path), 3)).write_bytes(data)
    with pytest.raises(UserError, match="newer than"):
        Agent.load(str(tmp_path))


def test_a_game_of_ones_own_is_not_run_from_the_folder_without_trust(tmp_path: Path) -> None:
    source = tmp_path / "my_hex.py"
    source.write_text(
        "from selfplay.contract import GameSpec\n"
        'SPEC = GameSpec(id="my_hex-v0", game="hex(board_size=3)", summary="Small hex", ply_limit=9)\n'
    )
    write_run(tmp_path / "run", kept=(1,), reference=str(source))
    about = json.loads((tmp_path / "run" / AGENT_FILE).read_text())
    assert "Small hex" in about["env"]["source"]
    code = (
        "import sys\n"
        "from selfplay.agent import Agent\n"
        "from selfplay.errors import UserError\n"
        "try:\n"
        "    Agent.load(sys.argv[1])\n"
        "except UserError as error:\n"
        "    assert 'trust=True' in str(error), error\n"
        "agent = Agent.load(sys.argv[1], trust=True)\n"
        "print(agent.spec.summary, agent.act(agent.game.new_initial_state(), 8) in range(9), 'ray' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run")], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == "Small hex True False", done.stderr
