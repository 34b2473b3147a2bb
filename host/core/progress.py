"""A trainer's progress as the host's: its bar, and its interruption."""

from __future__ import annotations

import comfy.model_management
import comfy.utils
import torch

from ...methods.core.trainer import Progress


def host_progress() -> Progress:
    """progress(step, total, figures), which moves the node's bar and raises the host's exception where the user interrupts."""
    bar = comfy.utils.ProgressBar(1)

    def report(step: int, total: int, figures: dict[str, float]) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(step, total)

    return report


def training_device() -> torch.device:
    """The host's device where torch can draw random numbers on it; else the CPU, which is enough for a predictor."""
    device = comfy.model_management.get_torch_device()
    return device if device.type in ("cpu", "cuda", "mps", "xpu") else torch.device("cpu")
