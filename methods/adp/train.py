"""Train an Attribute Distribution Predictor (ADP) on recorded features and soft pseudo-labels."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...models.adp import KINDS, AdpFile, AttributePredictor
from ...models.digests import tensors_digest
from ...models.noise_level import at_level, default_knots
from ...models.sites import MIDDLE
from ..core.checkpoint import Resumable
from ..core.trainer import Progress, warmup_cosine
from ..data.feature_rows import buffers, checked_rows, chunks, filled, fit_statistics, shard_orders, split_images
from ..data.feature_set import Entry, FeatureSet, iterate_shards, read_index
from ..labels.labels import LabelSet, for_entries
from .edit_file import check_classes, in_order
from .extend import joined_predictor, without
from .figures import Figures, cross_entropy, figures, fit_temperature, trajectory, verdict

CHECKPOINTS_FOLDER, MOST_CHECKPOINTS = "training", 3
"""Checkpoints lie in this folder of a feature set; only the latest few remain."""
WARMUP, FEWEST_STEPS = 50, 200
"""Steps in which the learning rate rises; steps before which training does not end early."""
RAREST = 0.01
"""Label mass of a class below which its weight in the loss does not rise any further."""


@dataclass(frozen=True)
class AdpSettings:
    """Set how an ADP is trained."""

    kind: str = "mlp"
    """Kind of the predictor, one of ``KINDS``."""
    epochs: int = 6
    """Most passes over the training images."""
    batch: int = 256
    """Rows per step."""
    lr: float = 2e-3
    """Highest learning rate of AdamW."""
    weight_decay: float = 0.02
    """Weight decay of AdamW."""
    hidden: int = 96
    """Hidden units of the kind "mlp"."""
    seed: int = 0
    """Seed of the split into training and held-out images, and of all random numbers."""
    class_balanced: bool = False
    """Whether classes count alike in loss, temperature and calibration error, by the mass of their soft labels. Probabilities are then
    those of a world in which the classes are equally frequent."""
    patience: int = 0
    """Epochs without a lower held-out loss after which training ends, with the best epoch's weights; 0 trains all epochs and takes the
    last one's."""
    noise: float = 0.0
    """Standard deviation of the noise added to normalised features in training, which keeps a hidden layer from memorising images."""


@dataclass(frozen=True)
class AdpData:
    """Hold what an ADP is trained on."""

    folder: Path
    """Folder of the feature set."""
    entries: Sequence[Entry]
    """Images of the set that are used."""
    labels: Mapping[str, Tensor]
    """Attribute -> class probabilities [N, K], rows as in ``entries``."""
    attributes: Mapping[str, tuple[str, ...]]
    """Attribute -> names of its classes."""
    train: list[Entry]
    """Images to train on."""
    held_out: list[Entry]
    """Images to measure on."""


