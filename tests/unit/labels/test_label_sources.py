"""What label sources share: readings kept beside a set, where they look, and zero-shot classification."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from equipoise.methods.labels.label_cache import LabelCache, stamp_of
from equipoise.methods.labels.regions import WHOLE, Region, focus, parse_box
from equipoise.methods.labels.zero_shot import class_direction, phrasings, read_templates, zero_shot
from equipoise.models.digests import tensor_digest

KEY = {"model": "x", "classes": ["a", "b"]}


def test_readings_are_kept_by_source_and_picture(tmp_path: Path) -> None:
    cache = LabelCache(tmp_path, "clip", KEY)
    assert "1" not in cache
    cache.save()
    assert not (tmp_path / "labels").exists()
    cache.add(["1", "2"], {"hair": torch.tensor([[0.1, 0.9], [0.3, 0.7]]), "cosine": torch.tensor([[0.2], [0.25]])})
    cache.save()
    again = LabelCache(tmp_path, "clip", dict(reversed(KEY.items())))
    again.add(["3"], {"hair": torch.tensor([[1.0, 0.0]]), "cosine": torch.tensor([[0.1]])})
    again.save()
    (file,) = (tmp_path / "labels").iterdir()
    assert file == again.path and file.name.startswith("clip-")
    table = LabelCache(tmp_path, "clip", KEY).table(["3", "1"])
    torch.testing.assert_close(table["hair"], torch.tensor([[1.0, 0.0], [0.1, 0.9]]))
    torch.testing.assert_close(table["cosine"], torch.tensor([[0.1], [0.2]]))
    assert "1" not in LabelCache(tmp_path, "clip", KEY | {"model": "y"})


def test_a_damaged_cache_is_made_again(tmp_path: Path) -> None:
    cache = LabelCache(tmp_path, "clip", KEY)
    cache.add(["1"], {"hair": torch.ones(1, 2)})
    cache.save()
    cache.path.write_bytes(cache.path.read_bytes()[:40])
    assert "1" not in LabelCache(tmp_path, "clip", KEY)


def test_a_changed_picture_is_another(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"1")
    before = stamp_of("a.png", path)
    assert stamp_of("a.png", path) == before
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 10**9))
    assert stamp_of("a.png", path) != before
    assert tensor_digest(torch.zeros(4)) != tensor_digest(torch.zeros(2, 2))
    assert tensor_digest(torch.zeros(4)) == tensor_digest(torch.zeros(4).half())


def test_a_box_in_shares() -> None:
    assert parse_box(" ") == WHOLE and parse_box("0.25, 0.1 0.5;0.6") == (0.25, 0.1, 0.5, 0.6)
    for text in ("0.5", "a, b, c, d", "0.1, 0.2, 0.3", "nan, 0, 1, 1"):
        with pytest.raises(ValueError, match="write left, top, width, height"):
            parse_box(text)
    for text in ("0.5, 0, 0.6, 1", "0, 0, 0, 1", "-0.1, 0, 0.5, 1"):
        with pytest.raises(ValueError, match="does not lie within the picture"):
            parse_box(text)


def test_cutting_to_box_and_mask() -> None:
    picture = torch.arange(8 * 10, dtype=torch.float32).view(8, 10, 1).expand(8, 10, 3)
    part, mask = Region((0.5, 0.25, 0.3, 0.5)).cut(picture, 0)
    assert mask is None and part.equal(picture[2:6, 5:8])
    tiny, _ = Region((0.999, 0.999, 0.001, 0.001)).cut(picture, 0)
    assert tiny.equal(picture[7:, 9:])
    masks = torch.zeros(2, 16, 20)
    masks[1, 8:] = 1
    region = Region((0.0, 0.0, 0.5, 1.0), masks)
    region.check(2)
    _, first = region.cut(picture, 0)
    _, second = region.cut(picture, 1)
    assert first.shape == (8, 5) and not first.any() and second[4:].eq(1).all() and not second[:3].any()
    for bad, n in ((masks, 3), (masks[0], 2)):
        with pytest.raises(ValueError, match="does not fit"):
            Region(mask=bad).check(n)
    assert Region(mask=masks).key() != Region(mask=masks.flip(0)).key() != Region().key()


def test_focus_keeps_the_masked_part_on_grey() -> None:
    picture, mask = torch.ones(6, 6, 3), torch.zeros(6, 6)
    mask[1:4, 2:5] = 1
    mask[1, 2] = 0
    part = focus(picture, mask, "a.png")
    assert part.shape == (3, 3, 3) and part[0, 0].tolist() == [0.5] * 3 and part[1, 1].tolist() == [1.0] * 3
    with pytest.raises(ValueError, match="mask of 'a.png' is empty"):
        focus(picture, torch.zeros(6, 6), "a.png")


def test_templates_and_phrasings() -> None:
    assert read_templates("a {}\n\n a {}\nthe {}.") == ("a {}", "the {}.") and read_templates("") == ("{}",)
    assert phrasings(("x", "y"), ("a {}", "the {}"), "hair") == ("a x", "the x", "a y", "the y")
    with pytest.raises(ValueError, match="needs exactly one"):
        read_templates("a photo")
    with pytest.raises(ValueError, match="CLIP cannot read"):
        phrasings(("...",), ("{}",), "hair")


def test_zero_shot_is_the_softmax_of_scaled_cosines() -> None:
    texts = torch.tensor([[10.0, 0.0, 0.0], [0.0, 0.1, 0.0]])  # lengths do not count
    mean = class_direction(texts)
    assert mean.tolist() == pytest.approx([0.5**0.5, 0.5**0.5, 0.0])
    images = torch.tensor([[3.0, 3.0, 0.0], [0.0, 0.0, 2.0]]).half()
    p, cosine = zero_shot(images, torch.stack([mean, torch.tensor([0.0, 0.0, 1.0])]))
    assert p.dtype == torch.float32 and p.argmax(1).tolist() == [0, 1] and cosine.tolist() == pytest.approx([1.0, 1.0], abs=1e-3)
    close, _ = zero_shot(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.99, 0.01]]), 100.0)
    logits = 100 * torch.tensor([1.0, 0.99])
    torch.testing.assert_close(close[0], torch.softmax(logits, 0))
