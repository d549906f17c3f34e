"""Lists of tokens and their brackets: matched, split outside of them, taken off."""

from __future__ import annotations

from collections.abc import Callable

from selfplay.answers.tokens import Token, Unreadable, tokens

_OPENS, _CLOSES = {"(", "[", "{", r"\{", r"\langle"}, {")", "]", "}", r"\}", r"\rangle"}
_MATCH = {")": "([", "]": "([", "}": "{", r"\}": (r"\{",), r"\rangle": (r"\langle",)}


def is_sign(token: Token, *texts: str) -> bool:
    return token.kind == "sign" and token.text in texts


def closing(found: list[Token], at: int) -> int:
    """Where the bracket that opens here closes, whatever kinds they are; -1 if it does not."""
    depth = 0
    for place in range(at, len(found)):
        token = found[place]
        if token.kind == "sign":
            depth += (token.text in _OPENS) - (token.text in _CLOSES)
            if depth == 0:
                return place
    return -1


def split(found: list[Token], separates: Callable[[Token], object]) -> tuple[list[list[Token]], list[Token]]:
    """Parts between the tokens outside of all brackets and environments that `separates` (a function) names."""
    parts: list[list[Token]] = [[]]
    between: list[Token] = []
    depth = 0
    for token in found:
        if token.kind == "sign":
            depth += (token.text in _OPENS) - (token.text in _CLOSES)
        elif token.kind == "command" and token.text.startswith(("begin-", "end-")):
            depth += 1 if token.text.startswith("begin-") else -1
        if depth < 0:
            raise Unreadable("a bracket closes that did not open")
        if depth == 0 and separates(token):
            between.append(token)
            parts.append([])
        else:
            parts[-1].append(token)
    if depth:
        raise Unreadable("a bracket does not close")
    return parts, between


def balanced(found: list[Token]) -> None:
    """Raises `Unreadable` where brackets do not match; ( and [ may, as in [1,2)."""
    opened: list[str] = []
    for token in found:
        if token.kind == "sign" and token.text in _OPENS:
            opened.append(token.text)
        elif token.kind == "sign" and token.text in _CLOSES:
            if not opened or opened.pop() not in _MATCH[token.text]:
                raise Unreadable("its brackets do not match")
    if opened:
        raise Unreadable("a bracket does not close")


def unwrapped(found: list[Token]) -> list[Token]:
    """Without a box, braces or \\text around all of it."""
    for _ in range(8):
        if len(found) >= 2 and found[0].text in ("boxed", "fbox") and found[0].kind == "command":
            found = found[1:]
        elif len(found) >= 2 and is_sign(found[0], "{") and closing(found, 0) == len(found) - 1:
            found = found[1:-1]
        elif len(found) == 1 and found[0].kind == "text":
            inside = tokens(found[0].text)
            if len(inside) > 1 and all(token.kind == "letters" for token in inside):
                return found
            found = inside
        else:
            break
    return found
