"""Target distributions: read, normalised, joined, reordered, and refused in words."""

from __future__ import annotations

import re

import pytest
from equipoise.methods.core.target_text import parse_target, target_from_form
from equipoise.methods.core.targets import TargetDistribution, make_target, normalise, product

KNOWN = {"eyeglasses": ("no", "yes"), "hair": ("short", "long"), "skin": ("light", "medium", "dark")}


def shares(target: TargetDistribution) -> dict[str, float]:
    return dict(zip(target.names, target.shares, strict=True))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("eyeglasses: yes=0.3, no=0.7", {"no": 0.7, "yes": 0.3}),
        ("eyeglasses:yes=30%,no=70%", {"no": 0.7, "yes": 0.3}),
        ("eyeglasses: no = .7\n yes = 3e-1\n", {"no": 0.7, "yes": 0.3}),
        ("eyeglasses: uniform", {"no": 0.5, "yes": 0.5}),
        ("skin: Balanced", {"light": 1 / 3, "medium": 1 / 3, "dark": 1 / 3}),
        ("skin: light=1, medium=2, dark=5", {"light": 0.125, "medium": 0.25, "dark": 0.625}),
        ("eyeglasses: yes=1, no=0", {"no": 0.0, "yes": 1.0}),
    ],
)
def test_one_attribute_in_the_order_of_the_known_classes(text: str, expected: dict[str, float]) -> None:
    target = parse_target(text, KNOWN)
    assert shares(target) == pytest.approx(expected)
    assert list(target.names) == list(expected)
    assert sum(target.shares) == pytest.approx(1, abs=1e-12)


def test_weights_that_do_not_sum_to_1_are_divided_and_it_is_said() -> None:
    target = parse_target("eyeglasses: yes=3, no=1", KNOWN)
    assert shares(target) == {"no": 0.25, "yes": 0.75}
    assert target.notes == ("the weights sum to 4 and were divided by it",)
    assert parse_target("eyeglasses: yes=0.75, no=0.25", KNOWN).notes == ()


def test_classes_left_out_share_what_is_left_and_it_is_said() -> None:
    target = parse_target("skin: dark=0.5", KNOWN)
    assert shares(target) == pytest.approx({"light": 0.25, "medium": 0.25, "dark": 0.5})
    assert target.notes == ("light, medium not given: 0.25 each",)


@pytest.mark.parametrize("text", ["skin: dark=1", "skin: dark=3, light=3"])
def test_classes_left_out_get_nothing_where_nothing_is_left(text: str) -> None:
    target = parse_target(text, KNOWN)
    assert shares(target)["medium"] == 0
    assert sum(target.shares) == pytest.approx(1)
    assert any("medium" in note and "0 each" in note for note in target.notes)


def test_a_joint_table_is_row_major_with_the_last_attribute_fastest() -> None:
    target = parse_target("eyeglasses x hair: yes/long=0.4, yes/short=0.3, no/long=0.2, no/short=0.1", KNOWN)
    assert target.names == ["no/short", "no/long", "yes/short", "yes/long"]
    assert target.shares == pytest.approx((0.1, 0.2, 0.3, 0.4))
    assert target.marginal("eyeglasses") == pytest.approx({"no": 0.3, "yes": 0.7})
    assert target.marginal("hair") == pytest.approx({"short": 0.4, "long": 0.6})


def test_cell_numbers_and_class_numbers_agree() -> None:
    target = parse_target("eyeglasses x skin x hair: uniform", KNOWN)
    for number, cell in enumerate(target.cells):
        index = target.cell_classes(number)
        assert tuple(KNOWN[a][index[a]] for a in ("eyeglasses", "skin", "hair")) == cell
    assert len(target.shares) == 12


def test_attributes_separated_by_semicolons_are_independent() -> None:
    target = parse_target("eyeglasses: yes=0.2, no=0.8; hair: long=0.5, short=0.5", KNOWN)
    assert shares(target) == pytest.approx({"no/short": 0.4, "no/long": 0.4, "yes/short": 0.1, "yes/long": 0.1})
    joined = product(parse_target("eyeglasses: yes=0.2, no=0.8", KNOWN), parse_target("hair: uniform", KNOWN))
    assert joined == target
    made = make_target({"eyeglasses": {"no": 4, "yes": 1}, "hair": {"short": 1, "long": 1}})
    assert made.shares == pytest.approx(target.shares)
    assert [note.split(":")[0] for note in made.notes] == ["eyeglasses", "hair"]


def test_another_class_order_keeps_every_class_its_share() -> None:
    target = parse_target("eyeglasses x skin: no/light=0.1, yes/dark=0.9", KNOWN)
    other = {"skin": ("dark", "black", "medium", "light"), "eyeglasses": ("yes", "no")}
    moved = target.reordered(other)
    assert moved.classes == (("yes", "no"), ("dark", "black", "medium", "light"))
    assert {n: s for n, s in shares(moved).items() if s} == pytest.approx({"no/light": 0.1, "yes/dark": 0.9})
    assert shares(moved)["yes/black"] == 0
    assert moved.reordered(KNOWN | {"skin": other["skin"]}).reordered(other) == moved
    assert target.reordered(KNOWN) == target


