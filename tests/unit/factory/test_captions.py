"""Captions: always the profession, the other attributes a third of the time, and never another class than the label's."""

from __future__ import annotations

import re

import pytest
import torch
from equipoise.factory.captions import EMPTY_SHARE, NAMED_SHARE, OPENINGS, PHRASES, captions, portrait_caption, vocabulary
from equipoise.factory.portraits import ATTRIBUTES, sample_labels

N = 6000
WORDS = {"eyeglasses": r"glasses", "hair": r"hair", "skin_tone": r"skin"}


@pytest.fixture(scope="module")
def drawn() -> tuple[dict[str, torch.Tensor], list[str]]:
    labels = sample_labels(N, torch.Generator().manual_seed(3))
    return labels, captions(labels, torch.Generator().manual_seed(4))


def near(share: float, stated: float, n: int) -> bool:
    return abs(share - stated) < 5 * (stated * (1 - stated) / n) ** 0.5


def test_same_generator_same_captions(drawn: tuple[dict[str, torch.Tensor], list[str]]) -> None:
    labels, texts = drawn
    assert captions(labels, torch.Generator().manual_seed(4)) == texts
    assert captions(labels, torch.Generator().manual_seed(5)) != texts


def test_a_tenth_is_empty_and_the_rest_names_the_profession(drawn: tuple[dict[str, torch.Tensor], list[str]]) -> None:
    labels, texts = drawn
    assert near(texts.count("") / N, EMPTY_SHARE, N)
    names = ATTRIBUTES["profession"]
    for text, k in zip(texts, labels["profession"].tolist(), strict=True):
        assert not text or [n for n in names if n in text] == [names[k]]


@pytest.mark.parametrize("attribute", sorted(PHRASES))
def test_an_attribute_is_named_a_third_of_the_time_whatever_its_class(
    drawn: tuple[dict[str, torch.Tensor], list[str]], attribute: str
) -> None:
    """As often for each class: else a caption that is silent would say something too."""
    labels, texts = drawn
    for k in range(len(ATTRIBUTES[attribute])):
        of_class = [t for t, v in zip(texts, labels[attribute].tolist(), strict=True) if v == k and t]
        assert near(sum(bool(re.search(WORDS[attribute], t)) for t in of_class) / len(of_class), NAMED_SHARE, len(of_class))


def test_a_caption_states_the_class_that_is_drawn(drawn: tuple[dict[str, torch.Tensor], list[str]]) -> None:
    labels, texts = drawn
    for i, text in enumerate(texts):
        if "glasses" in text:
            assert bool(re.search(r"\b(without|no) (eye)?glasses", text)) == (labels["eyeglasses"][i].item() == 1)
        for attribute, word in (("hair", "hair"), ("skin_tone", "skin")):
            if word in text:
                assert f"{ATTRIBUTES[attribute][labels[attribute][i]]} {word}" in text
        assert text.count("glasses") <= 1 and text.count("hair") <= 1 and text.count("skin") <= 1


def test_captions_read_as_they_should() -> None:
    plain = {"profession": 2, "eyeglasses": 0, "hair": 1, "skin_tone": 2}
    texts = {portrait_caption(plain, torch.Generator().manual_seed(s)) for s in range(4000)}
    assert {"a photo of a doctor", "a photo of a doctor with eyeglasses", "doctor, dark skin", ""} <= texts
    assert any(re.fullmatch(r"a photo of a doctor with eyeglasses and long hair", t) for t in texts)
    assert not any(re.search(r"  | ,|^,|,$|doctor and| and$|\{", t) for t in texts)


def test_the_vocabulary_holds_every_word_and_sign(drawn: tuple[dict[str, torch.Tensor], list[str]]) -> None:
    known = set(re.findall(r"\w+|,", vocabulary()))
    met = {w for t in drawn[1] for w in re.findall(r"\w+|,", t)}
    assert met == known and "{" not in vocabulary() and len(OPENINGS) == 8


def test_a_missing_attribute_is_refused() -> None:
    with pytest.raises(KeyError):
        portrait_caption({"profession": 0}, torch.Generator().manual_seed(0))
