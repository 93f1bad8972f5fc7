"""Numbers in texts: their decimal mark and thousands separator, and what else keeps them from being read.

A reading is a pair (decimal mark, thousands separator or None). Groups between thousands separators have three digits,
so that "12,5" is never 125.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

DECIMALS = (".", ",")
THOUSANDS = (",", ".", "'", "_", " ")

Reading = tuple[str, str | None]

#: All readings, the plain one first, those that need one option before those that need two.
READINGS: tuple[Reading, ...] = (
    (".", None),
    (",", None),
    *((".", mark) for mark in THOUSANDS if mark != "."),
    *((",", mark) for mark in THOUSANDS if mark != ","),
)

#: What people write for a thousands separator, as a regular expression.
_VARIANTS = {" ": "[ \u00a0\u2009\u202f]", "'": "['’]"}


@lru_cache
def pattern(decimal: str, thousands: str | None) -> str:
    """Return the regular expression of a number, for Python's re and for RE2."""
    digits = "[0-9]+"
    if thousands is not None:
        mark = _VARIANTS.get(thousands, re.escape(thousands))
        digits = f"(?:{digits}|[0-9]{{1,3}}(?:{mark}[0-9]{{3}})+"
        # India's groups of two
        digits += f"|[0-9]{{1,2}}(?:{mark}[0-9]{{2}})+{mark}[0-9]{{3}})" if thousands == "," else ")"
    mark = re.escape(decimal)
    finite = f"(?:{digits}(?:{mark}[0-9]*)?|{mark}[0-9]+)(?:[eE][+-]?[0-9]+)?"
    return f"^[+-]?(?:{finite}|[iI][nN][fF](?:[iI][nN][iI][tT][yY])?)$"


def is_number(text: str, reading: Reading = READINGS[0]) -> bool:
    """Return whether a text is a number under a reading."""
    return re.match(pattern(*reading), text.strip()) is not None


def parsed(array: Any, reading: Reading) -> tuple[Any, int]:
    """Return texts as float64, and the place of the first text that is no number, -1 if all are.

    `array` is a pyarrow.Array of strings; the result is None if a text is no number.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    decimal, thousands = reading
    texts = pc.utf8_trim_whitespace(array.cast(pa.string()))
    wrong = pc.index(pc.match_substring_regex(texts, pattern(decimal, thousands)), pa.scalar(False)).as_py()
    if wrong >= 0:
        return None, wrong
    if thousands is not None:
        texts = pc.replace_substring_regex(texts, _VARIANTS.get(thousands, re.escape(thousands)), "")
    if decimal != ".":
        texts = pc.replace_substring(texts, decimal, ".")
    return texts.cast(pa.float64()), -1


def bare(text: str) -> tuple[str, str]:
    """Return a text without signs of currency and percent, and these signs.

    Examples
    --------
    >>> bare("-$5"), bare("12,5 %"), bare("(1 200)"), bare("5"), bare("abc")
    (('-5', '$'), ('12,5', '%'), ('1 200', '()'), ('5', ''), ('abc', ''))
    """
    inner, found = text.strip().replace("\u2212", "-"), "" if "\u2212" not in text else "\u2212"
    if inner[:1] == "(" and inner[-1:] == ")":
        inner, found = inner[1:-1].strip(), "()"
    sign = inner[:1] if inner[:1] in ("+", "-") else ""
    inner = inner[len(sign) :].strip()
    for end in (0, -1):
        if inner and (inner[end] in "%‰" or unicodedata.category(inner[end]) == "Sc"):
            found += inner[end]
            inner = (inner[1:] if end == 0 else inner[:-1]).strip()
    return sign + inner, found


def advice(
    texts: Iterable[str], separator: str | None = None, present: Reading = READINGS[0]
) -> tuple[str, str] | None:
    """Return a text that is a number but for its marks, and what reads such texts; None if most are no numbers.

    Parameters
    ----------
    texts : iterable of str
        Different texts; the reading under which most of them are numbers counts.
    separator : str, optional
        What separates the fields of the file, which cannot be the decimal mark.
    present : tuple
        The reading under which they are read at present.

    Examples
    --------
    >>> advice(["0,411", "1,5"], ";")
    ('0,411', '--decimal , reads such numbers')
    >>> advice(["1,234", "12"])
    ('1,234', '--thousands , reads such numbers, or --decimal , if the comma is a decimal mark')
    >>> advice(["5%", "12.5%"])[1]
    "write the numbers without '%'"
    >>> advice(["red", "green"])
    """
    split = {text: bare(text) for text in texts}
    readings = (present, *READINGS)
    counts = {reading: sum(is_number(inner, reading) for inner, _ in split.values()) for reading in readings}
    best = max(readings, key=lambda reading: counts[reading])  # the first of equals
    numbers = [text for text, (inner, _) in split.items() if is_number(inner, best)]
    marked = [text for text in numbers if not is_number(text, present)]
    if not marked or 2 * len(numbers) <= len(split):
        return None
    # an example that shows as many marks as possible
    text = max(marked, key=lambda text: (bool(split[text][1]), not is_number(split[text][0], present)))
    if split[text][1]:
        return text, f"write the numbers without {split[text][1]!r}"
    return text, _options(best, present, [split[text][0] for text in marked], separator)


def _options(best: Reading, present: Reading, marked: list[str], separator: str | None) -> str:
    """Return the options that change the present reading of these numbers to the best."""
    decimal, thousands = best
    if best == (",", None) and all(is_number(text, (".", ",")) for text in marked):
        decimal_too = "" if separator == "," else ", or --decimal , if the comma is a decimal mark"
        return f"--thousands , reads such numbers{decimal_too}"
    if decimal == separator:
        return f"write them with a decimal point, or another mark than {decimal!r} between the fields"
    named = {" ": "space", "'": '"\'"', None: "none"}.get(thousands, thousands)
    options = [f"--decimal {decimal}"] if decimal != present[0] else []
    options += [f"--thousands {named}"] if thousands != present[1] else []
    return f"{' '.join(options)} reads such numbers"
