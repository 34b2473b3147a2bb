"""A small classifier of a set's own pictures and labels: what tells the fit of moves how an image would be labelled.

The labels may come from anywhere, a CSV filled in by hand included; gradients need a function that gives the same labels. It is made in a
minute or two from the pictures that are there, and thrown away.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ..factory.train_classifiers import degrade
from ..methods.core.trainer import Progress, warmup_cosine
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
    """images [N, 3, S, S] in 0..1; labels: attribute -> class probabilities [N, K]. Returns the classifier, frozen, and its balanced
    accuracy on the tenth of the images that it has not seen.

    Rows are drawn with every class of one attribute in turn as often as another, blurred and with noise: the fit shows it what a diffusion
    model expects of an image in the midst of sampling. Every random number comes from ``seed``.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images), generator=generator)
    held, train = order[: max(1, round(HELD_OUT * len(images)))], order[max(1, round(HELD_OUT * len(images))) :]
    names = list(attributes)
    hard = {a: labels[a].argmax(-1) for a in names}
    weights = {a: 1.0 / torch.bincount(hard[a][train], minlength=labels[a].shape[1]).clamp(min=1).float()[hard[a][train]] for a in names}
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        torch.random.default_generator.manual_seed(seed)
        net = ConvNet(attributes, image_size=images.shape[-1])
        optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, betas=(0.9, 0.99), weight_decay=0.02)
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = 2e-3 * warmup_cosine(step, steps, 50)
            index = train[torch.multinomial(weights[names[step % len(names)]], BATCH, replacement=True, generator=generator)]
            logits = net(net.preprocess(degrade(images[index], generator)))
            loss = sum(F.cross_entropy(logits[a], labels[a][index], label_smoothing=0.01) for a in names)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if progress and (step + 1) % 50 == 0:
                progress(step + 1, steps, {"loss": loss.item()})
        net = net.eval().requires_grad_(False)
    read = net.probabilities(images[held])
    return net, {a: balanced_accuracy(read[a].argmax(-1), hard[a][held]) for a in names}


def balanced_accuracy(read: Tensor, truth: Tensor) -> float:
    """Mean over the classes that there are of the share that is recognised; int64 [N] each."""
    return float(torch.stack([(read[truth == c] == c).float().mean() for c in truth.unique()]).mean())
