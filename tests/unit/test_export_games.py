"""Games for other people's tools: each format is loaded by the tool that its readers use, and says what is archived.

The corpus: chess and go on a small board (some cut by the ply limit), tic-tac-toe, random games of odd rules, control.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import chess.pgn
import numpy as np
import pyarrow.parquet as pq
import pytest

from selfplay import store
from selfplay.contract import GameSpec
from selfplay.environments import registry
from selfplay.environments.game import Game, load, spec_from_string
from selfplay.episode import Episode, Provenance, Step, to_batch
from selfplay.episode.random_play import random_episode
from selfplay.episode.replay import final_state, replay
from selfplay.errors import UserError
from selfplay.play.generator import Generator, PlaySettings, Policy
from selfplay.search import SearchConfig
from selfplay.search.hash_net import HashNet
from selfplay.store.export import export
from selfplay.store.export.job import ROWS, SIDECAR
from selfplay.store.table.maintenance import compact

GO = spec_from_string("go(board_size=5)")
#: Random games, and their seeds: White wins, a draw, …
ODD = (
    ("chess(chess960=True)", 5),
    ("chess", 5),
    ("chess", 10),
    ("go(board_size=19,handicap=4)", 5),
    ("kuhn_poker(players=3)", 5),
    ("matching_pennies_3p", 5),
)
FORMATS = ("pgn", "sgf", "minari", "rllib")


def provenance(env_id: str) -> Provenance:
    return Provenance("run", env_id, int(env_id.rsplit("-v", 1)[1]), "a" * 64, "b" * 64, "0", "here", "CC0-1.0")


def played(spec: GameSpec, slot: str, epoch: int, games: int, ply_limit: int) -> list[Episode]:
    game = load(spec)
    settings = PlaySettings(
        slots=4,
        simulations=6,
        full_fraction=0.7,
        cheap_simulations=3,
        opening_plies=3,
        ply_limit=ply_limit,
        resign_threshold=0.1 if spec is GO else None,
        resign_moves=2,
    )
    net, rng = HashNet(game.num_actions, value_range=1.0), np.random.default_rng(1)
    one = Generator(game, net, SearchConfig(), settings, provenance(spec.id), slot, epoch, 0, rng)
    one.set_policy(Policy("run-x", 12, "c" * 64))
    return one.play(lambda sealed, _: sealed >= games)[:games]


def controlled(epoch: int, number: int, env_id: str, shape: list[int]) -> Episode:
    """Two steps; observations [2]; shape: of actions."""
    size = math.prod(shape)
    data = {
        "observation_shape": [2],
        "action_shape": shape,
        "observations": [number + 0.5 * i for i in range(6)],
        "actions": [float((number + i) % 3) for i in range(2 * size)],
        "rewards": [1.0, -0.5],
        "logprobs": None if shape else [-0.25, -0.75],
    }
    status = "ok" if number % 2 else "truncated"
    returns = (0.5,)
    return Episode(provenance(env_id), "e", epoch, number, status, True, 1, returns, 7, 10**15, 5, control=data)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> store.Corpus:
    """Many small files."""
    uri = str(tmp_path_factory.mktemp("run") / "corpus")
    committer = store.Committer(uri, "run", 1)
    epochs = {slot: committer.register(slot).epoch for slot in "abcde"}
    chess_spec, tic_tac_toe = registry.find("chess"), registry.find("tic_tac_toe")
    wanted = {
        "a": played(chess_spec, "a", epochs["a"], 3, 24),
        "b": played(GO, "b", epochs["b"], 8, 40),
        "c": played(tic_tac_toe, "c", epochs["c"], 12, 9),
        "d": [
            random_episode(load(spec).game, seed, provenance(spec.id), "d", epochs["d"], number, ply_limit=300)
            for number, (spec, seed) in enumerate((spec_from_string(name), seed) for name, seed in ODD)
        ],
        "e": [
            *(controlled(epochs["e"], number, "CartPole-v1", []) for number in range(3)),
            *(controlled(epochs["e"], number, "Reacher-v4", [2]) for number in range(3, 5)),
        ],
    }
    for slot, episodes in wanted.items():
        for block, first in enumerate(range(0, len(episodes), 3)):
            batch = to_batch(episodes[first : first + 3])
            committer.commit([store.write_block(uri, batch, slot, epochs[slot], block)])
    endings = {e.game.ended_by for e in wanted["b"] if e.game is not None}
    assert endings == {"terminal", "ply_limit", "resignation"}
    return store.open(uri)


@pytest.fixture(scope="module")
def places(corpus: store.Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder a format."""
    root = tmp_path_factory.mktemp("exports")
    for name in FORMATS:
        export(corpus, name, str(root / name))
    return root


