"""Train a small classifier on a set's own pictures and labels, for the fit of moves.

The labels may come from anywhere, also from a CSV filled in by hand; gradients need a function that gives the same labels. The training
takes a minute or two, and the classifier is not saved.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ..methods.core.checkpoint import Resumable
from ..methods.core.trainer import Progress, warmup_cosine
from ..methods.datasets.augment import degrade
from ..models.attribute_classifier import AttributeClassifier, ConvNet

STEPS, BATCH, HELD_OUT = 400, 64, 0.1


def train_on_pictures(
    images: Tensor,
    labels: Mapping[str, Tensor],
    attributes: Mapping[str, tuple[str, ...]],
    steps: int = STEPS,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[AttributeClassifier, dict[str, float]]:
    """Train a classifier on images and labels.

    images [N, 3, S, S] in 0..1; labels: attribute -> class probabilities [N, K].

    Returns the classifier, frozen, and its balanced accuracy on the tenth of the images that it has not seen. Rows are drawn so that all
    classes of one attribute, in turn, are equally frequent; they are blurred and noisy, because the fit shows the classifier what a
    diffusion model predicts in the midst of sampling. Every random number comes from ``seed``.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images), generator=generator)
    cut = max(1, round(HELD_OUT * len(images)))
    unseen, train = order[:cut], order[cut:]
    names = list(attributes)
    hard = {a: labels[a].argmax(-1) for a in names}
    weights = {a: 1.0 / torch.bincount(hard[a][train], minlength=labels[a].shape[1]).clamp(min=1).float()[hard[a][train]] for a in names}
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        torch.random.default_generator.manual_seed(seed)
        net = ConvNet(attributes, image_size=images.shape[-1])
        optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3, betas=(0.9, 0.99), weight_decay=0.02)
        training = Resumable({"net": net}, optimiser, steps)

        def take_step() -> None:
            step = training.step
            for group in optimiser.param_groups:
                group["lr"] = 2e-3 * warmup_cosine(step, steps, 50)
            index = train[torch.multinomial(weights[names[step % len(names)]], BATCH, replacement=True, generator=generator)]
            logits = net(net.preprocess(degrade(images[index], generator)))
            loss = sum(F.cross_entropy(logits[a], labels[a][index], label_smoothing=0.01) for a in names)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            training.step += 1
            if progress and training.step % 50 == 0:
                progress(training.step, steps, {"loss": loss.item()})

        training.run(take_step)
        net = net.eval().requires_grad_(False)
    read = net.probabilities(images[unseen])
    return net, {a: balanced_accuracy(read[a].argmax(-1), hard[a][unseen]) for a in names}


def balanced_accuracy(read: Tensor, truth: Tensor) -> float:
    """Average the share that is recognised over the classes that occur; int64 [N] each."""
    return float(torch.stack([(read[truth == c] == c).float().mean() for c in truth.unique()]).mean())
