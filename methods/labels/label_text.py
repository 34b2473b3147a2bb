"""Attributes and their classes as users write them, and labels read off the prompts that made the images.

A line per attribute (or a semicolon between two)::

    ATTRIBUTE: CLASS, CLASS, ...
    ATTRIBUTE: CLASS=MEMBER|MEMBER|..., CLASS=MEMBER, CLASS=...

What the members of a class are depends on who asks: phrases (zero-shot, prompts), or the classes that are merged into one ("age: young=0-2|
3-9|10-19, middle=20-29|30-39, old=..."). A class without "=" has itself as its only member. Three dots stand for everything that no other
class names. Double quotes keep commas, bars, equals signs and semicolons within a name: fish="tench, Tinca tinca"|trout.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..core.written_names import bare_name, outside_quotes, split_names

REST = "..."
"""Member that stands for everything that the attribute's other classes do not name."""
ClassSpec = dict[str, dict[str, tuple[str, ...]]]
"""Attribute -> class -> members, in the order given."""
_RESERVED = ":=,;|/"


def parse_classes(text: str) -> ClassSpec:
    """Read text of that form.

    Raises ValueError for a line that does not follow it, a name given twice, or a single class.
    """
    spec: ClassSpec = {}
    for line in (part for row in text.splitlines() for part in split_names(row, ";")):
        attribute, colon, rest = line.partition(":")
        attribute = attribute.strip()
        if not colon or not attribute:
            raise ValueError(f"'{line}' names no attribute and classes: write ATTRIBUTE: CLASS, CLASS, for instance eyeglasses: yes, no.")
        check_name(attribute, "attribute")
        if attribute in spec:
            raise ValueError(f"the attribute '{attribute}' is given twice: put all its classes on one line.")
        spec[attribute] = _classes(attribute, rest)
    if not spec:
        raise ValueError("no attribute is given: write ATTRIBUTE: CLASS, CLASS, for instance eyeglasses: yes, no.")
    return spec


def _classes(attribute: str, text: str) -> dict[str, tuple[str, ...]]:
    classes: dict[str, tuple[str, ...]] = {}
    for part in split_names(text, ","):
        name, equals, members = _cut(part)
        check_name(name, f"class of '{attribute}'")
        if name in classes:
            raise ValueError(f"the class '{name}' of '{attribute}' is given twice: join its members with a bar, {name}=a|b.")
        classes[name] = tuple(dict.fromkeys(bare_name(m) for m in split_names(members, r"\|"))) if equals else (name,)
        if not classes[name]:
            raise ValueError(f"the class '{name}' of '{attribute}' has nothing after its equals sign: write {name}=a|b, or {name} alone.")
    if len(classes) < 2:
        raise ValueError(f"'{attribute}' has {len(classes)} class(es), and at least two are needed: write {attribute}: yes, no.")
    if sum(REST in members for members in classes.values()) > 1:
        raise ValueError(f"'{attribute}' gives the rest ({REST}) to two classes: give it to one.")
    return classes


def _cut(text: str) -> tuple[str, bool, str]:
    """Cut a text at its first equals sign.

    Returns what stands before it, whether there is one, and what stands after it.
    """
    name, *rest = outside_quotes("=").split(text, maxsplit=1)
    return bare_name(name), bool(rest), rest[0] if rest else ""


def check_name(name: str, what: str) -> None:
    """Raise ValueError for a name that targets or label files could not hold.

    That is the name of an attribute or class with one of their own signs in it.
    """
    bad = [c for c in _RESERVED if c in name]
    if bad or not name or name == REST:
        why = f"holds '{bad[0]}', which has a meaning of its own in targets and label files" if bad else "is no name"
        raise ValueError(f"'{name}' ({what}) {why}: choose another name.")


def labels_from_prompts(prompts: Sequence[str], classes: Mapping[str, Sequence[str]], attribute: str, unsure: bool = False) -> Tensor:
    """Label images by the phrases in their prompts: class probabilities float32 [N, K].

    Phrases are found as whole words, whatever their case; one that lies within a longer match does not count ("with glasses" in "man with
    glasses on"). Where phrases of several classes are left, these share equally. A prompt without any phrase goes to the class that has
    the rest (``...``); where there is none it gets equal probabilities if ``unsure``.

    Raises ValueError for a phrase that two classes have, and, unless ``unsure``, for prompts that name no class.
    """
    names = list(classes)
    rest = next((i for i, c in enumerate(names) if REST in classes[c]), None)
    phrases: dict[str, int] = {}
    for i, name in enumerate(names):
        for phrase in classes[name]:
            key = _words(phrase)
            if phrase == REST:
                continue
            if phrases.setdefault(key, i) != i:
                both = f"{names[phrases[key]]} and {name}"
                raise ValueError(f"the phrase '{phrase}' of '{attribute}' stands for two classes, {both}: keep one.")
    pattern = [(re.compile(rf"(?<!\w){re.escape(p)}(?!\w)"), i) for p, i in phrases.items()]
    known: dict[str, list[int]] = {}
    for prompt in dict.fromkeys(prompts):
        met = _met(_words(prompt), pattern)
        known[prompt] = met or ([rest] if rest is not None else [])
    silent = [p for p in prompts if not known[p]]
    if silent and not unsure:
        raise ValueError(
            f"{len(silent)} of {len(prompts)} prompts name no class of '{attribute}', the first is '{silent[0][:120]}': add a phrase for "
            f"them, or give one class the rest, {names[-1]}={REST}."
        )
    table = torch.zeros(len(prompts), len(names))
    for row, prompt in enumerate(prompts):
        for i in known[prompt] or range(len(names)):
            table[row, i] = 1.0
    return table / table.sum(1, keepdim=True)


def _words(text: str) -> str:
    return " ".join(text.casefold().split())


def _met(text: str, pattern: Sequence[tuple[re.Pattern[str], int]]) -> list[int]:
    spans = [(m.start(), m.end(), i) for p, i in pattern for m in p.finditer(text)]
    outermost = [s for s in spans if not any(o[0] <= s[0] and s[1] <= o[1] and o[1] - o[0] > s[1] - s[0] for o in spans)]
    return sorted({i for _, _, i in outermost})
