"""Feature sites of a host MODEL: which there are, how wide they are, and what kind of model it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...models.adp import AdpFile
from ...models.sites import MIDDLE

_FAMILIES = {
    "SD15": "sd15",
    "SD15_instructpix2pix": "sd15",
    "SDXL": "sdxl",
    "SDXL_instructpix2pix": "sdxl",
    "SSD1B": "ssd1b",
    "Segmind_Vega": "segmind-vega",
    "SDXLRefiner": "sdxl-refiner",
}


def base_model(model: Any) -> str | None:
    """Name of the family that a MODEL belongs to, as ADP files call it; None where it is not known."""
    info = getattr(model.model, "equipoise_info", None)
    if info is not None:
        return info.base_model or None
    return _FAMILIES.get(type(getattr(model.model, "model_config", None)).__name__)


def site_channels(model: Any) -> dict[str, int]:
    """Width of every site of a MODEL: "middle" and "output.N"; the last up block has none, since no patch sees its output.

    Raises ValueError where the model is no U-Net with a middle block.
    """
    network = getattr(model.model, "diffusion_model", None)
    # Distilled U-Nets (KOALA) have the attribute, and None in it.
    if getattr(network, "middle_block", None) is None or not hasattr(network, "output_blocks"):
        raise ValueError(
            f"this MODEL ({type(network).__name__}) has no U-Net middle block, and guidance and steering act inside a U-Net: use an SD1.5, "
            "SDXL or unconditional one; diffusion transformers (SD3, FLUX) have none."
        )
    widths = {MIDDLE: network.middle_block[0].out_layers[3].out_channels}
    for i, block in enumerate(network.output_blocks[:-1]):
        widths[f"output.{i}"] = block[0].out_layers[3].out_channels
    return widths


def lowest_level_site(model: Any) -> str:
    """The end of the level with the smallest maps, where learned moves act by default: the output of its last up block.

    Raises ValueError where the model is no U-Net with a middle block.
    """
    widths = site_channels(model)
    network = model.model.diffusion_model
    config = getattr(network, "config", None)  # of our own U-Net; the host's keeps its block counts per level
    blocks = config.num_res_blocks if hasattr(config, "num_res_blocks") else network.num_res_blocks[-1]
    site = f"output.{blocks}"
    return site if site in widths else MIDDLE


def check_fit(model: Any, adp: AdpFile) -> None:
    """Raise ValueError, in a sentence, where an ADP was not made for a MODEL."""
    check_made_for(model, "ADP", adp.base_model, adp.site_channels)


def check_made_for(model: Any, what: str, made_for: str, sites: Mapping[str, int]) -> None:
    """Raise ValueError, in a sentence, where a file (``what``: "ADP", "autoencoder") was not made for a MODEL. ``made_for``: its base
    model's name, "" where it is not known; ``sites``: the widths that it needs, by site."""
    found = base_model(model)
    if found and made_for and found != made_for:
        raise ValueError(
            f"this {what} was made for '{made_for}' and the connected MODEL is '{found}': load the {what} that belongs to the model, or "
            "train one for it."
        )
    widths = site_channels(model)
    for site, channels in sites.items():
        if site not in widths:
            raise ValueError(
                f"this {what} acts at '{site}', and the connected MODEL has only {', '.join(widths)}: load an {what} made for this "
                "model."
            )
        if widths[site] != channels:
            raise ValueError(
                f"this {what} expects {channels} channels at '{site}' (it was made for '{made_for}') and the connected MODEL has "
                f"{widths[site]}: load an {what} made for this model."
            )
