"""Prompts with slots for the words of a class, as "a photo of a {gender} doctor"."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..core.targets import SEPARATOR, TargetDistribution
from ..core.written_names import bare_name, outside_quotes, plain_signs, split_names, written_name

Words = dict[str, dict[str, tuple[str, ...]]]
"""Attribute -> class -> alternatives; "" stands for no words."""
_SLOT = re.compile(r"\{([^{}]*)\}")
_ARTICLE = re.compile(r"\b([Aa])n?(\s+[(\[\"']*)$")
_SOUNDS_LIKE_CONSONANT = re.compile(r"(eu|ewe|uni(?!n)|us(?!h)|ut|one\b|once\b)", re.IGNORECASE)
_SOUNDS_LIKE_VOWEL = re.compile(r"([aeiou]|hour|honest|honou?r|heir|8|11\b|18\b)", re.IGNORECASE)


@dataclass(frozen=True)
class SlottedPrompt:
    """A prompt whose slots take the words of the classes of a target."""

    text: str
    """The prompt, with ``{attribute}`` for each slot and ``{a|b}`` for a free choice."""
    words: Words
    """Words of every class."""

    def filled(self, classes: Mapping[str, str], seed: int, image: int) -> str:
        """Return the prompt for an image of these classes.

        ``classes``: attribute -> class. Alternatives are drawn from the seed and the image's index, so an image gets the same words alone
        and in a batch. "a" and "an" before a slot are set right.
        """
        chance = random.Random(f"{seed} {image}")
        parts, at, is_empty = [], 0, False
        for slot in _SLOT.finditer(self.text):
            name = slot[1].strip()
            choices = tuple(c.strip() for c in name.split("|")) if "|" in name else self.words[name][classes[name]]
            words = chance.choice(choices)
            before = self.text[at : slot.start()]
            parts += [_with_article(before, words or self.text[slot.end() :].lstrip()), words]
            at, is_empty = slot.end(), is_empty or not words
        text = "".join([*parts, self.text[at:]])
        return re.sub(r"\s+(?=[,.;:!?])", "", re.sub(r"[ \t]{2,}", " ", text)).strip() if is_empty else text


def slots_of(text: str) -> list[str]:
    """List the attributes of a prompt's slots, each once; "" for ``{}``."""
    return list(dict.fromkeys(s.strip() for s in _SLOT.findall(text) if "|" not in s))


def read_prompt(text: str, words: str, target: TargetDistribution) -> SlottedPrompt:
    """Read a prompt with slots, and the words of the target's classes.

    ``{}`` is the slot of the only attribute. Raises ValueError for a slot that the target does not know, an attribute without a slot, and
    what :func:`read_words` refuses.
    """
    if "{}" in text.replace(" ", ""):
        if len(target.attributes) > 1:
            raise ValueError(
                f"'{{}}' is a slot for one attribute, and the target has {len(target.attributes)}: name the slots, "
                f"{' and '.join('{' + a + '}' for a in target.attributes)}."
            )
        text = re.sub(r"\{\s*\}", "{" + target.attributes[0] + "}", text)
    slots = slots_of(text)
    unknown = [s for s in slots if s not in target.attributes]
    if unknown:
        raise ValueError(f"the prompt has a slot '{{{unknown[0][:60]}}}', and the target's attributes are {', '.join(target.attributes)}.")
    missing = [a for a in target.attributes if a not in slots]
    if missing:
        raise ValueError(f"the prompt has no slot for '{missing[0]}': write {{{missing[0]}}} where its words belong.")
    return SlottedPrompt(text, read_words(words, target))


def read_words(text: str, target: TargetDistribution) -> Words:
    """Read the words of every class: a line each, as "CLASS: WORDS | OTHER WORDS".

    A class without a line has its own name. Nothing after the colon stands for no words. If two attributes have a class of the same name,
    write ATTRIBUTE/CLASS. Raises ValueError for a line that does not follow this form, a class that the target does not have, and words
    that two classes of an attribute share.
    """
    words: Words = {a: {c: (c,) for c in classes} for a, classes in zip(target.attributes, target.classes, strict=True)}
    seen: set[tuple[str, str]] = set()
    for line in filter(str.strip, text.splitlines()):
        name, *rest = outside_quotes(":").split(plain_signs(line), maxsplit=1)
        if not rest:
            raise ValueError(
                f"'{line.strip()[:60]}' does not give a class its words: write CLASS: WORDS, for instance woman: woman | lady."
            )
        attribute, class_name = _class_of(name, words)
        if (attribute, class_name) in seen:
            raise ValueError(f"'{class_name}' has two lines of words: join them with a bar, as woman | lady.")
        seen.add((attribute, class_name))
        words[attribute][class_name] = tuple(dict.fromkeys(bare_name(w) for w in split_names(rest[0], r"\|"))) or ("",)
    for attribute, classes in words.items():
        _check_different(attribute, classes)
    return words


def prompts_of(prompt: SlottedPrompt, target: TargetDistribution, cells: Iterable[int], index: Iterable[int], seed: int) -> list[str]:
    """Return the prompt of every image, from its cell and its index in the batch."""
    filled = []
    for cell, image in zip(cells, index, strict=True):
        classes = dict(zip(target.attributes, target.cells[int(cell)], strict=True))
        filled.append(prompt.filled(classes, seed, image))
    return filled


def _class_of(name: str, words: Words) -> tuple[str, str]:
    """Find the attribute and class that a line names."""
    parts = [bare_name(p) for p in outside_quotes(re.escape(SEPARATOR)).split(name)]
    if len(parts) == 2 and parts[1] in words.get(parts[0], {}):
        return parts[0], parts[1]
    class_name = bare_name(name)
    owners = [a for a, classes in words.items() if class_name in classes]
    if len(owners) == 1:
        return owners[0], class_name
    if owners:
        choice = " or ".join(f"{written_name(a)}/{written_name(class_name)}" for a in owners)
        raise ValueError(f"'{class_name}' is a class of {' and of '.join(owners)}: write {choice}.")
    known = "; ".join(f"{a}: {', '.join(map(written_name, classes))}" for a, classes in words.items())
    raise ValueError(f"the target has no class '{class_name[:60]}'; it knows {known}.")


def _check_different(attribute: str, classes: Mapping[str, tuple[str, ...]]) -> None:
    owner: dict[str, str] = {}
    for class_name, alternatives in classes.items():
        for words in alternatives:
            other = owner.setdefault(words.casefold(), class_name)
            if other != class_name:
                what = f"the words '{words}'" if words else "no words"
                raise ValueError(f"the classes '{other}' and '{class_name}' of '{attribute}' both have {what}: give each its own.")


def _with_article(before: str, after: str) -> str:
    """Set "a" or "an" at the end of a text right for the words after it."""
    article = _ARTICLE.search(before)
    if not article:
        return before
    first = after.lstrip("(['\"")
    is_vowel = bool(_SOUNDS_LIKE_VOWEL.match(first)) and not _SOUNDS_LIKE_CONSONANT.match(first)
    return before[: article.start()] + article[1] + ("n" if is_vowel else "") + article[2]
