"""Make the shipped ADPs: record samples, label them, train, fit the moves, calibrate them. A finished stage is not repeated."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..cli.learn import SITE as LEARNED_SITE
from ..cli.learn import shipped_diffusion
from ..cli.sampling import RecordedSite, recorded_as, sample
from ..methods.adp.train import train_predictor
from ..methods.core.targets import make_target
from ..methods.core.trainer import Progress
from ..methods.core.trials import TrialResult, composition, composition_drift
from ..methods.data.feature_set import INDEX, FeatureSetWriter, read_index
from ..methods.guidance.calibration import Trial, calibrate, calibrate_direction
from ..methods.guidance.directions import KINDS, direction_move
from ..methods.guidance.fit_moves import FitImages, FitSettings, SitePredictor, fit_moves, natural_lengths
from ..methods.guidance.run import GuidanceRun, GuidanceSettings
from ..models.adm_unet import AdmUNet
from ..models.adp import AdpFile, Move, load_adp, save_adp
from ..models.attribute_classifier import AttributeClassifier
from ..models.files import read_safetensors, write_safetensors, write_text
from ..models.sites import MIDDLE
from ..shipped import weights
from .portraits import ATTRIBUTES

SAMPLES = 2048
FIRST_SEED, TRIAL_SEED = 50_000_000, 60_000_000
TRIAL_IMAGES, COMPARED_IMAGES = 192, 48
"""Images of a trial of the learned moves, and of the many trials that compare directions."""
DIRECTION_IMAGES = 512
SITE = (LEARNED_SITE, 96)
"""Site of the learned moves, and its channels."""
SITES = (MIDDLE, "output.1")
"""Where directions read off features are tried."""
MOVED = ("eyeglasses", "hair", "skin_tone")


def record_portraits(net: AdmUNet, labeller: AttributeClassifier, folder: Path, base_model: str, progress: Progress) -> dict[str, Tensor]:
    """Record plain samples with features and labels.

    In parts of 64 images; a part that exists is not made again.
    """
    writer = None
    parts = []
    for start in range(0, SAMPLES, 64):
        part = folder / "parts" / f"{start:06d}.safetensors"
        if not part.is_file():
            # The conditional model is recorded one profession after the other.
            profession = (start // 64) % len(ATTRIBUTES["profession"]) if net.num_classes else None
            seeds = list(range(FIRST_SEED + start, FIRST_SEED + start + 64))
            made = sample(net, seeds, batch=64, profession=profession, record=RecordedSite())
            files = [f"{s}.png" for s in seeds]
            writer = writer or FeatureSetWriter(folder / "features", recorded_as(net, base_model))
            if len(writer.entries) <= start:
                writer.add(made.features, made.level, files, seeds, [""] * 64)
            labels = {f"p.{a}": p for a, p in labeller.probabilities(made.images).items()}
            y = torch.full((64,), -1 if profession is None else profession)
            write_safetensors(part, {"clean": made.latents, "y": y, **labels})
        parts.append(read_safetensors(part)[0])
        progress(start + 64, SAMPLES, {})
    return {k: torch.cat([p[k] for p in parts]) for k in parts[0]}


def make_adp(conditional: bool, folder: Path, out: Path, steps: int, progress: Progress) -> AdpFile:
    """Make the ADP of one of the portrait models in ``folder``.

    The unconditional or the profession-conditional model; writes ``out`` and ``log.json``.
    """
    net = weights.diffusion(weights.DIFFUSION_PROFESSIONS if conditional else weights.DIFFUSION)
    labeller = weights.classifier()
    base = "equipoise-portraits-conditional" if conditional else "equipoise-portraits"
    data = record_portraits(net, labeller, folder, base, progress)
    labels = {a: data[f"p.{a}"] for a in ATTRIBUTES}
    fitted = folder / "fitted.safetensors"
    if not fitted.is_file():
        assert (folder / "features" / INDEX).is_file() and len(read_index(folder / "features")) == SAMPLES
        predictor, accuracy = train_predictor(folder / "features", labels, ATTRIBUTES, progress=progress)
        y = data["y"] if conditional else None
        moves = fit_moves(
            shipped_diffusion(net, labeller),
            FitImages(data["clean"], labels, y),
            SitePredictor(predictor),
            dict.fromkeys(MOVED, SITE),
            FitSettings(steps=steps),
            progress,
        )
        save_adp(AdpFile(predictor, moves, base, {"images": SAMPLES, "accuracy_by_log_snr": accuracy}), fitted)
    draft = load_adp(fitted)
    info = {
        **draft.info,
        "accuracy_mid": {a: accuracy_at(draft.info["accuracy_by_log_snr"][a], 0.0) for a in ATTRIBUTES},
        "labels": "soft labels of portraits_labeller on the model's own samples",
        "licence": "GPL-3.0",
    }
    bench = TrialBench(net, draft, labeller, labels, data["y"] if conditional else None)
    file = replace(draft, moves={}, info=info)
    for stage in (calibrate_learned, compare_directions):
        for attribute in MOVED:
            finished = folder / f"{stage.__name__}-{attribute}.safetensors"
            if not finished.is_file():
                made, record = stage(bench, attribute, lambda text, a=attribute: print(f"{a}: {text}", flush=True))
                save_adp(AdpFile(draft.predictor, {}, base, record, {attribute: made}), finished)
            part = load_adp(finished)
            file = _merged(file, attribute, part.alternatives[attribute], {stage.__name__: part.info})
        save_adp(file, out)
        write_text(folder / "log.json", json.dumps(file.info, indent=1))
    return file


def _merged(file: AdpFile, attribute: str, moves: dict[str, Move], record: dict[str, Any]) -> AdpFile:
    """Return the file with calibrated moves of an attribute.

    The one that hits most is the default.
    """
    calibration = {**file.info.get("calibration", {})}
    calibration[attribute] = {**calibration.get(attribute, {}), **record}
    hits = {source: float(h) for r in calibration[attribute].values() for source, h in r["hits"].items()}
    sources = {source: m for source, m in {**file.sources().get(attribute, {}), **moves}.items() if source in hits}
    best = max(sources, key=hits.get)
    return replace(
        file,
        moves={**file.moves, attribute: sources.pop(best)},
        alternatives={**file.alternatives, attribute: sources},
        info={**file.info, "calibration": calibration},
    )


class TrialBench:
    """Samples under a uniform target and sees what became of it.

    ``labels``: of the plain samples, attribute -> [N, K]; ``y``: their professions where the model is told them.
    """

    def __init__(
        self, net: AdmUNet, draft: AdpFile, labeller: AttributeClassifier, labels: dict[str, Tensor], y: Tensor | None
    ) -> None:
        self.net, self.draft, self.labeller, self.y = net, draft, labeller, y
        self.professions = [None] if y is None else list(range(len(ATTRIBUTES["profession"])))
        # What a prompt decides cannot drift.
        self.classes = {a: len(c) for a, c in ATTRIBUTES.items() if y is None or a != "profession"}
        self.plain = {a: labels[a].argmax(-1) for a in self.classes}

    def trial(self, attribute: str, images: int) -> Trial:
        """Run a trial of one attribute's move with this number of images."""
        return lambda move: self._run(attribute, move, images)

    def _run(self, attribute: str, move: Move, images: int) -> TrialResult:
        classes = ATTRIBUTES[attribute]
        target = make_target({attribute: dict.fromkeys(classes, 1 / len(classes))})
        adp = AdpFile(self.draft.predictor, {attribute: move}, self.draft.base_model)
        read: list[dict[str, Tensor]] = []
        cells = []
        per = images // len(self.professions)
        for i, profession in enumerate(self.professions):
            seeds = list(range(TRIAL_SEED + i * per, TRIAL_SEED + (i + 1) * per))
            make_run = lambda number, first: GuidanceRun(adp, GuidanceSettings(target, seed=first))  # noqa: E731
            made = sample(self.net, seeds, batch=16, make_run=make_run, profession=profession)
            read.append({a: p.argmax(-1) for a, p in self.labeller.probabilities(made.images).items()})
            cells.append(made.cells)
        seen = {a: torch.cat([r[a] for r in read]) for a in self.classes}
        assigned = torch.cat(cells)
        hits = torch.stack([(seen[attribute][assigned == k] == k).float().mean() for k in range(len(classes))])
        reference = composition(self.plain, attribute, self.classes, self._weights(attribute))
        return TrialResult(hits, composition_drift(composition(seen, attribute, self.classes), reference))

    def _weights(self, attribute: str) -> Tensor | None:
        """Weight the plain samples so that professions are even within every class.

        In a trial they are even too.
        """
        if self.y is None:
            return None
        count = torch.zeros(len(ATTRIBUTES[attribute]), len(self.professions))
        count.index_put_((self.plain[attribute], self.y), torch.ones(len(self.y)), accumulate=True)
        return 1 / count[self.plain[attribute], self.y]


