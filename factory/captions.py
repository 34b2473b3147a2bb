"""Captions for the drawn portraits, from their labels: what the small text-to-image model is trained to read.

A caption always names the profession; each other attribute it names about a third of the time. So a neutral prompt ("a photo of a doctor")
shows the skew of the drawings, and an explicit one ("a photo of a doctor with eyeglasses") is obeyed. Classes are named by what is seen.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .portraits import ATTRIBUTES

NAMED_SHARE = 1 / 3
"""How often a caption names an attribute other than the profession; each by its own draw."""
EMPTY_SHARE = 0.1
"""How often a caption is empty, so that classifier-free guidance works (Ho & Salimans 2022)."""

OPENINGS = (
    "a photo of a {}",
    "a photo of a {}",
    "photo of a {}",
    "a portrait of a {}",
    "a picture of a {}",
    "a drawing of a {}",
    "a {}",
    "{}",
)
"""How a caption begins; {} is the profession. The first stands twice, because it is what people write most."""

PHRASES: dict[str, tuple[tuple[str, ...], ...]] = {
    "eyeglasses": (
        ("with eyeglasses", "wearing eyeglasses", "with glasses", "eyeglasses"),
        ("without eyeglasses", "without glasses", "no eyeglasses"),
    ),
    "hair": (("with short hair", "short hair"), ("with long hair", "long hair")),
    "skin_tone": (
        ("with light skin", "light skin", "light skin tone"),
        ("with medium skin", "medium skin", "medium skin tone"),
        ("with dark skin", "dark skin", "dark skin tone"),
    ),
}
"""Attribute -> for each class, in the order of ATTRIBUTES, the phrases that state it; one of them is drawn."""

JOINTS = (", ", " and ", " ")
"""What stands between two phrases, or between the opening and a phrase (there never "and")."""


def portrait_caption(labels: Mapping[str, int], generator: torch.Generator, share: float = NAMED_SHARE) -> str:
    """Write a caption for a portrait, or the empty one.

    ``labels``: attribute -> class index, as in ATTRIBUTES.

    ``share``: how often an attribute other than the profession is named.

    Deterministic in the generator's state. Raises KeyError where an attribute is missing.
    """
    draw = torch.rand(3 * len(PHRASES) + 3, generator=generator).tolist()

    def choose(options: tuple[str, ...]) -> str:
        return options[int(draw.pop() * len(options))]

    empty = draw.pop() < EMPTY_SHARE
    text = choose(OPENINGS).format(ATTRIBUTES["profession"][labels["profession"]])
    named = []
    for attribute, classes in PHRASES.items():
        wanted, phrase, order = draw.pop() < share, choose(classes[labels[attribute]]), draw.pop()
        if wanted:
            named.append((order, phrase))
    joint = choose(JOINTS)
    if empty:
        return ""
    for i, (_order, phrase) in enumerate(sorted(named)):
        # "a photo of a chef with glasses", "a photo of a chef, glasses": "with" needs no comma, and nothing opens with "and"
        between = joint if i and joint != " " else (" " if phrase.startswith(("with", "wearing")) else ", ")
        text += between + phrase
    return text


def captions(labels: Mapping[str, Tensor], generator: torch.Generator, share: float = NAMED_SHARE) -> list[str]:
    """Write captions for a batch; labels int64 [N] each -> N strings.

    ``share`` as in :func:`portrait_caption`.
    """
    rows = zip(*(labels[a].tolist() for a in ATTRIBUTES), strict=True)
    return [portrait_caption(dict(zip(ATTRIBUTES, row, strict=True)), generator, share) for row in rows]


def vocabulary() -> str:
    """Join every word and sign that a caption can hold.

    So a tokeniser gives all tokens of the training.
    """
    phrases = [phrase for classes in PHRASES.values() for options in classes for phrase in options]
    return " ".join([*(o.format("") for o in OPENINGS), *ATTRIBUTES["profession"], *phrases, *JOINTS])