def recommended(kind: str, epochs: int, seed: int, rows: int) -> AdpSettings:
    """Choose settings for a user's set with this many rows.

    Small sets get small batches, so that an epoch has enough steps.

    On 1,300 drawn portraits at 20 noise levels, noise of 1 brought the held-out loss of "mlp" from 1.57 to 1.36 (four attributes summed);
    "linear" did not need it, and with half the learning rate came to 1.36 as well. Raises ValueError for an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"an ADP is of kind {' or '.join(KINDS)}, not '{kind}'.")
    lr, noise = (1e-3, 1.0) if kind == "mlp" else (5e-4, 0.0)
    batch = min(256, max(16, rows // 100))
    return AdpSettings(kind, epochs, batch, lr, seed=seed, class_balanced=True, patience=3, noise=noise)


def train_predictor(
    folder: Path,
    labels: Mapping[str, Tensor],
    attributes: Mapping[str, tuple[str, ...]],
    settings: AdpSettings | None = None,
    progress: Progress | None = None,
) -> tuple[AttributePredictor, dict[str, list[list[float]]]]:
    """Train a predictor with explicit settings and without a checkpoint.

    :func:`train_adp` is for users.

    ``labels``: attribute -> class probabilities float32 [images, K], by image_id (one-hot if they are certain). Cross-entropy on soft
    labels (equal to the KL to them up to a constant), AdamW. Returns the predictor, calibrated on held-out images by a temperature per
    noise level, and held-out accuracy by log-SNR: attribute -> [[log_snr, accuracy], ...].
    """
    entries, settings = read_index(folder), settings or AdpSettings()
    by_row = {a: labels[a][[e.image_id for e in entries]] for a in attributes}
    training = AdpTraining(AdpData(folder, entries, by_row, attributes, *split_images(entries, settings.seed)), settings)
    training.train(progress)
    return training.predictor, {a: f.accuracy for a, f in training.finish().items()}


def train_adp(
    features: FeatureSet,
    labels: LabelSet,
    kind: str = "mlp",
    epochs: int = 12,
    seed: int = 0,
    extend: AdpFile | None = None,
    progress: Progress | None = None,
    device: torch.device | str = "cpu",
) -> AdpFile:
    """Train an ADP on all attributes of the labels.

    Its ``info`` says how well each attribute is read (:func:`.figures.describe_adp`).

    ``extend``: an ADP whose other attributes stay exactly as they are; attributes that it shares with the labels are replaced. Moves of
    attributes that it does not read stay, whether or not the labels have these attributes. The training writes a checkpoint into the
    set's folder after every epoch, and resumes from it.

    Raises ValueError if labels do not fit the set, a class has no example, features are not finite, or the ADP to extend is of another
    model, width or kind, or has moves for other classes than the labels'.
    """
    entries = features.entries
    if len(entries) < 2:
        raise ValueError(f"the feature set '{features.name}' holds {len(entries) or 'no'} image(s): record at least two, better 1,000.")
    site = str(features.meta.get("site", MIDDLE))
    if extend is not None and extend.predictor is not None and extend.site != site:
        raise ValueError(
            f"'{features.name}' was recorded at '{site}', and the ADP to extend reads at '{extend.site}': record a set there, or train a "
            "new ADP."
        )
    table = for_entries(labels, entries)
    attributes = {a: labels.attributes[a] for a in table}
    _check_names(attributes)
    base_model = str(features.meta.get("base_model") or "") or (extend.base_model if extend else "")
    old = None if extend is None else _kept_of(extend, attributes, kind, base_model, features)
    settings = recommended(kind, epochs, seed, sum(e.rows for e in entries))
    sides = split_images(entries, seed, {a: p.argmax(-1) for a, p in table.items()})
    data = AdpData(features.folder, entries, table, attributes, *sides)
    training = AdpTraining(data, settings, device, old, checkpoints=features.folder / CHECKPOINTS_FOLDER)
    training.train(progress)
    figures_of = training.finish()
    info = _info(extend, figures_of, training, features, labels)
    predictor = training.predictor if old is None else joined_predictor(old, training.predictor)
    if extend is None:
        return AdpFile(predictor, {}, base_model, info, site=site)
    unchanged = in_order(extend, {a: c for a, c in attributes.items() if a in extend.unread})
    moves = {a: m for a, m in unchanged.moves.items() if a not in attributes or a in extend.unread}
    others = {a: m for a, m in unchanged.alternatives.items() if a not in attributes or a in extend.unread}
    unread = {a: c for a, c in extend.unread.items() if a not in attributes}
    return AdpFile(predictor, moves, base_model, info, others, unread, site)


class AdpTraining(Resumable):
    """Train a predictor epoch by epoch: a step of the engine is an epoch.

    ``updates``: steps of the optimiser; ``history``: training and held-out loss of every epoch; ``trajectory``: log-SNR of the recorded
    calls.
    """

    save_seconds = 0.0

    def __init__(
        self,
        data: AdpData,
        settings: AdpSettings,
        device: torch.device | str = "cpu",
        extend: AttributePredictor | None = None,
        checkpoints: Path | None = None,
    ) -> None:
        """``extend``: a predictor whose levels, statistics and level embedding the new one takes over unchanged, so that the two can be
        joined. ``checkpoints``: folder of the checkpoint, which is named after all that the result depends on."""
        started = time.monotonic()
        self.data, self.settings, self.device = data, settings, torch.device(device)
        self.attributes = dict(data.attributes)
        self.history: list[list[float]] = []
        self.updates = self.best_epoch = 0
        self._best: dict[str, Tensor] = {}
        if not data.train or not data.held_out:
            raise ValueError(f"the feature set '{Path(data.folder).name}' holds too few images to hold some out: record at least two.")
        with torch.inference_mode(False), torch.no_grad():
            self.labels = {a: data.labels[a].clone().float() for a in self.attributes}
            self._row = torch.zeros(1 + max(e.image_id for e in data.entries), dtype=torch.long)
            self._row[[e.image_id for e in data.entries]] = torch.arange(len(data.entries))
            chosen = self._row[[e.image_id for e in data.train]]
            self.weights = {a: _class_weights(p[chosen], settings.class_balanced) for a, p in self.labels.items()}
        with torch.inference_mode(False), torch.enable_grad():
            generator = self._new_predictor(extend)
            parameters = [p for p in self.predictor.parameters() if p.requires_grad]
            optimiser = torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay)
            key = self._facts_key(extend)
            path = None if checkpoints is None else checkpoints / f"adp-{key[:16]}.safetensors"
            super().__init__({"module": self.predictor}, optimiser, settings.epochs, key, path, generator)
            self.resume()
        if not self.done:
            self.seconds += time.monotonic() - started

    @property
    def done(self) -> bool:
        """Whether all epochs were taken, or the held-out loss has not fallen for a while."""
        s = self.settings
        waited = s.patience and self.step - self.best_epoch >= s.patience and self.updates >= FEWEST_STEPS
        return super().done or bool(waited)

    def train(self, progress: Progress | None = None) -> None:
        """Train to the end. An exception of ``progress`` interrupts; the last whole epoch stays."""
        with torch.inference_mode(False), torch.enable_grad():
            total = max(1, self.settings.epochs * sum(e.rows for e in self.data.train) // self.settings.batch)
            orders = islice(shard_orders(self.data.train, self.settings.seed), self.step, None)

            def take_epoch() -> None:
                with self.changing():
                    self._take_epoch(next(orders), total, progress)

            self.run(take_epoch)
            if progress:
                progress(total, total, {"loss": self.history[-1][0], "held-out": self.history[-1][1]})

    def finish(self) -> dict[str, Figures]:
        """Calibrate the best epoch's predictor on the held-out images; return figures per attribute.

        The predictor is then frozen, on the CPU.
        """
        with torch.inference_mode(False), torch.no_grad():
            self.predictor.cpu().load_state_dict(self._best)
            self._fill_levels()
            self.predictor.eval().requires_grad_(False)
            logits, level, ids = self._read_held_out()
            figures_of = {}
            for a in self.attributes:
                truth = self.labels[a][self._row[ids]]
                figures_of[a] = figures(logits[a], truth, level, ids, self.predictor.knots, self.weights[a])
                self.predictor.temperature[a].copy_(fit_temperature(logits[a], truth, level, self.predictor.knots, self.weights[a]))
            return figures_of

    # -- the start ------------------------------------------------------------------------------------------------------------------------

    def _new_predictor(self, extend: AttributePredictor | None) -> torch.Generator:
        """Make the predictor with its statistics; return the generator that its initial weights leave behind."""
        s, folder = self.settings, self.data.folder
        first = next(iter(iterate_shards(folder, self.data.train[:1])))[0]
        knots = default_knots() if extend is None else extend.knots.clone()
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(s.seed)
            self.predictor = AttributePredictor(self.attributes, first.shape[1], knots, s.kind, s.hidden)
            generator = torch.Generator()
            generator.set_state(torch.random.default_generator.get_state())
        level = fit_statistics(self.predictor, folder, self.data.train)
        self.trajectory = trajectory(level)
        self._seen_knots = _touched(level, knots)
        for _ in checked_rows(folder, self.data.held_out, first.shape[1]):
            pass  # so that features which are not finite are reported now, not after an epoch
        if extend is not None:
            self._take_over(extend)
        self.predictor.to(self.device)
        self._targets = {a: p.to(self.device) for a, p in self.labels.items()}
        self._device_weights = {a: w.to(self.device) for a, w in self.weights.items()}
        return generator

    def _facts_key(self, extend: AttributePredictor | None) -> str:
        facts = {
            "settings": asdict(self.settings),
            "attributes": self.attributes,
            "labels": tensors_digest(self.labels),
            "images": [[e.image_id, e.file, e.shard, e.offset, e.rows] for e in self.data.entries],
            "old": None if extend is None else tensors_digest(extend.state_dict()),
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    @torch.no_grad()
    def _take_over(self, old: AttributePredictor) -> None:
        self.predictor.mean.copy_(old.mean)
        self.predictor.std.copy_(old.std)
        if old.kind == "mlp":
            first = self.predictor.modulate[0]
            first.weight.copy_(old.modulate[0].weight)
            first.bias.copy_(old.modulate[0].bias)
            first.requires_grad_(False)

    # -- one epoch --------------------------------------------------------------------------------------------------------------------

    def _take_epoch(self, shards: list[str], total: int, progress: Progress | None) -> None:
        loss = self._train_epoch(shards, total, progress)
        held_out = self._held_out_loss() if self.settings.patience else loss
        self.step += 1
        if not self.settings.patience or not self._best or held_out < min(h for _, h in self.history):
            self.best_epoch = self.step
            self._best = {k: v.detach().cpu().clone() for k, v in self.predictor.state_dict().items()}
        self.history.append([round(loss, 5), round(held_out, 5)])

    def _train_epoch(self, shards: list[str], total: int, progress: Progress | None) -> float:
        s, p = self.settings, self.predictor
        p.train()
        running: list[float] = []
        for features, level, ids in buffers(self.data.folder, self.data.train, shards):
            for rows in torch.randperm(len(level), generator=self.generator).split(s.batch):
                for group in self.optimiser.param_groups:
                    group["lr"] = s.lr * warmup_cosine(self.updates, total, WARMUP)
                x, at = features[rows].to(self.device).float(), level[rows].to(self.device)
                if s.noise:
                    generator = torch.Generator(self.device).manual_seed(s.seed * 1_000_003 + self.updates)
                    noise = torch.randn(x.shape, generator=generator, device=self.device)
                    x = x + s.noise * noise * at_level(p.std, p.knots, at)[:, :, None, None]
                logits = p(x, at)
                index = self._row[ids[rows]].to(self.device)
                loss = sum(cross_entropy(logits[a], self._targets[a][index], self._device_weights[a]).mean() for a in self.attributes)
                self.optimiser.zero_grad(set_to_none=True)
                loss.backward()
                self.optimiser.step()
                running.append(loss.item())
                self.updates += 1
                if progress and self.updates % 10 == 0:
                    recent = running[-50:]
                    progress(min(self.updates, total), total, {"loss": sum(recent) / len(recent)})
        return sum(running) / max(1, len(running))

    @torch.no_grad()
    def _held_out_loss(self) -> float:
        logits, level, ids = self._read_held_out()
        index = self._row[ids]
        return float(sum(cross_entropy(logits[a], self.labels[a][index], self.weights[a]).mean() for a in self.attributes))

    @torch.no_grad()
    def _read_held_out(self) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Return logits of all held-out rows by attribute, their log-SNR and image_id, on the CPU."""
        self.predictor.eval()
        logits: dict[str, list[Tensor]] = {a: [] for a in self.attributes}
        levels, images = [], []
        for features, level, ids in chunks(iterate_shards(self.data.folder, self.data.held_out)):
            for a, value in self.predictor(features.to(self.device).float(), level.to(self.device)).items():
                logits[a].append(value.cpu())
            levels.append(level)
            images.append(ids)
        return {a: torch.cat(v) for a, v in logits.items()}, torch.cat(levels), torch.cat(images)

    def _fill_levels(self) -> None:
        """Interpolate a linear predictor at levels that no row is near: it learns nothing there."""
        p, seen = self.predictor, self._seen_knots
        if p.kind == "linear" and seen.any() and not seen.all():
            p.weight.copy_(filled(p.weight[seen], p.knots[seen], p.knots))
            p.bias.copy_(filled(p.bias[seen], p.knots[seen], p.knots))

    # -- checkpoints ------------------------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write the checkpoint; remove the oldest ones of other trainings."""
        super().save()
        if self.path is None:
            return
        others = sorted((p for p in self.path.parent.glob("adp-*.safetensors") if p != self.path), key=lambda p: p.stat().st_mtime)
        for old in others[: max(0, len(others) - MOST_CHECKPOINTS + 1)]:
            old.unlink(missing_ok=True)

    def extra_tensors(self) -> dict[str, Tensor]:
        """Return the best epoch's weights."""
        return self._best

    def extra_facts(self) -> dict[str, Any]:
        """Return the losses of all epochs, and which was best."""
        return {"updates": self.updates, "best_epoch": self.best_epoch, "history": self.history}

    def read_extra(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], step: int) -> Callable[[], None]:
        """Check that the best weights fit the predictor and that every epoch has its losses."""
        updates, best_epoch, history = int(facts["updates"]), int(facts["best_epoch"]), list(facts["history"])
        own = self.predictor.state_dict()
        if step and (tensors.keys() != own.keys() or any(v.shape != own[k].shape for k, v in tensors.items())):
            raise ValueError("its weights are of another predictor")
        if any(not bool(v.isfinite().all()) for v in tensors.values()) or min(updates, best_epoch) < 0 or len(history) != step:
            raise ValueError("its weights are not finite, or epochs are missing")

        def load() -> None:
            self._best, self.history = dict(tensors), history
            self.updates, self.best_epoch = updates, best_epoch

        return load