def calibrate_learned(bench: TrialBench, attribute: str, say: Callable[[str], None]) -> tuple[dict[str, Move], dict[str, Any]]:
    """Find the gains and the assignment of the fitted move.

    Returns source -> move, and all trials.
    """
    draft = bench.draft.moves[attribute]
    move, record = calibrate(draft, bench.trial(attribute, TRIAL_IMAGES), say=say)
    hits = record[record["assign"]]["final"][: len(ATTRIBUTES[attribute])]
    return {move.source: move}, {**record, "hits": {move.source: sum(hits) / len(hits)}, "fitted_lengths": natural_lengths(draft)}


def compare_directions(bench: TrialBench, attribute: str, say: Callable[[str], None]) -> tuple[dict[str, Move], dict[str, Any]]:
    """Try directions read off features, at every site and size.

    Returns source -> the move at its better site, and all trials.

    Features are those of the first plain samples, made again from their seeds.
    """
    best: dict[str, Move] = {}
    record: dict[str, Any] = {"hits": {}}
    trial = bench.trial(attribute, COMPARED_IMAGES)
    for site in SITES:
        parts = []
        for start in range(0, DIRECTION_IMAGES, 64):
            seeds = list(range(FIRST_SEED + start, FIRST_SEED + start + 64))
            profession = bench.professions[(start // 64) % len(bench.professions)]
            made = sample(bench.net, seeds, batch=64, profession=profession, record=RecordedSite(site))
            parts.append(made.features[:, ::2])
        features = torch.cat(parts)
        n, levels = features.shape[:2]
        level, labels = made.level[::2].repeat(n), bench.plain[attribute][:n].repeat_interleave(levels)
        for kind in KINDS:
            move = direction_move(kind, features.flatten(0, 1), level, labels, len(ATTRIBUTES[attribute]), site=site)
            calibrated, result, tried = calibrate_direction(move, trial, say)
            record[f"{kind} at {site}"] = {"trials": tried, "final": result.to_list()}
            hits = float(result.hits.mean())
            if hits > record["hits"].get(kind, -1.0):
                record["hits"][kind], best[kind] = hits, calibrated
    return best, record


def accuracy_at(rows: list[list[float]], level: float) -> float:
    """Return the accuracy at the knot nearest to a log-SNR."""
    return min(rows, key=lambda r: abs(r[0] - level))[1]
