"""Evaluates expressions, exactly where they are rational and to 420 digits elsewhere, and tells whether two are equal.

Two expressions are equal if they are so at points that are drawn from a hash of both (Schwartz 1980, Zippel 1979), so
nobody can write an answer for the points. Variables are real, of either sign; roots and logarithms are principal, but
odd roots of negative numbers are real. The cost is bounded without a clock: each node is visited once a point, and a
number whose size leaves 10^±140 is `TooCostly` before it is computed. So no two numbers that are told apart by their
size can be taken for the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from hashlib import sha256
from typing import Any

from mpmath.ctx_mp import MPContext

from selfplay.answers.tree import Node

_DIGITS, _LARGEST, _ZERO, _SAME = 420, 140, 230, 200
_MOST_BITS = 4000
_POINTS, _LEAST_POINTS = 6, 3
#: The most nodes of an expression, and signs that may be plus or minus.
MOST_NODES, MOST_EITHER = 250, 3

_mp: Any = MPContext()
_mp.dps = _DIGITS
_TINY, _HUGE = _mp.mpf(10) ** -_LARGEST, _mp.mpf(10) ** _LARGEST
_NOTHING = _mp.mpf(10) ** -_ZERO
_CLOSE = _mp.mpf(10) ** -_SAME


class TooCostly(Exception):
    """Beyond the bounds within which expressions are compared."""


class Undefined(ArithmeticError):
    """The expression has no value there."""


#: A value: exact, or of type mpf or mpc.
Value = Any
Point = Mapping[str, Value]


def symbols(*nodes: Node) -> list[str]:
    """The names of all variables, sorted."""
    return sorted({part.name for node in nodes for part in node.walk() if part.kind == "symbol"})


def bounded(node: Node) -> Node:
    """The node itself. Raises `TooCostly` where it has too many parts."""
    if sum(1 for _ in node.walk()) > MOST_NODES:
        raise TooCostly(f"more than {MOST_NODES} operations")
    return node


def value(node: Node, point: Point) -> Value:
    """The value where the variables are as `point` says. Raises `Undefined` and `TooCostly`."""
    try:
        return _sized(_OF_KIND[node.kind](node, point))
    except (ZeroDivisionError, OverflowError, ValueError):  # of mpmath
        raise Undefined from None


def equal(one: Value, other: Value) -> bool:
    """Whether two values are the same."""
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return one == other
    return bool(abs(real(one) - real(other)) < _CLOSE)


def points(seed: Sequence[str], names: Sequence[str]) -> list[dict[str, Value]]:
    """Points to compare at, drawn from a hash of the texts: rationals of 24 digits, |x| from 0.2 to 3, both signs."""
    drawn = []
    for i in range(_POINTS if names else 1):
        point = {}
        for place, name in enumerate(names):
            digest = sha256("\0".join((*seed, str(i), name)).encode("utf-8", "surrogatepass")).hexdigest()
            size = Fraction(2, 10) + Fraction(int(digest[:20], 16) % 10**24, 10**24) * Fraction(28, 10)
            negative = (i + place) % 2 if i < 4 else int(digest[20], 16) % 2
            point[name] = -size if negative else size
        drawn.append(point)
    return drawn


def same(one: Node, other: Node, up_to: str = "") -> bool:
    """Whether two expressions are equal wherever they are defined, and defined at the same points.

    up_to: "" exactly; "constant": up to a constant that is added; "factor", "positive": up to a constant factor that is
      not 0, or is above 0. Raises `TooCostly`.
    """
    bounded(one), bounded(other)
    names = symbols(one, other)
    seed = sorted((repr(one), repr(other)))
    first: Value = None
    compared = 0
    for point in points(seed, names):
        left, right = _or_undefined(one, point), _or_undefined(other, point)
        if left is None or right is None:
            if left is not right:
                return False
            continue
        compared += 1
        if not up_to:
            if not equal(left, right):
                return False
            continue
        ratio = _ratio(left, right, up_to)
        if ratio is None or (first is not None and not equal(first, ratio)):
            return False
        first = ratio if first is None else first
    return compared >= (_LEAST_POINTS if names else 1)


def antiderivative(node: Node, integrand: Node, name: str) -> bool:
    """Whether the derivative of `node` by the variable `name` is `integrand`. Raises `TooCostly`."""
    bounded(node), bounded(integrand)
    step = _mp.mpf(10) ** -70
    compared = 0
    for point in points((repr(node), repr(integrand)), sorted({*symbols(node, integrand), name})):
        at = real(point[name])
        sides = [_or_undefined(node, {**point, name: at + move}) for move in (-step, step)]
        wanted = _or_undefined(integrand, point)
        if wanted is None:
            continue
        if sides[0] is None or sides[1] is None:
            return False
        compared += 1
        slope = (real(sides[1]) - real(sides[0])) / (2 * step)
        if abs(slope - real(wanted)) > _mp.mpf(10) ** -50 * (1 + abs(real(wanted))):
            return False
    return compared >= _LEAST_POINTS


def constant(node: Node) -> Value | None:
    """Its value, if it has no variables and is defined."""
    return None if symbols(node) else _or_undefined(node, {})


def less(one: Value, other: Value) -> bool | None:
    """Whether one real value is below another; None where either is not real."""
    left, right = real(one), real(other)
    if isinstance(left, _mp.mpc) or isinstance(right, _mp.mpc):
        return None
    return bool(left < right) and not equal(one, other)


def _or_undefined(node: Node, point: Point) -> Value | None:
    try:
        return value(node, point)
    except Undefined:
        return None


def _ratio(left: Value, right: Value, up_to: str) -> Value | None:
    if up_to == "constant":
        return real(left) - real(right)
    if equal(left, Fraction(0)) or equal(right, Fraction(0)):
        return None
    ratio = real(left) / real(right)
    if up_to == "positive" and (isinstance(ratio, _mp.mpc) or ratio < 0):
        return None
    return ratio


def real(found: Value) -> Any:
    """The value as mpf or mpc."""
    if isinstance(found, Fraction):
        return _mp.mpf(found.numerator) / found.denominator
    return found


def _sized(found: Value) -> Value:
    """Fractions that stay small stay exact. Raises `TooCostly` for what is too large, or too small but not zero."""
    if isinstance(found, Fraction):
        if max(found.numerator.bit_length(), found.denominator.bit_length()) <= _MOST_BITS:
            return found
        found = real(found)
    if isinstance(found, _mp.mpc) and abs(found.imag) < _NOTHING:
        found = found.real
    if isinstance(found, _mp.mpc) and abs(found.real) < _NOTHING:
        found = _mp.mpc(0, found.imag)
    size = abs(found)
    if size < _NOTHING:
        return Fraction(0)
    if not _mp.isfinite(size):
        raise Undefined
    if not _TINY < size < _HUGE:
        raise TooCostly(f"a number in it is beyond 10^{_LARGEST}, or that close to 0")
    return found


def _sum(node: Node, point: Point) -> Value:
    total: Value = Fraction(0)
    for part in node.parts:
        found = value(part, point)
        exact = isinstance(total, Fraction) and isinstance(found, Fraction)
        total = _sized(total + found if exact else real(total) + real(found))
    return total


def _product(node: Node, point: Point) -> Value:
    left, right = (value(part, point) for part in node.parts)
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return left * right
    return real(left) * real(right)


def _quotient(node: Node, point: Point) -> Value:
    left, right = (value(part, point) for part in node.parts)
    if equal(right, Fraction(0)):
        raise Undefined
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return left / right
    return real(left) / real(right)


def _power(node: Node, point: Point) -> Value:
    base, exponent = (value(part, point) for part in node.parts)
    return _raised(base, exponent)


def _raised(base: Value, exponent: Value) -> Value:
    if equal(base, Fraction(0)):
        if isinstance(exponent, Fraction) and exponent > 0:
            return Fraction(0)
        raise Undefined  # 0^0, too: some call it 1
    size = abs(real(base))
    growth = abs(real(exponent)) * abs(_mp.log10(size))
    if growth > 2 * _LARGEST and not (isinstance(base, Fraction) and isinstance(exponent, Fraction)):
        raise TooCostly(f"a power in it is beyond 10^{_LARGEST}")
    if isinstance(exponent, Fraction):
        if exponent.denominator == 1:
            if isinstance(base, Fraction):
                bits = max(base.numerator.bit_length(), base.denominator.bit_length()) * abs(exponent)
                if bits <= _MOST_BITS:
                    return base ** int(exponent)
                if growth > 2 * _LARGEST:
                    raise TooCostly(f"a power in it is beyond 10^{_LARGEST}")
            if abs(exponent) > 10**6:
                raise TooCostly("an exponent in it is above a million")
            return _mp.power(real(base), int(exponent))
        if isinstance(base, Fraction | _mp.mpf) and base < 0 and exponent.denominator % 2:
            sign = -1 if exponent.numerator % 2 else 1
            return sign * _mp.power(-real(base), real(exponent))
    return _mp.power(_mp.mpmathify(real(base)), real(exponent))


def _root(node: Node, point: Point) -> Value:
    inside, index = (value(part, point) for part in node.parts)
    if not isinstance(index, Fraction) or index.denominator != 1 or not 2 <= index <= 1000:
        if equal(index, Fraction(0)):
            raise Undefined
        return _raised(inside, 1 / real(index))
    return _raised(inside, 1 / index)


def _call(node: Node, point: Point) -> Value:
    arguments = [value(part, point) for part in node.parts]
    return _CALLS[node.name](*arguments)


def _symbol(node: Node, point: Point) -> Value:
    if node.name not in point:
        raise Undefined
    return point[node.name]


def _either(node: Node, point: Point) -> Value:
    raise Undefined  # `expanded` has to come first


def _factorial(n: Value) -> Value:
    if isinstance(n, Fraction) and n.denominator == 1:
        if n < 0:
            raise Undefined
        if n > 300:
            raise TooCostly("a factorial in it is above 300!")
        product = Fraction(1)
        for factor in range(2, int(n) + 1):
            product *= factor
        return product
    if abs(real(n)) > 60:
        raise TooCostly("a factorial in it is too large")
    return _mp.gamma(real(n) + 1)


def _binomial(n: Value, k: Value) -> Value:
    if isinstance(n, Fraction) and isinstance(k, Fraction) and n.denominator == k.denominator == 1 and 0 <= k <= n:
        if n > 300:
            raise TooCostly("a binomial coefficient in it is too large")
        return _factorial(n) / (_factorial(k) * _factorial(n - k))
    if max(abs(real(n)), abs(real(k))) > 60:
        raise TooCostly("a binomial coefficient in it is too large")
    return _mp.binomial(real(n), real(k))


def _exp(x: Value) -> Value:
    if abs(real(x)) > _LARGEST * 2.4:
        raise TooCostly(f"a power in it is beyond 10^{_LARGEST}")
    return _mp.exp(real(x))


def _logarithm(x: Value, base: Value = None) -> Value:
    if equal(x, Fraction(0)) or (base is not None and (equal(base, Fraction(0)) or equal(base, Fraction(1)))):
        raise Undefined
    found = _mp.log(real(x))
    return found if base is None else found / _mp.log(real(base))


def _whole(kind: Callable[[Any], Any]) -> Callable[[Value], Value]:
    def of(x: Value) -> Value:
        if isinstance(x, _mp.mpc):
            raise Undefined
        nearest = _mp.nint(real(x))
        return Fraction(int(nearest if equal(x, nearest) else kind(real(x))))

    return of


def _numeric(name: str) -> Callable[[Value], Value]:
    def of(x: Value) -> Value:
        if not name.startswith("a") and abs(real(x)) > 10**6 or (name.endswith("h") and abs(real(x)) > 300):
            raise TooCostly(f"the argument of {name} is too large")
        try:
            return getattr(_mp, name)(real(x))
        except ValueError:
            raise Undefined from None

    return of


def _inverse(name: str) -> Callable[[Value], Value]:
    """sec, csc, cot and the like, undefined where what is below is 0 but for rounding."""
    below = {"sec": "cos", "csc": "sin", "cot": "tan", "tan": "cos", "sech": "cosh", "csch": "sinh", "coth": "tanh"}[
        name
    ]

    def of(x: Value) -> Value:
        if abs(_numeric(below)(x)) < _NOTHING:
            raise Undefined
        return _numeric(name)(x)

    return of


_CALLS: dict[str, Callable[..., Value]] = {
    "abs": lambda x: abs(x), "floor": _whole(_mp.floor), "ceil": _whole(_mp.ceil), "factorial": _factorial,
    "binom": _binomial, "exp": _exp, "ln": _logarithm, "logbase": _logarithm,
    "log": lambda x: _logarithm(x, Fraction(10)), "lg": lambda x: _logarithm(x, Fraction(10)),
    **{name: _numeric(name) for name in ("sin", "cos", "asin", "acos", "atan", "acot", "asec", "acsc", "sinh", "cosh",
                                         "tanh", "asinh", "acosh", "atanh")},
    **{name: _inverse(name) for name in ("tan", "sec", "csc", "cot", "sech", "csch", "coth")},
}  # fmt: skip
_CONSTANTS: dict[str, Value] = {
    "pi": +_mp.pi, "e": +_mp.e, "i": _mp.mpc(0, 1), "degree": _mp.pi / 180,
}  # fmt: skip
_OF_KIND: dict[str, Callable[[Node, Point], Value]] = {
    "number": lambda node, point: node.value,
    "symbol": _symbol,
    "constant": lambda node, point: _CONSTANTS[node.name],
    "sum": _sum,
    "mixed": _sum,
    "product": _product,
    "quotient": _quotient,
    "power": _power,
    "negative": lambda node, point: -value(node.parts[0], point),
    "root": _root,
    "call": _call,
    "either": _either,
}
