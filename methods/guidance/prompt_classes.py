"""Describe classes by prompts: templates with a slot, and for every class the words that go into it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..labels.label_text import check_name

SLOT = "{}"


@dataclass(frozen=True)
class PromptClasses:
    """Hold the prompts of one attribute."""

    attribute: str
    """Name of the attribute."""
    classes: tuple[str, ...]
    """Names of its classes."""
    templates: tuple[str, ...]
    """Prompts with one ``{}`` each."""
    phrases: dict[str, tuple[str, ...]]
    """Class -> phrases that describe it, at least one each."""

    def prompts(self, name: str) -> list[str]:
        """Return all prompts of a class: its phrases in order, each in every template."""
        return [t.replace(SLOT, p) for p in self.phrases[name] for t in self.templates]

    def aligned(self) -> list[tuple[str, ...]]:
        """Return groups of prompts that differ in the class alone.

        Every group is a tuple with one prompt per class, in order.

        There are as many groups as the class with most phrases has prompts; the others use theirs in turn.
        """
        turns = max(len(p) for p in self.phrases.values())
        each = [self.phrases[c] for c in self.classes]
        return [tuple(t.replace(SLOT, p[i % len(p)]) for p in each) for i in range(turns) for t in self.templates]

    def neutral(self) -> list[str]:
        """Return the templates with nothing in the slot, in order."""
        return [_tidy(t.replace(SLOT, "")) for t in self.templates]


def parse_prompt_classes(attribute: str, templates: str, classes: str) -> PromptClasses:
    """Read prompt templates, and the phrases of every class.

    ``templates``: one per line, each with ``{}`` once. ``classes``: a line each, as ``CLASS: PHRASE`` or ``CLASS: PHRASE|PHRASE``.

    Raises ValueError for a template without slot, fewer than two classes, a class without a phrase or given twice, a
    phrase that two classes have, and names that targets could not be written with.
    """
    attribute = attribute.strip()
    check_name(attribute, "attribute")
    lines = tuple(dict.fromkeys(line.strip() for line in templates.splitlines() if line.strip()))
    if not lines:
        raise ValueError(f"no template is given: write a prompt with {SLOT} where the class goes, such as 'a photo of a person {SLOT}'.")
    bad = next((t for t in lines if t.count(SLOT) != 1), None)
    if bad is not None:
        raise ValueError(f"the template '{bad}' needs exactly one {SLOT}, where the class goes: 'a photo of a person {SLOT}'.")
    phrases: dict[str, tuple[str, ...]] = {}
    for line in (row.strip() for row in classes.splitlines() if row.strip()):
        name, colon, rest = line.partition(":")
        name = name.strip()
        words = tuple(dict.fromkeys(" ".join(p.split()) for p in rest.split("|") if p.strip()))
        if not colon or not words:
            raise ValueError(f"the class '{name}' has no phrase: write CLASS: PHRASE, a line each, for instance yes: with eyeglasses.")
        check_name(name, f"class of '{attribute}'")
        if name in phrases:
            raise ValueError(f"the class '{name}' has two lines: put its phrases on one line, {name}: one|another.")
        shared = next((f"'{p}' stands for {o} and for {name}" for o, known in phrases.items() for p in words if p in known), None)
        if shared:
            raise ValueError(f"the phrase {shared}: two classes with the same words cannot be distinguished, so give each its own words.")
        phrases[name] = words
    if len(phrases) < 2:
        raise ValueError(
            f"'{attribute}' has {len(phrases)} class(es), and at least two are needed: a line each, such as yes: with eyeglasses, and "
            "no: without eyeglasses."
        )
    return PromptClasses(attribute, tuple(phrases), lines, phrases)


def _tidy(prompt: str) -> str:
    """Squeeze white space, also before commas, and remove commas at both ends."""
    return re.sub(r"\s+,", ",", " ".join(prompt.split())).strip(" ,")
