"""Moves are fitted through a decoder; here on a toy whose answer is known."""

from __future__ import annotations

from typing import Any

import torch
from equipoise.cli.schedule import alphas_cumprod
from equipoise.methods.guidance.fit_moves import Diffusion, FitImages, FitSettings, SitePredictor, fit_moves, natural_lengths
from equipoise.models.adp import AttributePredictor
from equipoise.models.sites import block_site

ABAR = alphas_cumprod()


def _toy() -> tuple[Diffusion, torch.Tensor, torch.Tensor, AttributePredictor]:
    """A decoder that adds channel 0 of h to the predicted clean image; the label is the sign of the image's mean."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(64) % 2
    clean = torch.randn(64, 1, 4, 4, generator=generator) * 0.1 + (labels.float() * 2 - 1)[:, None, None, None]

    def output(x: torch.Tensor, t: int, options: dict[str, Any]) -> torch.Tensor:
        # A hopeless encoder: h is constant, so that only the move can tell the network what the image is.
        h = torch.ones(x.shape[0], 4, 4, 4)
        options["block"] = ("output", 0)
        for patch in options["patches"]["output_block_patch"]:
            h, _ = patch(h, None, options)
        return h[:, :1] - h[:, 1:2]  # predicts the clean image; plain: 0

    model = Diffusion(
        output=output,
        wanted=lambda clean, noise, t: clean,
        clean=lambda x, out, t: out,
        logits=lambda c: {"side": torch.stack([-c.mean(dim=(1, 2, 3)), c.mean(dim=(1, 2, 3))], dim=1) * 5},
        alphas_cumprod=ABAR,
    )
    predictor = AttributePredictor({"side": ("low", "high")}, 4, torch.tensor([-9.0, 6.0])).eval().requires_grad_(False)
    return model, clean, torch.nn.functional.one_hot(labels, 2).float(), predictor


def test_fitted_moves_send_the_prediction_to_the_class() -> None:
    model, clean, labels, predictor = _toy()
    images, settings = FitImages(clean, {"side": labels}), FitSettings(steps=150, batch=16, lr=0.05)
    move = fit_moves(model, images, SitePredictor(predictor), {"side": ("middle", 4)}, settings)["side"]
    assert move.vectors.shape == (11, 2, 2, 4, 4, 4) and move.site == "middle"
    mean = move.vectors.mean(dim=(2, 4, 5)) * move.sizes[:, :, None]  # [T, K, C]
    effect = (mean[..., 0] - mean[..., 1]).mean(0)
    assert effect[0] < -0.01 < 0.01 < effect[1]
    assert (move.vectors.flatten(3).norm(dim=-1).flatten(1).amax(1) - 1).abs().max() < 1e-4
    assert len(natural_lengths(move)) == 11


def test_the_fit_is_the_same_for_the_same_seed() -> None:
    runs = []
    for _ in range(2):
        model, clean, labels, predictor = _toy()
        torch.manual_seed(len(runs))  # the global generator must not matter
        settings = FitSettings(steps=5, batch=8)
        images, reads = FitImages(clean, {"side": labels}), SitePredictor(_same(predictor))
        runs.append(fit_moves(model, images, reads, {"side": ("middle", 4)}, settings)["side"].vectors)
    assert torch.equal(runs[0], runs[1])


def _same(predictor: AttributePredictor) -> AttributePredictor:
    with torch.no_grad():
        for p in predictor.parameters():
            p.fill_(0.01)
    return predictor


def test_sites_are_named_by_where_they_arrive() -> None:
    assert block_site(("output", 0)) == "middle" and block_site(("output", 3)) == "output.2"
