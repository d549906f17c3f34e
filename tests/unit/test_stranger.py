"""What verify_weights.py is made of, against the package that it shares no code with."""

from __future__ import annotations

import ast
import json
from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np
import pyspiel
import pytest
import torch

from selfplay.contract import GameSpec
from selfplay.environments import registry
from selfplay.environments.game import load
from selfplay.nets.language.config import LanguageConfig
from selfplay.nets.language.transformer import Transformer
from selfplay.play.draws import GameDraws, PlaySettings
from selfplay.rollout.sampling import Sampling, sampled_logprobs
from selfplay.search import reference
from selfplay.search.hash_net import HashNet
from selfplay.store.release.verifier import language, one_file, searching
from selfplay.store.release.verifier.rows import Unknown
from selfplay.store.release.weights_file import weights_file

CONSTANTS: dict[str, Any] = {"c_visit": 50.0, "c_scale": 0.2, "c_init": 1.25, "c_base": 19652.0, "fpu_reduction": 0.2,
                             "dirichlet_fraction": 0.25}  # fmt: skip


def told_by(state: Any) -> tuple[Any, float]:
    logits, values = HashNet(9)(np.array(state.observation_tensor(), np.float32)[None])
    return logits[0], float(values[0])


@pytest.mark.parametrize("algorithm", ["gumbel", "puct"])
def test_its_search_is_that_of_the_papers(algorithm: str) -> None:
    rng, game = np.random.default_rng(0), pyspiel.load_game("tic_tac_toe")
    for trial in range(20):
        state = game.new_initial_state()
        for _ in range(trial % 5):
            state.apply_action(int(rng.choice(state.legal_actions())))
        count, made, considered = len(state.legal_actions()), int(rng.integers(0, 40)), int(rng.integers(1, 12))
        how = {**CONSTANTS, "algorithm": algorithm, "considered": considered}
        noise: Any = rng.gumbel(size=count) if algorithm == "gumbel" else rng.dirichlet([1.0] * count)
        if algorithm == "gumbel":
            wanted = reference.gumbel_search(state, told_by, 1.0, made, noise, reference.Gumbel(considered))
        else:
            noise = noise if trial % 2 else None
            wanted = reference.puct_search(state, told_by, 1.0, made, noise)
        root, edge = searching.search(state, told_by, 1.0, made, noise, how)
        node = wanted["nodes"][()]
        assert (root.visits, root.actions[edge]) == (node["visits"], wanted["action"])
        assert (root.raw + sum(root.total)) / (1 + made) == pytest.approx(wanted["root_value"])


@pytest.mark.parametrize("algorithm", ["gumbel", "puct"])
@pytest.mark.parametrize("resigns", [None, 0.9])
def test_it_draws_from_a_seed_what_players_draw(algorithm: str, resigns: float | None) -> None:
    spec = registry.find("tic_tac_toe")
    assert isinstance(spec, GameSpec)
    game = load(spec)
    settings = PlaySettings(1, 12, 3, 0.6, 0.7, 8, 3, 0.8, 4, resign_threshold=resigns, ply_limit=spec.ply_limit)
    search = {**CONSTANTS, "algorithm": algorithm, "considered": 16, "simulations": 12, "cheap_simulations": 3}
    play = {"opening_fraction": 0.7, "opening_plies": 8, "opening_choices": 3, "temperature": 0.8,
            "temperature_plies": 4, "resign_threshold": resigns, "resign_playon": 0.2, "ply_limit": None}  # fmt: skip
    how = searching.playing_of({"search": {**search, "full_fraction": 0.6, "dirichlet_alpha": None}, "selfplay": play})
    assert how is not None and not how["exact"]
    rules, visits, actions = pyspiel.load_game("tic_tac_toe"), [3, 0, 5], [1, 4, 7]
    for seed in range(30):
        wanted = GameDraws(game, settings, algorithm == "gumbel", seed)
        found = searching.Draws(rules, how, seed)
        assert [list(one.actions) for one in wanted.openings] == found.openings
        for ply in range(6):
            full, noise = wanted.search(3)
            assert found.noise(3)[0] is full
            wanted_move = wanted.move(ply, np.array(actions), np.array(visits), 7)
            assert found.move(ply, actions, visits) == (None if algorithm == "gumbel" else wanted_move), noise


def test_settings_that_are_not_all_there_repeat_nothing() -> None:
    assert searching.playing_of({}) is None and searching.playing_of({"search": {}, "selfplay": []}) is None


@pytest.mark.parametrize("shape", [{}, {"qkv_bias": True, "tie": False, "rope_factor": 2.0}, {"unturned": (0,)}])
def test_its_language_models_are_those_of_the_package(shape: dict[str, Any]) -> None:
    """Grouped heads, biases, positions in some layers, own output weights; with and without top_k and top_p."""
    torch.set_num_threads(1)
    config = LanguageConfig(50, 2, 16, 32, heads=4, kv_heads=2, head_dim=4, context=64, **shape)
    model, rng = Transformer(config), np.random.default_rng(0)
    model.start(1)
    with torch.inference_mode():
        model.model.embed_tokens.weight.mul_(8)
        tensors = {f"model.{name}": p.detach().numpy() for name, p in model.named_parameters()}
    net = json.dumps({"config": asdict(config), "lora_rank": 0, "dtype": "float32"})
    speaker = language.Speaker(net, tensors | {"value_head.weight": np.zeros((1, 16), np.float32)})
    speaker.rough_runs = True  # so that tokens that top_k and top_p leave out have a number, too
    for how in ((1.0, None, None), (0.7, 5, None), (0.8, None, 0.9), (1.0, 8, 0.7)):
        answers = []
        for length in (9, 14, 20):
            ids = torch.from_numpy(rng.integers(0, 50, length))
            with torch.inference_mode():
                logits = model.logits(model.hidden(ids[None]))[0, 3:-1]
                drawn = sampled_logprobs(logits, ids[4:], Sampling(*how))
            answers.append(language.Answer("a", 0, 1, ids.numpy(), drawn.double().numpy(), how))
        assert [wrong for _, wrong, _ in speaker.apart(answers)] == [None] * 3
        for one, found in zip(answers, speaker.logprobs(answers), strict=True):
            assert np.abs(found[0] - one.logprobs).max() < 2e-5


def test_what_other_software_computes_is_not_weighed() -> None:
    for net in ({"config": None, "lora_rank": 0, "dtype": "float32"}, {"config": {}, "lora_rank": 4, "dtype": ""}):
        with pytest.raises(Unknown, match="computed by transformers, or with adapters"):
            language.Speaker(json.dumps(net), {})
    for text in ("", "[]", '{"config": {"layers": 2}, "lora_rank": 0, "dtype": "float32"}'):
        with pytest.raises(Unknown, match="describes no language model"):
            language.Speaker(text, {})


def test_no_name_of_one_part_hides_another() -> None:
    """Parts become one file, in which every name at the top is there once."""
    for source in (one_file(), weights_file({})):
        names = Counter[str]()
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names[node.name] += 1
            elif isinstance(node, ast.Assign):
                found = [of for target in node.targets for of in ast.walk(target) if isinstance(of, ast.Name)]
                names.update(of.id for of in found)
        assert [name for name, count in names.items() if count > 1] == []