def rows(place: Path) -> list[dict[str, Any]]:
    return list(pq.read_table(place / ROWS).to_pylist())


def of(corpus: store.Corpus, name: str) -> dict[str, Episode]:
    """Games of that short name, by episode id."""
    return {
        e.episode_id: e for e in corpus.records() if e.game is not None and e.game.game_string.split("(")[0] == name
    }


def rules(episode: Episode) -> Game:
    assert episode.game is not None
    return load(spec_from_string(episode.game.game_string))


def steps(episode: Episode) -> tuple[Step, ...]:
    assert episode.game is not None
    return episode.game.steps


def test_chess_programs_read_the_games(corpus: store.Corpus, places: Path) -> None:
    games, told = of(corpus, "chess"), rows(places / "pgn")
    assert len(games) == len(told) == 6
    with (places / "pgn" / "games-00000.pgn").open() as file:
        for row in told:
            game = chess.pgn.read_game(file)
            assert game is not None and not game.errors
            episode = games[row["episode_id"]]
            assert game.headers["EpisodeId"] == row["episode_id"] and game.headers["Status"] == episode.status
            assert game.headers["Event"] == "run" and game.headers["Round"] == str(episode.number)
            result = "*" if episode.returns is None else {1: "1-0", 0: "1/2-1/2", -1: "0-1"}[int(episode.returns[1])]
            assert game.headers["Result"] == result
            state = final_state(rules(episode).game, steps(episode))
            board = game.end().board()
            assert board.board_fen() == str(state).split()[0] and board.fen().split()[1] == str(state).split()[1]
            decisions = [step for step in steps(episode) if step.seat >= 0]
            comments = [node.comment for node in game.mainline()]
            assert len(comments) == len(decisions)
            for step, said in zip(decisions, comments, strict=True):
                if step.source == "search":
                    assert said.startswith(f"v={step.root_value:+.2f} n={step.simulations} ")
                    assert int(said.split()[2].rsplit(":", 1)[1]) == max(step.visits)
                else:
                    assert said == step.source
        assert chess.pgn.read_game(file) is None
    text = (places / "pgn" / "games-00000.pgn").read_text()
    assert text.count('[Result "1-0"]') == text.count('[Result "1/2-1/2"]') == 1
    assert text.count('[White "run-x v12"]') == 3 and text.count('[Variant "Chess960"]') == 1


def test_go_programs_read_the_games(corpus: store.Corpus, places: Path, tmp_path: Path) -> None:
    sgf = pytest.importorskip("sgfmill.sgf")
    games, told = of(corpus, "go"), rows(places / "sgf")
    assert len(games) == len(told) == 9
    for row in told:
        episode = games[row["episode_id"]]
        game = sgf.Sgf_game.from_bytes((places / "sgf" / row["file"]).read_bytes())
        root, size = game.get_root(), game.get_size()
        assert root.get("GN") == row["episode_id"] and root.get("DT") and game.get_komi() == 7.5
        state = rules(episode).new_initial_state()
        assert game.get_handicap() == (4 if size == 19 else None)
        if size == 19:
            black, white, _ = root.get_setup_stones()
            stones = str(state).splitlines()
            assert not white and len(black) == 4 and all(stones[2 + size - 1 - r][3 + c] == "X" for r, c in black)
        for node in game.get_main_sequence()[1:]:
            colour, point = node.get_move()
            assert colour == "bw"[state.current_player()]
            state.apply_action(size * size if point is None else size * point[0] + point[1])
        assert str(state) == str(final_state(rules(episode).game, steps(episode)))
        won = None if episode.returns is None else {1.0: "b", -1.0: "w", 0.0: None}[episode.returns[0]]
        assert game.get_winner() == won
        assert (root.get("RE") == "Void") == (episode.returns is None)
    comments = [node.get("C") for node in game.get_main_sequence()[1:]]
    assert set(comments) == {"random"}
    export(corpus, "sgf", str(tmp_path / "few"), options={"per_file": "4"})
    from sgfmill import sgf_grammar

    read = []
    for path in sorted((tmp_path / "few").glob("*.sgf")):
        trees = sgf_grammar.parse_sgf_collection(path.read_bytes())
        read += [sgf.Sgf_game.from_coarse_game_tree(tree).get_root().get("GN") for tree in trees]
    assert read == [row["episode_id"] for row in told]


def test_sgf_text_is_escaped() -> None:
    from selfplay.store.export.sgf import _text

    assert _text("a]b\\c\nd") == "a\\]b\\\\c d"
    assert _text("\x1b[2J\u202e") == "\ufffd[2J\ufffd"


