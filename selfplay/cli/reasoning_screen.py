"""The screen of a reasoning run: pure functions from a status to rich renderables.

Held-out accuracy is the headline. What a model wrote is shown as plain text, tamed (`selfplay.cli.untrusted`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from selfplay.cli.screen import (
    ACCENT,
    DIM,
    FAIR,
    GOOD,
    POOR,
    Cropped,
    at_work,
    bar,
    clock,
    count,
    going_on,
    interval,
    notes,
    panel,
    percent,
    score_style,
    spark,
)
from selfplay.cli.untrusted import compact, elided, one_line
from selfplay.environments.author import FAILURES, OTHER
from trainers.reasoning.status import ReasoningStatus, Sample, Score

#: Digits in three lines of half blocks.
_LARGE = {
    "0": ("█▀█", "█ █", "▀▀▀"), "1": ("▀█ ", " █ ", "▀▀▀"), "2": ("▀▀█", "█▀▀", "▀▀▀"), "3": ("▀▀█", "▀▀█", "▀▀▀"),
    "4": ("█ █", "▀▀█", "  ▀"), "5": ("█▀▀", "▀▀█", "▀▀▀"), "6": ("█▀▀", "█▀█", "▀▀▀"), "7": ("▀▀█", "  █", "  ▀"),
    "8": ("█▀█", "█▀█", "▀▀▀"), "9": ("█▀█", "▀▀█", "▀▀▀"), ".": (" ", " ", "▀"), "%": ("▀ █", "▄▀ ", "▀ ▀"),
}  # fmt: skip
_PHASES = {
    "starting": (FAIR, "starting"),
    "warming": (GOOD, "warm start: learning from worked solutions"),
    "learning": (GOOD, "answering and learning"),
    "draining": (FAIR, "finishing: answers are sealed and saved"),
    "finished": (ACCENT, "finished"),
}


def screen(status: ReasoningStatus, width: int, height: int) -> RenderableType:
    """The whole live screen, fitted to `width` x `height` characters; what does not fit is cut at the bottom."""
    wide = width >= 100
    bottom = notes(status, low=height < (24 if wide else 38))
    rows = max(0, height - 2 - len(bottom))
    body = _wide(status, width, rows) if wide else _narrow(status, width, rows)
    return Cropped(Group(header(status, width), Cropped(body, rows), *bottom), height)


def _wide(status: ReasoningStatus, width: int, rows: int) -> RenderableType:
    left = width * 11 // 20
    scores = held_out(status, max(2, min(8, rows // 2 - 5)))
    run = numbers(status)
    grid = Table.grid()
    grid.add_column(width=left)
    grid.add_column(width=width - left)
    over, under = rows - len(scores) - 2, rows - len(run) - 2
    grid.add_row(
        Group(panel("held-out problems", Group(*scores)), *_samples_panel(status, left, over)),
        Group(panel("run", Group(*run)), *_levels_panel(status, under)),
    )
    return grid


def _narrow(status: ReasoningStatus, width: int, rows: int) -> RenderableType:
    if rows < 34:
        scores, run = held_out(status, 3), brief(status)
        rest = rows - len(scores) - 2 - len(run)
        parts: list[RenderableType] = [panel("held-out problems", Group(*scores)), *run]
    else:
        scores, run = held_out(status, 6), numbers(status)
        levels = _levels_panel(status, min(8, len(status.levels) + 2))
        rest = rows - len(scores) - len(run) - 4 - sum(one.height or 0 for one in levels)
        parts = [panel("held-out problems", Group(*scores)), panel("run", Group(*run)), *levels]
    return Group(*parts, *_samples_panel(status, width, rest))


def header(status: ReasoningStatus, width: int) -> RenderableType:
    """Recipe, algorithm, size, phase, progress and time left: two lines."""
    style, phase = _PHASES[status.phase]
    grid = Table.grid(expand=True)
    grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    grid.add_column(justify="right", no_wrap=True, overflow="crop")
    about = [status.algorithm] if status.algorithm else []
    about += [f"{count(status.parameters)} parameters"] if status.parameters else []
    grid.add_row(
        Text.assemble(
            (f" {one_line(status.recipe, 60)} ", f"bold reverse {ACCENT}"), "  ", ("●", style),
            f" {going_on(status) or phase}", (f"  {' · '.join(about)}", DIM),
        ),  # fmt: skip
        Text.assemble((clock(_left(status)), "bold"), (" left ", DIM)) if status.total_s else Text(""),
    )
    return Group(grid, bar(status.elapsed_s / status.total_s if status.total_s else 0.0, max(1, width)))


def held_out(status: ReasoningStatus, most: int) -> list[Text]:
    """Accuracy on problems that are never learned from: the newest large, its course, a line a level, `most` of them.

    Where there are more levels, the easiest share the last line.
    """
    newest, first = overall(status.scores), overall(status.first_scores)
    history = [one.accuracy for one in status.score_history if math.isfinite(one.accuracy)]
    if newest is None:
        return [_line(("no held-out problem has been answered yet", DIM))]
    style = f"bold {score_style(newest.accuracy)}"
    change = f"{percent(first.accuracy)} → {percent(newest.accuracy)}" if first else percent(newest.accuracy)
    best = max([*history, newest.accuracy])
    beside = (
        Text.assemble(("right", "bold"), (f"  {interval(newest)} of {newest.problems:,} problems", DIM)),
        Text.assemble((change, style), (f"  best {percent(best)}, version {newest.version}", DIM)),
        Text(spark(history, 24, (0.0, 1.0)), ACCENT),
    )
    large = [" ".join(_LARGE[one][row] for one in percent(newest.accuracy)) for row in range(3)]
    lines = [_line((digits, style), "   ", text) for digits, text in zip(large, beside, strict=True)]
    levels = sorted((one for one in _finite(status.scores) if one.level is not None), key=_level)
    before = {one.level: one for one in _finite(status.first_scores)}
    easy = levels[: max(0, len(levels) - most + 1)] if len(levels) > most else []
    name = max([len(f"{one.level:g}") for one in levels], default=0)
    for row in levels[len(easy) :]:
        style, start = score_style(row.accuracy), before.get(row.level)
        lines.append(
            _line(f"level {row.level:<{name}g} ", bar(row.accuracy, 12, style), (f" {percent(row.accuracy):>5}", style),
                  (f" {interval(row):<6}", DIM), (f" first {percent(start.accuracy):>4}" if start else "", DIM),
                  (f" {row.tokens:.0f} tokens", DIM))  # fmt: skip
        )
    if easy:
        lines.append(_line(("easier: ", DIM), " · ".join(f"{one.level:g} {percent(one.accuracy)}" for one in easy)))
    return lines


def numbers(status: ReasoningStatus) -> list[Text]:
    """The run in a line a figure: how far it is, and the newest round."""

    def row(name: str, *parts: str | tuple[str, str] | Text) -> Text:
        return _line((f"{name:<13}", DIM), *parts)

    lines = [row("warm start", *_warm(status, 10))] if _is_warm(status) else []
    if status.rounds or not lines:
        lines.append(row("rounds", f"{status.rounds:,}, version {status.version}"))
    lines += [
        row("episodes", f"{count(status.episodes)}, all archived", (f"; {lost(status)}" if status.lost else "", POOR)),
        row("tokens", f"{count(status.tokens)} ", ("at", DIM), f" {count(status.tokens_per_s)}/s"),
    ]
    if status.cores and status.cores_at_work:
        lines.append(row("cores", at_work(status.busy, status.cores)))
    if status.reward is None and status.length is None:
        loss = row("loss", figure(status.loss, ".3f"), "" if status.loss is None else " of the warm start")
        return [*lines, loss if _is_warm(status) else row("reward", ("the first round is under way", DIM))]
    lines += [
        row("reward", figure(status.reward, ".2f"), "  ", (course(status, 1, 16), ACCENT)),
        row("length", f"{figure(status.length, '.1f')} tokens  ", (course(status, 2, 12), ACCENT)),
        row("entropy", f"{figure(status.entropy, '.2f')} nats  KL to start {figure(status.kl_to_start, '.3f')}"),
        row("groups", f"{_share(status.mixed_groups)} mixed  {_share(status.clip_share)} of tokens clipped"),
        row("unverifiable", _unverifiable(status), " of answers", (failures(status), POOR)),
        row("loss", f"{figure(status.loss, '.3f')}  staleness {figure(status.staleness, '.1f')}"),
    ]
    if status.development is not None:
        lines.append(row("development", (percent(status.development), "bold"), (" (decides, unlike held-out)", DIM)))
    if status.frontier is not None:
        lines.append(row("frontier", (f"level {status.frontier:g}", "bold"), (" (expert iteration)", DIM)))
    return lines


def brief(status: ReasoningStatus) -> list[Text]:
    """The same without a frame, for a terminal with few lines."""
    far: list[str | tuple[str, str] | Text] = [f" round {status.rounds:,}, v{status.version}"]
    if _is_warm(status):
        loss = "" if status.loss is None else f", loss {figure(status.loss, '.3f')}"
        far = [" warm start ", *_warm(status, 10), loss]
    wrote = f", {count(status.tokens)} tokens at {count(status.tokens_per_s)}/s" if status.tokens else ""
    gone = (f", {lost(status)}" if status.lost else "", POOR)
    lines = [_line(*far, f", {count(status.episodes)} episodes", wrote, gone)]
    if status.reward is not None or status.length is not None:
        lines += [
            _line(f" reward {figure(status.reward, '.2f')} ", (course(status, 1, 10), ACCENT), "  length "
                  f"{figure(status.length, '.1f')} ", (course(status, 2, 10), ACCENT),
                  f"  entropy {figure(status.entropy, '.2f')}  KL {figure(status.kl_to_start, '.3f')}"),
            _line(f" mixed {_share(status.mixed_groups)}  clipped {_share(status.clip_share)}  unverifiable ",
                  _unverifiable(status), (failures(status), POOR), f"  staleness {figure(status.staleness, '.1f')}",
                  "" if status.frontier is None else f"  frontier {status.frontier:g}"),
        ]  # fmt: skip
    if status.levels:
        drawn = " · ".join(f"{level:g} {_share(chance)}" for level, _, chance in sorted(status.levels))
        lines.append(_line((" levels drawn: ", DIM), drawn))
    return lines


def curriculum(levels: Iterable[tuple[float, float, float]], most: int) -> list[Text]:
    """Solve rate and probability of each level; of more than `most` those that are drawn most."""
    rows = sorted(levels)
    shown = sorted(sorted(rows, key=lambda row: -row[2])[: most - 1]) if len(rows) > most else rows
    name = max([len(f"{level:g}") for level, _, _ in shown], default=0)
    lines = [
        _line(f"level {level:<{name}g} ", bar(rate if math.isfinite(rate) else 0.0, 10), f" {_share(rate):>4} ",
              ("solved, drawn ", DIM), f"{_share(chance):>4}")
        for level, rate, chance in shown
    ]  # fmt: skip
    return lines if len(shown) == len(rows) else [*lines, _line((f"and {len(rows) - len(shown)} more", DIM))]


def sample(one: Sample, width: int, rows: int) -> RenderableType:
    """What was asked and what the model wrote, in `rows` lines at most: the verdict, one or two of the prompt, the
    beginning and the end of the answer."""
    state, style = verdict(one.reward)
    reason = f"  {one_line(one.reason, 200)}" if one.reason else ""
    title = _line((state, f"bold {style}"), (f"  level {one.difficulty:g}", DIM), (reason, DIM))
    asked = 1 if rows < 5 else 2
    inner = max(1, width - 2)
    prompt = Text(elided(one_line(one.prompt, 4000), max(20, asked * inner - 40)), DIM)
    answer = Text(compact(one.answer, max(40, rows * inner)) or "(nothing)")
    return Group(title, Padding(Group(Cropped(prompt, asked), Cropped(answer, rows - 1 - asked)), (0, 0, 0, 2)))


def verdict(reward: float | None) -> tuple[str, str]:
    """A reward in words, and the colour of that."""
    if reward is None or not math.isfinite(reward):
        return "? not verifiable", FAIR
    if reward >= 1:
        return "✓ right", GOOD
    return ("✗ wrong", POOR) if reward <= 0 else (f"~ partly right, {reward:.2f}", FAIR)


def overall(scores: Sequence[Score]) -> Score | None:
    """That over all levels."""
    return next((one for one in _finite(scores) if one.level is None), None)


def figure(value: float | None, form: str) -> str:
    """A number, or a dash where it is not known."""
    return "–" if value is None or not math.isfinite(value) else format(value, form)


def course(status: ReasoningStatus, which: int, width: int) -> str:
    """The course of the mean reward (1) or the mean length (2) of the rounds."""
    return spark([one[which] for one in status.history if math.isfinite(one[which])], width)


def _samples_panel(status: ReasoningStatus, width: int, height: int) -> list[RenderableType]:
    rows = height - 2
    if rows < 3:
        return []
    if not status.samples:
        return [panel("newest samples", Text("the first answers are being written", DIM), height)]
    shown = status.samples[: max(1, rows // 5)]
    parts = [part for one in shown for part in (sample(one, width - 4, (rows + 1) // len(shown) - 1), Text(""))]
    return [panel("newest samples", Group(*parts), height)]


def _levels_panel(status: ReasoningStatus, height: int) -> list[Panel]:
    if not status.levels or height < 3:
        return []
    return [panel("levels", Group(*curriculum(status.levels, height - 2)), height)]


def _line(*parts: str | tuple[str, str] | Text) -> Text:
    text = Text.assemble(*parts)
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _warm(status: ReasoningStatus, width: int) -> list[str | tuple[str, str] | Text]:
    done = bar(status.warm_steps / status.warm_total if status.warm_total else 0.0, width)
    return [done, f" {status.warm_steps:,} of {status.warm_total:,} steps"]


def _is_warm(status: ReasoningStatus) -> bool:
    return status.phase == "warming" or (status.warm_total > 0 and status.rounds == 0)


def lost(status: ReasoningStatus) -> str:
    """What died with a process, in words."""
    return f"{status.lost:,} lost in flight"


def _unverifiable(status: ReasoningStatus) -> tuple[str, str]:
    return _share(status.unverifiable), f"bold {POOR}" if (status.unverifiable or 0.0) > 0 else ""


def failures(status: ReasoningStatus) -> str:
    """Why verification failed, with the answers of the whole run: " (12 time-out, 3 crash)"; "" where it never did."""
    known = (*FAILURES, OTHER)
    told = ", ".join(f"{count(answers)} {why}" for why, answers, _ in status.failures if why in known)
    return f" ({told})" if told else ""


def _share(share: float | None) -> str:
    return "–" if share is None or not math.isfinite(share) else percent(share)


def _left(status: ReasoningStatus) -> float:
    return max(0.0, status.total_s - status.elapsed_s)


def _finite(scores: Sequence[Score]) -> list[Score]:
    return [one for one in scores if math.isfinite(one.accuracy)]


def _level(score: Score) -> float:
    return score.level or 0.0
