"""How nets are evaluated and trained is chosen by what is fast here; who plays, by how far the learner is behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from selfplay.environments import registry
from selfplay.environments.game import Game, load
from selfplay.errors import UserError
from selfplay.nets import NetConfig, build, to_arrays
from selfplay.nets import choice as choices
from selfplay.nets.choice import Choice, Function, Trial, Way
from selfplay.nets.inference import Evaluator
from selfplay.nets.language.config import PolicySpec, small
from selfplay.nets.language.tokenizer import of_characters
from selfplay.rollout.sampling import Sampling
from trainers.alphazero import arithmetic
from trainers.alphazero import loop as alphazero
from trainers.alphazero.arithmetic import Training
from trainers.alphazero.learner_settings import LearnerSettings
from trainers.reasoning.config import LearnerSettings as ReasoningSettings
from trainers.reasoning.learner import ReasoningLearner
from trainers.reasoning.token_batch import Lessons
from trainers.run import fastest

F32, BF16, INT8 = (Way("openvino", dtype) for dtype in ("float32", "bfloat16", "int8"))


@pytest.fixture(scope="module")
def game() -> Game:
    return load(registry.find("connect_four"))


def net(game: Game) -> NetConfig:
    return NetConfig(game.encoder.shape, game.num_actions, True, channels=16, blocks=2)


def test_each_way_costs_its_best_call_and_hopeless_ones_are_not_repeated() -> None:
    now = 0.0
    calls: dict[Way, int] = {}

    def taking(way: Way, *seconds: float) -> tuple[Way, Callable[[], Function]]:
        def function(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            nonlocal now
            now += seconds[min(calls.get(way, 0), len(seconds) - 1)]
            calls[way] = calls.get(way, 0) + 1
            return x, x

        return way, lambda: function

    ways = [taking(F32, 9.0, 1.8, 1.5, 4.0), taking(BF16, 9.0), taking(INT8, 1.0)]
    trials = choices.measure(ways, np.zeros((100, 1), np.float32), lambda: now)
    assert [(trial.way, round(trial.us)) for trial in trials] == [(INT8, 10_000), (F32, 15_000), (BF16, 90_000)]
    assert calls[BF16] == 2 < calls[INT8], "the call that prepares, and one"


@pytest.mark.parametrize(
    ("us", "chosen"),
    [
        ({INT8: 40.0, F32: 74.0}, INT8),
        ({INT8: 40.0, F32: 43.0}, F32),
        ({BF16: 186.0, INT8: 180.0, F32: 311.0}, BF16),
        ({F32: 186.0, BF16: 311.0, INT8: 68.0}, INT8),
    ],
)
def test_what_is_less_exact_must_be_faster(us: dict[Way, float], chosen: Way) -> None:
    trials = sorted((Trial(way, cost, 128) for way, cost in us.items()), key=lambda trial: trial.us)
    assert choices.choose(trials) == chosen


def test_divergence_is_that_of_the_policies() -> None:
    p = np.log(np.array([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]]))
    q = np.log(np.array([[0.25, 0.5, 0.25], [0.2, 0.2, 0.6]])) + 3.0
    assert choices.divergence(q, p) == pytest.approx(0.25 * np.log(2) / 2)
    assert choices.divergence(p + 7.0, p) == pytest.approx(0.0, abs=1e-12)


def test_an_untrained_net_is_evaluated_in_int8_too(game: Game) -> None:
    pytest.importorskip("openvino")
    seen = game.random_observations(64, 0)
    config = net(game)
    exact, rough = Evaluator(config, "float32", "cpu"), Evaluator(config, "int8", "cpu", positions=seen)
    assert (rough.dtype, rough.method) == ("int8", "openvino")
    tensors = to_arrays(build(config, 7))
    exact.load(tensors)
    rough.load(tensors)
    (logits, value), (mine, my_value) = exact(seen), rough(seen)
    assert 0 < choices.divergence(mine, logits) < choices.EXACT_NATS
    assert np.abs(value - my_value).max() < 0.02


def test_int8_is_left_where_it_is_not_exact(game: Game, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    chosen = Choice("cpu", INT8, (Trial(INT8, 40.0, 64), Trial(F32, 74.0, 64)))
    monkeypatch.setattr(Evaluator, "_chosen", lambda *_: chosen)
    evaluate = Evaluator(net(game), device="cpu", positions=game.random_observations(64, 0))
    assert evaluate.dtype == "int8"
    tensors = to_arrays(build(evaluate.config, 1))
    tensors |= {name: 100 * tensors[name] for name in tensors if name.startswith("policy")}  # that prefers something
    spoiled = {**tensors, "peaks": np.full_like(tensors["peaks"], 1e4)}  # every activation is rounded to zero
    evaluate.load(spoiled)
    assert evaluate.dtype == "float32" and evaluate.choice.way == INT8
    evaluate.load(tensors)
    assert evaluate.dtype == "int8"


def test_it_is_chosen_by_trying_or_is_the_same_each_time(game: Game) -> None:
    config = net(game)
    tried = Evaluator(config, device="cpu", positions=game.random_observations(64, 0)).choice
    assert tried.way == choices.choose(tried.trials) and len(tried.trials) >= 1
    assert f"{tried.way}, " in str(tried) and "µs a position" in str(tried)
    assert Evaluator(config, device="cpu").choice.trials == ()
    told = Evaluator(config, device="cpu", positions=game.random_observations(64, 0), backend="torch").choice
    assert {trial.way.method for trial in told.trials} == {"torch"}
    mlp = Evaluator(NetConfig((9,), 3, True, trunk="mlp"), device="cpu", positions=np.zeros((8, 9), np.float32))
    assert mlp.choice == Choice("cpu", Way("torch", "float32"))


@pytest.mark.parametrize("name", ["connect_four", "openspiel:backgammon"])
def test_random_observations_repeat(name: str) -> None:
    game = load(registry.find(name))
    seen = game.random_observations(30, 5)
    assert seen.shape == (30, *game.encoder.shape) and np.isfinite(seen).all()
    assert np.array_equal(seen, game.random_observations(30, 5))
    assert not np.array_equal(seen, game.random_observations(30, 6))
    assert np.array_equal(seen[:1], game.random_observations(1, 5))


def test_training_is_measured_where_it_is_left_open(game: Game) -> None:
    settings = LearnerSettings(batch=32, device="cpu", threads=1)
    told = arithmetic.measured(net(game), LearnerSettings(bf16=False, layout="contiguous"), "cpu")
    assert told == Training(False, "contiguous")
    tried = arithmetic.measured(net(game), settings, "cpu")
    assert "float32 by Winograd" in dict(tried.us)
    for wrong in ({"bf16": True}, {"device": "cuda"}):
        impossible = replace(settings, layout="winograd", **wrong)  # type: ignore[arg-type]
        with pytest.raises(UserError, match="winograd needs a CPU and float32"):
            arithmetic.measured(net(game), impossible, impossible.device)
    assert tried.name in dict(tried.us) and len(tried.us) >= 2
    assert dict(tried.us)[tried.name] <= fastest.WORTH * min(dict(tried.us).values())
    assert arithmetic.usual(settings, "cpu") == arithmetic.usual(settings, "cpu")
    assert str(Training(False, "channels_last", (("float32", 178.0), ("bfloat16", 277.0)))) == (
        "float32, 178 µs a row (bfloat16 277)"
    )


def test_trying_changes_nothing_of_a_language_model() -> None:
    tokenizer = of_characters("0123456789+=")
    spec = PolicySpec(None, small(tokenizer.size, 1, 32, 2, 64), tokenizer.files, 64)
    rng = np.random.default_rng(0)
    ids = [rng.integers(2, tokenizer.size, size) for size in (12, 20, 31)]
    lessons = Lessons(ids, {"mask": [np.arange(len(one)) > 5 for one in ids]}, {}, {})
    threads = torch.get_num_threads()
    try:
        tries = ReasoningLearner(spec, ReasoningSettings(), Sampling(), 1, 0, 2, measure=True)
        assert not tries.training.us
        one = tries.supervise(lessons.take(np.arange(3)), 1e-3)
        chosen = tries.training
        assert chosen.name in dict(chosen.us) and {"float32, 1 thread", "float32, 2 threads"} <= dict(chosen.us).keys()
        assert torch.get_num_threads() == chosen.threads
        told = ReasoningSettings(bf16=chosen.bf16, threads=chosen.threads)
        told_so = ReasoningLearner(spec, told, Sampling(), 1, 0, chosen.threads, measure=True)
        assert told_so.supervise(lessons.take(np.arange(3)), 1e-3) == one and not told_so.training.us
    finally:
        torch.set_num_threads(threads)


def loop(owed: float, *, playing: int = 0, written: int = 0, **settings: Any) -> Any:
    """A loop of four players as far as pacing looks at it; the learner may be behind by 1,000 samples."""
    learner = {"publish_every_samples": 1000, "batch": 64, "window_initial": 100, "samples_per_position": 4}
    return SimpleNamespace(
        config=SimpleNamespace(
            learner=SimpleNamespace(**{"learners": 0, "threads": "auto", **learner, **settings}),
            run=SimpleNamespace(deterministic=False)
        ),
        crew=SimpleNamespace(sizing=SimpleNamespace(joined=False, cores=4), learner_threads=1),
        roster=SimpleNamespace(players=dict.fromkeys("abcd")),
        playing=range(playing),
        written=range(written),
        progress=SimpleNamespace(positions=100),
        owed=lambda: owed,
    )  # fmt: skip


def test_ever_fewer_play_the_more_the_learner_is_behind() -> None:
    needed = [alphazero.Loop.needed(loop(owed)) for owed in (0, 500, 501, 700, 800, 900, 999, 1000, 5000)]
    assert needed == [4, 4, 4, 3, 2, 1, 1, 0, 0]
    assert alphazero.Loop.needed(loop(0, written=17)) == 0, "the archive lags"
    first = loop(1200)
    first.progress = None  # the learner has not begun: its window is to be filled
    assert alphazero.Loop.needed(first) == 2
    filling = loop(20_400, window_initial=5_000)  # by 400 more than that window owes
    filling.progress.positions = 4_999
    assert alphazero.Loop.needed(filling) == 4, "all fill the window: the learner waits for it"


@given(st.floats(0, 1e6), st.integers(1, 512), st.integers(1, 10**5), st.integers(1, 10**5), st.booleans())
def test_somebody_plays_while_the_learner_has_nothing_to_do(
    owed: float, batch: int, publish: int, window: int, filling: bool
) -> None:
    one = loop(owed, batch=batch, publish_every_samples=publish, window_initial=window)
    one.progress.positions = window - 1 if filling else window
    if owed < batch or (filling and owed <= 4 * window):
        assert alphazero.Loop.needed(one) == 4


def test_the_learner_has_the_cores_on_which_nobody_plays() -> None:
    threads = [alphazero.Loop.learner_threads(loop(0, playing=playing)) for playing in range(5)]
    assert threads == [4, 3, 2, 1, 1]
    assert alphazero.Loop.learner_threads(loop(0, learners=2)) is None
    assert alphazero.Loop.learner_threads(loop(0, threads=3)) is None, "as it was begun with"
