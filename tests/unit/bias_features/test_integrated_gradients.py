"""Integrated gradients: the closed form against gradients, completeness, and what is refused."""

from __future__ import annotations

import pytest
import torch
from equipoise.methods.bias_features.integrated_gradients import (
    AUTOGRAD,
    CLOSED,
    READER,
    active_gradients,
    code_gradients,
    integrated_gradients,
)
from equipoise.methods.bias_features.linear_readout import affine_logits, pooled_codes
from equipoise.methods.bias_features.softmax_path import path_weights
from equipoise.models.adp import AttributePredictor
from equipoise.models.sae import SparseAutoencoder
from equipoise.models.sites import pool

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


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_the_closed_form_is_autograd_at_many_points(attribute: str) -> None:
    sae, reader = make_sae(), make_reader()
    h, level = features()
    z = pooled_codes(sae, h, level)
    closed = code_gradients(sae, reader, attribute, z, level, torch.zeros_like(z), method=CLOSED)
    plain = code_gradients(sae, reader, attribute, z, level, torch.zeros_like(z), 256, AUTOGRAD, rule="midpoint")
    assert closed.shape == (6, len(ATTRIBUTES[attribute]), LATENTS, 4, 4) and plain.abs().max() > 0.01
    assert (closed - plain).norm() < 1e-4 * plain.norm()
    assert ((closed - plain).flatten(1).norm(dim=1) < 1e-4 * plain.flatten(1).norm(dim=1)).all()


@pytest.mark.parametrize("kind", ["linear", "mlp"])
@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_attributions_add_up_to_the_change_of_the_probability(kind: str, attribute: str) -> None:
    sae, reader = make_sae(), make_reader(kind)
    h, level = features()
    z = pooled_codes(sae, h, level)
    other = z.roll(1, 0)
    found = integrated_gradients(sae, reader, attribute, h, level, other, points=64)
    p, q = (read(sae, reader, attribute, x, level).softmax(-1) for x in (z, other))
    assert (p - q).abs().max() > 0.02
    assert (found.sum((2, 3, 4)) - (p - q)).abs().max() < 1e-5


def test_completeness_holds_where_logits_move_far() -> None:
    start = torch.tensor([[0.0, 3.0, -2.0], [40.0, -40.0, 0.0], [1.0, 1.0, 1.0]])
    change = torch.tensor([[5.0, -1.0, 2.0], [-300.0, 300.0, 10.0], [0.0, 0.0, 0.0]])
    for s, d in ((start, change), (start[:, :2], change[:, :2])):
        c = path_weights(s, d)
        moved = torch.einsum("nkj,nj->nk", c, d.double())
        assert torch.allclose(moved, (s + d).double().softmax(1) - s.double().softmax(1), atol=1e-9)
    assert torch.allclose(path_weights(start, change)[2], torch.eye(3).double() / 3 - 1 / 9)


def test_a_reader_that_is_not_linear_is_followed_by_its_gradients() -> None:
    sae, reader = make_sae(), make_reader("mlp")
    h, level = features()
    short = integrated_gradients(sae, reader, "skin", h, level, points=24)
    plain = integrated_gradients(sae, reader, "skin", h, level, points=24, method=AUTOGRAD)
    assert torch.allclose(short, plain, atol=1e-6) and plain.abs().max() > 1e-3


@pytest.mark.parametrize("method", [CLOSED, READER, AUTOGRAD])
def test_one_class_per_image_and_chosen_features(method: str) -> None:
    sae, reader = make_sae(), make_reader()
    h, level = features()
    target, chosen = torch.tensor([0, 2, 1, 1, 0, 2]), torch.tensor([30, 3, 11])
    whole = integrated_gradients(sae, reader, "skin", h, level, method=method)
    some = integrated_gradients(sae, reader, "skin", h, level, method=method, target=target, features=chosen)
    assert torch.allclose(some, whole[torch.arange(6), target][:, chosen], atol=1e-7)
    some = integrated_gradients(sae, reader, "skin", h, level, method=method, features=chosen)
    assert torch.allclose(some, whole[:, :, chosen], atol=1e-7)


def test_many_noise_levels_are_taken_in_groups() -> None:
    sae, reader = make_sae(), make_reader()
    h = features()[0].repeat(12, 1, 1, 1)
    level = torch.linspace(-6, 7, 72)
    z = pooled_codes(sae, h, level)
    found = integrated_gradients(sae, reader, "skin", h, level)
    one = torch.cat([integrated_gradients(sae, reader, "skin", h[i : i + 1], level[i : i + 1]) for i in range(0, 72, 9)])
    assert torch.allclose(found[::9], one, atol=1e-6) and one.abs().max() > 1e-3
    row, latent, cell = z.flatten(2).nonzero(as_tuple=True)
    sparse = active_gradients(sae, reader, "skin", row, latent * 16 + cell, z.flatten(2)[row, latent, cell], level)
    assert torch.allclose(sparse, found.flatten(3)[row, :, latent, cell], atol=1e-6) and len(sparse) < 0.2 * z.numel()
    dense = code_gradients(sae, reader, "skin", z, level, 0 * z)
    assert torch.allclose(dense, found, atol=1e-6)


def test_larger_maps_are_read_by_cells() -> None:
    sae, reader = make_sae(), make_reader()
    h, level = features(size=8)
    found = integrated_gradients(sae, reader, "hair", h, level)
    p = reader(pool(sae(h, level)), level)["hair"].softmax(-1)
    nothing = sae.decode(torch.zeros(6, LATENTS, 4, 4), level)
    assert (found.sum((2, 3, 4)) - (p - reader(nothing, level)["hair"].softmax(-1))).abs().max() < 1e-5


def test_what_cannot_be_attributed_is_refused() -> None:
    sae, h, level = make_sae(), *features()
    with pytest.raises(ValueError, match="does not read 'age'; it reads: hair, skin"):
        integrated_gradients(sae, make_reader(), "age", h, level)
    with pytest.raises(ValueError, match="closed form needs a linear reader"):
        integrated_gradients(sae, make_reader("mlp"), "hair", h, level, method=CLOSED)
    with pytest.raises(ValueError, match="20 channels and the autoencoder's have 12"):
        integrated_gradients(sae, AttributePredictor(ATTRIBUTES, 20, torch.zeros(1)), "hair", h, level)
    with pytest.raises(ValueError, match="a baseline has the shape"):
        integrated_gradients(sae, make_reader(), "hair", h, level, torch.zeros(3))
    with pytest.raises(ValueError, match="not 'black'"):
        integrated_gradients(sae, make_reader(), "hair", h, level, "black")
    with pytest.raises(ValueError, match="not 'guess'"):
        integrated_gradients(sae, make_reader(), "hair", h, level, method="guess")
