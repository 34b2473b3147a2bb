"""``bench prompts``: measure guidance with prompts, a negative prompt and CFG.

It uses the small text model through the host's own nodes: four professions at cfg 4, one of them at cfg 1 and 7.5 with neutral prompts,
skin tones, explicit prompts that are exempt from guidance, and every kind of direction on one profession. Plain images have the same
seeds. The judge's hard counts give the figures.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import torch
from torch import Tensor

from ...factory.host_process import boot_host
from ...factory.portraits import ATTRIBUTES
from ...methods.core.target_text import parse_target
from ...methods.guidance.moves import CALIBRATED
from ...methods.guidance.run import GuidanceSettings
from ...metrics.fairness import assigned_hit_rate, joint_probabilities, measure
from ...shipped import weights
from .targets import classifier_agreement

SEEDS = (862_000_000, 862_001_000)
"""First seeds of the two groups of a row. Training, calibration and tuning used other seeds."""
STEPS, SAMPLER, SCHEDULER, BATCH = 20, "euler", "normal", 16
NEGATIVE = "a drawing"
GLASSES, SKIN = "eyeglasses: yes=0.5, no=0.5", "skin_tone: uniform"
PROFESSIONS = ATTRIBUTES["profession"]
TABLE = "doctor"
"""Profession that is measured at cfg 1 and 7.5 and with every kind of direction."""


@dataclass(frozen=True)
class PromptRow:
    """One row of the table."""

    name: str
    """Name of the row."""
    profession: str
    """Profession in the prompt."""
    target: str | None = None
    """Target as text, None for plain images."""
    cfg: float = 4.0
    """Scale of classifier-free guidance."""
    direction: str = CALIBRATED
    """Kind of direction."""
    explicit: str = ""
    """Words added to the prompt."""
    exempt: bool = False
    """Whether Exempt From Guidance tags the prompt."""
    images: int = 128
    """Images per group of seeds."""


def prompt_rows(kinds: list[str]) -> list[PromptRow]:
    """List all rows. ``kinds``: directions of eyeglasses in the ADP file."""
    made = [PromptRow(f"plain {p}", p) for p in PROFESSIONS]
    made += [PromptRow(f"{p}, eyeglasses 0.5", p, GLASSES) for p in PROFESSIONS]
    made += [PromptRow(f"{p}, skin tone uniform", p, SKIN, images=64) for p in PROFESSIONS]
    for cfg in (1.0, 7.5):
        made += [PromptRow(f"plain {TABLE}, cfg {cfg:g}", TABLE, cfg=cfg)]
        made += [PromptRow(f"{TABLE}, eyeglasses 0.5, cfg {cfg:g}", TABLE, GLASSES, cfg)]
    made += [PromptRow(f"{TABLE}, eyeglasses 0.5, {kind}", TABLE, GLASSES, direction=kind) for kind in kinds]
    for class_name, phrase in (("yes", "with eyeglasses"), ("no", "without eyeglasses")):
        for exempt in (False, True):
            target = GLASSES if exempt else None
            name = f"{TABLE} {phrase}" + (", guided model, exempt" if exempt else ", plain")
            made.append(PromptRow(name, TABLE, target, explicit=phrase, exempt=exempt, images=32))
        name = f"{TABLE} {phrase}, guided model, {class_name} asked for, not exempt"
        made.append(PromptRow(name, TABLE, GLASSES, explicit=phrase, images=32))
    return made


class PromptBench:
    """Hold model and ComfyUI, loaded once per process."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        boot_host()
        torch.set_num_threads(1)
        from ...host.small_models.pixel_vae import PixelVae
        from ...host.small_models.text_model import load_text_model

        self.model, self.clip = load_text_model(weights.TEXT)
        self.adp, self.vae = weights.adp(weights.ADP_TEXT), PixelVae(2)
        self.judge, self.labeller = weights.classifier(weights.JUDGE), weights.classifier()

    def encode(self, text: str) -> Any:
        """Encode a prompt as CLIP Text Encode does."""
        return self.clip.encode_from_tokens_scheduled(self.clip.tokenize(text))

    def images(self, row: PromptRow, seeds: range) -> tuple[Tensor, Tensor | None]:
        """Sample images [N, 3, 32, 32], a run per seed, and return their assigned cells."""
        from ...host.core.sampling import SamplerSettings, ksample
        from ...host.guidance.apply import apply_guidance
        from ...host.small_models.adm_model import empty_latent
        from ...nodes.guidance.exempt_from_guidance import ExemptFromGuidance

        prompt = f"a photo of a {row.profession} {row.explicit}".strip()
        positive, negative = self.encode(prompt), self.encode(NEGATIVE)
        if row.exempt:
            positive = ExemptFromGuidance.execute(positive).result[0]
        images: list[Tensor] = []
        cells: list[Tensor] = []
        for seed in seeds:
            model = self.model
            if row.target:
                target = parse_target(row.target, self.adp.attributes)
                settings = GuidanceSettings(target, seed=seed, direction=row.direction)
                model = apply_guidance(model, self.adp, settings, lambda run: cells.append(run.cells))
            sampler = SamplerSettings(seed, STEPS, row.cfg, SAMPLER, SCHEDULER)
            out = ksample(model, sampler, positive, negative, empty_latent(model, 0, 0, BATCH))
            images.append(self.vae.decode(out["samples"]).movedim(-1, 1))
        assigned = torch.cat(cells) if cells and cells[0] is not None else None
        return torch.cat(images), assigned

    @torch.inference_mode()
    def measure(self, row: PromptRow) -> dict[str, Any]:
        """Sample a row and judge it."""
        groups = [self.images(row, range(first, first + max(1, row.images // BATCH))) for first in SEEDS]
        images = torch.cat([g[0] for g in groups])
        read, labelled = self.judge.probabilities(images), self.labeller.probabilities(images)
        wanted = PROFESSIONS.index(row.profession)
        figures: dict[str, Any] = {
            "n": len(images),
            "profession": row.profession,
            "cfg": row.cfg,
            "direction": row.direction,
            "prompt_agreement": float((read["profession"].argmax(-1) == wanted).float().mean()),
            "unsure": {a: float((p.amax(-1) < 0.8).float().mean()) for a, p in read.items()},
            "counts": {a: torch.bincount(p.argmax(-1), minlength=p.shape[1]).tolist() for a, p in read.items()},
            "judges": {a: classifier_agreement(read[a], labelled[a]) for a in read},
        }
        if row.target and not row.exempt:
            target = parse_target(row.target, self.judge.attributes)
            report = measure(joint_probabilities({a: read[a] for a in target.attributes}), target.names, target.shares, batch=BATCH)
            figures |= {k: getattr(report, k) for k in ("fd", "fd_low", "fd_high", "noise_floor")}
            if groups[0][1] is not None:
                cells = torch.cat([g[1] for g in groups])
                figures["hit"] = assigned_hit_rate(joint_probabilities({a: read[a] for a in target.attributes}), cells)
        return figures


_bench: PromptBench | None = None


def _measure(row: PromptRow) -> dict[str, Any]:
    global _bench  # one per worker process: loading the host takes seconds
    _bench = _bench or PromptBench()
    return _bench.measure(row)


def pooled(result: dict[str, dict[str, Any]], suffix: str, attribute: str, target: str) -> dict[str, Any]:
    """Measure FD over the four professions together, and the lowest agreement with the prompt.

    The agreement is relative to plain images.
    """
    mine = [result[f"{p}, {suffix}"] for p in PROFESSIONS if f"{p}, {suffix}" in result]
    shares = parse_target(target, {attribute: ATTRIBUTES[attribute]}).shares
    counts = torch.tensor([m["counts"][attribute] for m in mine]).sum(0).double()
    one_hot = torch.eye(len(counts), dtype=torch.float64).repeat_interleave(counts.long(), dim=0)
    report = measure(one_hot, ATTRIBUTES[attribute], shares)
    plain = [result[f"plain {m['profession']}"]["prompt_agreement"] for m in mine]
    return {
        "n": int(counts.sum()),
        "fd": report.fd,
        "noise_floor": report.noise_floor,
        "counts": counts.long().tolist(),
        "prompt_agreement_above_plain": min(m["prompt_agreement"] - p for m, p in zip(mine, plain, strict=True)),
    }


def run(quick: bool) -> dict[str, Any]:
    """Run all rows. ``quick``: 32 images each of one profession, indicative."""
    if not weights.TEXT.is_file() or not weights.ADP_TEXT.is_file():
        raise ValueError("The small text model or its ADP is missing. Make them with 'train-portraits text' and 'adp-text'.")
    adp = weights.adp(weights.ADP_TEXT)
    todo = prompt_rows(list(adp.sources()["eyeglasses"]))
    if quick:
        todo = [PromptRow(**{**r.__dict__, "images": 16}) for r in todo if r.profession == TABLE]
    workers = min(os.cpu_count() or 1, len(todo))
    with ProcessPoolExecutor(workers, mp_context=get_context("fork" if os.name == "posix" else "spawn")) as pool:
        result = dict(zip((r.name for r in todo), pool.map(_measure, todo), strict=True))
    totals = {}
    if not quick:
        totals["eyeglasses 0.5"] = pooled(result, "eyeglasses 0.5", "eyeglasses", GLASSES)
        totals["skin tone uniform"] = pooled(result, "skin tone uniform", "skin_tone", SKIN)
    return {
        "rows": result,
        "pooled": totals,
        "seeds": list(SEEDS),
        "sampler": SAMPLER,
        "scheduler": SCHEDULER,
        "steps": STEPS,
        "negative": NEGATIVE,
    }
