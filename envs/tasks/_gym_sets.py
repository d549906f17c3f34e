"""The data sets of reasoning-gym: how the answers of each are judged, which levels are used, and which are left out."""

from __future__ import annotations

from envs.tasks import _gym_answers as by

#: The check of each data set that needs none of reasoning-gym's scorers, with the metadata that it reads.
CHECKED: dict[by.Check, str] = {
    by.text: "ab acre base_conversion bf caesar_cipher circuit_logic course_schedule emoji_mystery "
    "game_of_life_halting list_functions mahjong_puzzle maze "
    "modulo_grid self_reference sentence_reordering string_insertion string_manipulation "
    "string_splitting string_synthesis syllogism time_intervals word_sequence_reversal",
    by.caseless: "bitwise_arithmetic color_cube_rotation dice family_relationships figlet_font letter_jumble "
    "needle_haystack spell_backward tsumego zebra_puzzles",
    by.spaceless: "number_filtering path_star prime_factorization word_sorting",
    by.degrees: "advanced_geometry",
    by.numeric: "aiw basic_arithmetic binary_alternation calendar_arithmetic chain_sum count_bits count_primes "
    "decimal_arithmetic gcd gsm_symbolic largest_island lcm leg_counting letter_counting "
    "products rectangle_count rotten_oranges simple_equations simple_geometry",
    by.close: "coin_flip number_format",
    by.three_figures: "power_function",
    by.grid: "arc_agi binary_matrix futoshiki manipulate_matrix mini_sudoku rearc rotate_matrix spiral_matrix sudoku",
    by.rounded_grid: "pool_matrix",
    by.numbers: "polynomial_equations",
    by.listed_numbers: "number_sorting",
    by.plain_json: "game_of_life",
    by.groups: "group_anagrams",
    by.partitions: "palindrome_partitioning",
    by.board: "n_queens",
    by.fraction: "fraction_simplification",
    by.complex_number: "complex_arithmetic",
    by.countdown: "countdown",
    by.puzzle24: "puzzle24",
    by.palindrome: "palindrome_generation",
    by.antiderivative: "intermediate_integration simple_integration",
    by.roles: "knights_knaves",
    by.survo: "survo",
}

CHECKS: dict[str, by.Check] = {name: check for check, names in CHECKED.items() for name in names.split()}

#: The metadata that a check reads.
NEEDS: dict[str, tuple[str, ...]] = {
    "countdown": ("numbers", "target"),
    "intermediate_integration": ("variable", "integrand"),
    "fraction_simplification": ("simplified_numerator", "simplified_denominator"),
    "n_queens": ("valid_answers",),
    "palindrome_generation": ("letters",),
    "puzzle24": ("numbers",),
    "simple_integration": ("variable", "integrand"),
    "survo": ("puzzle", "candidate_numbers"),
}

#: Why a data set is no task here.
LEFT_OUT = {
    "arc_1d": "making a problem does not end for some seeds",
    "boxnet": "its problems come without an answer, so nothing shows that its scorer accepts a right one",
    "codeio": "making a problem runs a program of its data file, and what it asks differs from process to process",
    "composite": "it mixes other data sets, each of which is a task of its own",
    "decimal_chain_sum": "the problem of a seed depends on what was asked before in the same process",
    "isomorphic_strings": "the problem of a seed differs from process to process",
    "knight_swap": "the answer of a seed differs from process to process",
    "number_sequence": "making a problem does not end for some seeds",
    "polynomial_multiplication": "the problem of a seed differs from process to process",
    "propositional_logic": "its scorer takes a premise, repeated, for a conclusion, so no reasoning is needed",
    "ransom_note": "the problem of a seed depends on what was asked before in the same process",
    "rush_hour": "its problems come without an answer, so nothing shows that its scorer accepts a right one",
    "word_ladder": "the answer of a seed differs from process to process",
}

#: The levels of their curricula that are used, the lowest and the highest. Left out are levels with too few questions
#: to hold some out, those where a problem is too long, takes too long to make or cannot be made, and all from 5 on.
_LEVELS: dict[tuple[int, int], str] = {
    (0, 0): "acre gsm_symbolic jugs list_functions modulo_grid rubiks_cube",
    (0, 1): "bf caesar_cipher circuit_logic game_of_life game_of_life_halting needle_haystack "
    "countdown survo zebra_puzzles",
    (0, 2): "binary_matrix futoshiki intermediate_integration largest_island mahjong_puzzle "
    "manipulate_matrix number_format pool_matrix rotate_matrix rotten_oranges shortest_path tsumego",
    (0, 3): "ab advanced_geometry arc_agi binary_alternation calendar_arithmetic complex_arithmetic "
    "cryptarithm decimal_arithmetic dice fraction_simplification gcd graph_color group_anagrams kakurasu "
    "knights_knaves lcm maze number_filtering number_sorting palindrome_generation "
    "palindrome_partitioning path_star polynomial_equations prime_factorization "
    "sentence_reordering simple_equations simple_geometry simple_integration spiral_matrix "
    "string_insertion string_splitting string_synthesis sudoku syllogism word_sequence_reversal",
    (0, 4): "aiw base_conversion basic_arithmetic bitwise_arithmetic chain_sum color_cube_rotation count_bits "
    "count_primes course_schedule emoji_mystery family_relationships figlet_font "
    "leg_counting letter_counting letter_jumble mini_sudoku power_function products puzzle24 quantum_lock "
    "rearc rectangle_count self_reference spell_backward string_manipulation time_intervals word_sorting",
    (1, 3): "n_queens",
    (1, 4): "sokoban",
    (2, 2): "tower_of_hanoi",
    (4, 9): "coin_flip",
}
LEVELS: dict[str, range] = {
    name: range(low, high + 1) for (low, high), names in _LEVELS.items() for name in names.split()
}
#: Data sets whose question is another problem only if its words and numbers are others, in whatever order.
UNORDERED = frozenset(
    "basic_arithmetic chain_sum gcd group_anagrams lcm leg_counting number_filtering number_sorting products "
    "sentence_reordering word_sorting".split()
)
#: Data sets in which one who has seen what some numbers make knows what else they make: the numbers are the problem.
BY_NUMBERS = frozenset({"countdown", "puzzle24"})
#: The version of the others, and that of data sets whose verdicts have changed since the first.
VERSION = 1
VERSIONS = {"graph_color": 2} | {
    name: 2
    for check in (by.antiderivative, by.caseless, by.complex_number, by.degrees, by.roles, by.spaceless, by.survo)
    for name in CHECKED[check].split()
}
#: Data sets that make all their problems when they are loaded, so each problem loads one of its own.
EACH_ITS_OWN = frozenset({"acre", "gsm_symbolic", "list_functions"})
