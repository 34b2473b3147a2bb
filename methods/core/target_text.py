"""Targets as people write them: "half and half", "40/40/20", "yes 80 no 20", "hair: long=0.4, short=60%".

``web/target_text.js`` reads the same forms for the editor. ``tests/data/target_texts.json`` lists forms and faults for both.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence

from .targets import SEPARATOR, TargetDistribution, check_known, normalise
from .written_names import bare_name, outside_quotes, plain_signs, split_names, written_name

PRESETS = WEIGHTS, UNIFORM = ("weights", "uniform")
EQUAL = (UNIFORM, "balanced", "even", "evenly", "equal", "equally", "all equal", "equal shares")
"""Words for equal shares of any number of classes."""
EQUAL_PARTS = {"half and half": 2, "half half": 2, "half/half": 2, "half-half": 2, "halves": 2, "fifty fifty": 2, "fifty-fifty": 2,
               "thirds": 3, "a third each": 3, "one third each": 3, "quarters": 4, "a quarter each": 4}  # fmt: skip
"""Words for equal shares -> the number of classes that they mean."""
FRACTIONS = {"a half": 1 / 2, "one half": 1 / 2, "half": 1 / 2, "a third": 1 / 3, "one third": 1 / 3, "third": 1 / 3, "two thirds": 2 / 3,
             "a quarter": 1 / 4, "one quarter": 1 / 4, "quarter": 1 / 4, "three quarters": 3 / 4}  # fmt: skip
"""Weights in words."""
Cell = tuple[str, ...]
"""Class names of a cell, one per attribute."""
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_VALUE = rf"(?:{_NUMBER}(?:\s*/\s*{_NUMBER})?\s*%?|{'|'.join(FRACTIONS)})"
_ATTRIBUTES = r"\s+[xX×]\s+|\*|×|,"
_LISTS = (r"\s*[,;\n]\s*", r"\s*[/:]\s*", r"\s*[-–]\s*", r"\s+")
"""What may stand between numbers without names."""


def parse_target(text: str, known: Mapping[str, Sequence[str]]) -> TargetDistribution:
    """Read a target from text such as "hair: long=0.4, short=0.6".

    ``eyeglasses: yes=0.5, no=0.5`` is one attribute; several, separated by ``;``, are independent; ``eyeglasses x hair: yes/long=0.4, ...``
    is a joint table; ``uniform`` stands for equal shares. :func:`weights_of` says which forms the weights may have.

    ``known``: attribute -> classes in order. Raises ValueError for what is not known or not understood.
    """
    tables: list[TargetDistribution] = []
    for part in split_names(plain_signs(text), ";"):
        head, *tail = outside_quotes(":").split(part, maxsplit=1)
        if not tail:
            raise ValueError(
                f"'{part[:60]}' is not a target: write ATTRIBUTE: CLASS=SHARE, ..., for instance 'eyeglasses: yes=0.5, no=0.5'."
            )
        tables.append(_table(_attribute_names(head), tail[0], known))
    if not tables:
        raise ValueError("the target is empty: write for instance 'eyeglasses: yes=0.5, no=0.5'.")
    attributes = tuple(a for t in tables for a in t.attributes)
    if len(set(attributes)) != len(attributes):
        raise ValueError("an attribute occurs in two parts of the target: write it once, or as one joint table 'A x B: ...'.")
    shares = tuple(math.prod(cell) for cell in itertools.product(*(t.shares for t in tables)))
    return TargetDistribution(attributes, tuple(c for t in tables for c in t.classes), shares, tuple(n for t in tables for n in t.notes))


def target_from_form(attributes: str, preset: str, weights: str, known: Mapping[str, Sequence[str]] | None) -> TargetDistribution:
    """Make a target from the inputs of a node.

    ``attributes`` is "A", "A x B" or "A, B"; ``weights`` is "yes=0.5, no=0.5" or "yes/long=0.4, ...". ``known`` (attribute -> classes) is
    what the connected ADP or classifier knows. Without it, the classes are those that ``weights`` names, in that order.
    Raises ValueError for text that is not understood, names that are not known, and weights that are negative or all zero.
    """
    names = _attribute_names(attributes)
    weights = plain_signs(weights)
    if known is None:
        named = [] if _equal(weights) or _numbers(weights) else [cell for cell, _ in _named_weights(weights, len(names), None)]
        if not named:
            raise ValueError(
                f"the weights have to name the classes, as {'yes=0.5, no=0.5' if len(names) == 1 else 'yes/long=0.25, ...'} for "
                f"{attributes.strip()}; met '{weights.strip()[:60]}': name them, or connect an ADP, which knows its classes."
            )
        known = {name: tuple(dict.fromkeys(cell[i] for cell in named)) for i, name in enumerate(names)}
    return _table(names, UNIFORM if preset == UNIFORM else weights, known)


def weights_of(text: str, cells: Sequence[Cell], what: str) -> tuple[list[float], list[str]]:
    """Read weights in the order of ``cells``; return them with notes.

    Forms: ``NAME=NUMBER, ...``; ``NAME NUMBER NAME NUMBER``; ``NUMBER NAME, ...``; numbers alone in the order of the cells, as
    ``40/40/20``; and words for equal shares. A number may be a percentage or a fraction. Names left out share equally the rest to 1 (or
    100%), or get 0 without a rest. ``what``: the attributes, for messages. Raises ValueError for anything else.
    """
    names = [written_cell(cell) for cell in cells]
    parts = _equal(text)
    if parts:
        if parts not in (-1, len(cells)):
            raise ValueError(
                f"'{text.strip()}' means {parts} classes, but {what} has {len(cells)}: write 'uniform', or a weight per class."
            )
        return [1 / len(cells)] * len(cells), []
    numbers = _numbers(text)
    if numbers:
        return _in_order(numbers, text, names, what)
    by_cell: dict[Cell, float] = {}
    for cell, weight in _named_weights(text, len(cells[0]), cells):
        if cell not in cells:
            raise ValueError(f"{what} has no '{written_cell(cell)[:60]}'; known: {', '.join(names)}.")
        if cell in by_cell:
            raise ValueError(f"{what}: '{written_cell(cell)[:60]}' is given twice.")
        by_cell[cell] = weight
    if not by_cell:
        raise ValueError(f"{what}: no weights given; write for instance '{names[0]}=0.5' or 'uniform'.")
    return _filled_up(by_cell, cells, names)


def written_cell(cell: Cell) -> str:
    """Write a cell, such as "yes/long", so that it can be read back."""
    return SEPARATOR.join(map(written_name, cell))


# -- parts ---------------------------------------------------------------------------------------------------------------------------


def _table(attributes: Sequence[str], weights: str, known: Mapping[str, Sequence[str]]) -> TargetDistribution:
    """Make the target of one attribute, or of a joint table."""
    names = tuple(_alike(a, known) or a for a in attributes)
    for name in names:
        check_known(name, (), known)
    if len(set(names)) != len(names):
        raise ValueError(f"'{' x '.join(attributes)}' names an attribute twice.")
    classes = tuple(tuple(known[a]) for a in names)
    read, notes = weights_of(weights, list(itertools.product(*classes)), f"'{' x '.join(names)}'")
    percent = abs(sum(read) - 100) < 1e-6
    shares, more = normalise([w / 100 for w in read] if percent else read)
    return TargetDistribution(names, classes, shares, (*notes, *more))


def _attribute_names(text: str) -> list[str]:
    names = [bare_name(part) for part in outside_quotes(_ATTRIBUTES).split(plain_signs(text).strip())]
    if not all(names):
        raise ValueError("the target names no attribute: write one, for instance eyeglasses, or two as 'eyeglasses x hair'.")
    return names


def _equal(text: str) -> int:
    """Return the number of classes that words for equal shares mean; -1 for any number, 0 for other text."""
    words = " ".join(text.lower().split()).strip(" .!")
    return -1 if words in EQUAL else EQUAL_PARTS.get(words, 0)


def _numbers(text: str) -> list[tuple[float, bool]]:
    """Read numbers without names: values, and whether each is in per cent; empty for other text."""
    for between in _LISTS:
        parts = re.split(between, text.strip())
        values = [_value(part) for part in parts]
        if len(parts) > 1 and None not in values:
            return [(v, "%" in part) for v, part in zip(values, parts, strict=True)]
    return []


def _in_order(numbers: Sequence[tuple[float, bool]], text: str, names: Sequence[str], what: str) -> tuple[list[float], list[str]]:
    """Return numbers without names as the weights of the cells in their order."""
    if len(numbers) != len(names):
        raise ValueError(f"'{text.strip()[:60]}' has {len(numbers)} weights, but {what} has {len(names)} classes: {', '.join(names)}.")
    a, b = numbers[0][0], numbers[1][0]
    if len(numbers) == 2 and re.fullmatch(r"\d+\s*/\s*\d+", text.strip()) and a < b and a + b not in (1, 10, 100):
        raise ValueError(
            f"'{text.strip()}' may mean a fraction or two weights: write {names[0]}={a:g}/{b:g} for the fraction, or {a:g}:{b:g} for the "
            "weights."
        )
    percent = any(is_percent for _, is_percent in numbers)
    weights = [v / 100 if percent and not is_percent else v for v, is_percent in numbers]
    return weights, [f"in the order {', '.join(names)}"]


def _filled_up(by_cell: dict[Cell, float], cells: Sequence[Cell], names: Sequence[str]) -> tuple[list[float], list[str]]:
    """Give the cells that were left out the rest."""
    missing = [cell for cell in cells if cell not in by_cell]
    if not missing:
        return [by_cell[cell] for cell in cells], []
    notes = []
    first = next(iter(by_cell.values()))
    if len(by_cell) == 1 and 1 < first <= 100:
        notes.append(f"{first:g} was read as {first:g}%")
        by_cell = {cell: weight / 100 for cell, weight in by_cell.items()}
    left = 1 - sum(by_cell.values())
    each = left / len(missing) if left > 1e-9 else 0.0
    left_out = [name for cell, name in zip(cells, names, strict=True) if cell in missing]
    notes.append(f"{', '.join(left_out)} not given: {each:g} each")
    by_cell = by_cell | dict.fromkeys(missing, each)
    return [by_cell[cell] for cell in cells], notes


def _named_weights(text: str, count: int, cells: Sequence[Cell] | None) -> list[tuple[Cell, float]]:
    """Read pairs of a cell and its weight. ``count``: attributes; ``cells``: those that are known."""
    pairs = []
    for part in split_names(text, r"[,;\n]"):
        name, *rest = _at_last_sign(part)
        if rest:
            weight = _value(rest[0])
            if weight is None:
                raise ValueError(f"'{rest[0].strip()[:60]}' is not a number: write {name.strip()[:60]}=0.5 or {name.strip()[:60]}=50%.")
            pairs.append((_cell(name, count, cells), weight))
            continue
        sequence = _sequence(part, count, cells)
        if not sequence:
            example = written_cell(cells[0]) if cells else "yes"
            raise ValueError(f"'{part[:60]}' is not a weight: write NAME=NUMBER, for instance {example}=0.5.")
        pairs += sequence
    return pairs


def _at_last_sign(part: str) -> list[str]:
    """Cut "NAME=VALUE" or "NAME: VALUE" at its last sign outside of quotes; one part if it has none, or several."""
    for sign in ("=", ":"):
        cut = outside_quotes(sign).split(part)
        if len(cut) == 2 and cut[0].strip() and (sign == "=" or _value(cut[1]) is not None):
            return cut
    return [part]


def _sequence(part: str, count: int, cells: Sequence[Cell] | None) -> list[tuple[Cell, float]]:
    """Read "NAME VALUE NAME VALUE" or "VALUE NAME VALUE NAME"; empty for other text."""
    if cells:
        longest_first = sorted(cells, key=lambda cell: len(SEPARATOR.join(cell)), reverse=True)
        name = "|".join(SEPARATOR.join(rf'"?{re.escape(plain_signs(c))}"?' for c in cell) for cell in longest_first)
    else:
        name = r'(?:"[^"]+"|[^\W\d][\w-]*(?:\s+(?!and\b)[^\W\d][\w-]*)*?)'
        name = rf"{name}(?:\s*/\s*{name})*"
    between = r"\s*(?:and\s+|&\s*)?"
    names_first = rf"{between}(?P<name>{name})\s*[=:]?\s*(?P<value>{_VALUE})"
    numbers_first = rf"{between}(?P<value>{_VALUE})\s*(?:of\s+)?(?P<name>{name})"
    for pattern in (names_first, numbers_first):
        item, pairs, at = re.compile(rf"{pattern}(?=\s|$)", re.IGNORECASE), [], 0
        while match := item.match(part, at):
            pairs.append((_cell(match["name"], count, cells), _value(match["value"]) or 0.0))
            at = match.end()
        if pairs and not part[at:].strip():
            return pairs
    return []


def _cell(text: str, count: int, cells: Sequence[Cell] | None) -> Cell:
    """Read the name of a cell, in the spelling of the known one if there is such."""
    parts = tuple(bare_name(p) for p in outside_quotes(re.escape(SEPARATOR)).split(text)) if count > 1 else (bare_name(text),)
    if cells is None:
        if len(parts) != count or not all(parts):
            raise ValueError(f"'{text.strip()[:60]}' does not name one class of each of the {count} attributes: write it as yes/long.")
        return parts
    if parts in cells:
        return parts
    alike = [cell for cell in cells if _folded(cell) == _folded(parts)]
    return alike[0] if len(alike) == 1 else parts


def _folded(cell: Cell) -> Cell:
    return tuple(" ".join(plain_signs(name).casefold().split()) for name in cell)


def _alike(name: str, known: Mapping[str, Sequence[str]]) -> str | None:
    """Return the known name that differs in case or blanks at most; None if there is none, or several."""
    if name in known:
        return name
    alike = [k for k in known if _folded((k,)) == _folded((name,))]
    return alike[0] if len(alike) == 1 else None


def _value(text: str) -> float | None:
    """Read a number, a percentage, a fraction or a fraction in words; None for other text."""
    text = " ".join(text.split())
    if text.lower() in FRACTIONS:
        return FRACTIONS[text.lower()]
    if not re.fullmatch(_VALUE, text):
        return None
    number, slash, below = text.removesuffix("%").partition("/")
    if slash and float(below) == 0:
        return None
    return float(number) / (float(below) if slash else 1) / (100 if text.endswith("%") else 1)
