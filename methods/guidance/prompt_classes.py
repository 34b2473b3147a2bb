"""Classes as prompts describe them: templates with a slot, and for every class the words that go into it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..labels.label_text import check_name

SLOT = "{}"


@dataclass(frozen=True)
class PromptClasses:
    """``templates``: each with one ``{}``; ``phrases``: class -> the words that describe it, at least one each."""

    attribute: str
    classes: tuple[str, ...]
    templates: tuple[str, ...]
    phrases: dict[str, tuple[str, ...]]

    def prompts(self, name: str) -> list[str]:
        """All prompts of a class: its phrases in order, each in every template; the i-th has template i modulo the number of templates."""
        return [t.replace(SLOT, p) for p in self.phrases[name] for t in self.templates]

    def aligned(self) -> list[tuple[str, ...]]:
        """Prompts that differ in the class alone, a tuple in order of the classes each: as many as the class with most phrases has
        (:meth:`prompts`), the others using theirs in turn."""
        turns = max(len(p) for p in self.phrases.values())
        each = [self.phrases[c] for c in self.classes]
        return [tuple(t.replace(SLOT, p[i % len(p)]) for p in each) for i in range(turns) for t in self.templates]

    def neutral(self) -> list[str]:
        """The templates with nothing in the slot, in order, one each."""
        return [_tidy(t.replace(SLOT, "")) for t in self.templates]


def parse_prompt_classes(attribute: str, templates: str, classes: str) -> PromptClasses:
    """Read ``templates``, one per line, each with ``{}`` once, and ``classes``, a line each: ``CLASS: PHRASE`` or ``CLASS: PHRASE|PHRASE``.

    Raises ValueError, in one sentence, for a template without slot, fewer than two classes, a class without a phrase or given twice, a
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
        said = tuple(dict.fromkeys(" ".join(p.split()) for p in rest.split("|") if p.strip()))
        if not colon or not said:
            raise ValueError(f"the class '{name}' has no phrase: write CLASS: PHRASE, a line each, for instance yes: with eyeglasses.")
        check_name(name, f"class of '{attribute}'")
        if name in phrases:
            raise ValueError(f"the class '{name}' is given twice: put its phrases on one line, {name}: one|another.")
        shared = next((f"'{p}' stands for {o} and for {name}" for o, known in phrases.items() for p in said if p in known), None)
        if shared:
            raise ValueError(f"the phrase {shared}: classes that are said alike cannot be told apart, so give each its own words.")
        phrases[name] = said
    if len(phrases) < 2:
        raise ValueError(
            f"'{attribute}' has {len(phrases)} class(es), and at least two are needed: a line each, such as yes: with eyeglasses, and "
            "no: without eyeglasses."
        )
    return PromptClasses(attribute, tuple(phrases), lines, phrases)


def _tidy(prompt: str) -> str:
    """White space squeezed, also before commas, and no comma at either end."""
    return re.sub(r"\s+,", ",", " ".join(prompt.split())).strip(" ,")
