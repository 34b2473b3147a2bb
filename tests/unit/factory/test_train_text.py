"""The text model's loss and training loop with a stand-in network; the host's classes are in tests/host/small_models/test_text_model.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from equipoise.cli.schedule import alphas_cumprod
from equipoise.factory.portraits import ATTRIBUTES, portraits
from equipoise.factory.train_text import EMPHASISED_LEVELS, TextLoss, draw_labelled_images, pixel_weights, text_settings, train_text
from torch import Tensor, nn


class StandIn(nn.Module):
    """Tokens enter by a table and a sum, so that every parameter gets a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 12)
        self.conv = nn.Conv2d(12, 12, 3, padding=1)
        self.seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(self, x: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        self.seen.append((x.detach(), timesteps, tokens))
        return self.conv(x) + self.table(tokens).mean(1)[:, :, None, None]


def tokenize(texts: list[str]) -> Tensor:
    return torch.tensor([[len(t) % 50, len(t.split()) % 50] for t in texts])


def pool() -> tuple[Tensor, dict[str, Tensor]]:
    return draw_labelled_images(64, 5)


def test_the_pool_is_the_portraits_with_their_labels() -> None:
    images, labels = pool()
    same = portraits(64, 5)
    assert images.dtype == torch.uint8 and images.shape == (64, 3, 32, 32)
    assert torch.equal(images, (same.images * 255).round().byte())
    assert all(torch.equal(labels[a], same.labels[a]) for a in ATTRIBUTES)


def test_the_loss_is_the_weighted_error_of_the_velocity() -> None:
    """A network that answers with the velocity has loss 0; one that answers 0 has the weighted velocity's square."""
    images, labels = pool()
    net = StandIn()
    loss = TextLoss(net, tokenize, images, labels, 16)
    value = loss(torch.Generator().manual_seed(3))
    x, t, tokens = net.seen[0]
    assert x.shape == (16, 12, 16, 16) and tokens.shape == (16, 2) and t.min() >= 0 and t.max() < 1000
    abar = alphas_cumprod()[t].double().view(-1, 1, 1, 1)

    class Oracle(nn.Module):
        def forward(self, x: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
            generator = torch.Generator().manual_seed(3)
            index = torch.randint(0, 64, (16,), generator=generator)
            torch.randint(0, 1000, (16,), generator=generator)
            noise = torch.randn(16, 12, 16, 16, generator=generator)
            clean = torch.nn.functional.pixel_unshuffle(images[index].float() / 255 * 2 - 1, 2)
            torch.testing.assert_close(x.double(), abar.sqrt() * clean + (1 - abar).sqrt() * noise, rtol=1e-5, atol=1e-5)
            self.velocity = (abar.sqrt() * noise - (1 - abar).sqrt() * clean).float()
            return self.velocity

    oracle = Oracle()
    assert TextLoss(oracle, tokenize, images, labels, 16)(torch.Generator().manual_seed(3)) < 1e-10
    out = net.conv(x) + net.table(tokens).mean(1)[:, :, None, None]
    snr = abar.flatten() / (1 - abar.flatten())
    expected = (((out - oracle.velocity) ** 2).mean(dim=(1, 2, 3)) * snr.clamp(max=5) / (snr + 1)).mean()
    torch.testing.assert_close(value.double(), expected.double(), rtol=1e-4, atol=1e-6)


def test_the_emphasised_part_names_every_attribute_at_noise_that_hides_it() -> None:
    """Its gradient is that of a weighted squared error, every row counting alike: the optimum stays where it was."""
    images, labels = pool()
    net, said = StandIn(), []

    def listening(texts: list[str]) -> Tensor:
        said.extend(texts)
        return tokenize(texts)

    loss = TextLoss(net, listening, images, labels, 16)
    value = loss(torch.Generator().manual_seed(3), emphasis=True)
    low, high = EMPHASISED_LEVELS
    timesteps = net.seen[0][1]
    assert timesteps.min() >= low and timesteps.max() < high
    assert value.item() == pytest.approx(1.0)
    spoken = [text for text in said if text]
    assert spoken and all("glasses" in text and "hair" in text and "skin" in text for text in spoken)
    value.backward()
    assert net.conv.weight.grad.abs().sum() > 0
    ordinary: list[str] = []
    TextLoss(net, lambda texts: (ordinary.extend(texts), tokenize(texts))[1], images, labels, 16)(torch.Generator().manual_seed(3))
    assert not all("glasses" in text for text in ordinary if text)


def test_pixels_count_by_how_much_they_differ_between_classes() -> None:
    images, labels = draw_labelled_images(2000, 5)
    weight = pixel_weights(images, labels)
    assert weight.shape == (12, 16, 16) and weight.mean().item() == pytest.approx(1.0, abs=1e-4) and weight.min() >= 0.09
    by_cell = weight.mean(0)
    assert by_cell[5:9, 5:11].mean() > 2 * by_cell[:3].mean()  # the face against the background above it


def test_training_resumes_where_it_was_cut(tmp_path: Path) -> None:
    class Cut(Exception):
        """The training was cut."""

    def stop(step: int, total: int, figures: dict[str, float]) -> None:
        if step < total:
            raise Cut

    torch.manual_seed(1)
    start = StandIn().state_dict()

    def fresh() -> StandIn:
        net = StandIn()
        net.load_state_dict(start)
        return net

    whole = train_text(fresh(), tokenize, tmp_path / "whole", text_settings(120), batch=4, pool=64)
    with pytest.raises(Cut):
        train_text(fresh(), tokenize, tmp_path / "cut", text_settings(120), batch=4, pool=64, progress=stop)
    again = train_text(fresh(), tokenize, tmp_path / "cut", text_settings(120), batch=4, pool=64)
    for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(whole.conv.weight, start["conv.weight"])
