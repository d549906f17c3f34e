"""Finding a recipe: shipped by name, a TOML file by path, or derived from the shape of any searchable game."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selfplay.commands import command
from selfplay.contract import TaskSpec
from selfplay.environments import question_file
from selfplay.errors import UserError
from trainers.kinds import from_data, from_toml
from trainers.run.settings import Experiment

SHIPPED = Path(__file__).with_name("recipes")


def shipped() -> dict[str, Path]:
    """Name -> file of every recipe that ships."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.toml"))}


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Experiment:
    """The settings for `name`, changed by "KEY=VALUE" overrides.

    name: a shipped recipe ("connect_four"), a recipe file ("./mine.toml"), or a game: an environment id
      ("connect_four-v0"), a file with one ("./my_game.py"), an OpenSpiel string ("openspiel:hex(board_size=5)").
    Raises `UserError` for a name that is none of these, and for settings that do not hold.
    """
    recipes = shipped()
    if name in recipes:
        return from_toml(recipes[name].read_text(), f"recipe {name}", overrides)
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise UserError(f"there is no recipe file {name}")
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise UserError(f"{name} is not UTF-8 text; a recipe is a file in TOML") from None
        return from_toml(text, name, overrides)
    return _from_environment(name, overrides)


def _from_environment(name: str, overrides: Sequence[str]) -> Experiment:
    from selfplay.environments import registry
    from selfplay.environments.game import load, unsearchable

    is_id = not (name.endswith(".py") or "/" in name or ":" in name)
    try:
        spec = registry.find_any(name)
    except UserError as error:
        if not is_id:
            raise
        if Path(name).is_dir():
            raise UserError(f"{name} is a folder; `{command('run', '--out', name)}` goes on with a run") from error
        near = difflib.get_close_matches(name, [*shipped(), *(spec.id for spec in registry.all_specs())], 1, 0.4)
        hint = f"; did you mean {near[0]}?" if near else "; `selfplay recipes` lists them"
        raise UserError(f"there is no recipe or environment named {name!r}{hint}") from error
    if is_id and spec.name in shipped():
        return from_toml(shipped()[spec.name].read_text(), f"recipe {spec.name}", [f'env.id="{name}"', *overrides])
    if isinstance(spec, TaskSpec):
        return _from_task(spec, name, overrides)
    game = load(spec)
    reason = unsearchable(game)
    if reason is not None:
        raise UserError(f"{spec.id} cannot be played by this search: {reason}")
    env_id = str(Path(name).expanduser().resolve()) if name.endswith(".py") else name
    run_name = slug(Path(name).stem if name.endswith(".py") else name)
    data = derive(env_id, run_name, game.encoder.shape, game.num_actions, spec.ply_limit)
    data["summary"] = spec.summary
    return from_data(data, f"settings derived for {name}", overrides)


def _from_task(spec: TaskSpec, name: str, overrides: Sequence[str]) -> Experiment:
    """Settings for a task of which only the solver is known: a warm start where there is one, then GRPO."""
    questions = question_file.parsed(name) if question_file.is_reference(name) else None
    file = questions.path if questions is not None else name if name.endswith(".py") else ""
    options = questions.options if questions is not None else ""
    run_name = slug(Path(file).stem if file else spec.name)
    data: dict[str, Any] = {
        "name": run_name,
        "summary": spec.summary,
        "task": {"id": f"{Path(file).expanduser().resolve()}{options}" if file else name},
        "generation": {"max_tokens": 192},
        "run": {"minutes": 20.0},
    }
    if spec.seats == 1 and spec.max_turns == 1:
        data["warm"] = {"episodes": 10_000, "steps": 1_000, "batch": 128}
    return from_data(data, f"settings derived for {name}", overrides)


def slug(text: str) -> str:
    """A name for a folder: "openspiel:hex(board_size=5)" -> "hex_board_size_5"."""
    return re.sub(r"[^a-z0-9]+", "_", text.removeprefix("openspiel:").lower()).strip("_")


def derive(
    env_id: str, name: str, observation_shape: Sequence[int], num_actions: int, ply_limit: int
) -> dict[str, Any]:
    """Settings for a game of which only the shape is known, as the mapping a recipe file would hold.

    observation_shape: of the net's input, `[C, H, W]` or `[N]`.
    ply_limit: moves after which a game is cut off.

    Boards get a residual net that grows with their area, anything else an MLP that grows with its input; searches
    widen with the number of actions; windows and openings follow the length of a game.
    """
    board = len(observation_shape) == 3
    area = observation_shape[1] * observation_shape[2] if board else math.prod(observation_shape)
    small = area <= 16 if board else area <= 64
    if board:
        net = {"channels": 32 if area <= 49 else 48, "blocks": 2 if small else 4 if area <= 64 else 5}
    else:
        net = {"hidden": 128 if area <= 256 else 256, "layers": 3}
    return {
        "name": name,
        "env": {"id": env_id},
        "net": net,
        "search": {"simulations": 16 if num_actions <= 9 else 32 if num_actions <= 100 else 48},
        "selfplay": {
            "games": 128 if num_actions <= 1000 else 64,
            "opening_plies": max(2, min(12, ply_limit // 4)),
        },
        "learner": {
            "batch": 256 if small else 512,
            "window_initial": 2_000 if small else 10_000,
            "window_max": 60_000 if small else 400_000,
            "publish_every_samples": 20_000 if small else 50_000,
        },
        "evaluation": {"opponents": ["random", "mcts100", "checkpoints"], "every_s": 15.0 if small else 30.0},
        "run": {"minutes": 5.0 if small else 30.0},
    }
