"""Integrated gradients: the closed form against gradients, completeness, and what is refused."""

from __future__ import annotations

import pytest
import torch
from equipoise.benchmarks.bias_features.integrated_gradients import MIDPOINT, integrated_gradients
from equipoise.methods.bias_features.attribution import affine_attributions
from equipoise.methods.bias_features.integrated_gradients import predictor_gradients
from equipoise.methods.bias_features.linear_readout import affine_logits, check_reader, pooled_codes
from equipoise.methods.bias_features.softmax_path import path_weights
from equipoise.models.adp import AttributePredictor
from equipoise.models.sae import SparseAutoencoder
from equipoise.models.sites import pool
from torch import Tensor

ATTRIBUTES = {"hair": ("short", "long"), "skin": ("light", "medium", "dark")}
C, LATENTS = 12, 40


def make_sae(seed: int = 0) -> SparseAutoencoder:
    generator = torch.Generator().manual_seed(seed)
    sae = SparseAutoencoder(C, LATENTS, 5, torch.tensor([-4.0, -1.0, 2.0, 5.0]))
    sae.scale.copy_(torch.rand(4, generator=generator) + 0.5)
    sae.mean.copy_(torch.randn(4, C, generator=generator))
    sae.bias.data = 0.2 * torch.randn(C, generator=generator)
    sae.encoder_bias.data = 0.1 * torch.randn(LATENTS, generator=generator)
    return sae.eval().requires_grad_(False)


def make_reader(kind: str = "linear", size: float = 0.15, seed: int = 1) -> AttributePredictor:
    generator = torch.Generator().manual_seed(seed)
    reader = AttributePredictor(ATTRIBUTES, C, torch.linspace(-5, 6, 6), kind, 16)
    with torch.no_grad():
        for name, p in reader.named_parameters():
            if not name.startswith("temperature"):
                p.copy_((size if kind == "linear" else 0.12) * torch.randn(p.shape, generator=generator))
        for a in ATTRIBUTES:
            reader.temperature[a].copy_(torch.rand(6, generator=generator) + 0.7)
        reader.mean.copy_(torch.randn(6, C, generator=generator))
        reader.std.copy_(torch.rand(6, C, generator=generator) + 0.5)
    return reader.eval().requires_grad_(False)


