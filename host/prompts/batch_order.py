"""Put images that were sampled prompt by prompt back into the order of their batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..core.types import Image, Latent

POSITIONS = "equipoise_positions"
"""In a LATENT: the positions of its images in the batch that Balanced Prompts cut."""
BATCH_IMAGES = "equipoise_batch_images"
"""In a LATENT: the number of images of that batch."""


def in_batch_order(images: Sequence[Image], latents: Sequence[Latent]) -> Image:
    """Join lists of IMAGEs into one batch [N, H, W, C] in the order of the batch that was cut.

    ``latents``: the LATENTs that the images were sampled from, one per IMAGE. A latent of a video gives several images in a row, which stay
    together. Raises ValueError where the lists differ in length, a LATENT does not say where its images belong, or sizes differ.
    """
    if len(images) != len(latents):
        raise ValueError(
            f"{len(images)} entries of images and {len(latents)} of latents were met: connect the output 'latents' of the Balanced Prompts "
            "whose prompts made these images."
        )
    placed: list[tuple[int, Image]] = []
    for image, latent in zip(images, latents, strict=True):
        positions = latent.get(POSITIONS, latent.get("batch_index"))
        if positions is None:
            raise ValueError("these latents do not say where their images belong: connect the output 'latents' of Balanced Prompts.")
        if not len(positions) or len(image) % len(positions):
            raise ValueError(f"{len(image)} images cannot come from {len(positions)} latents: connect the latents that made these images.")
        frames = len(image) // len(positions)
        placed += [(position, image[i * frames : (i + 1) * frames]) for i, position in enumerate(positions)]
    sizes = {tuple(part.shape[1:]) for _, part in placed}
    if len(sizes) > 1:
        met = " and ".join(sorted(f"{w} x {h}" for h, w, _ in sizes))
        raise ValueError(f"images of different sizes cannot be one batch; met {met}: bring them to one size before this node.")
    return torch.cat([part for _, part in sorted(placed, key=lambda entry: entry[0])])
