"""Names from data: what is found by them, what is refused in a sentence, and that no path is among the first."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyspiel
import pytest

from selfplay import agent_file
from selfplay.cli.run import configuration, environment
from selfplay.contract import ENV_ID
from selfplay.environments import archived, registry
from selfplay.environments.game import load
from selfplay.environments.openspiel_strings import FRAGILE, MOST, TIGHTER, refusal
from selfplay.errors import UserError
from selfplay.nets.config import NetConfig
from selfplay.search import SearchConfig
from selfplay.store.table.table import check_name
from trainers.recipe import load_recipe

RULES = "from selfplay.contract import GameSpec\nSPEC = GameSpec('my_hex-v0', 'hex(board_size=3)', 'Small hex', 9)\n"


def test_archived_environments_are_found_by_their_ids() -> None:
    assert archived.find("connect_four-v0") is registry.find("connect_four")
    assert archived.find_game("openspiel/hex-v0", "hex(board_size=5)").game == "hex(board_size=5)"
    assert archived.find_task("parity-v0") is registry.find_task("parity")


@pytest.mark.parametrize(
    "name",
    ["./rules.py", "/etc/passwd", "rules.py", "~/x", "jsonl:q.jsonl", "q.jsonl", "connect_four", "connect_four-v0\n",
     "", "openspiel:hex", "os.path", None, 3],
)  # fmt: skip
def test_what_is_no_id_is_refused(name: Any) -> None:
    with pytest.raises(UserError, match="is not the id of an environment"):
        archived.find(name, "hex(board_size=5)")


def test_names_match_to_the_end() -> None:
    assert not ENV_ID.fullmatch("connect_four-v0\n")
    with pytest.raises(UserError, match="may hold letters"):
        check_name("run", "a\n")


def test_what_is_not_installed_is_told_apart() -> None:
    with pytest.raises(archived.NotInstalled, match="sums-v0 is not installed"):
        archived.find("sums-v0")
    with pytest.raises(UserError, match="is the game of openspiel/hex-v0"):
        archived.find("openspiel/go-v0", "hex(board_size=5)")


def test_a_file_that_the_user_named_is_found_by_its_id(tmp_path: Path) -> None:
    (tmp_path / "rules.py").write_text(RULES)
    with pytest.raises(archived.NotInstalled):
        archived.find("my_hex-v0")
    spec = registry.find(str(tmp_path / "rules.py"))
    assert archived.find("my_hex-v0") is spec and registry.Portable("rules.py", RULES) in registry.named()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("hex(board_size=30000)", "board_size=30000 is not a whole number from 1 to 32"),
        ("hex(board_size=0)", "from 1 to 32"),
        ("connect_four(rows=100000,columns=100000)", "rows=100000"),
        ("nfg_game(filename=a)", "cannot be|can be loaded by its name alone"),
        ("efg_game(filename=a/b)", "not a game string of the plain form"),
        ("bargaining(instances_file=a)", "instances_file=a is not one"),
        ("misere(game=nfg_game(filename=a))", "can be loaded by its name alone"),
        ("misere(game=misere(game=hex))", "does not wrap one game"),
        ("hanabi(players=9)", "loaded without parameters only"),
        ("hex(no_such=3)", "no parameter 'no_such'"),
        ("hex(board_size=5)\n", "plain form"),
        ("hex(board_size=5,board_size=6)", "plain form"),
        ("hex" + " " * 400, "too long"),
    ],
)
def test_strings_of_strangers_are_bounded(text: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        archived.game_of(text)


def test_a_string_that_the_user_named_is_not_bounded() -> None:
    with pytest.raises(UserError):
        archived.game_of("connect_four(rows=40)")
    registry.find("openspiel:connect_four(rows=40)")
    assert load(archived.game_of("connect_four(rows=40)")).num_actions == 7


def test_every_game_that_needs_no_parameters_is_let_through() -> None:
    for kind in pyspiel.registered_games():
        assert (refusal(kind.short_name) is None) == kind.default_loadable, kind.short_name
    for string in ("go(board_size=9,komi=6.5)", "turn_based_simultaneous_game(game=goofspiel(num_cards=4))", "2048"):
        assert refusal(string) is None


_LOADS = """
import resource, sys, pyspiel
resource.setrlimit(resource.RLIMIT_CPU, (5, 5))
state = pyspiel.load_game(sys.argv[1]).new_initial_state()
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.slow
def test_what_is_let_through_is_loaded_with_little() -> None:
    """At the bounds, in a process each: under 5 s and 300 MB (an empty one has about 40)."""
    for kind in pyspiel.registered_games():
        numbers = [key for key, default in kind.parameter_specification.items() if type(default) is int]
        if not kind.default_loadable or not numbers or kind.short_name in FRAGILE:
            continue
        largest = {key: max(TIGHTER.get((kind.short_name, key), MOST), kind.parameter_specification[key])
                   for key in numbers}  # fmt: skip
        text = f"{kind.short_name}({','.join(f'{key}={value}' for key, value in largest.items())})"
        assert refusal(text) is None, text
        done = subprocess.run([sys.executable, "-c", _LOADS, text], capture_output=True, text=True, check=False)
        assert done.returncode in (0, 1), f"{text} ends the process: {done.returncode}"  # 1: OpenSpiel refuses it
        assert done.returncode == 1 or int(done.stdout) < 300_000, text


