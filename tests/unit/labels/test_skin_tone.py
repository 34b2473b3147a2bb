"""The individual typology angle against its formula, on a synthetic colour chart, and the labels made of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

pytest.importorskip("kornia")

from equipoise.factory.train_classifiers import draw_unseen  # noqa: E402
from equipoise.methods.labels.label_text import parse_classes  # noqa: E402
from equipoise.methods.labels.labels import LabelSet, merged  # noqa: E402
from equipoise.methods.labels.skin_tone import (
    BOUNDS,
    CLASSES,
    ToneReading,
    central_ellipse,
    read_skin_tone,
    tone_probabilities,
    typology_angle,
)


def lab_of(rgb: np.ndarray) -> np.ndarray:
    """CIE Lab in float64 of sRGB [N, 3] in 0..1, D65: IEC 61966-2-1 and CIE 15, written out here and nowhere else."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = linear @ np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]).T
    t = xyz / np.array([0.95047, 1.0, 1.08883])
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


def chart() -> tuple[np.ndarray, np.ndarray]:
    """8-bit colours whose b* is above 2 (skin's is 5 to 30), and the angle by the formula."""
    levels = np.arange(12, 256, 9) / 255
    rgb = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    rgb = np.round(rgb * 255) / 255
    lab = lab_of(rgb)
    keep = (lab[:, 2] > 2) & (lab[:, 2] < 45) & (lab[:, 1] > -5) & (lab[:, 1] < 40)
    return rgb[keep], np.degrees(np.arctan((lab[keep, 0] - 50) / lab[keep, 2]))


def test_a_colour_chart_is_within_a_degree_of_the_formula() -> None:
    rgb, expected = chart()
    assert len(rgb) > 1500 and expected.min() < -75 and expected.max() > 80
    patches = torch.from_numpy(rgb).float()[:, :, None, None].expand(-1, 3, 8, 8)
    reading = read_skin_tone(patches)
    assert reading.read.all() and reading.angle.dtype == torch.float32
    assert np.abs(reading.angle.numpy() - expected).max() < 0.1


def test_the_median_passes_over_eyes_hair_and_highlights() -> None:
    rgb, expected = chart()
    picked = np.linspace(0, len(rgb) - 1, 40).astype(int)
    images = torch.from_numpy(rgb[picked]).float()[:, :, None, None].repeat(1, 1, 20, 20)
    images[:, :, 6:9, 5:15] = 0.02
    images[:, :, 12:13, 8:12] = 1.0
    reading = read_skin_tone(images, torch.ones(20, 20))
    assert np.abs(reading.angle.numpy() - expected[picked]).max() < 1 and float(reading.spread.max()) == 1.0


def test_only_the_mask_counts() -> None:
    light, dark = torch.tensor([0.95, 0.80, 0.70]), torch.tensor([0.40, 0.26, 0.18])
    images = light[None, :, None, None].repeat(2, 1, 16, 16)
    images[:, :, :, 8:] = dark[:, None, None]
    left = torch.zeros(16, 16)
    left[:, :8] = 1
    (a, b) = read_skin_tone(images, torch.stack([left, 1 - left])).angle.tolist()
    assert a > 55 and b < -30
    empty = read_skin_tone(images, torch.zeros(1, 16, 16))
    assert not empty.read.any() and tone_probabilities(empty).tolist() == [pytest.approx([1 / 6] * 6)] * 2


def test_arctan2_goes_on_where_arctan_jumps() -> None:
    """Light skin under bluish light stays light: b* just below 0 is next to b* just above it."""
    b = torch.tensor([0.5, -0.5, -5.0])
    light, dark = typology_angle(torch.full((3,), 80.0), b), typology_angle(torch.full((3,), 20.0), b)
    assert light.tolist() == pytest.approx([89.045, 90.955, 99.462], abs=1e-3)
    assert dark.tolist() == pytest.approx([-89.045, -90.955, -99.462], abs=1e-3)
    assert math.degrees(math.atan(30 / -5)) < -30  # what the formula taken literally would call dark


def test_grey_pictures_are_not_read() -> None:
    grey = torch.full((1, 3, 8, 8), 0.8)
    reading = read_skin_tone(grey)
    assert not reading.read.any() and tone_probabilities(reading).tolist()[0] == pytest.approx([1 / 6] * 6)


def test_classes_and_their_soft_borders() -> None:
    angles = torch.tensor([60.0, 48.0, 30.0, 20.0, -10.0, -50.0])
    reading = ToneReading(angles, torch.full((6,), 4.0), torch.ones(6, dtype=torch.bool))
    assert tone_probabilities(reading, softness=0).tolist() == torch.eye(6).tolist()
    soft = tone_probabilities(reading, softness=1)
    assert soft.argmax(1).tolist() == list(range(6)) and torch.allclose(soft.sum(1), torch.ones(6))
    on_border = ToneReading(torch.tensor([BOUNDS[0]]), torch.tensor([4.0]), torch.tensor([True]))
    assert tone_probabilities(on_border, softness=1)[0, :2].tolist() == pytest.approx([0.5, 0.5], abs=1e-3)
    wide, narrow = tone_probabilities(reading, 2)[1, 1], tone_probabilities(reading, 0.25)[1, 1]
    assert wide < soft[1, 1] < narrow


def test_the_ellipse_is_in_the_middle_and_never_empty() -> None:
    inside = central_ellipse(100, 50)
    assert inside.flip(0).equal(inside) and inside.flip(1).equal(inside)
    assert inside.float().mean().item() == pytest.approx(math.pi / 4 * 0.30 * 0.36, rel=0.03)
    assert central_ellipse(1, 1).all() and central_ellipse(3, 3).sum() >= 1


def test_drawn_portraits_are_read_as_they_were_drawn() -> None:
    images, drawn = draw_unseen(512)
    table = tone_probabilities(read_skin_tone(images))
    labels = LabelSet({"skin_tone": CLASSES}, tuple(str(i) for i in range(len(images))), {"skin_tone": table})
    three = merged(labels, parse_classes("skin_tone: light=very light|light, medium=intermediate|tan|brown, dark=..."))
    assert (three.probabilities["skin_tone"].argmax(1) == drawn["skin_tone"]).float().mean() >= 0.96