def test_a_form_without_an_adp_takes_the_classes_it_names() -> None:
    target = target_from_form("eyeglasses", "weights", "yes=0.5, no=0.5", None)
    assert target.classes == (("yes", "no"),)
    joint = target_from_form("eyeglasses x hair", "weights", "yes/long=1\nno/short=1\nno/long=2", None)
    assert shares(joint) == pytest.approx({"yes/long": 0.25, "yes/short": 0, "no/long": 0.5, "no/short": 0.25})
    assert target_from_form("skin", "uniform", "ignored=1", KNOWN).shares == pytest.approx((1 / 3,) * 3)
    assert target_from_form("eyeglasses", "uniform", "yes=0.9, no=0.1", None).shares == (0.5, 0.5)


@pytest.mark.parametrize("word", ["uniform", " Even\n", "balanced"])
def test_equal_shares_of_classes_that_nobody_names_are_refused(word: str) -> None:
    """Not a class of that name with all of the weight."""
    with pytest.raises(ValueError, match="the weights have to name the classes.*or connect an ADP"):
        target_from_form("eyeglasses", "weights", word, None)
    assert target_from_form("eyeglasses", "weights", word, KNOWN).shares == (0.5, 0.5)


def sentence(error: pytest.ExceptionInfo[ValueError]) -> str:
    """The message, which has to be one sentence on one line."""
    text = str(error.value)
    assert "\n" not in text and text.endswith(".")
    assert len(re.findall(r"[.!?](?=\s|$)", text.replace("...", ""))) == 1, text
    return text


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("beard: yes=1", ("'beard'", "known: eyeglasses, hair, skin")),
        ("eyeglasses: maybe=0.5", ("'maybe'", "known: no, yes")),
        ("eyeglasses: yes=-0.5, no=1.5", ("negative", "-0.5")),
        ("eyeglasses: yes=0, no=0", ("0", "above 0")),
        ("eyeglasses: yes=1e999, no=1", ("finite", "inf")),
        ("eyeglasses: yes", ("NAME=NUMBER", "'yes'")),
        ("eyeglasses: yes=1-2", ("not a number", "1-2")),
        ("eyeglasses: yes=0.5, yes=0.5", ("twice", "yes")),
        ("eyeglasses:", ("no weights", "uniform")),
        ("yes=0.5", ("ATTRIBUTE", "yes=0.5")),
        ("", ("empty",)),
        ("eyeglasses: uniform; eyeglasses: uniform", ("two parts",)),
        ("hair x hair: uniform", ("twice", "hair")),
        ("eyeglasses x hair: yes=0.5", ("yes/long",)),
    ],
)
def test_what_is_not_understood_is_refused_in_words(text: str, parts: tuple[str, ...]) -> None:
    with pytest.raises(ValueError) as error:
        parse_target(text, KNOWN)
    message = sentence(error)
    for part in parts:
        assert part in message, message


@pytest.mark.parametrize(
    ("form", "parts"),
    [
        (("", "weights", "yes=1"), ("names no attribute",)),
        (("eyeglasses", "weights", ""), ("name the classes", "connect an ADP")),
        (("eyeglasses x hair", "weights", "yes=1"), ("yes/long",)),
        (("eyeglasses", "weights", "yes=-1, no=2"), ("negative",)),
    ],
)
def test_a_form_is_refused_in_words(form: tuple[str, str, str], parts: tuple[str, ...]) -> None:
    with pytest.raises(ValueError) as error:
        target_from_form(*form, None)
    message = sentence(error)
    for part in parts:
        assert part in message, message


def test_joining_and_reordering_refuse_in_words() -> None:
    glasses = parse_target("eyeglasses: uniform", KNOWN)
    with pytest.raises(ValueError, match="'eyeglasses'") as error:
        product(glasses, glasses)
    sentence(error)
    with pytest.raises(ValueError, match="'eyeglasses'.*known: beard") as error:
        glasses.reordered({"beard": ("yes", "no")})
    sentence(error)
    with pytest.raises(ValueError, match="'no' of 'eyeglasses'.*known: yes, perhaps") as error:
        glasses.reordered({"eyeglasses": ("yes", "perhaps")})
    sentence(error)
    with pytest.raises(ValueError, match="not negative"):
        TargetDistribution(("a",), (("x", "y"),), (1.5, -0.5))
    with pytest.raises(ValueError, match="one share per cell"):
        TargetDistribution(("a",), (("x", "y"),), (1.0,))


def test_normalise_says_only_what_it_changed() -> None:
    assert normalise([0.25, 0.75]) == ((0.25, 0.75), ())
    assert normalise([1, 3])[0] == (0.25, 0.75)
    assert "sum to 4" in normalise([1, 3])[1][0]
    for bad in ([float("nan"), 1.0], [float("inf"), 1.0], [-1e-9, 1.0]):
        with pytest.raises(ValueError, match="finite and not negative"):
            normalise(bad)
