"""Words of units and of magnitudes after a number. Units are compared by name and never converted."""

from __future__ import annotations

import re

_SAME_UNIT = """
mm millimeter millimeters millimetre millimetres; cm centimeter centimeters centimetre centimetres
m meter meters metre metres; km kilometer kilometers kilometre kilometres; dm decimeter decimeters
inch inches in; ft foot feet; yd yard yards; mi mile miles; mg milligram milligrams
g gram grams; kg kilogram kilograms kilo kilos; ton tons tonne tonnes; lb lbs pound pounds; oz ounce ounces
l L liter liters litre litres; ml mL milliliter milliliters millilitre millilitres; gallon gallons gal
quart quarts; pint pints; cup cups; acre acres; hectare hectares; s sec secs second seconds; ms millisecond milliseconds
min mins minute minutes; h hr hrs hour hours; day days; week weeks; month months; year years
mph; kmh kph; N newton newtons; J joule joules; W watt watts; kW kilowatt kilowatts; kWh; V volt volts
A ampere amperes amp amps
Hz hertz; Pa pascal pascals; K kelvin kelvins; mol mole moles
dollar dollars usd USD $; cent cents; euro euros EUR; pence penny pennies; degree degrees deg; radian radians rad
unit units; bit bits; byte bytes
"""
#: A word -> the name of its unit.
UNITS = {
    word: names.split()[0]
    for line in _SAME_UNIT.strip().splitlines()
    for names in line.split(";")
    for word in names.split()
}
MAGNITUDES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "squared": 2, "cubed": 3}


def unit(words: str) -> str | None:
    """The name of a unit: "cm^2" for "square centimeters", "mi/h" for "miles per hour"; None for other words."""
    words = re.sub(r"\s*(?:/|\bper\b)\s*", " / ", words.strip().rstrip("."))
    words = re.sub(r"\s*\^\s*\{?([23])\}?", r"^\1", words)
    sides = [_product(side.split()) for side in words.split("/")]
    if not 1 <= len(sides) <= 2 or None in sides:
        return None
    return "/".join(side for side in sides if side is not None)


def _product(words: list[str]) -> str | None:
    found: list[str] = []
    power = 0
    for word in words:
        bare, _, exponent = word.partition("^")
        if word in ("square", "sq", "sq.", "cubic"):
            power = _POWERS[word.rstrip(".")]
        elif word in ("squared", "cubed") and found:
            found[-1] += f"^{_POWERS[word]}"
        elif (name := UNITS.get(bare) or UNITS.get(bare.lower())) is not None:
            found.append(f"{name}^{exponent or power}" if exponent or power else name)
            power = 0
        else:
            return None
    return " ".join(found) if found and not power else None