def described() -> dict[str, Any]:
    game = load(registry.find("tic_tac_toe"))
    net = NetConfig(game.encoder.shape, game.num_actions, True, channels=8, blocks=1)
    from selfplay.agent import describe

    found: dict[str, Any] = json.loads(describe(game, net, SearchConfig(), "a-run"))
    return found


Change = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda a: a.pop("policy_id"), "policy_id is missing or not text"),
        (lambda a: a.update(schema="1"), "schema is missing or not a whole number"),
        (lambda a: a.update(env=[]), "env is not an object"),
        (lambda a: a["env"].update(reference=3), "reference is missing or not text"),
        (lambda a: a["env"].update(source=3), "env.source is not text"),
        (lambda a: a.update(images=10**9), "images is not a whole number from 1 to"),
        (lambda a: a["net"].update(blocks=100_000), "blocks must be from 1 to 256"),
        (lambda a: a["net"].update(channels="8"), "net.channels: input should be a valid integer"),
        (lambda a: a["net"].update(channels=10**12), "channels must be from 1 to"),
        (lambda a: a["net"].update(input_shape=None), "net.input_shape"),
        (lambda a: a["net"].update(new=1), "unknown setting 'new'"),
        (lambda a: a["net"].pop("num_actions"), "net.num_actions: field required"),
        (lambda a: a["search"].update(c_visit=float("nan")), "c_visit"),
        (lambda a: a["search"].update(algorithm="x"), "search.algorithm"),
    ],
)
def test_what_describes_no_agent_is_said_in_a_sentence(change: Change, sentence: str) -> None:
    about = described()
    assert agent_file.parse(about, "agent.json").spec(False).id == "tic_tac_toe-v0"
    change(about)
    with pytest.raises(UserError, match=sentence):
        agent_file.parse(about, "agent.json")


def test_a_net_of_another_game_is_refused_before_it_is_built() -> None:
    about = described()
    about["net"]["num_actions"] = 10**9
    parsed = agent_file.parse(about, "agent.json")
    with pytest.raises(UserError, match="chooses among 1000000000 actions"):
        agent_file.check_fits(parsed, load(parsed.spec(False)), "agent.json")


def test_a_run_folder_is_not_followed_to_a_file(tmp_path: Path) -> None:
    rules, out = tmp_path / "rules.py", tmp_path / "run"
    rules.write_text(RULES + f"open({str(tmp_path / 'RUN')!r}, 'w')\n")
    out.mkdir()
    config = json.loads(load_recipe("tic_tac_toe").to_json())
    config["env"]["id"] = str(rules)
    (out / "config.json").write_text(json.dumps(config))
    found = configuration(None, str(out), [])
    with pytest.raises(UserError, match="--trust"):
        environment(found, str(out))
    assert not (tmp_path / "RUN").exists()
    assert environment(found, None).id == "my_hex-v0", "the user named it, or trusts the folder"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("CartPole-v1", "environments of Gymnasium and PettingZoo cannot"),
        ("ALE/Pong-v5", "environments of Gymnasium and PettingZoo cannot"),
        (object(), "is found by its name"),
        ("openspiel:hex(board_size=0)", "OpenSpiel's hex makes no playable game of board_size=0"),
        ("openspiel:efg_game", r"OpenSpiel's efg_game needs parameters \(filename\)"),
    ],
)
def test_what_the_user_types_and_cannot_be_played(name: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as error:
        load(registry.find(name))
    assert ".cc" not in str(error.value)
