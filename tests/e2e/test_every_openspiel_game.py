"""Every OpenSpiel game that the search can play takes one turn of the loop: played, archived, verified, learned from.

In one process and without Ray's actors, so that 31 games take minutes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyspiel
import pytest

from selfplay import store
from selfplay.environments import registry
from selfplay.environments.game import load, unsearchable
from selfplay.environments.playthrough import ruleset_digest
from selfplay.episode import Provenance, to_batch
from selfplay.episode.training import COLUMNS, TargetSettings, count_rows, rows_from
from selfplay.errors import UserError
from selfplay.nets import weights
from selfplay.nets.config import NetConfig
from selfplay.nets.inference import Evaluator
from selfplay.nets.policy_value import build, to_arrays
from selfplay.play.generator import Generator, PlaySettings, Policy
from selfplay.search import SearchConfig
from selfplay.store.verify.verify import verify_corpus
from trainers.alphazero.learner import AlphaZeroLearner
from trainers.alphazero.learner_settings import LearnerSettings

#: Games of the right kind that cannot take the turn, each with the reason. Reviewed; at present there is none.
EXCEPTIONS: dict[str, str] = {}


def qualifies(kind: pyspiel.GameType) -> bool:
    """By what OpenSpiel declares of it, this search can play it."""
    return (
        kind.min_num_players <= 2 <= kind.max_num_players
        and kind.utility == pyspiel.GameType.Utility.ZERO_SUM
        and kind.chance_mode == pyspiel.GameType.ChanceMode.DETERMINISTIC
        and kind.information == pyspiel.GameType.Information.PERFECT_INFORMATION
        and kind.dynamics == pyspiel.GameType.Dynamics.SEQUENTIAL
        and kind.default_loadable
    )


#: As OpenSpiel registers them: other tests add games of their own.
REGISTERED = pyspiel.registered_games()
QUALIFYING = sorted(kind.short_name for kind in REGISTERED if qualifies(kind))


def test_the_list_is_as_reviewed() -> None:
    """A new OpenSpiel brings new games: look at them, then change the number."""
    assert len(QUALIFYING) == 31
    assert set(EXCEPTIONS) <= set(QUALIFYING)


@pytest.mark.slow
def test_every_other_game_is_refused_in_words() -> None:
    for kind in REGISTERED:
        if kind.short_name in QUALIFYING or not kind.default_loadable:
            continue
        try:
            reason = unsearchable(load(registry.find(f"openspiel:{kind.short_name}")))
        except UserError as error:
            reason = str(error)
        assert reason, f"{kind.short_name} would be searched"


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in QUALIFYING if n not in EXCEPTIONS])
@pytest.mark.parametrize(("algorithm", "ply_limit"), [("gumbel", 400), ("puct", 12)])
def test_one_turn(name: str, algorithm: str, ply_limit: int, tmp_path: Path) -> None:
    spec = registry.find(f"openspiel:{name}")
    game = load(spec)
    assert unsearchable(game) is None
    net = NetConfig(
        input_shape=game.encoder.shape,
        num_actions=game.num_actions,
        outcome=game.outcomes is not None,
        channels=4,
        blocks=1,
        hidden=16,
        layers=1,
    )
    tensors = to_arrays(build(net, 0))
    evaluate = Evaluator(net, dtype="float32", device="cpu", threads=1)
    evaluate.load(tensors)
    provenance = Provenance(
        run_id=f"turn-{name}",
        env_id=spec.id,
        env_version=spec.version,
        ruleset_digest=ruleset_digest(spec),
        config_digest="0" * 64,
        package_version="0",
        host="here",
        licence=spec.licence,
    )

    # Play. With the lower limit all but the shortest games are cut short.
    generator = Generator(
        game,
        evaluate,
        SearchConfig(algorithm=algorithm, considered=4),
        PlaySettings(slots=4, simulations=4, opening_fraction=0.5, opening_plies=2, ply_limit=ply_limit),
        provenance,
        "p0000",
        1000,
        0,
        np.random.default_rng(1),
    )
    generator.set_policy(Policy(provenance.run_id, 0, weights.digest(tensors)))
    episodes = generator.play(lambda sealed, decisions: sealed >= 4) + generator.abort()
    assert all(episode.n_steps <= ply_limit for episode in episodes)
    for episode in episodes:
        assert episode.game is not None and (episode.status == "ok") == (episode.game.ended_by == "terminal")
        assert (episode.returns is None) == (episode.status != "ok")

    # Archive, and see that it is true.
    corpus_uri = str(tmp_path / "corpus")
    committer = store.Committer(corpus_uri, provenance.run_id, 1)
    slot = committer.register("p0000")
    (receipt,) = committer.commit(
        [store.write_block(corpus_uri, to_batch(episodes), "p0000", slot.epoch, slot.next_number)]
    )
    assert receipt.status == "committed" and receipt.rows == len(episodes)
    corpus = store.open(corpus_uri)
    wrong = [check for check in verify_corpus(corpus) if check.state != "true"]
    assert not wrong, wrong[:3]

    # Learn from what was archived.
    archived = corpus.to_arrow(columns=list(COLUMNS)).combine_chunks()
    rows = rows_from(game, archived, TargetSettings(algorithm, 50.0, 0.2, 0.5, 0.5, 0.5))
    assert len(rows) == sum(count_rows(batch) for batch in archived.to_batches()) > 0
    assert np.isfinite(rows.observations).all() and np.abs(rows.z).max() <= 1 and np.abs(rows.q).max() <= 1
    sums = np.add.reduceat(rows.targets, rows.offsets[:-1])
    assert np.allclose(sums, 1, atol=1e-4)
    learner = AlphaZeroLearner(net, LearnerSettings(batch=16, device="cpu", threads=1, bf16=False), spec.symmetries)
    learner.add(rows)
    report = learner.train(2)
    assert np.isfinite(report["policy_loss"]) and np.isfinite(report["value_loss"])
    after = learner.weights()
    assert set(after) == set(tensors) and weights.digest(after) != weights.digest(tensors)
    evaluate.load(after)
