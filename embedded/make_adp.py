"""Make the shipped predictors: record samples, label them, train, fit the moves, calibrate them. Every stage is kept and not repeated."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from ..methods.calibration import calibrate
from ..methods.feature_set import INDEX, FeatureSetWriter, read_index
from ..methods.fit_moves import Diffusion, FitSettings, fit_moves, natural_lengths
from ..methods.guidance import GuidanceRun, GuidanceSettings
from ..methods.targets import make_target
from ..methods.train_adp import train_adp
from ..methods.training import Progress
from ..models.adm_unet import AdmUNet
from ..models.adp import AdpFile, Move, load_adp, save_adp
from ..models.attribute_classifier import AttributeClassifier
from ..models.files import read_safetensors, write_safetensors, write_text
from . import weights
from .portraits import ATTRIBUTES
from .sampling import sample
from .schedule import alphas_cumprod, velocity

SAMPLES = 2048
FIRST_SEED, TRIAL_SEED = 50_000_000, 60_000_000
TRIAL_IMAGES = 192
SITE = ("output.1", 96)
"""Where the moves act: the end of the 4x4 level. Of the middle block and this, on a model in training, equally long fits for eyeglasses
gave 90% and 100% of images as assigned."""
MOVED = ("eyeglasses", "hair", "skin_tone")


def diffusion_of(net: AdmUNet, labeller: AttributeClassifier) -> Diffusion:
    """The test bed's network as the fit needs it."""
    abar = alphas_cumprod()

    def output(x: Tensor, t: int, options: dict) -> Tensor:
        return net(x, torch.full((len(x),), float(t)), y=options.get("y"), transformer_options=options)

    def clean(x: Tensor, out: Tensor, t: int) -> Tensor:
        return abar[t].sqrt() * x - (1 - abar[t]).sqrt() * out

    def logits(latents: Tensor) -> dict[str, Tensor]:
        return labeller(labeller.preprocess(torch.nn.functional.pixel_shuffle(latents, 2) / 2 + 0.5))

    return Diffusion(output, velocity, clean, logits, abar)


def record_samples(net: AdmUNet, labeller: AttributeClassifier, folder: Path, progress: Progress) -> dict[str, Tensor]:
    """Plain samples with features and labels, in parts of 64 images; a part that is there is not made again."""
    writer = FeatureSetWriter(folder / "features")
    parts = []
    for start in range(0, SAMPLES, 64):
        part = folder / "parts" / f"{start:06d}.safetensors"
        if not part.is_file():
            # The conditional model is recorded one profession after the other.
            profession = (start // 64) % len(ATTRIBUTES["profession"]) if net.num_classes else None
            seeds = list(range(FIRST_SEED + start, FIRST_SEED + start + 64))
            made = sample(net, seeds, batch=64, record=True, profession=profession)
            files = [f"{s}.png" for s in seeds]
            if len(writer.entries) <= start:
                writer.add(made.features, made.level, files, seeds, [""] * 64)
            labels = {f"p.{a}": p for a, p in labeller.probabilities(made.images).items()}
            y = torch.full((64,), -1 if profession is None else profession)
            write_safetensors(part, {"clean": made.latents, "y": y, **labels})
        parts.append(read_safetensors(part)[0])
        progress(start + 64, SAMPLES, {})
    return {k: torch.cat([p[k] for p in parts]) for k in parts[0]}


def make_adp(conditional: bool, folder: Path, out: Path, steps: int, progress: Progress) -> AdpFile:
    """Make the predictor of the unconditional or the profession-conditional model in ``folder``; writes ``out`` and ``log.json``."""
    net = weights.diffusion(weights.DIFFUSION_PROFESSIONS if conditional else weights.DIFFUSION)
    labeller = weights.classifier()
    data = record_samples(net, labeller, folder, progress)
    labels = {a: data[f"p.{a}"] for a in ATTRIBUTES}
    fitted = folder / "fitted.safetensors"
    base = "equipoise-portraits-conditional" if conditional else "equipoise-portraits"
    if not fitted.is_file():
        assert (folder / "features" / INDEX).is_file() and len(read_index(folder / "features")) == SAMPLES
        predictor, accuracy = train_adp(folder / "features", labels, ATTRIBUTES, progress=progress)
        y = data["y"] if conditional else None
        moves = fit_moves(
            diffusion_of(net, labeller),
            data["clean"],
            labels,
            predictor,
            dict.fromkeys(MOVED, SITE),
            FitSettings(steps=steps),
            conditioning=y,
            progress=progress,
        )
        save_adp(AdpFile(predictor, moves, base, {"images": SAMPLES, "accuracy_by_log_snr": accuracy}), fitted)
    draft = load_adp(fitted)
    moves, records = {}, {}
    for attribute in MOVED:
        trial = lambda move, a=attribute: trial_hits(net, draft, a, move, labeller, conditional)  # noqa: E731
        moves[attribute], records[attribute] = calibrate(
            draft.moves[attribute], trial, progress=lambda text, a=attribute: print(f"{a}: {text}", flush=True)
        )
        records[attribute]["fitted_lengths"] = natural_lengths(draft.moves[attribute])
    info = {
        **draft.info,
        "accuracy_mid": {a: accuracy_at(draft.info["accuracy_by_log_snr"][a], 0.0) for a in ATTRIBUTES},
        "calibration": records,
        "labels": "soft labels of portraits_labeller on the model's own samples",
        "licence": "GPL-3.0",
    }
    file = AdpFile(draft.predictor, moves, base, info)
    save_adp(file, out)
    write_text(folder / "log.json", json.dumps(info, indent=1))
    return file


def trial_hits(net: AdmUNet, draft: AdpFile, attribute: str, move: Move, labeller: AttributeClassifier, conditional: bool) -> Tensor:
    """Share of trial images that the labeller reads as assigned, per class, under a uniform target."""
    classes = ATTRIBUTES[attribute]
    target = make_target({attribute: dict.fromkeys(classes, 1 / len(classes))})
    adp = AdpFile(draft.predictor, {**draft.moves, attribute: move}, draft.base_model)

    def make_run(number: int, first_seed: int) -> GuidanceRun:
        return GuidanceRun(adp, GuidanceSettings(target, seed=first_seed))

    read, cells = [], []
    professions = range(len(ATTRIBUTES["profession"])) if conditional else [None]
    per = TRIAL_IMAGES // len(professions)
    for i, profession in enumerate(professions):
        seeds = list(range(TRIAL_SEED + i * per, TRIAL_SEED + (i + 1) * per))
        made = sample(net, seeds, batch=16, make_run=make_run, profession=profession)
        read.append(labeller.probabilities(made.images)[attribute].argmax(-1))
        cells.append(made.cells)
    read, cells = torch.cat(read), torch.cat(cells)
    return torch.stack([(read[cells == k] == k).float().mean() for k in range(len(classes))])


def accuracy_at(rows: list[list[float]], level: float) -> float:
    """Accuracy at the knot nearest to a log-SNR."""
    return min(rows, key=lambda r: abs(r[0] - level))[1]