def test_a_pgn_header_holds_one_tame_value(corpus: store.Corpus) -> None:
    from selfplay.store.export.pgn import _headers

    one = next(iter(of(corpus, "chess").values()))
    evil = 'x\\"]\n[Result "1-0"]\x1b[2J\u202e\\'
    shown = _headers(replace(one, provenance=replace(one.provenance, env_id=evil, licence=evil)))
    assert shown["Env"] == shown["Licence"] == "x/'] [Result '1-0']\ufffd[2J\ufffd/"


def seen(episode: Episode, seat: int) -> Iterator[tuple[np.ndarray[Any, Any], Step]]:
    """What a net is shown at each decision of the seat, by replay."""
    reference = episode.provenance.env_id
    game = rules(episode) if reference.startswith("openspiel/") else load(registry.find(reference))
    for _, state, step in replay(game.game, steps(episode)):
        if step.seat == seat:
            yield game.encoder.encode(state), step


def test_minari_reads_what_the_seats_did(corpus: store.Corpus, places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minari = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(places / "minari"))
    episodes, told = {e.episode_id: e for e in corpus.records()}, rows(places / "minari")
    names = {row["file"].split("/data/")[0] for row in told}
    assert names == set(minari.list_local_datasets())
    assert {"selfplay/tic_tac_toe/seat-1-v0", "selfplay/openspiel/go_board_size_5/seat-0-v0"} <= names
    assert "selfplay/openspiel/kuhn_poker_players_3/seat-2-v0" in names
    for name in sorted(names):
        dataset = minari.load_dataset(name)
        mine = [row for row in told if row["file"].startswith(f"{name}/")]
        assert [row["row"] for row in mine] == list(range(dataset.total_episodes))
        metadata = dataset.storage.get_episode_metadata(range(len(mine)))
        for row, part, about in zip(mine, dataset.iterate_episodes(), metadata, strict=True):
            episode, seat = episodes[row["episode_id"]], row["seat"]
            assert (about["episode_id"], about["seat"]) == (row["episode_id"], seat)
            assert all(dataset.observation_space.contains(x) for x in part.observations)
            assert all(dataset.action_space.contains(x) for x in part.actions)
            assert part.terminations.sum() + part.truncations.sum() == 1
            assert len(part.observations) == len(part.actions) + 1
            if episode.control is not None:
                assert part.observations.ravel().tolist() == episode.control["observations"]
                assert part.actions.ravel().tolist() == episode.control["actions"]
                assert part.rewards.tolist() == episode.control["rewards"]
                assert part.terminations[-1] == (episode.status == "ok")
                continue
            decisions = list(seen(episode, seat))
            assert part.actions.tolist() == [step.action for _, step in decisions]
            assert np.array_equal(part.observations[:-1], [x for x, _ in decisions])
            assert part.rewards.sum() == part.rewards[-1] == (0 if episode.returns is None else episode.returns[seat])
            assert part.terminations[-1] == (episode.returns is not None)
            assert len(part.infos["policy"]) == len(part.infos["root_value"]) == len(part.observations)
            for i, (_, step) in enumerate(decisions):
                shares, value = part.infos["policy"][i], part.infos["root_value"][i]
                assert np.array_equal(value, [np.float32(step.root_value)], equal_nan=True)
                if step.full_search:
                    assert np.allclose(shares[step.actions] * step.visits.sum(), step.visits, atol=1e-4)
                assert shares.sum() == pytest.approx(float(step.full_search), abs=1e-5)
    cart = minari.load_dataset("selfplay/CartPole/seat-0-v1")
    assert cart.action_space.n == 3 and cart[0].infos["logprob"].tolist()[:2] == [[-0.25], [-0.75]]
    last = next(e for e in minari.load_dataset("selfplay/tic_tac_toe/seat-0-v0"))
    assert last.observations[-1].any() and not np.array_equal(last.observations[-1], last.observations[-2])
    said = json.loads((places / "minari" / SIDECAR).read_text())["left_out"]
    assert said == {"openspiel/matching_pennies_3p-v0 has no observation tensor that a net could read": 1}


