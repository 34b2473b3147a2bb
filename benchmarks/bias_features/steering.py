"""``bench steering``: measure steering with quotas, the paper's rule and distribution guidance.

Each part is stored in the folder and not repeated:

- rows of 1,024 images in batches of 16 for one target, on the unconditional model and on the small text model at cfg 4. All rows have the
  same seeds, and plain images are one of them;
- the paper's rule as published: one class per batch, drawn uniformly, fixed factors, two U-Net passes;
- a sweep of strengths over the same 256 images.

The judge's hard counts give the figures.
"""

from __future__ import annotations

import hashlib
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...charts.core.curves import share_by_strength
from ...factory.host_process import boot_host
from ...factory.portraits import ATTRIBUTES
from ...methods.bias_features.run import SCALE, SteerSettings, everyone
from ...methods.core.target_text import parse_target
from ...methods.guidance.run import GuidanceSettings
from ...metrics.fairness import assigned_hit_rate, joint_probabilities, measure
from ...models.bias_features import load_bias_features
from ...models.digests import tensors_digest
from ...models.files import read_safetensors, write_safetensors
from ...models.sae import load_sae
from ...shipped import weights
from ..core.stages import load_or_make
from ..guidance.targets import add_quality

SEED, SWEEP_SEED = 870_000_000, 872_000_000
"""First seeds of rows and of sweeps; each batch adds 1. Training, calibration and tuning used other seeds."""
BATCH, STEPS, SCHEDULER = 16, 20, "normal"
TARGETS = {"eyeglasses": "eyeglasses: yes=0.5, no=0.5", "hair": "hair: long=0.5, short=0.5", "skin_tone": "skin_tone: uniform"}
STRENGTHS = tuple(round(-1 + 0.2 * i, 1) for i in range(11))
FACTORS, FEATURES = (3.0, 10.0), 30
"""The paper's rule multiplies 30 features of a class by one of these factors. The paper's largest shipped factor for faces is 3."""
OURS, PAPER, GUIDED, PLAIN = "ours", "paper", "guidance", "plain"


@dataclass(frozen=True)
class SteeringRow:
    """Images of one method for one target."""

    bed: str
    """Model: "unconditional" or "text"."""
    how: str
    """Method: ours, paper, guidance or plain."""
    attribute: str = ""
    """Attribute of the target, "" for plain images."""
    images: int = 1024
    """Number of images."""
    factor: float = 1.0
    """Factor of the paper's rule."""

    @property
    def name(self) -> str:
        """Return the row's name for files."""
        factor = f"-{self.factor:g}" if self.how == PAPER else ""
        return "-".join(x for x in (self.bed, self.how, self.attribute) if x) + factor


