"""The target of a prompt with slots, where the user types it next to the words."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.target_text import WEIGHTS, parse_target, target_from_form
from ..core.targets import SEPARATOR, TargetDistribution
from ..core.written_names import bare_name, outside_quotes, plain_signs
from .slots import slots_of

ONLY_ATTRIBUTE = "class"
"""Name of the attribute whose slot is ``{}``."""


def typed_target(prompt: str, words: str, weights: str) -> TargetDistribution:
    """Read the target of a prompt from its slots, its words and the weights.

    One slot: its attribute has the classes of the lines of ``words``, or those that ``weights`` names if there are no lines. ``weights``
    is "half and half", "woman 60 man 40" and the like. Several slots: every line of words is ATTRIBUTE/CLASS: WORDS, and ``weights`` is
    a target such as "gender: half and half; age: young 40 old 60". Raises ValueError for a prompt without slots and for what is not
    understood.
    """
    slots = slots_of(prompt)
    if not slots:
        raise ValueError(
            "the prompt has no slot: write {gender} where the words of a class belong, as in 'a photo of a {gender} doctor', or connect a "
            "target and write {} there."
        )
    if len(slots) == 1:
        attribute = slots[0] or ONLY_ATTRIBUTE
        return _of_one_slot(attribute, _classes_of(words, attribute), weights)
    known = {slot: _classes_of(words, slot, is_only=False) for slot in slots}
    bare = [slot for slot, classes in known.items() if not slot or not classes]
    if bare:
        named = bare[0] or "gender"
        raise ValueError(
            f"the prompt has {len(slots)} slots, and the words do not say which classes '{bare[0]}' has: write a line for each, as "
            f"{named}{SEPARATOR}woman: woman, or connect a joint target."
        )
    return parse_target(weights, known)


def _of_one_slot(attribute: str, classes: Sequence[str], weights: str) -> TargetDistribution:
    """Read weights over the classes that have a line of words, or else over those that the weights name."""
    name = f'"{attribute}"'
    if not classes:
        return target_from_form(name, WEIGHTS, weights, None)
    try:
        return target_from_form(name, WEIGHTS, weights, {attribute: classes})
    except ValueError as error:
        try:
            return target_from_form(name, WEIGHTS, weights, None)
        except ValueError:
            raise error from None


def _classes_of(words: str, attribute: str, is_only: bool = True) -> list[str]:
    """List the classes of an attribute in the order of their lines of words."""
    classes = []
    for line in filter(str.strip, words.splitlines()):
        name, *rest = outside_quotes(":").split(plain_signs(line), maxsplit=1)
        parts = [bare_name(p) for p in outside_quotes(SEPARATOR).split(name)]
        if not rest:
            continue
        if len(parts) == 2 and parts[0] == attribute:
            classes.append(parts[1])
        elif is_only:
            classes.append(bare_name(name))
    return list(dict.fromkeys(classes))