def test_rllib_reads_what_the_seats_did(corpus: store.Corpus, places: Path) -> None:
    import msgpack
    import msgpack_numpy
    from ray.rllib.env.single_agent_episode import SingleAgentEpisode

    episodes, told = {e.episode_id: e for e in corpus.records()}, rows(places / "rllib")
    assert {row["file"].split("/episodes-")[0] for row in told} >= {"tic_tac_toe-v0/seat-0", "CartPole-v1/seat-0"}
    files = {row["file"]: pq.read_table(places / "rllib" / row["file"])["item"].to_pylist() for row in told}
    for row in told:
        state = msgpack.unpackb(files[row["file"]][row["row"]], object_hook=msgpack_numpy.decode)
        part, episode, seat = SingleAgentEpisode.from_state(state), episodes[row["episode_id"]], row["seat"]
        assert part.id_ == f"{row['episode_id']}/seat-{seat}" and part.is_done and part.t_started == 0
        assert part.custom_data["episode_id"] == row["episode_id"]
        observations, actions, rewards = part.get_observations(), part.get_actions(), part.get_rewards()
        assert all(part.observation_space.contains(x) for x in observations)
        if episode.control is not None:
            assert np.ravel(observations).tolist() == episode.control["observations"]
            assert np.ravel(actions).tolist() == episode.control["actions"]
            assert list(rewards) == episode.control["rewards"]
            assert ("action_logp" in part.extra_model_outputs) == (episode.control["logprobs"] is not None)
            continue
        decisions = list(seen(episode, seat))
        assert [int(action) for action in actions] == [step.action for _, step in decisions]
        assert all(np.array_equal(x, y.ravel()) for x, (y, _) in zip(observations, decisions, strict=False))
        assert sum(rewards) == rewards[-1] == (0 if episode.returns is None else episode.returns[seat])
        assert part.is_terminated == (episode.returns is not None) and part.is_truncated != part.is_terminated


def contents(place: Path, version: int) -> dict[str, bytes]:
    """By file; the version of the corpus, which compaction raises, is left out of what is told."""
    found = {}
    for path in (path for path in place.rglob("*") if path.is_file()):
        data = path.read_bytes()
        if path.suffix == ".json":
            data = data.replace(f"corpus version {version}".encode(), b"").replace(
                f'"corpus_version": {version}'.encode(), b""
            )
        found[path.relative_to(place).as_posix()] = data
    return found


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_episodes_are_the_same_bytes(corpus: store.Corpus, places: Path, tmp_path: Path, name: str) -> None:
    export(corpus, name, str(tmp_path / "again"))
    first, again = contents(places / name, corpus.version), contents(tmp_path / "again", corpus.version)
    assert first == again
    copy = str(tmp_path / "copy")
    shutil.copytree(corpus.uri, copy)
    assert compact(copy).files_after < len(corpus.files())
    merged = store.open(copy)
    export(merged, name, str(tmp_path / "merged"))
    other = contents(tmp_path / "merged", merged.version)
    digests = [json.loads((place / SIDECAR).read_text())["sha256"] for place in (places / name, tmp_path / "merged")]
    for path in first.keys() | other.keys():
        if path == SIDECAR:
            assert digests[0].keys() == digests[1].keys()
        else:
            assert first[path] == other[path], path


@pytest.mark.parametrize("name", FORMATS)
def test_a_folder_that_is_not_empty_is_left_alone(corpus: store.Corpus, tmp_path: Path, name: str) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        export(corpus, name, str(tmp_path))
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("mine.txt", "mine")]


@pytest.mark.parametrize(
    ("name", "where", "said"),
    [
        ("pgn", "env_id = 'tic_tac_toe-v0'", "12 left out, a game of tic_tac_toe, not of chess"),
        ("sgf", "env_id = 'chess-v0'", "3 left out, a game of chess, not of go"),
        ("minari", "env_id LIKE '%pennies%'", "1 left out, .* has no observation tensor"),
        ("sgf", "kind = 'control'", "there is no game episode"),
    ],
)
def test_an_export_in_which_nothing_fits_says_why(
    corpus: store.Corpus, tmp_path: Path, name: str, where: str, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        export(corpus, name, str(tmp_path / "out"), where)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "option", "said"),
    [
        ("sgf", {"per_file": "0"}, "option per_file is how many games"),
        ("minari", {"seat": "black"}, "option seat is the number of a seat"),
        ("minari", {"policy": "maybe"}, "option policy is yes or no"),
        ("minari", {"seat": "7"}, "seat 7 makes no decision in it"),
        ("pgn", {"seat": "0"}, "format pgn has no option 'seat'"),
    ],
)
def test_options_that_make_no_sense(
    corpus: store.Corpus, tmp_path: Path, name: str, option: dict[str, str], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        export(corpus, name, str(tmp_path / "out"), options=option)


def test_minari_of_one_seat_without_policy(
    corpus: store.Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    minari = pytest.importorskip("minari")
    options = {"seat": "1", "policy": "no"}
    done = export(corpus, "minari", str(tmp_path / "out"), "env_id = 'tic_tac_toe-v0'", options)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "out"))
    assert list(minari.list_local_datasets()) == ["selfplay/tic_tac_toe/seat-1-v0"] and done.rows == 12
    assert set(minari.load_dataset("selfplay/tic_tac_toe/seat-1-v0")[0].infos) == {"root_value"}
