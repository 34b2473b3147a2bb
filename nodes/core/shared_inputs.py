"""Inputs that several nodes ask for alike, and how they are read."""

from __future__ import annotations

import re
from typing import Any

from comfy_api.latest import io


def fixed_seed(tooltip: str) -> Any:
    """The seed of a training or of trials, which stays as it is from one queue to the next. Within what JSON numbers hold exactly."""
    return io.Int.Input("seed", default=0, min=0, max=2**53 - 1, control_after_generate=False, tooltip=tooltip)


def drawn_seed(tooltip: str) -> Any:
    """A seed that goes with the sampler's, with KSampler's range and control."""
    return io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True, tooltip=tooltip)


def trial_conditions() -> list[Any]:
    """positive and negative of trials."""
    return [
        io.Conditioning.Input(
            "positive", tooltip="Positive prompt of the trials. Use a neutral prompt of the kind that you will use later."
        ),
        io.Conditioning.Input(
            "negative",
            tooltip="Negative prompt of the trials, as you will use it later. For an unconditional model, connect the same as positive.",
        ),
    ]


def trial_latent() -> Any:
    """Latent of images that a node samples for itself."""
    return io.Latent.Input("latent_image", tooltip="An empty latent. It sets the size of the images and how many are sampled at once.")


def fit_batch(default: int) -> Any:
    """Images per step of a fit through the decoder."""
    return io.Int.Input(
        "batch",
        default=default,
        min=2,
        max=4096,
        tooltip="Images per step. More images need more memory. For images of 512 x 512 and larger, start with 4 and take more steps.",
    )


def picture_conditions() -> list[Any]:
    """What the pictures of a feature set were drawn with: positive, or clip for the prompts that the set names."""
    return [
        io.Conditioning.Input(
            "positive",
            optional=True,
            tooltip="Conditioning of all pictures: a single prompt, or a Class Label. Required unless clip is connected.",
        ),
        io.Clip.Input(
            "clip", optional=True, tooltip="Encodes the prompts that the pictures were recorded with. Positive is then not used."
        ),
    ]


def names_of(text: str) -> list[str]:
    """Names between commas, semicolons or line ends."""
    return [a.strip() for a in re.split(r"[,;\n]", text) if a.strip()]