def features(n: int = 6, size: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(n, C, size, size, generator=generator), torch.tensor([-6.0, -3.3, -1.0, 0.4, 3.0, 7.0])[torch.arange(n) % 6]


def read(sae: SparseAutoencoder, reader: AttributePredictor, attribute: str, z: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    return reader(pool(sae.decode(z, level)), level)[attribute]


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_the_reader_through_the_decoder_is_affine_at_every_level(attribute: str) -> None:
    sae, reader = make_sae(), make_reader()
    h, level = features()
    z = pooled_codes(sae, h, level)
    for i, at in enumerate(level.tolist()):
        a, b = affine_logits(sae, reader, attribute, at)
        assert torch.allclose(a.flatten(1) @ z[i].flatten() + b, read(sae, reader, attribute, z[i : i + 1], level[i : i + 1])[0], atol=1e-4)


def closed_form(sae: SparseAutoencoder, reader: AttributePredictor, attribute: str, z: Tensor, level: Tensor, start: Tensor) -> Tensor:
    """The product's closed form by image: [N, K, m], summed over the places; an image counts with its own baseline."""
    signs = torch.ones(len(ATTRIBUTES[attribute]), LATENTS, 16)
    z, start = z.flatten(2), start.flatten(2)
    maps = [affine_logits(sae, reader, attribute, at) for at in level.tolist()]
    return torch.cat([affine_attributions(maps[i], z[i : i + 1], start[i], signs) for i in range(len(z))])


@pytest.mark.parametrize("attribute", ATTRIBUTES)
@pytest.mark.parametrize("shifted", [False, True])
def test_the_closed_form_is_autograd_at_many_points(attribute: str, shifted: bool) -> None:
    sae, reader = make_sae(), make_reader()
    h, level = features()
    z = pooled_codes(sae, h, level)
    start = z.roll(1, 0) if shifted else torch.zeros_like(z)
    closed = closed_form(sae, reader, attribute, z, level, start)
    plain = integrated_gradients(sae, reader, attribute, z, level, start, 256, MIDPOINT).sum((3, 4))
    assert closed.shape == (6, len(ATTRIBUTES[attribute]), LATENTS) and plain.abs().max() > 0.01
    assert (closed - plain).norm() < 1e-4 * plain.norm()
    assert ((closed - plain).flatten(1).norm(dim=1) < 1e-4 * plain.flatten(1).norm(dim=1)).all()


def test_signs_count_place_by_place() -> None:
    sae, reader = make_sae(), make_reader()
    h, _ = features()
    level = torch.full((6,), 0.4)
    z = pooled_codes(sae, h, level)
    signs = torch.randint(-1, 2, (3, LATENTS, 16), generator=torch.Generator().manual_seed(5)).float()
    closed = affine_attributions(affine_logits(sae, reader, "skin", 0.4), z.flatten(2), torch.zeros(LATENTS, 16), signs)
    plain = (integrated_gradients(sae, reader, "skin", z, level, points=64).flatten(3) * signs).sum(3)
    assert torch.allclose(closed, plain, atol=1e-6) and plain.abs().max() > 1e-3


def test_rows_of_one_level_are_attributed_together() -> None:
    sae, reader = make_sae(), make_reader()
    h, _ = features()
    level = torch.full((6,), -1.7)
    z = pooled_codes(sae, h, level)
    signs = torch.ones(3, LATENTS, 16)
    together = affine_attributions(affine_logits(sae, reader, "skin", -1.7), z.flatten(2), torch.zeros(LATENTS, 16), signs)
    assert torch.allclose(together, closed_form(sae, reader, "skin", z, level, torch.zeros_like(z)), atol=1e-6)


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_closed_attributions_add_up_to_the_change_of_the_probability(attribute: str) -> None:
    sae, reader = make_sae(), make_reader()
    h, level = features()
    z = pooled_codes(sae, h, level)
    other = z.roll(1, 0)
    p, q = (read(sae, reader, attribute, x, level).softmax(-1) for x in (z, other))
    assert (p - q).abs().max() > 0.02
    assert (closed_form(sae, reader, attribute, z, level, other).sum(2) - (p - q)).abs().max() < 1e-5


@pytest.mark.parametrize("kind", ["linear", "mlp"])
@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_attributions_add_up_to_the_change_of_the_probability(kind: str, attribute: str) -> None:
    sae, reader = make_sae(), make_reader(kind)
    h, level = features()
    z = pooled_codes(sae, h, level)
    other = z.roll(1, 0)
    attributed = predictor_gradients(sae, reader, attribute, z, level, other, points=64)
    p, q = (read(sae, reader, attribute, x, level).softmax(-1) for x in (z, other))
    assert (p - q).abs().max() > 0.02
    assert (attributed.sum((2, 3, 4)) - (p - q)).abs().max() < 1e-5


def test_completeness_holds_where_logits_move_far() -> None:
    start = torch.tensor([[0.0, 3.0, -2.0], [40.0, -40.0, 0.0], [1.0, 1.0, 1.0]])
    change = torch.tensor([[5.0, -1.0, 2.0], [-300.0, 300.0, 10.0], [0.0, 0.0, 0.0]])
    for s, d in ((start, change), (start[:, :2], change[:, :2])):
        c = path_weights(s, d)
        moved = torch.einsum("nkj,nj->nk", c, d.double())
        assert torch.allclose(moved, (s + d).double().softmax(1) - s.double().softmax(1), atol=1e-9)
    assert torch.allclose(path_weights(start, change)[2], torch.eye(3).double() / 3 - 1 / 9)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_the_gradients_of_a_predictor_are_those_through_the_decoder(kind: str) -> None:
    sae, reader = make_sae(), make_reader(kind)
    h, level = features()
    z = pooled_codes(sae, h, level)
    short = predictor_gradients(sae, reader, "skin", z, level, torch.zeros_like(z), points=24)
    plain = integrated_gradients(sae, reader, "skin", z, level, points=24)
    assert torch.allclose(short, plain, atol=1e-6) and plain.abs().max() > 1e-3


def test_larger_maps_are_read_by_cells() -> None:
    sae, reader = make_sae(), make_reader()
    h, level = features(size=8)
    z = pooled_codes(sae, h, level)
    attributed = closed_form(sae, reader, "hair", z, level, torch.zeros_like(z))
    p = reader(pool(sae(h, level)), level)["hair"].softmax(-1)
    nothing = sae.decode(torch.zeros(6, LATENTS, 4, 4), level)
    assert (attributed.sum(2) - (p - reader(nothing, level)["hair"].softmax(-1))).abs().max() < 1e-5


def test_what_cannot_be_attributed_is_refused() -> None:
    sae = make_sae()
    with pytest.raises(ValueError, match="does not read 'age'; it reads: hair, skin"):
        check_reader(sae, make_reader(), "age")
    with pytest.raises(ValueError, match="kind 'mlp' is not affine"):
        affine_logits(sae, make_reader("mlp"), "hair", 0.0)
    with pytest.raises(ValueError, match="20 channels and the autoencoder's have 12"):
        check_reader(sae, AttributePredictor(ATTRIBUTES, 20, torch.zeros(1)), "hair")
    with pytest.raises(ValueError, match="by the rule gauss, midpoint, left; met 32 and 'black'"):
        integrated_gradients(sae, make_reader(), "hair", torch.zeros(1, LATENTS, 4, 4), torch.zeros(1), rule="black")
    with pytest.raises(ValueError, match="averages on the grid"):
        integrated_gradients(sae, make_reader(), "hair", torch.zeros(1, LATENTS, 4, 4), torch.zeros(1), torch.zeros(3))
