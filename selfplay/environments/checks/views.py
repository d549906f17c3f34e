"""Checks of what an author adds to the rules: seat planes, symmetries, texts and drawings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pyspiel
from rich.errors import MarkupError
from rich.text import Text

from selfplay.contract import Symmetry
from selfplay.environments.checks.subject import Subject, advance, brief, first_difference, player_moves

Array = np.ndarray[Any, Any]
WIDTH = 120
#: Texts are looked at in so many games: in so many plies, and before and after the last.
TEXT_GAMES = 4
TEXT_PLIES = 60


def seat_planes(subject: Subject) -> str | None:
    """With `seat_planes` both seats see their own pieces in the same place.

    Of the places that hold different planes for the two seats, the one that fills most often when a seat moves must be
    the same for both.
    """
    planes, encoder = subject.spec.seat_planes, subject.encoder
    if planes is None:
        return None
    if encoder is None or len(planes) != 2:
        return "seat_planes are for two seats that take turns and have an observation tensor"
    moved = [i for i, (a, b) in enumerate(zip(*planes, strict=True)) if a != b]
    if not moved:
        return (
            "seat_planes shows both seats the same planes in the same places; it must swap those that belong to seats"
        )
    shape = (encoder.shape[0], -1)
    gains: tuple[Counter[int], Counter[int]] = (Counter(), Counter())
    for index in range(len(subject.games)):
        for ply, state, move in subject.walk(index):
            if move is None or not player_moves(state):
                continue
            views = [np.asarray(state.observation_tensor(seat)).reshape(shape) for seat in (0, 1)]
            if not np.array_equal(views[0], views[1]):
                where = first_difference(views[0], views[1])
                return (
                    f"game {index}, ply {ply}: seat_planes is given, but the observation depends on the seat that asks "
                    f"(entry {where}); leave seat_planes out"
                )
            seat = state.current_player()
            after = state.clone()
            advance(after, move)
            change = np.asarray(after.observation_tensor(seat)).reshape(shape) - views[0]
            for place in moved:
                gains[seat][place] += int((change[planes[seat][place]] > 0).any())
    for seat in (0, 1):
        if not any(gains[seat].values()):
            return f"seat_planes: none of the planes that change places fills when seat {seat} moves; its own must"
    most = [max(moved, key=gain.__getitem__) for gain in gains]
    if most[0] != most[1]:
        return (
            f"seat_planes: when seat 0 moves, the plane at place {most[0]} of its view fills; when seat 1 moves, "
            f"that at place {most[1]}; own pieces must be at the same place for both"
        )
    return None


def symmetries(subject: Subject) -> str | None:
    """Each symmetry maps legal actions, observations, seats and returns of a game to those of the mapped game."""
    seen: dict[tuple[int, ...], str] = {tuple(range(subject.loaded.num_actions)): "the identity"}
    names: set[str] = set()
    for symmetry in subject.spec.symmetries:
        if symmetry.name in names:
            return f"two symmetries are called {symmetry.name!r}"
        names.add(symmetry.name)
        problem = _mapping(subject, symmetry) or _played(subject, symmetry)
        if problem is not None:
            return f"{symmetry.name}: {problem}"
        key = tuple(symmetry.actions)
        if key in seen:
            return f"{symmetry.name} maps the actions like {seen[key]}"
        seen[key] = symmetry.name
    return None


def _mapping(subject: Subject, symmetry: Symmetry) -> str | None:
    """The maps themselves: permutations, whatever the dtype and the number of leading dimensions."""
    count = subject.loaded.num_actions
    if sorted(symmetry.actions) != list(range(count)):
        return f"actions must hold each of 0 to {count - 1} once"
    if subject.encoder is None:
        return "the game has no observation tensor whose image could be shown"
    shape = subject.encoder.shape
    entries = np.arange(subject.encoder.size).reshape(shape)
    image = np.asarray(symmetry.observation(entries))
    if image.shape != shape or sorted(image.reshape(-1).tolist()) != list(range(entries.size)):
        return f"observation must move the entries of an array of shape {list(shape)} and keep its shape"
    batch = np.stack([entries, entries[..., ::-1]])
    images = np.stack([image, np.asarray(symmetry.observation(entries[..., ::-1]))])
    for stacked, expected in ((batch, images), (batch[None].astype(np.float32), images[None])):
        if not np.array_equal(symmetry.observation(stacked), expected):
            return "observation must work on arrays with any number of leading dimensions, one position each"
    return None


def _played(subject: Subject, symmetry: Symmetry) -> str | None:
    """A game and its image, side by side."""
    encoder = subject.encoder
    for index in range(len(subject.games)):
        image = subject.loaded.new_initial_state()
        for ply, state, move in subject.walk(index):
            at = f"game {index}, ply {ply}"
            for name, here, there in (
                ("current_player", state.current_player(), image.current_player()),
                ("returns", state.returns(), image.returns()),
            ):
                if here != there:
                    return f"{at}: {name} is {here}, and {there} in the image"
            if player_moves(state):
                expected = sorted(symmetry.actions[action] for action in state.legal_actions())
                if expected != sorted(image.legal_actions()):
                    differing = sorted(set(expected) ^ set(image.legal_actions()))
                    return f"{at}: the image's legal actions differ from the mapped ones in {brief(differing)}"
                if encoder is not None:
                    mapped, seen = symmetry.observation(encoder.encode(state)), encoder.encode(image)
                    if not np.array_equal(mapped, seen):
                        difference = first_difference(mapped, seen)
                        return f"{at}: mapped observation and observation of the image: entry {difference}"
            if isinstance(move, int):
                image.apply_action(move if state.is_chance_node() else symmetry.actions[move])
    return None


def texts(subject: Subject) -> str | None:
    """Every state has a text, which changes with each move that `str(state)` shows."""
    return _changes(subject, "text", subject.loaded.text)


def drawings(subject: Subject) -> str | None:
    """Every state has a drawing in rich markup of at most 120 columns, which changes with each move."""

    def drawn(state: pyspiel.State) -> str:
        drawing = subject.loaded.draw(state)
        if subject.spec.draw is None:
            return drawing
        plain = Text.from_markup(drawing).plain
        width = max((len(line) for line in plain.splitlines()), default=0)
        if width > WIDTH:
            raise ValueError(f"the drawing is {width} columns wide; at most {WIDTH} fit a terminal")
        return plain

    try:
        return _changes(subject, "drawing", drawn)
    except MarkupError as error:
        return f"the drawing is not valid rich markup: {error}; write rich.markup.escape around what is not markup"


def _changes(subject: Subject, name: str, write: Callable[[pyspiel.State], str]) -> str | None:
    """`write` gives a text for every state, another one whenever `str(state)` is another.

    `str(state)` itself may stay the same in a few moves (a step against a wall, a hidden move), not in nearly all.
    """
    same = moved = 0
    for index, moves in enumerate(subject.games[:TEXT_GAMES]):
        last = before = ""
        for ply, state, _ in subject.walk(index):
            if TEXT_PLIES < ply < len(moves) - 1:
                continue
            text, now = str(state), write(state)
            if not isinstance(now, str) or not (now.strip() or state.is_chance_node()):
                return f"game {index}, ply {ply}: the {name} is {now!r}"
            if ply > 0 and text != last and now == before and not state.is_chance_node():
                return f"game {index}: the {name} after ply {ply} is the same as before it: {brief(now)}"
            moved += ply > 0
            same += ply > 0 and text == last
            last, before = text, now
    if 10 * same > 9 * moved:
        return f"str(state) stays the same in {same} of {moved} moves; it must show the state"
    return None


def action_texts(subject: Subject) -> str | None:
    """Each legal action has a text of one line that no other legal action has."""
    for index in range(len(subject.games[:TEXT_GAMES])):
        for ply, state, _ in subject.walk(index):
            if not player_moves(state):
                continue
            seen: dict[str, int] = {}
            for action in state.legal_actions():
                text = subject.loaded.action_text(state, action)
                if not isinstance(text, str) or not text.strip() or "\n" in text:
                    return f"game {index}, ply {ply}: the text of action {action} is {text!r}"
                if text in seen:
                    return f"game {index}, ply {ply}: actions {seen[text]} and {action} are both written {text!r}"
                seen[text] = action
    return None


#: (what the report calls it, the check), in the order in which they are made.
VIEWS: tuple[tuple[str, Callable[[Subject], str | None]], ...] = (
    ("seat planes", seat_planes),
    ("symmetries", symmetries),
    ("texts", texts),
    ("drawings", drawings),
    ("action texts", action_texts),
)
