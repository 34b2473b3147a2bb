"""Targets typed next to a prompt: attributes come from the slots, classes from the words or the weights."""

from __future__ import annotations

import pytest
from equipoise.methods.prompts.typed_target import typed_target

ONE = "a photo of a {gender} doctor"
TWO = "a {age} {gender}"
LINES = "gender/woman: woman\ngender/man: man\nage/young: young\nage/old: elderly"


@pytest.mark.parametrize(
    ("prompt", "words", "weights", "expected"),
    [
        (ONE, "woman: woman | lady\nman: man", "half and half", "gender: woman=0.5, man=0.5"),
        (ONE, "woman: woman\nman: man", "80/20", "gender: woman=0.8, man=0.2"),
        (ONE, "woman: woman\nman: man", "woman 75%", "gender: woman=0.75, man=0.25"),
        (ONE, "", "woman 60 man 40", "gender: woman=0.6, man=0.4"),
        (ONE, "woman: lady", "woman 60 man 40", "gender: woman=0.6, man=0.4"),
        (ONE, "gender/woman: lady\ngender/man: man", "uniform", "gender: woman=0.5, man=0.5"),
        ("a {} with a {red|blue} coat", "woman: lady\nman: man", "1:2", "class: woman=0.3333, man=0.6667"),
        ("a {skin tone} man", "dark: dark-skinned\nlight: light-skinned", "half and half", "skin tone: dark=0.5, light=0.5"),
        (TWO, LINES, "gender: half and half; age: 40/60", "age x gender"),
        (TWO, LINES, "gender x age: uniform", "gender x age: woman/young=0.25, woman/old=0.25, man/young=0.25, man/old=0.25"),
    ],
)
def test_the_target_that_is_typed(prompt: str, words: str, weights: str, expected: str) -> None:
    target = typed_target(prompt, words, weights)
    if expected == "age x gender":
        assert target.marginal("age") == pytest.approx({"young": 0.4, "old": 0.6}) and target.marginal("gender")["woman"] == 0.5
    else:
        assert str(target) == expected


@pytest.mark.parametrize(
    ("prompt", "words", "weights", "reason"),
    [
        ("a photo of a doctor", "", "half and half", "the prompt has no slot"),
        ("a {red|blue} coat", "", "half and half", "the prompt has no slot"),
        (ONE, "", "half and half", "the weights have to name the classes"),
        (ONE, "woman: woman\nman: man", "40/40/20", "has 3 weights"),
        (ONE, "woman: woman\nman: man", "many women", "is not a weight"),
        (TWO, "woman: woman\nman: man", "half and half", "age/woman: woman"),
        (TWO, LINES, "half and half", "is not a target"),
        (TWO, LINES, "gender: half and half", None),
    ],
)
def test_what_is_not_understood_is_explained(prompt: str, words: str, weights: str, reason: str | None) -> None:
    if reason is None:
        assert typed_target(prompt, words, weights).attributes == ("gender",)
        return
    with pytest.raises(ValueError, match=reason):
        typed_target(prompt, words, weights)
