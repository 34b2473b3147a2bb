"""Classes as prompts describe them."""

from __future__ import annotations

import pytest
from equipoise.methods.guidance.prompt_classes import parse_prompt_classes

TEMPLATES = "a photo of a {} doctor, studio\n\n portrait of a cook {} , smiling\na photo of a {} doctor, studio\n"
CLASSES = "yes: with  eyeglasses|wearing glasses\n no : without eyeglasses\n"


def test_prompts_are_templates_with_phrases_in_the_slot() -> None:
    read = parse_prompt_classes(" eyeglasses ", TEMPLATES, CLASSES)
    assert (read.attribute, read.classes) == ("eyeglasses", ("yes", "no"))
    assert read.templates == ("a photo of a {} doctor, studio", "portrait of a cook {} , smiling"), "a template counts once"
    assert read.phrases == {"yes": ("with eyeglasses", "wearing glasses"), "no": ("without eyeglasses",)}
    assert read.prompts("yes") == [
        "a photo of a with eyeglasses doctor, studio",
        "portrait of a cook with eyeglasses , smiling",
        "a photo of a wearing glasses doctor, studio",
        "portrait of a cook wearing glasses , smiling",
    ]
    assert len(read.prompts("no")) == 2


def test_neutral_prompts_have_an_empty_slot_and_no_loose_spaces() -> None:
    assert parse_prompt_classes("e", TEMPLATES, CLASSES).neutral() == ["a photo of a doctor, studio", "portrait of a cook, smiling"]
    assert parse_prompt_classes("e", "{}, a doctor\na doctor, {}\n{}", CLASSES).neutral() == ["a doctor", "a doctor", ""]


def test_aligned_prompts_differ_in_the_class_alone() -> None:
    rows = parse_prompt_classes("e", "a {} b\nc {}", CLASSES).aligned()
    assert rows == [
        ("a with eyeglasses b", "a without eyeglasses b"),
        ("c with eyeglasses", "c without eyeglasses"),
        ("a wearing glasses b", "a without eyeglasses b"),
        ("c wearing glasses", "c without eyeglasses"),
    ]


@pytest.mark.parametrize(
    ("attribute", "templates", "classes", "said"),
    [
        ("e", "", CLASSES, "no template is given"),
        ("e", "a photo", CLASSES, "'a photo' needs exactly one {}"),
        ("e", "a {} and {}", CLASSES, "exactly one {}"),
        ("e", "a {}", "", "has 0 class(es)"),
        ("e", "a {}", "yes: with", "has 1 class(es)"),
        ("e", "a {}", "yes: with\nno:", "the class 'no' has no phrase"),
        ("e", "a {}", "yes: with\nno: | ", "the class 'no' has no phrase"),
        ("e", "a {}", "yes, no", "has no phrase"),
        ("e", "a {}", "yes: with\nyes: too", "'yes' has two lines"),
        ("e", "a {}", "yes: with\nno: out|with", "'with' stands for yes and for no"),
        ("e", "a {}", "a=b: with\nno: out", "holds '='"),
        ("", "a {}", CLASSES, "is no name"),
        ("a/b", "a {}", CLASSES, "holds '/'"),
    ],
)
def test_what_cannot_be_read_is_told_in_a_sentence(attribute: str, templates: str, classes: str, said: str) -> None:
    with pytest.raises(ValueError) as told:
        parse_prompt_classes(attribute, templates, classes)
    assert said in str(told.value) and "\n" not in str(told.value)
