"""Measure training time on random features.

The test bed's width is measured at full size (2,000 images x 50 levels), SD's width on a part of that.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from ...methods.adp.train import train_adp
from ...methods.data.feature_set import FeatureSetWriter, open_feature_set
from ...methods.labels.labels import LabelSet
from ..core.stages import load_or_make

IMAGES, LEVELS, EPOCHS = 2000, 50, 12
TEST_BED, SD = 128, 1280
"""Channels. On the 4x4 grid they give 2,048 and 20,480 features."""
SD_IMAGES, SD_EPOCHS = 200, 2


def random_feature_set(folder: Path, images: int, channels: int, per_shard: int = 100) -> LabelSet:
    """Write a random feature set and return its labels.

    Channel 0 shows an attribute with two classes, channel 1 one with four.
    """
    generator = torch.Generator().manual_seed(0)
    level = torch.linspace(-10, 9, LEVELS)
    writer = FeatureSetWriter(folder, {"base_model": "random", "steps": LEVELS})
    truth = {"two": torch.arange(images) % 2, "four": torch.arange(images) % 4}
    for start in range(0, images, per_shard):
        n = min(per_shard, images - start)
        x = torch.randn(n, LEVELS, channels, 4, 4, generator=generator)
        for channel, y in enumerate(truth.values()):
            x[:, :, channel] += y[start : start + n, None, None, None]
        names = [f"{start + i}.png" for i in range(n)]
        writer.add(x.half(), level, names, list(range(start, start + n)), [""] * n)
    names = tuple(f"{i}.png" for i in range(images))
    classes = {"two": ("a", "b"), "four": ("a", "b", "c", "d")}
    return LabelSet(classes, names, {a: torch.eye(len(c))[truth[a]] for a, c in classes.items()})


def training_time(images: int, channels: int, epochs: int, kind: str = "mlp") -> dict[str, Any]:
    """Time :func:`.train_adp` with the command line's settings."""
    folder = Path(tempfile.mkdtemp(prefix="equipoise-timing-"))
    try:
        labels = random_feature_set(folder / "set", images, channels)
        features = open_feature_set(folder / "set")
        clock, processor = time.monotonic(), time.process_time()
        file = train_adp(features, labels, kind, epochs)
        took = time.monotonic() - clock, time.process_time() - processor
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "images": images,
        "levels": LEVELS,
        "features": 16 * channels,
        "kind": kind,
        "epochs": file.info["trained"]["two"]["epochs"],
        "threads": torch.get_num_threads(),
        "clock": round(took[0], 1),
        "processor": round(took[1], 1),
    }


def timings(folder: Path, quick: bool) -> dict[str, Any]:
    """Measure ``test_bed`` at full size, and ``sd_part`` at SD's width unless quick.

    ``sd_part`` uses a tenth of the images and a sixth of the passes.
    """
    full = load_or_make(folder, "timing-test-bed", {"images": IMAGES, "epochs": EPOCHS}, lambda: training_time(IMAGES, TEST_BED, EPOCHS))
    if quick:
        return {"test_bed": full, "sd_part": None}
    facts = {"images": SD_IMAGES, "epochs": SD_EPOCHS}
    return {"test_bed": full, "sd_part": load_or_make(folder, "timing-sd", facts, lambda: training_time(SD_IMAGES, SD, SD_EPOCHS))}
