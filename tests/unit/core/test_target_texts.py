"""Targets as people write them, from one table that the editor's test reads too: what each text means, or why it is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from equipoise.methods.core.target_text import parse_target, target_from_form, written_cell
from equipoise.methods.core.written_names import bare_name, plain_signs, split_names, written_name
from hypothesis import given
from hypothesis import strategies as st

TABLE: dict[str, Any] = json.loads((Path(__file__).resolve().parents[2] / "data" / "target_texts.json").read_text(encoding="utf-8"))
KNOWN = {name: tuple(classes) for name, classes in TABLE["known"].items()}


@pytest.mark.parametrize(("attributes", "weights", "shares"), TABLE["read"])
def test_a_text_means_these_shares(attributes: str, weights: str, shares: list[float]) -> None:
    assert target_from_form(attributes, "weights", weights, KNOWN).shares == pytest.approx(shares, abs=1e-6)


@pytest.mark.parametrize(("attributes", "weights", "reason"), TABLE["refused"])
def test_a_text_is_refused_for_this_reason(attributes: str, weights: str, reason: str) -> None:
    with pytest.raises(ValueError) as error:
        target_from_form(attributes, "weights", weights, KNOWN)
    message = str(error.value)
    assert reason in message and "\n" not in message and message.endswith(".")


@pytest.mark.parametrize(("attributes", "weights", "classes", "shares"), TABLE["without_known"]["read"])
def test_without_a_file_the_weights_name_the_classes(attributes: str, weights: str, classes: list[list[str]], shares: list[float]) -> None:
    target = target_from_form(attributes, "weights", weights, None)
    assert [list(c) for c in target.classes] == classes and target.shares == pytest.approx(shares)


@pytest.mark.parametrize(("attributes", "weights", "reason"), TABLE["without_known"]["refused"])
def test_without_a_file_this_is_refused(attributes: str, weights: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        target_from_form(attributes, "weights", weights, None)


def test_a_whole_target_reads_the_same_forms() -> None:
    target = parse_target("eyeglasses: 50/50; skin: 40/40/20", KNOWN)
    assert target.shares == pytest.approx([0.2, 0.2, 0.1, 0.2, 0.2, 0.1])
    assert parse_target("eyeglasses：half and half", KNOWN).shares == (0.5, 0.5)


NAMES = st.text(st.sampled_from("ab ,;:=%/|<>*x\n0-9.é"), min_size=1, max_size=8).map(lambda s: " ".join(s.split())).filter(bool)


@given(st.lists(NAMES, min_size=1, max_size=4, unique_by=str.casefold), st.data())
def test_a_name_that_a_message_proposes_is_read_back(names: list[str], data: st.DataObject) -> None:
    """Names with separators are proposed in quotes."""
    text = ", ".join(f"{written_name(name)}={i + 1}" for i, name in enumerate(names))
    total = sum(range(1, len(names) + 1))
    target = target_from_form("kind", "weights", text, {"kind": tuple(names)})
    assert target.shares == pytest.approx([(i + 1) / total for i in range(len(names))])
    chosen = data.draw(st.permutations(names))
    assert [bare_name(part) for part in split_names(", ".join(map(written_name, chosen)))] == chosen
    if len(names) > 1:
        joint = target_from_form("kind x other", "weights", f"{written_cell((names[0], names[1]))}=1", {"kind": names, "other": names})
        assert joint.shares[1] == 1.0


def test_signs_of_other_keyboards() -> None:
    assert plain_signs("ａ＝５０％，“b”／c") == 'ａ=50%,"b"/c'
