"""Train the small text-to-image model on captioned portraits. The network is an argument: it is made of the host's own classes.

As train_diffusion.py: velocity prediction (Salimans & Ho 2022) on 2x2 space-to-depth pixels, min-SNR-5 weights (Hang et al. 2023), moving
average, resumable. This file needs no host; factory/text_training.py makes the network and the token rows.

Words for small things (eyeglasses are a few dark pixels) were not learned in 7,000 steps of that loss alone: a wrong one changed it by less
than 0.05%, at any level. So a first part of the training emphasises them: captions name every attribute, noise is such that the face shows
and its attributes do not yet, rows are divided by their own error so that every level counts alike, pixels count by how much they differ
between classes, and images with eyeglasses come as often as those without. After 1,000 such steps, with the initial values of TextNet, a
wrong word raised the loss by 8 to 30%. What these steps alone would lead to is not quite the distribution drawn (of the division, and of
the empty captions among balanced images), so the larger part of the training is the plain loss, and comes last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..cli.schedule import TRAIN_STEPS, alphas_cumprod
from ..methods.core.trainer import AveragedSettings, AveragedTraining, Progress
from ..models.pixel_latents import space_to_depth
from .captions import NAMED_SHARE, captions
from .portraits import ATTRIBUTES, portraits
from .train_diffusion import POOL, POOL_SEED

EMPHASISED = 0.35
"""Share of the steps that emphasise attributes."""
EMPHASISED_LEVELS = (450, 800)
"""Their timesteps. From 150 to 650, and without balancing, 600 steps taught nothing of eyeglasses; 800 of these did."""
PIXEL_SHARES = {"eyeglasses": 0.6, "hair": 0.2, "skin_tone": 0.1}
"""Weight of the pixels that differ between an attribute's classes; the smaller the thing, the larger. The rest is spread evenly."""
BALANCED = "eyeglasses"
Tokenize = Callable[[list[str]], Tensor]
"""Captions -> int64 [N, tokens]."""


def text_settings(steps: int, lr: float = 6e-4, seed: int = 0) -> AveragedSettings:
    """Return the settings of the text model's training."""
    return AveragedSettings(lr, steps, seed, warmup=300, average=0.9995)


def draw_labelled_images(n: int = POOL, seed: int = POOL_SEED) -> tuple[Tensor, dict[str, Tensor]]:
    """Draw training images and labels, in chunks of 2,000.

    uint8 [n, 3, 32, 32]; attribute -> int64 [n].
    """
    chunks = [portraits(min(2000, n - start), seed + start) for start in range(0, n, 2000)]
    images = torch.cat([(c.images * 255).round().byte() for c in chunks])
    return images, {a: torch.cat([c.labels[a] for c in chunks]) for a in ATTRIBUTES}


class TextLoss:
    """The training loss of one step.

    A function of a generator alone: images, captions, noise levels and noise come from it.
    """

    def __init__(self, net: nn.Module, tokenize: Tokenize, images: Tensor, labels: Mapping[str, Tensor], batch: int) -> None:
        """net(x [B, 12, 16, 16], timesteps [B], tokens [B, T]) -> velocity [B, 12, 16, 16]."""
        self.net, self.tokenize, self.images, self.labels, self.batch = net, tokenize, images, labels, batch
        self.abar = alphas_cumprod()
        snr = self.abar / (1 - self.abar)
        self.weight = snr.clamp(max=5.0) / (snr + 1)
        self.pixels = pixel_weights(images[:4000], labels)
        self.balanced = 1.0 / torch.bincount(labels[BALANCED]).float()[labels[BALANCED]]

    def __call__(self, generator: torch.Generator, emphasis: bool = False) -> Tensor:
        """Mean over the batch of the weighted squared error of the velocity; with ``emphasis`` of its emphasised form."""
        if emphasis:
            index = torch.multinomial(self.balanced, self.batch, replacement=True, generator=generator)
        else:
            index = torch.randint(0, len(self.images), (self.batch,), generator=generator)
        x0 = space_to_depth(self.images[index].float() / 255)
        low, high = EMPHASISED_LEVELS if emphasis else (0, TRAIN_STEPS)
        t = torch.randint(low, high, (self.batch,), generator=generator)
        noise = torch.randn(x0.shape, generator=generator)
        share = 1.0 if emphasis else NAMED_SHARE
        tokens = self.tokenize(captions({a: v[index] for a, v in self.labels.items()}, generator, share))
        signal, sigma = self.abar[t].sqrt().view(-1, 1, 1, 1), (1 - self.abar[t]).sqrt().view(-1, 1, 1, 1)
        out = self.net(signal * x0 + sigma * noise, t, tokens)
        square = (out - (signal * noise - sigma * x0)) ** 2
        if emphasis:
            error = (square * self.pixels).mean(dim=(1, 2, 3))
            return (error / error.detach()).mean()
        return (square.mean(dim=(1, 2, 3)) * self.weight[t]).mean()


def pixel_weights(images: Tensor, labels: Mapping[str, Tensor]) -> Tensor:
    """Measure how much pixels differ between the classes of attributes: [12, 16, 16].

    Mean 1, for images uint8 [N, 3, 32, 32].

    Variance of the class means, scaled to mean 1 for every attribute and added up by ``PIXEL_SHARES``.
    """
    x = space_to_depth(images.float() / 255)
    weight = torch.full_like(x[0], 1.0 - sum(PIXEL_SHARES.values()))
    for attribute, share in PIXEL_SHARES.items():
        y = labels[attribute][: len(x)]
        means = torch.stack([x[y == k].mean(0) for k in range(len(ATTRIBUTES[attribute]))])
        between = means.var(0, unbiased=False)
        weight += share * between / between.mean()
    return weight


def train_text(
    net: nn.Module,
    tokenize: Tokenize,
    folder: Path,
    settings: AveragedSettings,
    batch: int = 32,
    pool: int = POOL,
    progress: Progress | None = None,
) -> nn.Module:
    """Train in a folder, from its checkpoint if there is one; return the averaged network.

    The first ``EMPHASISED`` of the steps emphasise attributes. ``pool``: number of training images.
    """
    training = AveragedTraining(net, settings, folder)
    loss = TextLoss(net, tokenize, *draw_labelled_images(pool), batch)
    training.train(lambda generator: loss(generator, emphasis=training.step < EMPHASISED * settings.total), progress)
    return training.ema
