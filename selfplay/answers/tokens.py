r"""Splits an answer in LaTeX or plain text into tokens; nothing is ever dropped but spacing and sizes.

What is not known becomes a token all the same, so that the reader refuses it by name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction


class Unreadable(Exception):
    """The text is not an answer that can be read without guessing; the message says why."""


@dataclass(frozen=True)
class Token:
    r"""kind: "number", "letters", "command", "text" or "sign". text: as written, a command without its backslash.

    value: of a number, exact. spaced: white space stood before it.
    """

    kind: str
    text: str
    value: Fraction | None = None
    spaced: bool = False


#: The most digits of one number, and tokens of one answer.
MOST_DIGITS, MOST_TOKENS = 60, 300

_UNICODE = {
    "\u2212": "-", "\u2013": "-", "\u00d7": r"\times ", "\u00b7": r"\cdot ", "\u22c5": r"\cdot ", "\u00f7": r"\div ",
    "\u2264": r"\le ", "\u2265": r"\ge ", "\u2260": r"\ne ", "\u221e": r"\infty ", "\u03c0": r"\pi ",
    "\u221a": r"\sqrt ", "\u00b0": r"^\circ ", "\u00b1": r"\pm ", "\u2213": r"\mp ", "\u222a": r"\cup ",
    "\u2229": r"\cap ", "\u2208": r"\in ", "\u2205": r"\emptyset ", "\u211d": r"\mathbb{R}", "\u2124": r"\mathbb{Z}",
    "\u03b8": r"\theta ", "\u03b1": r"\alpha ", "\u03b2": r"\beta ", "\u20ac": r"\euro ", "\u00a3": r"\pounds ",
    "\u2044": "/", "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u00a2": r"\cent ",
    "\u27e8": r"\langle ", "\u27e9": r"\rangle ", "\u2026": r"\ldots ", "\u2248": r"\approx ",
}  # fmt: skip
#: Spacing and sizes: they change how an answer looks, not what it says.
_LOOKS = re.compile(
    r"\\(?:left|right|displaystyle|textstyle|limits|nolimits|[bB]igg?[lrm]?|quad|qquad|thinspace|negthinspace"
    r"|medspace|thickspace|enspace|hspace\*?\{[^{}]{0,20}\}|phantom\{\})(?![A-Za-z])\.?|\\[,;:! ]|~"
)
_GAP = r"(?:,|\{,\}|,\\!|\\,|\\ |\\;|\\:|\\!|~|[ ])"
_GROUPED = re.compile(rf"[1-9][0-9]{{0,2}}(?:{_GAP}[0-9]{{3}}(?![0-9]))+(?:\.[0-9]+)?")
_GROUPED_INSIDE = re.compile(r"[1-9][0-9]{0,2}(?:(?:\{,\}|\\,|\\ |\\!|~)[0-9]{3}(?![0-9]))+(?:\.[0-9]+)?")
_DECIMAL_COMMA = re.compile(r"([0-9]+)\{,\}([0-9]+)")
_NUMBER = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)")
_REPEATING = re.compile(r"([0-9]*)\.([0-9]*)\\(?:(?:overline|bar)\s*\{([0-9]+)\}|dot\s*\{([0-9])\}(?!\s*[0-9\\]))")
_TEXT = re.compile(
    r"\\(text|textrm|textbf|textit|textnormal|mbox|mathrm|operatorname\*?|mathbf|mathit|mathsf|bf|rm)"
    r"\s*\{((?:[^{}\\]|\\[,;:! ])*)\}"
)
_COMMAND = re.compile(r"\\([A-Za-z]+|.)", re.DOTALL)
_LETTERS = re.compile(r"[A-Za-z]+")
_BEGIN = re.compile(r"\\(begin|end)\s*\{(?:(array)\}(?:\s*\{[lcr ]{1,40}\})?|([a-z]*)\*?\})")
_SIGNS = frozenset("+-*/^_=<>()[]{}|,;:!&'%$.?\"@#`")
_ALIASES = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "leq": "le", "geq": "ge", "leqslant": "le", "geqslant": "ge",
    "neq": "ne", "lt": "<", "gt": ">", "lvert": "|", "rvert": "|", "vert": "|", "mid": "|", "dbinom": "binom",
    "tbinom": "binom", "varnothing": "emptyset", "lbrace": "{", "rbrace": "}", "ast": "*", "lparen": "(",
    "rparen": ")", "lbrack": "[", "rbrack": "]", "prime": "'", "degree": "degree", "colon": ":", "mathrm": "text",
    "infin": "infty", "R": "reals", "arcsin": "asin", "arccos": "acos", "arctan": "atan", "vee": "lor", "wedge": "land",
    "ldots": "dots", "cdots": "dots", "dotsc": "dots", "dotsb": "dots", "backslash": "setminus",
}  # fmt: skip

_UPRIGHT = frozenset("ln log lg exp sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh coth".split())
_RAISED = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u2079\u207b]+")
_RAISED_TABLE = str.maketrans("\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207b", "0123456789-")
_VULGAR = {char: rf"\frac{{{above}}}{{{below}}}" for char, above, below in (
    ("\u00bd", 1, 2), ("\u00bc", 1, 4), ("\u00be", 3, 4), ("\u2153", 1, 3), ("\u2154", 2, 3), ("\u2155", 1, 5),
    ("\u2156", 2, 5), ("\u2157", 3, 5), ("\u2158", 4, 5), ("\u2159", 1, 6), ("\u215a", 5, 6), ("\u215b", 1, 8),
    ("\u215c", 3, 8), ("\u215d", 5, 8), ("\u215e", 7, 8),
)}  # fmt: skip
_UNICODE_TABLE = str.maketrans(_UNICODE | _VULGAR)


def tokens(text: str) -> list[Token]:
    """All of the text. Raises `Unreadable` for a number of too many digits, or too many tokens."""
    text = _RAISED.sub(lambda raised: f"^{{{raised[0].translate(_RAISED_TABLE)}}}", text).translate(_UNICODE_TABLE)
    found: list[Token] = []
    at, inside, spaced = 0, 0, False
    while at < len(text):
        if text[at].isspace():
            at, spaced = at + 1, True
            continue
        if (looks := _LOOKS.match(text, at)) is not None:
            at, spaced = looks.end(), True
            continue
        token, at = _next(text, at, inside)
        opens = token.kind == "sign" and token.text in ("(", "[", r"\{", r"\langle")
        closes = token.kind == "sign" and token.text in (")", "]", r"\}", r"\rangle")
        inside = max(0, inside + opens - closes)
        found.append(Token(token.kind, token.text, token.value, spaced))
        spaced = False
        if len(found) > MOST_TOKENS:
            raise Unreadable(f"it is too long: more than {MOST_TOKENS} symbols")
    return found


def _next(text: str, at: int, inside: int) -> tuple[Token, int]:
    if text[at].isdigit() and text[at].isascii() or text[at] == ".":
        if (number := _number(text, at, inside)) is not None:
            return number
    if (letters := _LETTERS.match(text, at)) is not None:
        return Token("letters", letters[0]), letters.end()
    if (begin := _BEGIN.match(text, at)) is not None:
        return Token("command", f"{begin[1]}-{begin[2] or begin[3]}"), begin.end()
    for fancy, name in ((r"\mathbb{R}", "reals"), (r"\mathbb R", "reals"), (r"\Bbb{R}", "reals"),
                        (r"\mathbb{Z}", "integers"), (r"\mathbb Z", "integers")):  # fmt: skip
        if text.startswith(fancy, at):
            return Token("command", name), at + len(fancy)
    if (words := _TEXT.match(text, at)) is not None:
        return _worded(words[1], re.sub(r"~|\\.", " ", words[2])), words.end()
    if (command := _COMMAND.match(text, at)) is not None:
        return _named(command[1]), command.end()
    if text[at] in _SIGNS:
        if text.startswith("**", at):
            return Token("sign", "^"), at + 2
        for pair, name in (("<=", "le"), (">=", "ge"), ("!=", "ne")):
            if text.startswith(pair, at):
                return Token("sign", name), at + 2
        return Token("sign", text[at]), at + 1
    return Token("unknown", text[at]), at + 1


def _worded(command: str, words: str) -> Token:
    """Text in braces; a function, e or i where it is set upright: \\mathrm{ln}."""
    bare = words.strip()
    if command in ("mathbf", "mathit", "bf") and len(bare) == 1:
        return Token("bold", words)
    if command in ("mathrm", "operatorname", "operatorname*", "rm"):
        if bare in _UPRIGHT:
            return Token("command", _ALIASES.get(bare, bare))
        if words in ("e", "i"):
            return Token("letters", words)
    return Token("text", words)


def _named(name: str) -> Token:
    if name in ("{", "}"):
        return Token("sign", "\\" + name)
    if name in ("|", "%", "$", "&", "_", "#"):
        return Token("sign", "\\" + name if name in ("|", "&", "_", "#") else name)
    if name in ("langle", "rangle"):
        return Token("sign", "\\" + name)
    if name in ("lbrace", "rbrace"):
        return Token("sign", r"\{" if name == "lbrace" else r"\}")
    plain = _ALIASES.get(name, name)
    return Token("sign" if plain in _SIGNS or plain in ("le", "ge", "ne") else "command", plain)


def _number(text: str, at: int, inside: int) -> tuple[Token, int] | None:
    """A number: with thousands set apart, a decimal comma in braces, or digits that repeat."""
    if (again := _REPEATING.match(text, at)) is not None:
        _few_digits(again[0])
        whole, fixed, period = again[1] or "0", again[2], again[3] or again[4]
        value = Fraction(int(whole + fixed + period) - int(whole + fixed), 10 ** len(fixed) * (10 ** len(period) - 1))
        return Token("number", again[0], value), again.end()
    grouped = (_GROUPED_INSIDE if inside else _GROUPED).match(text, at)
    if grouped is not None and len({gap for gap in re.split("[0-9.]+", grouped[0]) if gap}) == 1:
        plain = re.sub(r"[^0-9.]", "", grouped[0])
        _few_digits(plain)
        return Token("number", plain, Fraction(plain)), grouped.end()
    if (comma := _DECIMAL_COMMA.match(text, at)) is not None:
        _few_digits(comma[0])
        return Token("number", f"{comma[1]}.{comma[2]}", Fraction(f"{comma[1]}.{comma[2]}")), comma.end()
    if (plain_number := _NUMBER.match(text, at)) is not None:
        _few_digits(plain_number[0])
        return Token("number", plain_number[0], Fraction(plain_number[0])), plain_number.end()
    return None


def _few_digits(number: str) -> None:
    if len(number) > MOST_DIGITS:
        raise Unreadable(f"a number has more than {MOST_DIGITS} digits")
