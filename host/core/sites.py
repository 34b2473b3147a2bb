"""Sites of a host MODEL: which it has, their widths, its model family, and its noise levels as log-SNR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ...models.adp import AdpFile
from ...models.noise_level import log_snr
from ...models.sites import MIDDLE
from .types import Model, ModelSampling

FAMILIES = {
    "SD15": "sd15",
    "SD15_instructpix2pix": "sd15",
    "SDXL": "sdxl",
    "SDXL_instructpix2pix": "sdxl",
    "SSD1B": "ssd1b",
    "Segmind_Vega": "segmind-vega",
    "SDXLRefiner": "sdxl-refiner",
}
"""The host's model class -> the family as ADP files name it."""


def base_model(model: Model) -> str | None:
    """Return the model family of a MODEL as ADP files name it.

    None where it is not known.
    """
    info = getattr(model.model, "equipoise_info", None)
    if info is not None:
        return info.base_model or None
    return FAMILIES.get(type(getattr(model.model, "model_config", None)).__name__)


def site_channels(model: Model) -> dict[str, int]:
    """Return the width of every site of a MODEL: "middle" and "output.N".

    The last up block has no site, because no patch sees its output. Raises ValueError where the model is not a U-Net with a middle block.
    """
    network = getattr(model.model, "diffusion_model", None)
    # Distilled U-Nets (KOALA) have the attribute, and None in it.
    if getattr(network, "middle_block", None) is None or not hasattr(network, "output_blocks"):
        raise ValueError(
            f"this MODEL ({type(network).__name__}) has no U-Net middle block, and guidance and steering act inside a U-Net: connect an "
            "SD1.5, SDXL or unconditional model; diffusion transformers (SD3, FLUX) do not work."
        )
    widths = {MIDDLE: network.middle_block[0].out_layers[3].out_channels}
    for i, block in enumerate(network.output_blocks[:-1]):
        widths[f"output.{i}"] = block[0].out_layers[3].out_channels
    return widths


def lowest_level_site(model: Model) -> str:
    """Return the site where learned moves act by default.

    It is the last up block of the smallest maps.
    Raises ValueError where the model is not a U-Net with a middle block.
    """
    widths = site_channels(model)
    network = model.model.diffusion_model
    config = getattr(network, "config", None)  # of our own U-Net; the host's keeps its block counts per level
    blocks = config.num_res_blocks if hasattr(config, "num_res_blocks") else network.num_res_blocks[-1]
    site = f"output.{blocks}"
    return site if site in widths else MIDDLE


def check_fit(model: Model, adp: AdpFile) -> None:
    """Check that an ADP was made for a MODEL. Raises ValueError where it was not."""
    check_made_for(model, "ADP", adp.base_model, adp.site_channels)


def check_made_for(model: Model, what: str, made_for: str, sites: Mapping[str, int]) -> None:
    """Check that a file was made for a MODEL. Raises ValueError where it was not.

    ``what``: "ADP" or "autoencoder". ``made_for``: name of its base model, "" where it is not known. ``sites``: the widths that it needs.
    """
    connected = base_model(model)
    if connected and made_for and connected != made_for:
        raise ValueError(other_family(what, made_for, connected))
    widths = site_channels(model)
    for site, channels in sites.items():
        if site not in widths:
            raise ValueError(
                f"this {what} acts at '{site}', and the connected MODEL has only {', '.join(widths)}: load an {what} that was made for "
                "this model."
            )
        if widths[site] != channels:
            raise ValueError(
                f"this {what} expects {channels} channels at '{site}' (it was made for '{made_for}') and the connected MODEL has "
                f"{widths[site]}: load an {what} that was made for this model."
            )


def other_family(what: str, made_for: str, connected: str) -> str:
    """Say that a file was made for another model family."""
    return (
        f"this {what} was made for '{made_for}' and the connected MODEL is '{connected}': load the {what} that belongs to the model, "
        "or train one for it."
    )


def level_of(model_sampling: ModelSampling, sigma: float | Tensor) -> float:
    """Convert a sigma of a model to log-SNR.

    ``model_sampling`` is the host's noise schedule. Those of U-Nets have a signal of unit scale at every sigma.
    """
    return float(log_snr(float(sigma)))


def level_range(model: Model) -> tuple[float, float]:
    """Return the levels of a MODEL's noisiest and cleanest sigma."""
    sampling = model.get_model_object("model_sampling")
    return level_of(sampling, sampling.sigma_max), level_of(sampling, sampling.sigma_min)


def sigmas_at(levels: Sequence[float]) -> Tensor:
    """Convert levels to sigmas [levels], noisiest first; the inverse of :func:`level_of`."""
    return torch.exp(-torch.tensor(sorted(levels)) / 2)
