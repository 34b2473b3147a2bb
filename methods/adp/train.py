"""Train an Attribute Distribution Predictor from recorded features and soft pseudo-labels."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...models.adp import KINDS, AdpFile, AttributePredictor
from ...models.digests import tensors_digest
from ...models.files import DAMAGE, read_safetensors, write_safetensors
from ...models.noise_level import at_level
from ...models.sites import MIDDLE
from ..core.checkpoint import checkpoint_tensors, restore
from ..core.trainer import Progress, warmup_cosine
from ..data.feature_set import Entry, FeatureSet, iterate_shards, read_index
from ..guidance.edit_file import check_classes, in_order
from ..labels.labels import LabelSet, for_entries
from .extend import joined_predictor, without
from .figures import Figures, cross_entropy, figures, fit_temperature, trajectory, verdict
from .rows import buffers, checked_rows, chunks, filled, fit_statistics, shard_orders, split_images

FOLDER, KEPT = "training", 3
"""Checkpoints are kept in this folder of a feature set, the latest few."""
WARMUP, LEAST_STEPS = 50, 200
RAREST = 0.01
"""Label mass of a class below which its weight in the loss does not rise any further."""


def default_knots(low: float = -10.0, high: float = 9.0, count: int = 20) -> Tensor:
    """Evenly spaced log-SNR levels over what samplers visit (sigma 150 to 0.01)."""
    return torch.linspace(low, high, count)


@dataclass(frozen=True)
class AdpSettings:
    """How to train. ``class_balanced``: classes count alike in loss, temperature and calibration error, by the mass of their soft labels;
    probabilities are then those of a world in which the classes are equally frequent. ``patience``: epochs without a lower held-out loss
    after which training ends, with the best epoch's weights (0: every epoch, the last one's). ``noise``: standard deviation of the
    noise added to normalised features while training, which keeps a hidden layer from learning single images by heart.
    """

    kind: str = "mlp"
    epochs: int = 6
    batch: int = 256
    lr: float = 2e-3
    weight_decay: float = 0.02
    hidden: int = 96
    seed: int = 0
    class_balanced: bool = False
    patience: int = 0
    noise: float = 0.0


def recommended(kind: str, epochs: int, seed: int, rows: int) -> AdpSettings:
    """Settings for a user's set with this many rows: small sets get small batches, so that an epoch has steps enough.

    On 1,300 drawn portraits at 20 noise levels, noise of 1 brought the held-out loss of "mlp" from 1.57 to 1.36 (four attributes summed);
    "linear" did not need it, and with half the learning rate came to 1.36 as well. Raises ValueError for an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"an ADP is of kind {' or '.join(KINDS)}, not '{kind}'.")
    lr, noise = (1e-3, 1.0) if kind == "mlp" else (5e-4, 0.0)
    batch = min(256, max(16, rows // 100))
    return AdpSettings(kind, epochs, batch, lr, seed=seed, class_balanced=True, patience=3, noise=noise)


def train_adp(
    folder: Path,
    labels: Mapping[str, Tensor],
    attributes: Mapping[str, tuple[str, ...]],
    kind: str = "mlp",
    epochs: int = 6,
    batch: int = 256,
    lr: float = 2e-3,
    weight_decay: float = 0.02,
    hidden: int = 96,
    seed: int = 0,
    progress: Progress | None = None,
    class_balanced: bool = False,
    patience: int = 0,
    noise: float = 0.0,
) -> tuple[AttributePredictor, dict[str, list[list[float]]]]:
    """Train on a feature set in one go, with everything said; :func:`train_file` is for users.

    ``labels``: attribute -> class probabilities float32 [images, K], by image_id (one-hot where they are certain). Cross-entropy on soft
    labels (equal to the KL to them up to a constant), AdamW. Returns the predictor, calibrated on held-out images by a temperature per
    noise level, and held-out accuracy by log-SNR: attribute -> [[log_snr, accuracy], ...].
    """
    entries = read_index(folder)
    settings = AdpSettings(kind, epochs, batch, lr, weight_decay, hidden, seed, class_balanced, patience, noise)
    by_row = {a: labels[a][[e.image_id for e in entries]] for a in attributes}
    training = AdpTraining(folder, entries, by_row, attributes, settings, split_images(entries, seed))
    training.run(progress)
    return training.predictor, {a: f.accuracy for a, f in training.finish().items()}


def train_file(
    features: FeatureSet,
    labels: LabelSet,
    kind: str = "mlp",
    epochs: int = 12,
    seed: int = 0,
    extend: AdpFile | None = None,
    base_model: str | None = None,
    progress: Progress | None = None,
    device: torch.device | str = "cpu",
) -> AdpFile:
    """Train on all attributes of the labels; the file says how well each is read (:func:`.adp_figures.describe`).

    extend: a file whose other attributes are kept exactly as they are; what it reads and the labels have in common is replaced. Moves of
    attributes that it does not read stay, whether the labels have these attributes or not. base_model: name of the diffusion model, where
    the set does not say it. A checkpoint in the set's folder is written after every epoch, and gone on with.

    Raises ValueError, in one sentence, where labels do not fit the set, a class has no example, features are not finite, or the file to
    extend is of another model, width or kind, or has moves for other classes than the labels'.
    """
    entries = features.entries
    if len(entries) < 2:
        raise ValueError(f"the feature set '{features.name}' holds {len(entries) or 'no'} image(s): record at least two, better 1,000.")
    site = str(features.meta.get("site", MIDDLE))
    if extend is not None and extend.predictor is not None and extend.site != site:
        raise ValueError(
            f"'{features.name}' was recorded at '{site}', and the ADP to extend reads at '{extend.site}': record a set there, or train a "
            "new file."
        )
    table = for_entries(labels, entries)
    attributes = {a: labels.attributes[a] for a in table}
    _check_names(attributes)
    named = str(features.meta.get("base_model") or "") or base_model or (extend.base_model if extend else "")
    old = None if extend is None else _kept_of(extend, attributes, kind, named, features)
    settings = recommended(kind, epochs, seed, sum(e.rows for e in entries))
    sides = split_images(entries, seed, {a: p.argmax(-1) for a, p in table.items()})
    training = AdpTraining(features.folder, entries, table, attributes, settings, sides, device, old)
    training.checkpoint(features.folder / FOLDER, {"old": None if old is None else tensors_digest(old.state_dict())})
    training.run(progress)
    found = training.finish()
    info = _info(extend, attributes, found, training, features, labels)
    predictor = training.predictor if old is None else joined_predictor(old, training.predictor)
    if extend is None:
        return AdpFile(predictor, {}, named, info, site=site)
    kept = in_order(extend, {a: c for a, c in attributes.items() if a in extend.unread})
    moves = {a: m for a, m in kept.moves.items() if a not in attributes or a in extend.unread}
    others = {a: m for a, m in kept.alternatives.items() if a not in attributes or a in extend.unread}
    unread = {a: c for a, c in extend.unread.items() if a not in attributes}
    return AdpFile(predictor, moves, named, info, others, unread, site)


class AdpTraining:
    """One training, epoch by epoch.

    labels: attribute -> class probabilities [N, K], rows as in ``entries``. sides: training and held-out images. extend: a predictor whose
    levels, statistics and level embedding the new one takes over unchanged, so that the two can be joined.
    """

    def __init__(
        self,
        folder: Path,
        entries: Sequence[Entry],
        labels: Mapping[str, Tensor],
        attributes: Mapping[str, tuple[str, ...]],
        settings: AdpSettings,
        sides: tuple[list[Entry], list[Entry]],
        device: torch.device | str = "cpu",
        extend: AttributePredictor | None = None,
    ) -> None:
        self.folder, self.settings, self.attributes = Path(folder), settings, dict(attributes)
        self.entries, self.device, self._extend = entries, torch.device(device), extend
        self.train, self.held = sides
        self.history: list[list[float]] = []
        self.epoch = self.step = self.best_epoch = 0
        self.seconds = 0.0
        self.way: list[float] = []
        self._path: Path | None = None
        self._key, self._trunk = "", False
        self._started = time.monotonic()
        self._best: dict[str, Tensor] = {}
        with torch.inference_mode(False), torch.no_grad():
            self.labels = {a: labels[a].clone().float() for a in self.attributes}
            self._row = torch.zeros(1 + max(e.image_id for e in entries), dtype=torch.long)
            self._row[[e.image_id for e in entries]] = torch.arange(len(entries))
            chosen = self._row[[e.image_id for e in self.train]]
            self.weights = {a: _class_weights(p[chosen], settings.class_balanced) for a, p in self.labels.items()}

    @property
    def done(self) -> bool:
        s = self.settings
        waited = s.patience and self.epoch - self.best_epoch >= s.patience and self.step >= LEAST_STEPS
        return self.epoch >= s.epochs or bool(waited)

    def checkpoint(self, folder: Path, more: Mapping[str, Any]) -> None:
        """Keep a checkpoint in a folder, named by all that the result depends on."""
        facts = {
            "settings": asdict(self.settings),
            "attributes": self.attributes,
            "labels": tensors_digest(self.labels),
            "images": [[e.image_id, e.file, e.shard, e.offset, e.rows] for e in self.entries],
            **more,
        }
        self._key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        self._path = folder / f"adp-{self._key[:16]}.safetensors"

    def run(self, progress: Progress | None = None) -> None:
        """Train to the end. An exception that ``progress`` raises goes through; the last whole epoch is kept."""
        with torch.inference_mode(False), torch.enable_grad():
            self._prepare()
            total = max(1, self.settings.epochs * sum(e.rows for e in self.train) // self.settings.batch)
            orders = islice(shard_orders(self.train, self.settings.seed), self.epoch, None)
            while not self.done:
                loss = self._run_epoch(next(orders), total, progress)
                held = self._held_loss() if self.settings.patience else loss
                self.epoch += 1
                if not self.settings.patience or not self._best or held < min(h for _, h in self.history):
                    self.best_epoch = self.epoch
                    self._best = {k: v.detach().cpu().clone() for k, v in self.predictor.state_dict().items()}
                self.history.append([round(loss, 5), round(held, 5)])
                self._save()
            if progress:
                progress(total, total, {"loss": self.history[-1][0], "held-out": self.history[-1][1]})

    def finish(self) -> dict[str, Figures]:
        """Calibrate the best epoch's predictor on the held-out images; figures per attribute. The predictor is then frozen, on the CPU."""
        with torch.inference_mode(False), torch.no_grad():
            self.predictor.cpu().load_state_dict(self._best)
            self._fill_levels()
            self.predictor.eval().requires_grad_(False)
            logits, level, ids = self._read_held()
            found = {}
            for a in self.attributes:
                truth = self.labels[a][self._row[ids]]
                found[a] = figures(logits[a], truth, level, ids, self.predictor.knots, self.weights[a])
                self.predictor.temperature[a].copy_(fit_temperature(logits[a], truth, level, self.predictor.knots, self.weights[a]))
            return found

    # -- one epoch --------------------------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Predictor, statistics and optimiser, as new or as the checkpoint holds them."""
        s = self.settings
        if not self.train or not self.held:
            raise ValueError(f"the feature set '{self.folder.name}' holds too few images to hold some out: record at least two.")
        first = next(iter(iterate_shards(self.folder, self.train[:1])))[0]
        knots = default_knots() if self._extend is None else self._extend.knots.clone()
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(s.seed)
            self.predictor = AttributePredictor(self.attributes, first.shape[1], knots, s.kind, s.hidden)
            self._generator = torch.Generator()
            self._generator.set_state(torch.random.default_generator.get_state())
        level = fit_statistics(self.predictor, self.folder, self.train)
        self.way = trajectory(level)
        self._seen_knots = _touched(level, knots)
        for _ in checked_rows(self.folder, self.held, first.shape[1]):
            pass  # so that features which are not finite are told now, not after an epoch
        if self._extend is not None:
            self._take_over(self._extend)
        self.predictor.to(self.device)
        parameters = [p for p in self.predictor.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(parameters, lr=s.lr, weight_decay=s.weight_decay)
        self._resume()
        self._targets = {a: p.to(self.device) for a, p in self.labels.items()}
        self._on_device = {a: w.to(self.device) for a, w in self.weights.items()}

    @torch.no_grad()
    def _take_over(self, old: AttributePredictor) -> None:
        self.predictor.mean.copy_(old.mean)
        self.predictor.std.copy_(old.std)
        if old.kind == "mlp":
            first = self.predictor.modulate[0]
            first.weight.copy_(old.modulate[0].weight)
            first.bias.copy_(old.modulate[0].bias)
            first.requires_grad_(False)

    def _run_epoch(self, shards: list[str], total: int, progress: Progress | None) -> float:
        s, p = self.settings, self.predictor
        p.train()
        running: list[float] = []
        for features, level, ids in buffers(self.folder, self.train, shards):
            for rows in torch.randperm(len(level), generator=self._generator).split(s.batch):
                for group in self._optimizer.param_groups:
                    group["lr"] = s.lr * warmup_cosine(self.step, total, WARMUP)
                x, at = features[rows].to(self.device).float(), level[rows].to(self.device)
                if s.noise:
                    generator = torch.Generator(self.device).manual_seed(s.seed * 1_000_003 + self.step)
                    noise = torch.randn(x.shape, generator=generator, device=self.device)
                    x = x + s.noise * noise * at_level(p.std, p.knots, at)[:, :, None, None]
                logits = p(x, at)
                index = self._row[ids[rows]].to(self.device)
                loss = sum(cross_entropy(logits[a], self._targets[a][index], self._on_device[a]).mean() for a in self.attributes)
                self._optimizer.zero_grad(set_to_none=True)
                loss.backward()
                self._optimizer.step()
                running.append(loss.item())
                self.step += 1
                if progress and self.step % 10 == 0:
                    recent = running[-50:]
                    progress(min(self.step, total), total, {"loss": sum(recent) / len(recent)})
        return sum(running) / max(1, len(running))

    @torch.no_grad()
    def _held_loss(self) -> float:
        logits, level, ids = self._read_held()
        index = self._row[ids]
        return float(sum(cross_entropy(logits[a], self.labels[a][index], self.weights[a]).mean() for a in self.attributes))

    @torch.no_grad()
    def _read_held(self) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Logits of all held-out rows by attribute, their log-SNR and image_id, on the CPU."""
        self.predictor.eval()
        logits: dict[str, list[Tensor]] = {a: [] for a in self.attributes}
        levels, images = [], []
        for features, level, ids in chunks(iterate_shards(self.folder, self.held)):
            for a, value in self.predictor(features.to(self.device).float(), level.to(self.device)).items():
                logits[a].append(value.cpu())
            levels.append(level)
            images.append(ids)
        return {a: torch.cat(v) for a, v in logits.items()}, torch.cat(levels), torch.cat(images)

    def _fill_levels(self) -> None:
        """A linear predictor learns nothing at levels that no row is near; there it takes what it learnt around them."""
        p, seen = self.predictor, self._seen_knots
        if p.kind == "linear" and seen.any() and not seen.all():
            p.weight.copy_(filled(p.weight[seen], p.knots[seen], p.knots))
            p.bias.copy_(filled(p.bias[seen], p.knots[seen], p.knots))

    # -- checkpoints ------------------------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        self.seconds, self._started = self.seconds + time.monotonic() - self._started, time.monotonic()
        if self._path is None:
            return
        tensors = {f"best.{k}": v for k, v in self._best.items()}
        if not self.done:
            tensors |= checkpoint_tensors({"module": self.predictor}, self._optimizer)
            tensors["generator"] = self._generator.get_state()
        facts = {"epoch": self.epoch, "step": self.step, "best_epoch": self.best_epoch, "history": self.history}
        facts["seconds"] = self.seconds
        write_safetensors(self._path, tensors, {"key": self._key, "state": json.dumps(facts)})
        others = sorted((p for p in self._path.parent.glob("adp-*.safetensors") if p != self._path), key=lambda p: p.stat().st_mtime)
        for old in others[: max(0, len(others) - KEPT + 1)]:
            old.unlink(missing_ok=True)

    def _resume(self) -> None:
        """Go on with a checkpoint of the same training; one that is damaged or of another training is not used."""
        if self._path is None or not self._path.is_file():
            return
        try:
            tensors, meta = read_safetensors(self._path)
            if meta.get("key") != self._key:
                return
            facts = json.loads(meta["state"])
            counts = [int(facts[name]) for name in ("epoch", "step", "best_epoch")]
            history, seconds = list(facts["history"]), float(facts["seconds"])
            best = {k[len("best.") :]: v for k, v in tensors.items() if k.startswith("best.")}
            own = self.predictor.state_dict()
            whole = best.keys() == own.keys() and all(v.shape == own[k].shape and bool(v.isfinite().all()) for k, v in best.items())
            if not whole or min(counts) < 0 or len(history) < counts[0] or not math.isfinite(seconds):
                return
            if "generator" in tensors:  # else it had ended
                torch.Generator().set_state(tensors["generator"])
                restore({"module": self.predictor}, self._optimizer, tensors)
                self._generator.set_state(tensors["generator"])
        except DAMAGE:
            return
        self._best, self.history, self.seconds = best, history, seconds
        self.epoch, self.step, self.best_epoch = counts


def _class_weights(p: Tensor, balanced: bool) -> Tensor:
    """Weights [K] under which classes count alike, by the mass of soft labels [N, K]; ones where they are not to."""
    return 1 / (p.shape[1] * p.mean(0).clamp(min=RAREST)) if balanced else torch.ones(p.shape[1])


def _touched(level: Tensor, knots: Tensor) -> Tensor:
    """bool [T]: knots that some row lies next to, so that a linear predictor learns there."""
    above = torch.searchsorted(knots, level.contiguous()).clamp(0, len(knots) - 1)
    found = torch.zeros(len(knots), dtype=torch.bool)
    found[above] = True
    found[(above - 1).clamp(min=0)] = True
    return found


def _check_names(attributes: Mapping[str, Sequence[str]]) -> None:
    for attribute in attributes:
        if "." in attribute or hasattr(nn.ParameterDict(), attribute):
            raise ValueError(
                f"an attribute cannot be called '{attribute}' in an ADP file (no dots, and no word that PyTorch uses for a network's own "
                "parts): give it another name."
            )


def _kept_of(
    file: AdpFile, attributes: Mapping[str, tuple[str, ...]], kind: str, base_model: str, features: FeatureSet
) -> AttributePredictor | None:
    """What stays of the predictor to extend; None where all its attributes are replaced."""
    p = file.predictor
    check_classes(file, {a: c for a, c in attributes.items() if a in file.unread})
    if file.base_model and base_model and file.base_model != base_model:
        raise ValueError(
            f"the ADP to extend was made for '{file.base_model}' and the features '{features.name}' were recorded from '{base_model}': "
            "choose an ADP of that model, or train a new one."
        )
    if p is None:
        return None
    if p.kind != kind:
        raise ValueError(f"the ADP to extend is of kind '{p.kind}', and '{kind}' was asked for: choose '{p.kind}', or train a new one.")
    width = next(iter(iterate_shards(features.folder, features.entries[:1])))[0].shape[1]
    if p.channels != width:
        raise ValueError(
            f"the ADP to extend reads {p.channels} channels and the features '{features.name}' have {width}: it belongs to another model, "
            "so train a new one."
        )
    replaced = [a for a in attributes if a in p.attributes]
    return None if len(replaced) == len(p.attributes) else without(p, replaced)


def _info(
    extend: AdpFile | None,
    attributes: Mapping[str, tuple[str, ...]],
    found: Mapping[str, Figures],
    training: AdpTraining,
    features: FeatureSet,
    labels: LabelSet,
) -> dict[str, Any]:
    """What the file says of the training; of attributes that were there before, what it said already."""
    info = dict(extend.info) if extend else {}
    s, meta = training.settings, features.meta
    trained = {
        "images": len(training.entries),
        "held_out": len(training.held),
        "features": features.name,
        "recorded_with": {k: meta[k] for k in ("source", "sampler", "scheduler", "steps", "cfg") if k in meta},
        "epochs": training.epoch,
        "best_epoch": training.best_epoch,
        "history": training.history,
        "class_balanced": s.class_balanced,
        "seed": s.seed,
        "seconds": round(training.seconds, 1),
        "way": training.way,
    }
    new = {
        "accuracy_by_log_snr": {a: f.accuracy for a, f in found.items()},
        "loss_by_log_snr": {a: f.loss for a, f in found.items()},
        "calibration_error_by_log_snr": {a: f.calibration_error for a, f in found.items()},
        "verdict": {a: verdict(a, attributes[a], f, training.way) for a, f in found.items()},
        "trained": {a: {**trained, "labels": labels.sources.get(a, ""), "held_out_by_class": list(found[a].images)} for a in found},
    }
    for key, values in new.items():
        info[key] = {**info.get(key, {}), **values}
    info["images"] = len(training.entries)
    for key in ("accuracy_mid", "calibration"):
        if key in info:
            info[key] = {a: v for a, v in info[key].items() if a not in attributes or a in extend.unread}
    return info
