"""Inputs that several nodes share: a group lists them for a schema and takes their values for ``execute``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import comfy.samplers
from comfy_api.latest import io

from ...host.core.patch import window_sigmas
from ...host.core.sampling import SamplerSettings
from ...host.core.versions import advanced
from ...methods.core.batch_run import ROW_CHOICES
from ...methods.core.written_names import bare_name, plain_signs, split_names
from .sockets import Ledger

Widgets = Mapping[str, Any]
"""Values of a node's inputs by input id, as the host passes them to ``execute``."""

LARGEST_SEED = 0xFFFFFFFFFFFFFFFF
SAMPLERS_SEED = -1
"""Stands for the seed of the sampler."""


class SamplerInputs:
    """KSampler's own inputs."""

    def inputs(self, steps: int = 20, cfg: float = 8.0) -> list[io.Input]:
        """List steps, cfg, sampler_name and scheduler, with KSampler's ranges and these defaults."""
        return [
            io.Int.Input("steps", default=steps, min=1, max=10000, tooltip="Number of sampling steps. Each step is one noise level."),
            io.Float.Input(
                "cfg", default=cfg, min=0.0, max=100.0, step=0.1, round=0.01, tooltip="Classifier-free guidance scale. 1 is off."
            ),
            io.Combo.Input("sampler_name", options=comfy.samplers.KSampler.SAMPLERS, tooltip="ComfyUI's sampler, such as euler."),
            io.Combo.Input("scheduler", options=comfy.samplers.KSampler.SCHEDULERS, tooltip="ComfyUI's schedule of noise levels."),
        ]

    def denoise(self) -> io.Input:
        """Return KSampler's denoise."""
        return io.Float.Input(
            "denoise", default=1.0, min=0.0, max=1.0, step=0.01, tooltip="Share of the noise to start from. 1 is all of it."
        )

    def take(self, widgets: Widgets, seed: str = "seed") -> SamplerSettings:
        """Return the settings.

        ``seed`` is the id of the node's seed; denoise is 1 where the node has none.
        """
        names = (seed, "steps", "cfg", "sampler_name", "scheduler")
        return SamplerSettings(*(widgets[name] for name in names), widgets.get("denoise", 1.0))


class WindowInputs:
    """The part of the sampling in which an edit acts."""

    def inputs(self, what: str, more: str = "") -> list[io.Input]:
        """List start_percent and end_percent.

        ``what`` is the edit in a word, ``more`` a sentence on its start.
        """
        limits = {"min": 0.0, "max": 1.0, "step": 0.01}
        return [
            io.Float.Input(
                "start_percent",
                default=0.0,
                **limits,
                tooltip=f"Share of the sampling at which {what} may start. 0 is the start.{more}",
            ),
            io.Float.Input(
                "end_percent",
                default=1.0,
                **limits,
                tooltip=f"Share of the sampling at which {what} ends. 1 is the end. At or below start_percent, {what} is off.",
            ),
        ]

    def take(self, widgets: Widgets, model: io.Model.Type) -> dict[str, float]:
        """Return the window as the arguments sigma_start and sigma_end of an edit's settings."""
        start, end = window_sigmas(model, widgets["start_percent"], widgets["end_percent"])
        return {"sigma_start": start, "sigma_end": end}


class TrialSockets:
    """Sockets of the prompts and the latent of a node's trials."""

    def inputs(self) -> list[io.Input]:
        """List positive, negative and latent_image."""
        return [
            io.Conditioning.Input(
                "positive", tooltip="Positive prompt of the trials. Use a neutral prompt of the kind that you will use later."
            ),
            io.Conditioning.Input(
                "negative",
                tooltip="Negative prompt of the trials, as you will use it later. For an unconditional model, connect the same as "
                "positive.",
            ),
            self.latent(),
        ]

    def latent(self) -> io.Input:
        """Return the latent of images that a node samples for itself."""
        return io.Latent.Input("latent_image", tooltip="An empty latent. It sets the size of the images and how many are sampled at once.")

    def take(self, widgets: Widgets) -> tuple[io.Conditioning.Type, io.Conditioning.Type, io.Latent.Type]:
        """Return positive, negative and latent."""
        return widgets["positive"], widgets["negative"], widgets["latent_image"]


