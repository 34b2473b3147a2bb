"""Report a training's progress to the host, and let the host interrupt it."""

from __future__ import annotations

import comfy.model_management
import comfy.utils
import torch

from ...methods.core.trainer import Progress


def host_progress() -> Progress:
    """Return a function that moves the node's bar after each step.

    It raises the host's exception if the user interrupts.
    """
    bar = comfy.utils.ProgressBar(1)

    def report(step: int, total: int, figures: dict[str, float]) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(step, total)

    return report


def training_device() -> torch.device:
    """Return the host's device if torch can draw random numbers on it, else the CPU."""
    device = comfy.model_management.get_torch_device()
    return device if device.type in ("cpu", "cuda", "mps", "xpu") else torch.device("cpu")