def _class_weights(p: Tensor, balanced: bool) -> Tensor:
    """Return class weights [K] by the mass of soft labels [N, K].

    They are ones if classes are not balanced.
    """
    return 1 / (p.shape[1] * p.mean(0).clamp(min=RAREST)) if balanced else torch.ones(p.shape[1])


def _touched(level: Tensor, knots: Tensor) -> Tensor:
    """Mark the knots [T] that some row lies next to, where a linear predictor learns."""
    above = torch.searchsorted(knots, level.contiguous()).clamp(0, len(knots) - 1)
    touched = torch.zeros(len(knots), dtype=torch.bool)
    touched[above] = True
    touched[(above - 1).clamp(min=0)] = True
    return touched


def _check_names(attributes: Mapping[str, Sequence[str]]) -> None:
    for attribute in attributes:
        if "." in attribute or hasattr(nn.ParameterDict(), attribute):
            raise ValueError(
                f"an attribute of an ADP cannot be called '{attribute}', because names must have no dots and must not be words that "
                "PyTorch uses for parts of a network: give it another name."
            )


def _kept_of(
    file: AdpFile, attributes: Mapping[str, tuple[str, ...]], kind: str, base_model: str, features: FeatureSet
) -> AttributePredictor | None:
    """Return what stays of the predictor to extend; None if all its attributes are replaced."""
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
    extend: AdpFile | None, figures_of: Mapping[str, Figures], training: AdpTraining, features: FeatureSet, labels: LabelSet
) -> dict[str, Any]:
    """Describe the training for the file; attributes that were there before keep their description."""
    attributes = training.attributes
    info = dict(extend.info) if extend else {}
    s, meta = training.settings, features.meta
    trained = {
        "images": len(training.data.entries),
        "held_out": len(training.data.held_out),
        "features": features.name,
        "recorded_with": {k: meta[k] for k in ("source", "sampler", "scheduler", "steps", "cfg") if k in meta},
        "epochs": training.step,
        "best_epoch": training.best_epoch,
        "history": training.history,
        "class_balanced": s.class_balanced,
        "seed": s.seed,
        "seconds": round(training.seconds, 1),
        "way": training.trajectory,
    }
    new = {
        "accuracy_by_log_snr": {a: f.accuracy for a, f in figures_of.items()},
        "loss_by_log_snr": {a: f.loss for a, f in figures_of.items()},
        "calibration_error_by_log_snr": {a: f.calibration_error for a, f in figures_of.items()},
        "verdict": {a: verdict(a, attributes[a], f, training.trajectory) for a, f in figures_of.items()},
        "trained": {
            a: {**trained, "labels": labels.sources.get(a, ""), "held_out_by_class": list(f.images)} for a, f in figures_of.items()
        },
    }
    for key, values in new.items():
        info[key] = {**info.get(key, {}), **values}
    info["images"] = len(training.data.entries)
    for key in ("accuracy_mid", "calibration"):
        if key in info:
            info[key] = {a: v for a, v in info[key].items() if a not in attributes or a in extend.unread}
    return info
