"""The tasks of this project: their problems, what solves them, and that nothing else is ever accepted."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import reduce
from itertools import permutations, product
from operator import xor
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.tasks import _countdown, _expression, countdown, guess_number, knights, maze, modular, nim
from selfplay.contract import Problem, TaskSpec, Transcript, Turn, Verdict
from selfplay.environments import registry
from selfplay.environments.author import judge as judged
from selfplay.environments.task import Task, said

SPECS = {
    spec.name: spec
    for spec in registry.all_specs()
    if isinstance(spec, TaskSpec) and registry.source_of(spec).name.startswith("envs.tasks.")
}
LEVELS = [(name, level) for name, spec in SPECS.items() for level in spec.difficulties]
SEEDS = range(12)
#: Tasks of one right answer: the text after the last "#" is `gold`'s, or the answer is wrong.
ONE_ANSWER = ("addition", "indexed_addition", "multiplication", "modular", "list_edit", "knights", "guess_number")
EVIL = "__import__('os').system('touch pwned')"
HOSTILE = (
    *("", " ", "\n", "#", "##", "# ", "accepted", "#accepted", "True", "#True", "None", "#None", "#-", "#+1", "#1_0"),
    *(EVIL, "#" + EVIL, "9**9**9**9", "#9**9**9**9", "#9//9", "#-9", "#1e5", "#0x10", "#1.0", "#inf", "#nan", "#1/0"),
    *("#" + "(" * 200, "#" + "(" * 99 + "1" + ")" * 99, "#" + "9" * 5000, "9" * 100_000, "#" * 100_000, "#U" * 4000),
    *("#" + "1+" * 100, "#" + "1" * 200, "#\ud800", "\x00", "#\x00", "#a0", "#a4", "#z1", "#a²", "#²", "#１２"),
)


def accepted(spec: TaskSpec, problem: Problem, *answers: str) -> bool:
    """Whether seat 0's answers are accepted; that the verdicts are well formed is `judged`'s to see."""
    verdicts = judged(spec, problem, said(Task(spec).pose(problem.seed, problem.difficulty), answers))
    assert len(verdicts) == spec.seats
    assert spec.max_turns > 1 or verdicts[0].state in ("accepted", "rejected"), verdicts[0].error
    return verdicts[0].state == "accepted"


def played(spec: TaskSpec, problem: Problem, policies: Sequence[Callable[[Problem, Transcript], str]]) -> Transcript:
    """The whole dialogue of these policies, one a seat."""
    transcript, seat = Task(spec).pose(problem.seed, problem.difficulty).opening, 0
    assert spec.respond is not None
    for turn in range(spec.max_turns):
        answer = policies[seat](problem, transcript)
        transcript = Transcript((*transcript.turns, Turn(seat, "assistant", answer)))
        following = spec.respond(problem, transcript, Random(turn))
        if following is None:
            return transcript
        seat = following.seat
        told = (Turn(seat, message.role, message.content) for message in following.messages)
        transcript = Transcript((*transcript.turns, *told))
    raise AssertionError(f"{spec.id} goes on after {spec.max_turns} turns")


def first(spec: TaskSpec, problem: Problem) -> str:
    """A right first answer."""
    if spec.gold is not None:
        return spec.gold(problem)
    assert spec.play is not None
    return spec.play(problem, Task(spec).pose(problem.seed, problem.difficulty).opening)


def test_all_tasks_are_found() -> None:
    assert {*ONE_ANSWER, "countdown", "maze", "nim", "parity"} <= set(SPECS)


@pytest.mark.parametrize(("name", "level"), LEVELS)
def test_a_problem_is_made_again(name: str, level: float) -> None:
    spec = SPECS[name]
    for seed in SEEDS:
        problem = spec.sample(seed, level)
        data = json.loads(json.dumps(problem.data))
        assert problem == spec.sample(seed, float(level)) and data == problem.data
        assert spec.prompt(Problem(seed, level, data)) == spec.prompt(problem) == spec.prompt(problem)
        assert first(spec, Problem(seed, level, data)) == first(spec, problem)


@pytest.mark.parametrize(("name", "level"), [(n, x) for n, x in LEVELS if n != "parity" or x > 8])
def test_every_level_has_hundreds_of_questions(name: str, level: float) -> None:
    task = Task(SPECS[name])
    posed = [task.pose(seed, level) for seed in range(600)]
    assert len({one.digest for one in posed}) > 300
    assert len({one.digest for one in posed if one.held_out}) > 20


@pytest.mark.parametrize(("name", "level"), LEVELS)
def test_gold_and_worked_solutions_are_accepted_and_nothing_near_them(name: str, level: float) -> None:
    spec = SPECS[name]
    if spec.seats > 1:
        return
    for seed in SEEDS:
        problem = spec.sample(seed, level)
        gold = first(spec, problem)
        assert accepted(spec, problem, gold)
        assert spec.solve is None or accepted(spec, problem, spec.solve(problem))
        wide = "".join(chr(ord(c) + 0xFEE0) if c not in "#" else c for c in gold)
        near = (f"{gold} ", f"{gold}\n", f"{gold}#", f"{gold} or {gold}x", f"{gold}\x00", gold + EVIL, wide, f"{gold}.")
        assert not any(accepted(spec, problem, text) for text in near)
        if name in ONE_ANSWER:
            wrong = (gold[1:], gold + "0", gold[:-1], f"#0{gold[1:]}", f"#+{gold[1:]}", f"# {gold[1:]}", f"{gold}.0")
            assert not any(accepted(spec, problem, text) for text in wrong)
            assert accepted(spec, problem, "#wrong, no: " + gold)


@pytest.mark.parametrize(("name", "level"), LEVELS)
def test_hostile_texts_are_not_accepted(name: str, level: float) -> None:
    spec = SPECS[name]
    for seed in SEEDS[:3]:
        problem = spec.sample(seed, level)
        prompt = spec.prompt(problem)[0].content
        long = "1" * 200_000 + first(spec, problem)
        assert not any(accepted(spec, problem, text) for text in (prompt, "#" + prompt, prompt * 50, long))
        found = [text for text in HOSTILE if accepted(spec, problem, text)]
        truth = {"knights": "#-"}.get(name)  # "nobody is a knight" can be right
        assert found == [] or (truth is not None and found == [truth] == [first(spec, problem)])
        assert accepted(spec, problem) is False


TEXTS = st.one_of(
    st.text(max_size=60),
    st.text("0123456789+-*/()# ", max_size=40).map("#".__add__),
    st.text("0123456789UDLRABCabc123-#\n²１٣", max_size=12).map("#".__add__),
)


@settings(deadline=None, max_examples=150)
@given(st.sampled_from([n for n in LEVELS if n[0] not in ("parity", "nim")]), st.integers(0, 50), TEXTS)
def test_any_text_is_accepted_only_if_it_is_right(level: tuple[str, float], seed: int, text: str) -> None:
    spec = SPECS[level[0]]
    problem = spec.sample(seed, level[1])
    if accepted(spec, problem, text):
        assert right(spec, problem, text.rpartition("#")[2])


def right(spec: TaskSpec, problem: Problem, answer: str) -> bool:
    """Says independently of the verifiers whether an answer is right."""
    if spec.name == "countdown":
        tree = ast.parse(answer, mode="eval").body
        numbers = Counter(node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
        return exact(tree) == problem.data["target"] and numbers <= Counter(problem.data["numbers"])
    if spec.name == "maze":
        return len(answer) == len(first(spec, problem)) - 1 and set(answer) <= set("UDLR")
    return "#" + answer == first(spec, problem)


def exact(node: ast.AST) -> Fraction:
    """The value of an expression that Python has parsed."""
    if isinstance(node, ast.Constant):
        assert isinstance(node.value, int)
        return Fraction(node.value)
    assert isinstance(node, ast.BinOp)
    left, right = exact(node.left), exact(node.right)
    if isinstance(node.op, ast.Add | ast.Sub):
        return left + right if isinstance(node.op, ast.Add) else left - right
    assert isinstance(node.op, ast.Mult | ast.Div)
    return left * right if isinstance(node.op, ast.Mult) else left / right


# The answers of single tasks, computed in other ways.


@pytest.mark.parametrize("level", SPECS["modular"].difficulties)
def test_modular_is_what_python_computes(level: float) -> None:
    for seed in SEEDS:
        problem = modular.sample(seed, level)
        expression, modulus = modular.prompt(problem)[0].content.removesuffix("=").rsplit("mod ", 1)
        value = exact(ast.parse(expression, mode="eval").body)
        assert modular.gold(problem) == f"#{value % int(modulus)}"


@pytest.mark.parametrize("name", ["addition", "multiplication"])
def test_sums_and_products_are_what_python_computes(name: str) -> None:
    spec = SPECS[name]
    for level in spec.difficulties:
        question = spec.prompt(problem := spec.sample(7, level))[0].content.removesuffix("=")
        value = exact(ast.parse(question, mode="eval").body)
        assert first(spec, problem) == f"#{value}" == "#" + spec.solve(problem).split("#")[1]  # type: ignore[misc]
        steps = re.findall(r"(?:^|[,;])([0-9+*]+)=([0-9]+)", spec.solve(problem))  # type: ignore[misc]
        assert steps and all(exact(ast.parse(left, mode="eval").body) == int(value) for left, value in steps)


def test_indexed_sums_are_what_python_computes_place_by_place() -> None:
    spec = SPECS["indexed_addition"]
    assert spec.solve is not None and spec.gold is not None
    problem = Problem(0, 2, {"a": "27", "b": "95", "units": "k"})
    assert spec.prompt(problem)[0].content == "k7l2+k5l9=" and spec.solve(problem) == "k12l12#k2l2m1"
    for level in spec.difficulties:
        problem = spec.sample(7, level)
        a, b = spec.prompt(problem)[0].content.removesuffix("=").split("+")
        units, columns = problem.data["units"], re.findall("[a-z][0-9]{2}", spec.solve(problem))
        digits = [dict(zip(one[::2], map(int, one[1::2]), strict=True)) for one in (a, b, spec.gold(problem)[1:])]
        worth = [sum(10 ** (ord(place) - ord(units)) * digit for place, digit in one.items()) for one in digits]
        assert worth[0] + worth[1] == worth[2]
        carry = 0
        for place, value in ((column[0], int(column[1:])) for column in columns):
            assert value == digits[0].get(place, 0) + digits[1].get(place, 0) + carry
            carry = value // 10


def test_list_edits_do_what_they_say() -> None:
    spec = SPECS["list_edit"]
    edits = ["sort", "reverse", "rotate", "swap", "drop", "append 7"]
    problem = Problem(0, 6, {"digits": "3142", "edits": edits})
    assert spec.prompt(problem)[0].content == "3142;sort;reverse;rotate;swap;drop;append 7="
    assert spec.solve is not None and spec.solve(problem) == "1234;4321;3214;4213;213;2137#2137"


def test_knights_have_one_solution() -> None:
    for level in knights.SPEC.difficulties:
        for seed in SEEDS:
            data = knights.sample(seed, level).data
            worlds = knights.worlds(int(level))
            assert len(worlds) == 2**level
            fitting = [world for world in worlds if knights.contradicted(data["said"], world) is None]
            assert len(fitting) == 1


@pytest.mark.parametrize(
    ("statement", "true_in"),
    [
        (["knight", 0, 0], {(True, True), (True, False)}),
        (["knave", 1, 0], {(True, False), (False, False)}),
        (["same", 0, 1], {(True, True), (False, False)}),
        (["differ", 0, 1], {(True, False), (False, True)}),
        (["count", 1, 0], {(True, False), (False, True)}),
    ],
)
def test_what_knights_say(statement: list[object], true_in: set[tuple[bool, ...]]) -> None:
    assert {world for world in knights.worlds(2) if knights.holds(statement, world)} == true_in


def verdict(spec: TaskSpec, problem: Problem, answer: str) -> Verdict:
    (one,) = judged(spec, problem, Transcript((Turn(0, "assistant", answer),)))
    return one


def test_a_maze_takes_every_shortest_path_and_no_other() -> None:
    problem = Problem(0, 3, {"rows": ["S..", "...", "x.E"]})
    for path in ("RRDD", "RDRD", "RDDR", "DRRD", "DRDR"):
        assert verdict(maze.SPEC, problem, f"#{path}").state == "accepted"
    longer = verdict(maze.SPEC, problem, "#LRRDD")
    assert longer.state == "rejected" and "out of the square" in longer.criteria[0].reason
    longer = verdict(maze.SPEC, problem, "#DURRDD")
    assert longer.state == "rejected" and longer.reward == 0
    assert {one.name: one.score for one in longer.criteria} == {"answer": 0, "length": pytest.approx(4 / 6)}
    for path in ("DDRR", "RRD", "RRDDU", "rrdd", "RRDDUD"):  # a wall, too short, past it, small letters, twice there
        assert verdict(maze.SPEC, problem, f"#{path}").state == "rejected"


def test_mazes_are_as_hard_as_they_say() -> None:
    for level in maze.SPEC.difficulties:
        for seed in SEEDS:
            rows = maze.sample(seed, level).data["rows"]
            assert len(rows) == level and all(len(row) == level for row in rows)
            path = maze.layers(rows)[1]
            assert path is not None and len(path) >= level


# Countdown.

NUMBERS = st.integers(0, 9999)
TREES: st.SearchStrategy[_expression.Tree] = st.recursive(
    NUMBERS, lambda inner: st.tuples(st.sampled_from("+-*/"), inner, inner), max_leaves=8
)
BINDS = {"+": 1, "-": 1, "*": 2, "/": 2}


def sparse(tree: _expression.Tree, outer: int = 0) -> str:
    """With only the parentheses that are needed."""
    if isinstance(tree, int):
        return str(tree)
    operation, left, right = tree
    bind = BINDS[operation]
    text = f"{sparse(left, bind)}{operation}{sparse(right, bind + 1)}"
    return f"({text})" if bind < outer else text


@settings(deadline=None, max_examples=300)
@given(TREES)
def test_expressions_have_the_value_of_their_tree(tree: _expression.Tree) -> None:
    for text in (_expression.written(tree), sparse(tree)):
        try:
            expected = _expression.value_of(tree)
        except ZeroDivisionError:
            with pytest.raises(ValueError, match="division by zero"):
                _expression.parse(text)
            continue
        value, numbers = _expression.parse(text)
        assert value == expected == exact(ast.parse(text, mode="eval").body)
        assert numbers == [int(number) for number in re.findall("[0-9]+", text)]


@given(st.text("0123456789+-*/() .,_", max_size=20))
def test_what_is_parsed_python_parses_too(text: str) -> None:
    try:
        value, _ = _expression.parse(text)
    except ValueError:
        return
    assert value == exact(ast.parse(text, mode="eval").body)


BAD = ["", "1+", "(1", "1)", "(", "()", "-1", "+1", "1--1", "2**3", "7//2", "1 + 1", "01", "12345", "1.5", "1(2)", "²"]


@pytest.mark.parametrize(
    "text", [*BAD, "1\n", "٣", "１", "(" * 17 + "1" + ")" * 17, "1+" * 100 + "1", "1_0", "a", "1;2"]
)
def test_expressions_are_strict(text: str) -> None:
    with pytest.raises(ValueError):
        _expression.parse(text)


def test_parentheses_may_be_sixteen_deep() -> None:
    assert _expression.parse("(" * 16 + "7" + ")" * 16) == (Fraction(7), [7])


def test_countdown_takes_every_right_expression() -> None:
    problem = Problem(0, 4, {"numbers": [2, 3, 8, 8], "target": 24})
    for text in ("3*8", "8*3", "(2+8/8)*8", "8*(8*3/8)", "2+3*8-2", "8/(3/(8+1))", "8*3+8-8"):
        used = [int(number) for number in re.findall("[0-9]+", text)]
        rightful = Counter(used) <= Counter([2, 3, 8, 8])
        assert (verdict(countdown.SPEC, problem, f"#{text}").state == "accepted") == rightful
    assert verdict(countdown.SPEC, problem, "#8/(8/3)*8").reward == 0  # three times 8
    assert verdict(countdown.SPEC, problem, "#8+8+8").reward == 0
    assert verdict(countdown.SPEC, problem, "#24").reward == 0
    assert verdict(countdown.SPEC, problem, "#2*(8+8)-8").reward == 0
    assert verdict(countdown.SPEC, problem, "#2*3*8/(8/4)").reward == 0
    fractions = Problem(0, 4, {"numbers": [3, 3, 8, 8], "target": 24})
    assert verdict(countdown.SPEC, fractions, "#8/(3-8/3)").reward == 1


def test_a_countdown_search_finds_what_there_is() -> None:
    assert _countdown.search((1, 1, 1, 1), 100) is None
    for numbers, target in [((1, 2, 3, 4), 24), ((5, 5, 5, 5, 5), 30), ((25, 24, 23, 3, 2, 1), 137)]:
        tree = _countdown.search(numbers, target)
        assert tree is not None and _expression.value_of(tree) == target
        assert Counter(_expression.parse(_expression.written(tree))[1]) == Counter(numbers)


def reached(numbers: list[int]) -> set[int]:
    """All that three numbers make without leaving the integers from 1 to 200, by trying every order and operation."""
    found = set()
    for a, b, c in permutations(map(Fraction, numbers)):
        for one, two in product("+-*/", repeat=2):
            made = _expression.OPERATIONS[one](a, b)
            ends = [(made, c), (c, made)] if made > 0 else []
            values = [made, *(_expression.OPERATIONS[two](*pair) for pair in ends)]
            found |= {int(x) for x in values[1:] if all(v.denominator == 1 and 1 <= v <= 200 for v in (made, x))}
    return found


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 15), min_size=3, max_size=3))
def test_a_countdown_in_order_leaves_no_combination_out(numbers: list[int]) -> None:
    numbers.sort()
    reachable = reached(numbers)
    for target in range(1, 201):
        if target not in reachable:
            with pytest.raises(ValueError, match="cannot be reached"):
                countdown._in_order(numbers, target)
            continue
        text = countdown._in_order(numbers, target)
        tries, answer = text.split("#")
        for left, value in re.findall(r"([0-9]+[-+*/][0-9]+)=([0-9]+)", tries):
            assert _expression.parse(left)[0] == int(value)
        beside = re.findall(r"=([0-9]+):([0-9]+)", tries)
        assert {wanted for _, wanted in beside} == {str(target)}
        assert [value == wanted for value, wanted in beside] == [False] * (len(beside) - 1) + [True]
        problem = Problem(0, 3, {"numbers": numbers, "target": target})
        assert verdict(countdown.SPEC, problem, text).reward == 1
        assert exact(ast.parse(answer, mode="eval").body) == target


def test_countdown_shows_both_ways_of_searching() -> None:
    problems = [countdown.sample(seed, 3) for seed in range(400)]
    begins = [",".join(map(str, problem.data["numbers"])) + ":" for problem in problems]
    in_order = [countdown.solve(problem).startswith(begin) for problem, begin in zip(problems, begins, strict=True)]
    assert 0.15 < sum(in_order) / 400 < 0.35


# Guessing a number: several turns.


@pytest.mark.parametrize("level", guess_number.LEVELS)
def test_halving_finds_the_number_within_the_bound(level: int) -> None:
    most = 0
    for number in range(5, 5 + 2**level):
        problem = Problem(0, level, {"low": 5, "high": 4 + 2**level, "number": number})
        transcript = played(guess_number.SPEC, problem, [guess_number.play])
        (verdict,) = judged(guess_number.SPEC, problem, transcript)
        turns = len(transcript.of(0))
        assert verdict.reward == 1 and turns <= guess_number.bound(problem) == level + 1
        assert [one.score for one in verdict.criteria if one.name == "turns"] == [turns]
        most = max(most, turns)
    assert most >= level


def test_feedback_is_right_and_bad_guesses_cost_turns() -> None:
    problem = Problem(0, 3, {"low": 10, "high": 17, "number": 12})
    guesses = iter(["#11", "#17", "eleven", "#12"])
    transcript = played(guess_number.SPEC, problem, [lambda *_: next(guesses)])
    assert [turn.text for turn in transcript.turns if turn.role == "user"][1:] == ["higher", "lower", "not a number"]
    assert judged(guess_number.SPEC, problem, transcript)[0].state == "accepted"
    wrong = played(guess_number.SPEC, problem, [lambda *_: "#１２"])
    assert len(wrong.of(0)) == 4 and judged(guess_number.SPEC, problem, wrong)[0].reward == 0
    late = Transcript((*wrong.turns, Turn(0, "assistant", "#12")))
    assert judged(guess_number.SPEC, problem, late)[0].reward == 0


# Nim: two seats.


def test_whoever_can_win_nim_does_and_the_seats_alternate() -> None:
    for level in nim.LEVELS:
        for seed in range(40):
            problem = nim.sample(seed, level)
            wins = reduce(xor, (heap % 4 for heap in problem.data["heaps"])) != 0
            any_move = Random(seed)

            def anyhow(problem: Problem, transcript: Transcript, rng: Random = any_move) -> str:
                heaps = list(enumerate(nim.replay(problem, transcript).heaps))
                heap, stones = rng.choice([(heap, stones) for heap, stones in heaps if stones])
                return f"#{nim.LETTERS[heap]}{rng.randint(1, min(3, stones))}"

            for policies in ([nim.play, nim.play], [nim.play, anyhow] if wins else [anyhow, nim.play]):
                transcript = played(nim.SPEC, problem, policies)
                seats = [turn.seat for turn in transcript.turns]
                assert seats == [turn // 2 % 2 for turn in range(len(seats))]
                first, second = judged(nim.SPEC, problem, transcript)
                winner, loser = (first, second) if wins else (second, first)
                assert (winner.state, winner.reward, loser.state, loser.reward) == ("accepted", 1, "rejected", -1)


MOVES = ["", "#", "#a4", "#a0", "#b2", "#c1", "#A1", "a1", "#a1 ", "#a1\n", "#a１", "#a²", "#1a", "#a-1", "#a01", "#é1"]


@pytest.mark.parametrize("text", [*MOVES, "#a1" + "x" * 9000, "x" * 9000 + "#a1", EVIL, "9**9**9**9"])
def test_an_illegal_move_loses_nim_at_once(text: str) -> None:
    problem = Problem(0, 2, {"heaps": [8, 1]})
    transcript = Transcript((Turn(0, "assistant", "#a1"), Turn(1, "assistant", text)))
    assert nim.respond(problem, transcript, Random(0)) is None
    first, second = judged(nim.SPEC, problem, transcript)
    assert (first.reward, second.reward) == (1, -1)
    assert [one.score for one in second.criteria] == [-1, 0] and [one.score for one in first.criteria] == [1, 1]
    first, second = judged(nim.SPEC, problem, Transcript((Turn(0, "assistant", text),)))
    assert (first.reward, second.reward) == (-1, 1)


def test_a_game_of_nim_that_is_cut_or_mixed_up_is_unverifiable() -> None:
    problem = Problem(0, 2, {"heaps": [8, 1]})
    for turns in ([], [(0, "#a1")], [(0, "#a1"), (1, "#b1")], [(1, "#a1")], [(0, "#a1"), (0, "#a1")]):
        transcript = Transcript(tuple(Turn(seat, "assistant", text) for seat, text in turns))
        verdicts = judged(nim.SPEC, problem, transcript)
        assert [(one.state, one.reward) for one in verdicts] == [("unverifiable", None)] * 2


def test_nim_moves_are_best() -> None:
    assert nim.gold(Problem(0, 3, {"heaps": [5, 1, 8]})) in ("#c0", "#a1", "#b1")  # 5 and 1 cancel: a lost position
    assert nim.gold(Problem(0, 3, {"heaps": [7, 1, 8]})) == "#a2"
    assert nim.gold(Problem(0, 1, {"heaps": [3]})) == "#a3"
    assert nim.respond(Problem(0, 1, {"heaps": [3]}), Transcript((Turn(0, "assistant", "#a3"),)), Random(0)) is None


@settings(deadline=None, max_examples=150)
@given(st.lists(st.one_of(st.text(max_size=5), st.from_regex(r"#[a-f][1-3]", fullmatch=True)), max_size=12))
def test_any_dialogue_of_nim_has_one_winner_or_none(texts: list[str]) -> None:
    problem = nim.sample(len(texts), 3)
    transcript = Transcript(())
    for text in texts:
        turn = Turn(len(transcript.turns) % 2, "assistant", text)
        transcript = Transcript((*transcript.turns, turn))
        if nim.respond(problem, transcript, Random(0)) is None:
            break
    assert [one.reward for one in judged(nim.SPEC, problem, transcript)] in ([1, -1], [-1, 1], [None, None])