class SteeringBench:
    """Hold models and ComfyUI, loaded once."""

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        boot_host()
        torch.set_num_threads(1)
        from ...factory.make_steering import text_bed, unconditional_bed
        from ...host.small_models.pixel_vae import PixelVae

        self.folder, self.vae = folder, PixelVae(2)
        self.judge = weights.classifier(weights.JUDGE)
        self._makers = {"unconditional": unconditional_bed, "text": text_bed}
        self.files = {
            "unconditional": (weights.SAE, weights.BIAS_FEATURES, weights.ADP),
            "text": (weights.SAE_TEXT, weights.BIAS_FEATURES_TEXT, weights.ADP_TEXT),
        }
        self._beds: dict[str, Any] = {}

    def bed(self, name: str) -> tuple[Any, Any, Any, Any]:
        """Return a model with its conditionings, autoencoder, bias features and ADP."""
        if name not in self._beds:
            sae, bias, adp = self.files[name]
            self._beds[name] = self._makers[name](), load_sae(sae), load_bias_features(bias), weights.adp(adp)
        return self._beds[name]

    def facts(self, row: SteeringRow) -> dict[str, Any]:
        """Collect all facts that a row's figures depend on."""
        return {"row": asdict(row), "files": file_marks(row, *self.files[row.bed]), "seed": SEED}

    def model(self, row: SteeringRow, seed: int, keep: list[Any]) -> Any:
        """Return the MODEL of one batch; ``keep`` receives the run after it ends."""
        from ...host.bias_features.apply import apply_steering
        from ...host.guidance.apply import apply_guidance

        bed, sae, bias, adp = self.bed(row.bed)
        if row.how == PLAIN:
            return bed.model
        classes = bias.attribute(row.attribute).classes
        if row.how == GUIDED:
            target = parse_target(TARGETS[row.attribute], adp.attributes)
            return apply_guidance(bed.model, adp, GuidanceSettings(target, seed=seed), lambda run: keep.append(run.summary()))
        if row.how == OURS:
            settings = SteerSettings(parse_target(TARGETS[row.attribute], {row.attribute: classes}), seed=seed)
            return apply_steering(bed.model, sae, bias, settings, adp, on_finish=lambda run: keep.append(run.summary()))
        drawn = classes[random.Random(seed).randrange(len(classes))]
        settings = SteerSettings(everyone({row.attribute: classes}, row.attribute, drawn), seed=seed, mode=SCALE, amount=row.factor)
        return apply_steering(bed.model, sae, bias, replace(settings, features=FEATURES), asyrp=True)

    def sampled(self, row: SteeringRow) -> tuple[Tensor, Tensor | None, float]:
        """Sample a row; returns images, assigned cells and processor seconds per image.

        Images are [N, 3, 32, 32]; cells follow the class order of the portraits.
        """
        from ...host.core.sampling import SamplerSettings, ksample
        from ...host.small_models.adm_model import empty_latent

        bed, _, bias, _ = self.bed(row.bed)
        images, cells, started = [], [], time.process_time()
        for batch in range(row.images // BATCH):
            keep: list[Any] = []
            model = self.model(row, SEED + batch, keep)
            positive, negative, _ = bed.conditions.at(batch)
            sampler = SamplerSettings(SEED + batch, STEPS, bed.cfg, bed.sampler, SCHEDULER)
            out = ksample(model, sampler, positive, negative, empty_latent(model, 0, 0, BATCH))
            images.append(self.vae.decode(out["samples"]).movedim(-1, 1))
            if keep and keep[-1].cells is not None:
                cells.append(_reordered(keep[-1].cells, keep[-1].target.classes[0], ATTRIBUTES[row.attribute]))
        seconds = (time.process_time() - started) / row.images
        return torch.cat(images), torch.cat(cells) if cells else None, seconds

    @torch.inference_mode()
    def measure(self, row: SteeringRow) -> dict[str, Any]:
        """Sample a row, judge it, and store the data for its quality figures."""
        images, cells, seconds = self.sampled(row)
        read = self.judge.probabilities(images)
        features = self.judge.embed(images)
        hard = {a: p.argmax(-1) for a, p in read.items()}
        seen = {"features": features.half(), **{f"hard.{a}": h for a, h in hard.items()}}
        write_safetensors(self.folder / f"{row.name}.safetensors", seen)
        figures: dict[str, Any] = {
            "n": len(images),
            "seconds_per_image": seconds,
            "unsure": {a: float((p.amax(-1) < 0.8).float().mean()) for a, p in read.items()},
            "counts": {a: torch.bincount(h, minlength=len(ATTRIBUTES[a])).tolist() for a, h in hard.items()},
        }
        if row.attribute:
            target = parse_target(TARGETS[row.attribute], self.judge.attributes)
            joint = joint_probabilities({row.attribute: read[row.attribute]})
            report = measure(joint, target.names, target.shares, batch=BATCH)
            figures |= {k: getattr(report, k) for k in ("fd", "fd_low", "fd_high", "noise_floor")}
            figures["target"] = str(target)
            if cells is not None:
                figures["hit"] = assigned_hit_rate(joint, cells)
        return figures

    @torch.inference_mode()
    def sweep(self, bed: str, attribute: str, images: int) -> dict[str, Any]:
        """Steer all images towards the first class at every strength, and count all classes."""
        from ...host.bias_features.apply import apply_steering
        from ...host.core.sampling import SamplerSettings, ksample
        from ...host.small_models.adm_model import empty_latent

        b, sae, bias, adp = self.bed(bed)
        classes = bias.attribute(attribute).classes
        target = everyone({attribute: classes}, attribute, classes[0])
        counts: dict[float, dict[str, list[float]]] = {}
        for strength in STRENGTHS:
            model = apply_steering(b.model, sae, bias, SteerSettings(target, strength=strength), adp)
            parts = []
            for batch in range(images // BATCH):
                positive, negative, _ = b.conditions.at(batch)
                sampler = SamplerSettings(SWEEP_SEED + batch, STEPS, b.cfg, b.sampler, SCHEDULER)
                out = ksample(model, sampler, positive, negative, empty_latent(model, 0, 0, BATCH))
                parts.append(self.judge.probabilities(self.vae.decode(out["samples"]).movedim(-1, 1)))
            hard = {a: torch.cat([p[a] for p in parts]).argmax(-1) for a in parts[0]}
            counts[strength] = {a: (torch.bincount(h, minlength=len(ATTRIBUTES[a])) / len(h)).tolist() for a, h in hard.items()}
        of = ATTRIBUTES[attribute].index(classes[0])
        control = [[s, counts[s][attribute][of]] for s in STRENGTHS]
        return {"class": classes[0], "n": images, "control": control, "shares": {f"{s:g}": c for s, c in counts.items()}}


def file_marks(row: SteeringRow, sae: Path, bias: Path, adp: Path) -> list[str]:
    """List digests that change if a row's images would change.

    Plain images depend on no file here, guided images on the ADP, the paper's rule on the ranking of features, and ours on the steered
    features and their profiles. Other contents of the files do not matter.
    """
    if row.how == PLAIN:
        return []
    if row.how == GUIDED:
        return [hashlib.sha256(adp.read_bytes()).hexdigest()[:16]]
    tensors = {}
    for a, ranked in load_bias_features(bias).attributes.items():
        tensors[f"{a}.features"] = ranked.features
        if row.how == PAPER:
            tensors[f"{a}.scores"] = ranked.scores
            continue
        p = ranked.profile()
        tensors |= {f"{a}.knots": p.knots, f"{a}.delta": p.delta, f"{a}.sizes": p.sizes}
        if p.doubt != 1:
            tensors[f"{a}.doubt"] = torch.tensor(p.doubt)
    return [load_sae(sae).digest, tensors_digest(tensors)]


def _reordered(cells: Tensor, source: tuple[str, ...], wanted: tuple[str, ...]) -> Tensor:
    """Translate class indices to another order of the classes."""
    return torch.tensor([wanted.index(c) for c in source])[cells]


def monotone(control: list[list[float]], slack: float = 0.01) -> bool:
    """Check that shares never fall by more than a point as strength grows."""
    shares = [share for _, share in control]
    return all(b >= a - slack for a, b in zip(shares, shares[1:], strict=False))


def steering_rows(quick: bool) -> Iterator[SteeringRow]:
    """List all rows.

    The paper's rule runs for eyeglasses with both factors. For other attributes it moves little, so the first factor and a quarter of the
    images are enough. Distribution guidance runs on the unconditional model.
    """
    n = 256 if quick else 1024
    for bed in ("unconditional",) if quick else ("unconditional", "text"):
        yield SteeringRow(bed, PLAIN, images=n)
        for attribute in ("eyeglasses",) if quick else TARGETS:
            yield SteeringRow(bed, OURS, attribute, n)
            if bed == "unconditional" and not quick:
                yield SteeringRow(bed, GUIDED, attribute, n)
        for factor in FACTORS:
            yield SteeringRow(bed, PAPER, "eyeglasses", n, factor)
        for attribute in () if quick else ("hair", "skin_tone"):
            yield SteeringRow(bed, PAPER, attribute, n // 4, FACTORS[0])


def compare_with_plain(folder: Path, row: SteeringRow, plain: SteeringRow) -> dict[str, Any]:
    """Compare a row with plain images of the same seeds.

    ``drift``: largest change of a class's share in the other attributes. ``similarity``: mean cosine of the judge's features, which include
    those of the steered attribute.
    """
    a, b = (read_safetensors(folder / f"{r.name}.safetensors")[0] for r in (row, plain))
    b = {k: v[: row.images] for k, v in b.items()}  # the plain images of the same seeds, if the row has fewer
    moved = {}
    for other in ATTRIBUTES:
        if other != row.attribute:
            k = len(ATTRIBUTES[other])
            now, before = (torch.bincount(x[f"hard.{other}"], minlength=k) / len(x[f"hard.{other}"]) for x in (a, b))
            moved[other] = float((now - before).abs().max())
    alike = torch.nn.functional.cosine_similarity(a["features"].float(), b["features"].float(), dim=-1)
    return {"moved": moved, "drift": max(moved.values()), "similarity": float(alike.mean())}


def add_frechet(folder: Path, figures: dict[str, dict[str, Any]], made: list[SteeringRow]) -> None:
    """Add the Frechet distances of ``bench targets`` to the figures, in place."""
    table: dict[str, dict[str, Any]] = {}
    for row in made:
        stored, _ = read_safetensors(folder / f"{row.name}.safetensors")
        read = {a: stored[f"hard.{a}"].numpy() for a in ATTRIBUTES}
        judged = {k: figures[row.name][k] for k in ("target", "unsure") if k in figures[row.name]}
        name = "plain" if row.how == PLAIN else row.name
        table[name] = {**judged, "profession": None, "features": stored["features"].numpy().astype(np.float64), "read": read}
    add_quality(table)
    for row in made:
        if row.how != PLAIN:
            quality = table[row.name]
            figures[row.name] |= {k: quality[k] for k in ("frechet_by_class", "frechet_to_target", "unsure_above_plain")}
            figures[row.name]["frechet"] = quality["frechet_to_target"]["guided"]


def run(quick: bool, folder: Path | None = None) -> dict[str, Any]:
    """Run all parts. ``folder``: where parts are stored (default: a temporary folder)."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="equipoise-bench-steering-") as temporary:
            return run(quick, Path(temporary))
    folder = folder / ("quick" if quick else "full")
    folder.mkdir(parents=True, exist_ok=True)
    for path in (weights.SAE, weights.BIAS_FEATURES):
        if not path.is_file():
            raise ValueError(f"'{path.name}' is missing in this copy. Make it with 'train-portraits steering --ship'.")
    bench = SteeringBench(folder)
    beds = [bed for bed, files in bench.files.items() if files[1].is_file()]
    made = [r for r in steering_rows(quick) if r.bed in beds]
    figures = {}
    for row in made:
        facts = bench.facts(row)
        if not (folder / f"{row.name}.safetensors").is_file():
            (folder / f"{row.name}.json").unlink(missing_ok=True)
        figures[row.name] = load_or_make(folder, row.name, facts, lambda r=row: bench.measure(r))
    for bed in beds:
        mine = [r for r in made if r.bed == bed]
        add_frechet(folder, figures, mine)
        for row in mine[1:]:
            figures[row.name] |= compare_with_plain(folder, row, mine[0])
    sweeps = {}
    for bed, attribute in [("unconditional", "eyeglasses")] + ([] if quick else [("unconditional", "hair")]):
        n = 64 if quick else 256
        facts = bench.facts(SteeringRow(bed, OURS, attribute, n)) | {"seed": SWEEP_SEED}
        sweeps[attribute] = load_or_make(folder, f"sweep-{bed}-{attribute}", facts, lambda b=bed, a=attribute, m=n: bench.sweep(b, a, m))
    draw_control(sweeps, folder / "control.png")
    return steering_result(figures, sweeps, made)


def draw_control(sweeps: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw the sweeps as a chart."""
    curves = {f"{a}: {s['class']}": [(x, y) for x, y in s["control"]] for a, s in sweeps.items()}
    title = f"All of {min(s['n'] for s in sweeps.values())} images steered to one class, by the judge"
    Image.fromarray(share_by_strength(curves, title)).save(path)


def steering_result(figures: dict[str, dict[str, Any]], sweeps: dict[str, dict[str, Any]], made: list[SteeringRow]) -> dict[str, Any]:
    """Build the JSON object: the contract's keys and all figures behind them.

    The contract's keys are those of eyeglasses; the paper's rule counts at its better factor.
    """

    def pair(bed: str) -> dict[str, Any]:
        ours = figures.get(SteeringRow(bed, OURS, "eyeglasses").name)
        papers = [figures[r.name] for r in made if r.bed == bed and r.how == PAPER and r.attribute == "eyeglasses"]
        keys = ("fd", "frechet", "drift", "seconds_per_image")
        best = min(papers, key=lambda f: f["fd"], default=None)
        return {n: None if f is None else {k: f[k] for k in keys} for n, f in (("ours", ours), ("paper", best))}

    control = sweeps["eyeglasses"]["control"]
    notes = {
        "paper": f"one class per batch, drawn uniformly: its {FEATURES} best features multiplied by {FACTORS} everywhere; Asyrp's two "
        "passes; the better factor counts",
        "drift": "largest change of a class's share in another attribute, from plain images of the same seeds",
        "seconds_per_image": "processor time",
    }
    if not any(r.bed == "text" for r in made):
        notes["text_model"] = "null: not measured in this run"
    text = pair("text") if any(r.bed == "text" for r in made) else None
    return {
        **pair("unconditional"),
        "control": control,
        "control_monotone": monotone(control),
        "text_model": text,
        "rows": figures,
        "sweeps": sweeps,
        "seeds": [SEED, SWEEP_SEED],
        "notes": notes,
    }