class PictureInputs:
    """Sockets of the prompts that the pictures of a feature set were sampled with."""

    def inputs(self) -> list[io.Input]:
        """List positive, and clip for the prompts that the set names."""
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

    def take(self, widgets: Widgets) -> dict[str, io.Conditioning.Type | io.Clip.Type | None]:
        """Return the arguments positive and clip; None for what is not connected."""
        return {"positive": widgets.get("positive"), "clip": widgets.get("clip")}


SAMPLER = SamplerInputs()
WINDOW = WindowInputs()
TRIAL = TrialSockets()
PICTURES = PictureInputs()


def rows_input() -> io.Input:
    """Return the choice of rows that an edit changes under CFG."""
    return advanced(
        io.Combo.Input(
            "rows",
            options=list(ROW_CHOICES),
            default=ROW_CHOICES[0],
            tooltip="What is edited under CFG. 'cond': only the rows of the positive prompt. 'cond+uncond': also those of the negative "
            "prompt.",
        )
    )


def ledger_input(when: str = "") -> io.Input:
    """Return the socket for a ledger.

    ``when`` is a sentence that says when it is used.
    """
    return Ledger.Input(
        "ledger",
        optional=True,
        tooltip=f"{when}Ledger from Balance Ledger. Quotas then make up for all runs before, so images made one at a time reach the "
        "target too.",
    )


def fixed_seed(tooltip: str) -> io.Input:
    """Return a seed that stays the same from one queue to the next.

    Within the exact integers of JSON.
    """
    return io.Int.Input("seed", default=0, min=0, max=2**53 - 1, control_after_generate=False, tooltip=tooltip)


def sampler_seed(tooltip: str) -> io.Input:
    """Return a seed that goes with the sampler's, with KSampler's range and control."""
    return io.Int.Input("seed", default=0, min=0, max=LARGEST_SEED, control_after_generate=True, tooltip=tooltip)


def rounding_seed(tooltip: str) -> io.Input:
    """Return a seed for rounding that is the sampler's unless the user sets one.

    ``control_after_generate`` is set, because the front end adds that control to every input named seed.
    """
    return io.Int.Input("seed", default=SAMPLERS_SEED, min=SAMPLERS_SEED, max=LARGEST_SEED, control_after_generate=False, tooltip=tooltip)


def rounding_seed_of(widgets: Widgets) -> int | None:
    """Return the seed for rounding; None for the sampler's."""
    return None if widgets["seed"] == SAMPLERS_SEED else widgets["seed"]


def fit_batch(default: int) -> io.Input:
    """Return the number of images per step of a fit through the decoder."""
    return io.Int.Input(
        "batch",
        default=default,
        min=2,
        max=4096,
        tooltip="Images per step. More images need more memory. For images of 512 x 512 and larger, start with 4 and take more steps.",
    )


def file_name_input(default: str, folder: str) -> io.Input:
    """Return the name of a file to write below ``folder``."""
    return io.String.Input(
        "name", default=default, tooltip=f"Name of the file in {folder}, with or without .safetensors. Folders are refused."
    )


def overwrite_input() -> io.Input:
    """Return the choice whether a file of the same name is replaced."""
    return io.Boolean.Input(
        "overwrite",
        default=False,
        tooltip="On: replace another file with this name. Off: leave that file as it is and report an error.",
    )


def model_file_input(name: str, files: list[str], default: str, hint: str, more: str = "") -> io.Input:
    """Return the choice of a file of the user's or of the pack's.

    ``hint`` names the folder.
    """
    return io.Combo.Input(
        name,
        options=files,
        default=default if default in files else None,
        tooltip=f"A safetensors file from {hint}, or one that ships with the pack. If both have the same name, your file is used.{more}",
    )


def names_of(text: str) -> list[str]:
    """Split a text into names at commas, semicolons and line ends outside of double quotes."""
    return [bare_name(part) for part in split_names(plain_signs(text))]
