"""``bench targets``: measure whether batches follow the target, through the host's KSampler.

Every target gets 1,024 images in batches of 16 (four seeds of 256). Other rows: the paper's chi-square loss at its best scale, batch 1,
repair, and the quality of guided images: Frechet distances in the judge's features, and the share of images of which the judge is unsure.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...factory.host_process import boot_host
from ...factory.portraits import ATTRIBUTES, portraits
from ...methods.core.target_text import parse_target
from ...methods.guidance.run import QUOTA, GuidanceSettings
from ...metrics.fairness import assigned_hit_rate, joint_probabilities, measure, noise_floor
from ...metrics.frechet import frechet_distance
from ...shipped import weights

SEEDS = tuple(810_000_000 + 1_000 * i for i in range(4))
"""First seeds of the four groups. Training, calibration and tuning used other seeds."""
TUNING_SEED = 820_000_000
"""First seed of the samples that choose the chi-square scale, 128 for each scale."""
STEPS, SAMPLER, SCHEDULER = 20, "ddim", "normal"
SCALES = (1e-3, 1e-2, 1e-1, 3e-1, 1.0, 3.0)
DRAWN_SEED, DRAWN = 8_000_000, 6_000


@dataclass(frozen=True)
class TargetRow:
    """One row of the table."""

    name: str
    """Name of the row."""
    target: str | None
    """Target as text, None for plain images."""
    mode: str = QUOTA
    """Mode of guidance."""
    strength: float = 1.0
    """Strength of guidance."""
    batch: int = 16
    """Images per run."""
    repair: int = 0
    """Rounds of repair."""
    profession: int | None = None
    """Class label, None for the unconditional model."""
    images: int = 256
    """Images per group of seeds."""


def target_rows() -> list[TargetRow]:
    """List the targets of the test bed."""
    targets = {
        "eyeglasses 0.5": "eyeglasses: yes=0.5, no=0.5",
        "eyeglasses 0.8": "eyeglasses: yes=0.8, no=0.2",
        "eyeglasses 0.1": "eyeglasses: yes=0.1, no=0.9",
        "long hair 0.5": "hair: long=0.5, short=0.5",
        "skin tone uniform": "skin_tone: uniform",
        "eyeglasses x hair uniform": "eyeglasses x hair: uniform",
    }
    made = [TargetRow("plain", None)]
    made += [TargetRow(name, text) for name, text in targets.items()]
    for i, profession in enumerate(ATTRIBUTES["profession"]):
        made.append(TargetRow(f"{profession}, eyeglasses 0.5", targets["eyeglasses 0.5"], profession=i, images=64))
    made += [TargetRow(f"plain {p}", None, profession=i, images=64) for i, p in enumerate(ATTRIBUTES["profession"])]
    made += [TargetRow("eyeglasses 0.5, batch 1", targets["eyeglasses 0.5"], batch=1)]
    made += [TargetRow("eyeglasses 0.5, repair 2", targets["eyeglasses 0.5"], repair=2)]
    made += [TargetRow(f"{name}, chi-square", text, mode="chi-square") for name, text in targets.items()]
    return made


class TargetBench:
    """Hold models and ComfyUI, loaded once per process."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self.nodes = boot_host()
        from ...host.small_models.adm_info import conditioning
        from ...host.small_models.adm_model import info_of, load_adm
        from ...host.small_models.pixel_vae import PixelVae

        self.judge, self.labeller = weights.classifier(weights.JUDGE), weights.classifier()
        self.models, self.conds, self.adps = {}, {}, {}
        for conditional, model, adp in (
            (False, weights.DIFFUSION, weights.ADP),
            (True, weights.DIFFUSION_PROFESSIONS, weights.ADP_PROFESSIONS),
        ):
            if not model.is_file() or not adp.is_file():
                continue
            self.models[conditional] = load_adm(model)
            self.adps[conditional] = weights.adp(adp)
            info = info_of(self.models[conditional])
            self.conds[conditional] = lambda label, info=info: conditioning(info, label)
        self.vae = PixelVae(2)

    def images(self, row: TargetRow, seeds: range) -> tuple[Tensor, Tensor | None]:
        """Sample the images [N, 3, 32, 32] of a row, and return their assigned cells.

        Each batch is one sampler run with its own seed.
        """
        from ...host.core.sampling import SamplerSettings, ksample
        from ...host.guidance.sampling import GuidedSampling, guided_ksample
        from ...host.small_models.adm_model import empty_latent

        conditional = row.profession is not None
        model, adp = self.models[conditional], self.adps[conditional]
        cond = self.conds[conditional](row.profession)
        images, cells = [], []
        for seed in seeds:
            latent = empty_latent(model, 0, 0, row.batch)
            sampler = SamplerSettings(seed, STEPS, 1.0, SAMPLER, SCHEDULER)
            if row.target is None:
                out = ksample(model, sampler, cond, cond, latent)
            else:
                target = parse_target(row.target, adp.attributes)
                guidance = GuidanceSettings(target, mode=row.mode, strength=row.strength, seed=seed)
                settings = GuidedSampling(guidance, sampler, row.repair)
                classify = self.classify if row.repair else None
                out, outcome = guided_ksample(model, adp, settings, cond, cond, latent, classify)
                cells += outcome.cells or []
            images.append(self.vae.decode(out["samples"]).movedim(-1, 1))
        return torch.cat(images), torch.tensor(cells) if cells else None

    def classify(self, samples: Tensor) -> dict[str, Tensor]:
        """Read samples with the labeller."""
        return self.labeller.probabilities(self.vae.decode(samples).movedim(-1, 1))

    @torch.inference_mode()
    def measure(self, row: TargetRow) -> dict[str, Any]:
        """Sample a row and judge it."""
        groups = [self.images(row, range(first, first + row.images // row.batch)) for first in SEEDS]
        images = torch.cat([g[0] for g in groups])
        cells = torch.cat([g[1] for g in groups]) if groups[0][1] is not None else None
        read = self.judge.probabilities(images)
        figures: dict[str, Any] = {
            "n": len(images),
            "profession": row.profession,
            "batch": row.batch,
            "mode": row.mode,
            "strength": row.strength,
        }
        figures["unsure"] = {a: float((p.max(-1).values < 0.8).float().mean()) for a, p in read.items()}
        labelled = self.labeller.probabilities(images)
        figures["judges"] = {a: classifier_agreement(read[a], labelled[a]) for a in read}
        figures["counts"] = {a: torch.bincount(p.argmax(-1), minlength=p.shape[1]).tolist() for a, p in read.items()}
        if row.target is not None:
            target = parse_target(row.target, self.judge.attributes)
            joint = joint_probabilities({a: read[a] for a in target.attributes})
            report = measure(joint, target.names, target.shares, batch=row.batch)
            per_seed = [measure(part, target.names, target.shares, bootstrap=0).fd for part in np.split(joint, len(SEEDS))]
            figures |= {
                "target": str(target),
                "fd": report.fd,
                "fd_low": report.fd_low,
                "fd_high": report.fd_high,
                "noise_floor": report.noise_floor,
            }
            figures |= {"fd_soft": report.fd_soft, "fd_by_seed": per_seed, "noise_floor_by_seed": noise_floor(target.shares, row.images)}
            figures["shares"] = dict(zip(target.names, report.shares, strict=True))
            if cells is not None:
                figures["hit"] = assigned_hit_rate(joint, cells)
            by_labeller = joint_probabilities({a: labelled[a] for a in target.attributes})
            figures["fd_labeller"] = measure(by_labeller, target.names, target.shares, bootstrap=0).fd
        figures["features"] = self.judge.embed(images).half().numpy()
        figures["read"] = {a: p.argmax(-1).numpy() for a, p in read.items()}
        return figures

    @torch.inference_mode()
    def best_scale(self, row: TargetRow) -> float:
        """Choose the scale of a soft loss with the lowest FD on 128 tuning samples."""
        target = parse_target(row.target, self.judge.attributes)
        tried = {}
        for scale in SCALES:
            trial = TargetRow(row.name, row.target, row.mode, scale)
            images, _ = self.images(trial, range(TUNING_SEED, TUNING_SEED + 8))
            read = self.judge.probabilities(images)
            joint = joint_probabilities({a: read[a] for a in target.attributes})
            tried[scale] = measure(joint, target.names, target.shares, bootstrap=0).fd
        return min(tried, key=tried.get)


def classifier_agreement(first: Tensor, second: Tensor) -> dict[str, float]:
    """Compare two classifiers on the same images.

    ``agree``: share of images on which they agree; ``net``: largest net difference of a class's share.
    """
    a, b = first.argmax(-1), second.argmax(-1)
    k = first.shape[1]
    net = (torch.bincount(a, minlength=k) - torch.bincount(b, minlength=k)).abs().max().item() / len(a)
    return {"agree": (a == b).float().mean().item(), "net": net}


_bench: TargetBench | None = None


def _measure(row: TargetRow) -> dict[str, Any]:
    global _bench  # one per worker process: loading the host takes seconds
    _bench = _bench or TargetBench()
    if row.mode != QUOTA:
        row = TargetRow(row.name, row.target, row.mode, _bench.best_scale(row), row.batch, row.repair, row.profession, row.images)
    return _bench.measure(row)


def add_quality(result: dict[str, dict[str, Any]]) -> None:
    """Add Frechet distances to the figures, in place, for guided and plain images.

    Within each class (or cell of a joint target) the images are compared with drawn portraits of that class, always at the same n. This is
    done twice: with plain weights, and with drawn portraits weighted to the composition of the images (professions and whatever else goes
    along with a class), so that only the rendering differs. Over all classes the images are compared with drawn portraits whose guided
    attributes are weighted to the target.
    """
    judge = weights.classifier(weights.JUDGE)
    drawn = portraits(DRAWN, DRAWN_SEED)
    features = judge.embed(drawn.images).numpy().astype(np.float64)
    truth = {a: drawn.labels[a].numpy() for a in ATTRIBUTES}
    for name, figures in result.items():
        if "target" not in figures or name.endswith("chi-square"):
            continue
        profession = figures["profession"]
        plain = result["plain" if profession is None else f"plain {ATTRIBUTES['profession'][profession]}"]
        inside = np.ones(DRAWN, bool) if profession is None else truth["profession"] == profession
        target = parse_target(figures["target"], ATTRIBUTES)
        others = [a for a in ATTRIBUTES if a not in target.attributes]
        cell = joint_index(truth, target.attributes)
        by_class = {}
        for k, cell_name in enumerate(target.names):
            sides = []
            for f in (figures, plain):
                rows = joint_index(f["read"], target.attributes) == k
                sides.append((f["features"][rows].astype(np.float64), joint_index(f["read"], others)[rows]))
            n = min(len(x) for x, _ in sides)
            if n < 30:
                continue
            in_cell = inside & (cell == k)
            pair = [frechet_mean(x, features[in_cell], n) for x, _ in sides]
            drawn_others = joint_index(truth, others)[in_cell]
            same = [frechet_mean(x, features[in_cell], n, composition_weights(drawn_others, made)) for x, made in sides]
            by_class[cell_name] = {
                "n": n,
                "guided": pair[0],
                "plain": pair[1],
                "ratio": pair[0] / pair[1],
                "guided_same_composition": same[0],
                "plain_same_composition": same[1],
                "ratio_same_composition": same[0] / same[1],
            }
        shares = np.bincount(cell[inside], minlength=len(target.shares)) / inside.sum()
        weight = np.where(inside, np.asarray(target.shares)[cell] / np.maximum(shares[cell], 1e-9), 0.0)
        figures["frechet_by_class"] = by_class
        figures["frechet_to_target"] = {
            "guided": frechet_distance(figures["features"].astype(np.float64), features, weight),
            "plain": frechet_distance(plain["features"].astype(np.float64), features, weight),
        }
        figures["unsure_above_plain"] = {a: figures["unsure"][a] - plain["unsure"][a] for a in target.attributes}


def joint_index(classes: Mapping[str, np.ndarray], attributes: Sequence[str]) -> np.ndarray:
    """Number every image by its combination of classes, row-major: int [N]."""
    index = np.zeros(len(next(iter(classes.values()))), int)
    for attribute in attributes:
        index = index * len(ATTRIBUTES[attribute]) + classes[attribute]
    return index


def composition_weights(reference: np.ndarray, made: np.ndarray) -> np.ndarray:
    """Weight the reference so that its cells have the generated images' shares."""
    size = int(max(reference.max(), made.max())) + 1
    has, wanted = (np.bincount(x, minlength=size) / len(x) for x in (reference, made))
    return wanted[reference] / has[reference]


def frechet_mean(x: np.ndarray, reference: np.ndarray, n: int, weight: np.ndarray | None = None, repeats: int = 20) -> float:
    """Average the Frechet distance over random subsets of n images.

    Sets of different sizes can then be compared at the same n.
    """
    rng = np.random.default_rng(0)
    picks = [x] if len(x) == n else [x[rng.choice(len(x), n, replace=False)] for _ in range(repeats)]
    return float(np.mean([frechet_distance(p, reference, weight) for p in picks]))


def run(quick: bool) -> dict[str, Any]:
    """Run all rows. ``quick``: 256 images of each unconditional target, default mode, indicative."""
    todo = target_rows()
    if quick:
        unconditional = [r for r in todo if r.profession is None and r.mode == QUOTA and r.batch == 16 and not r.repair]
        todo = [TargetRow(r.name, r.target, images=64) for r in unconditional]
    workers = min(os.cpu_count() or 1, len(todo))
    with ProcessPoolExecutor(workers, mp_context=get_context("fork" if os.name == "posix" else "spawn")) as pool:
        result = dict(zip((r.name for r in todo), pool.map(_measure, todo), strict=True))
    add_quality(result)
    for figures in result.values():
        del figures["features"], figures["read"]
    return {"rows": result, "seeds": list(SEEDS), "sampler": SAMPLER, "scheduler": SCHEDULER, "steps": STEPS, "quick": quick}
