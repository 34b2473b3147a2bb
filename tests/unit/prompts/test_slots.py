"""Prompts with slots: every class gets its words, articles fit, alternatives come from the seed, and faults are explained."""

from __future__ import annotations

import pytest
from equipoise.methods.core.target_text import target_from_form
from equipoise.methods.prompts.slots import prompts_of, read_prompt, read_words

GENDER = target_from_form("gender", "weights", "woman=1, man=1", None)
AGE = target_from_form("age", "weights", "old=1, young=1", None)
BOTH = target_from_form("gender x age", "weights", "woman/old=1, woman/young=1, man/old=1, man/young=1", None)
GLASSES = target_from_form("eyeglasses x hat", "weights", "yes/yes=1, yes/no=1, no/yes=1, no/no=1", None)


def filled(prompt: str, words: str, target: object, **classes: str) -> str:
    return read_prompt(prompt, words, target).filled(classes, 0, 0)


@pytest.mark.parametrize(
    ("prompt", "words", "classes", "expected"),
    [
        ("a photo of a {gender} doctor", "", {"gender": "woman"}, "a photo of a woman doctor"),
        ("a photo of a {} doctor", "woman: female", {"gender": "woman"}, "a photo of a female doctor"),
        ("a photo of a { gender } doctor", "man: elderly man", {"gender": "man"}, "a photo of an elderly man doctor"),
        ("An {gender}, smiling", "woman: young woman", {"gender": "woman"}, "A young woman, smiling"),
        ("a ({gender}:1.2) doctor", "woman: old woman", {"gender": "woman"}, "an (old woman:1.2) doctor"),
        ("a {gender} at work", "man: university professor", {"gender": "man"}, "a university professor at work"),
        ("a {gender} late", "man: hour", {"gender": "man"}, "an hour late"),
        ("a {gender} engineer", "man:", {"gender": "man"}, "an engineer"),
        ("doctor {gender}, smiling", "man:", {"gender": "man"}, "doctor, smiling"),
        ("{gender}", "woman: 女性", {"gender": "woman"}, "女性"),
    ],
)
def test_a_slot_takes_the_words_of_the_class(prompt: str, words: str, classes: dict[str, str], expected: str) -> None:
    assert filled(prompt, words, GENDER, **classes) == expected


def test_several_slots_and_a_slot_twice() -> None:
    prompt = "a {age} {gender}, portrait of a {gender}"
    assert filled(prompt, "old: elderly", BOTH, gender="man", age="old") == "an elderly man, portrait of a man"


def test_alternatives_come_from_the_seed_and_the_image_alone() -> None:
    prompt = read_prompt("a {gender} in a {red|blue|green} coat", "woman: woman | lady", GENDER)
    index = list(range(64))
    whole = prompts_of(prompt, GENDER, [i % 2 for i in index], index, 5)
    assert [prompts_of(prompt, GENDER, [i % 2], [i], 5)[0] for i in index] == whole
    assert whole != prompts_of(prompt, GENDER, [i % 2 for i in index], index, 6)
    assert {p.split()[1] for p in whole} == {"woman", "lady", "man"} and {p.split()[4] for p in whole} == {"red", "blue", "green"}
    assert all((p.split()[1] == "man") == bool(i % 2) for i, p in enumerate(whole))


def test_classes_of_one_name_are_told_apart_by_their_attribute() -> None:
    words = read_words("eyeglasses/yes: with glasses\nhat/yes: with a hat\neyeglasses/no:\nhat/no:", GLASSES)
    assert words == {"eyeglasses": {"yes": ("with glasses",), "no": ("",)}, "hat": {"yes": ("with a hat",), "no": ("",)}}


@pytest.mark.parametrize(
    ("prompt", "words", "target", "reason"),
    [
        ("a doctor", "", GENDER, "has no slot for 'gender': write {gender}"),
        ("a {sex} doctor", "", GENDER, "a slot '{sex}', and the target's attributes are gender"),
        ("a {gender} doctor", "", BOTH, "has no slot for 'age'"),
        ("a {} doctor", "", BOTH, "is a slot for one attribute, and the target has 2: name the slots, {gender} and {age}"),
        ("a {gender} doctor", "woman", GENDER, "does not give a class its words"),
        ("a {gender} doctor", "girl: girl", GENDER, "has no class 'girl'; it knows gender: woman, man"),
        ("a {gender} doctor", "woman: lady\nwoman: girl", GENDER, "has two lines of words"),
        ("a {gender} doctor", "woman: person\nman: Person", GENDER, "both have the words 'Person'"),
        ("a {gender} doctor", "woman:\nman:", GENDER, "both have no words"),
        ("{eyeglasses} {hat}", "yes: with", GLASSES, "is a class of eyeglasses and of hat: write eyeglasses/yes or hat/yes"),
    ],
)
def test_a_fault_is_explained(prompt: str, words: str, target: object, reason: str) -> None:
    with pytest.raises(ValueError) as error:
        read_prompt(prompt, words, target)
    assert reason in str(error.value) and "\n" not in str(error.value)
