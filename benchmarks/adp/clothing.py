"""Train and steer a new attribute, clothing colour, with the command line only.

No shipped file knows this attribute. Labels and final counts come from the colours of pixels, so no network decides what is counted.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...cli import main as cli
from ...metrics.fairness import assigned_hit_rate, measure
from ...models.adp import load_adp
from ..core.stages import load_or_make

CLASSES = ("dark", "white", "purple")
COLOURS = ((0.20, 0.20, 0.26), (0.92, 0.93, 0.935), (0.50, 0.26, 0.46))
COLUMNS = (3, 4, 5, 6, 7, 24, 25, 26, 27, 28)
"""Columns in the lowest row of a 32x32 portrait: the shoulders, outside hair and neck, below bands and collars."""
NEAR = 0.25
TARGET = {"dark": 0.4, "white": 0.2, "purple": 0.4}
GUIDED_SEED = 840_000_000
"""First seed of the guided images. Recording, training and calibration used other seeds."""


def clothing_colour(images: Tensor) -> tuple[Tensor, Tensor]:
    """Classify clothing by its colour in portraits [N, 3, 32, 32] in 0..1.

    Returns classes int64 [N] and the share of the ten pixels that agree [N]. Each pixel votes for the nearest of the three colours if it is
    within 0.25 (Euclidean, RGB). The colour that is nearer on average wins a tie.
    """
    pixels = images[:, :, -1, list(COLUMNS)].transpose(1, 2).float()
    distance = (pixels[:, :, None] - torch.tensor(COLOURS)).norm(dim=-1)
    nearest = distance.argmin(-1)
    votes = torch.stack([((nearest == c) & (distance.amin(-1) < NEAR)).float().mean(1) for c in range(len(CLASSES))], dim=1)
    return (votes + 1e-3 * (-distance.mean(1)).exp()).argmax(1), votes.amax(1)


def read_pictures(folder: Path, names: Sequence[str]) -> Tensor:
    """Read pictures as float32 [N, 3, 32, 32] in 0..1."""
    pictures = []
    for name in names:
        with Image.open(folder / name) as picture:
            pictures.append(np.asarray(picture.convert("RGB"), dtype=np.float32) / 255)
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def sample_portraits(folder: Path, name: str, n: int, first_seed: int, *more: str) -> list[dict[str, Any]]:
    """Run ``equipoise sample`` into its own folder and return the lines of samples.jsonl.

    A finished folder with the same seeds is used again. ``more``: further arguments of the command.
    """
    out = folder / name
    index = out / "samples.jsonl"
    lines = [json.loads(text) for text in index.read_text(encoding="utf-8").splitlines()] if index.is_file() else []
    if len(lines) != n or [lines[0]["seed"], lines[-1]["seed"]] != [first_seed, first_seed + n - 1]:
        for part in (out, folder / f"{name}-features"):
            shutil.rmtree(part, ignore_errors=True)
        command("sample", "--n", str(n), "--batch", "16", "--seed", str(first_seed), "--out", str(out), *more)
        lines = [json.loads(text) for text in index.read_text(encoding="utf-8").splitlines()]
    return lines


def command(*words: str) -> None:
    """Run an ``equipoise`` command. Raises ValueError if it fails."""
    if cli.main(["--traceback", *words]):
        raise ValueError(f"'equipoise {' '.join(words)}' failed. Its message stands above.")


def write_labels(folder: Path, name: str, lines: Sequence[dict[str, Any]], file: Path) -> list[float]:
    """Write a CSV of labels as a person would, and return the classes' shares."""
    classes, _ = clothing_colour(read_pictures(folder / name, [line["file"] for line in lines]))
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["file", "clothing"])
        writer.writerows([line["file"], CLASSES[c]] for line, c in zip(lines, classes.tolist(), strict=True))
    return (torch.bincount(classes, minlength=len(CLASSES)) / len(classes)).tolist()


def new_attribute(folder: Path, recorded: Path, lines: Sequence[dict[str, Any]], n: int, learn: int | None = None) -> dict[str, Any]:
    """Train an ADP for clothing colour, sample with it, and count the colours.

    ``recorded``: a feature set of plain samples; ``folder``/plain holds their pictures, ``lines`` describes them.
    """
    text = ", ".join(f"{c}={s}" for c, s in TARGET.items())
    facts = {"images": len(lines), "first": lines[0]["seed"], "n": n, "target": TARGET, "learn": learn, "seed": GUIDED_SEED}

    def make() -> dict[str, Any]:
        subfolder = folder / "clothing"
        subfolder.mkdir(parents=True, exist_ok=True)
        labels, adp = subfolder / "clothing.csv", subfolder / "clothing.safetensors"
        before = write_labels(folder, "plain", lines, labels)
        if not adp.is_file():
            words = ["--features", str(recorded), "--labels", str(labels), "--attribute", "clothing", "--out", str(adp)]
            command("train-adp", *words, *([] if learn is None else ["--learn", str(learn)]))
        made = sample_portraits(subfolder, "guided", n, GUIDED_SEED, "--adp", str(adp), "--target", f"clothing: {text}")
        classes, votes = clothing_colour(read_pictures(subfolder / "guided", [line["file"] for line in made]))
        hard = torch.eye(len(CLASSES))[classes]
        report = measure(hard, CLASSES, tuple(TARGET.values()), batch=16)
        assigned = torch.tensor([CLASSES.index(line["assigned"]) for line in made])
        move = load_adp(adp).moves["clothing"]
        return {
            "target": TARGET,
            "shares_before": dict(zip(CLASSES, before, strict=True)),
            "fd_before": float((torch.tensor(before) - torch.tensor(list(TARGET.values()))).norm()),
            "shares": dict(zip(CLASSES, report.shares, strict=True)),
            "fd": report.fd,
            "fd_low": report.fd_low,
            "fd_high": report.fd_high,
            "noise_floor": report.noise_floor,
            "hits": assigned_hit_rate(hard, assigned),
            "doubtful": float((votes < 0.6).float().mean()),
            "n": report.n,
            "direction": move.source,
            "verdict": load_adp(adp).info["verdict"]["clothing"],
        }

    return load_or_make(folder, "new-attribute", facts, make)
