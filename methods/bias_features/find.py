"""Find the features of an autoencoder that carry attributes: two passes over a feature set, a ranking, profiles and a check by ablation."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ...metrics.fairness import UNSURE_BELOW
from ...models.adp import AdpFile, AttributePredictor
from ...models.bias_features import CLASS_DIFFERENCE, AttributeFeatures, BiasFeatures
from ...models.class_order import in_class_order, matched
from ...models.sae import SaeFile
from ..core.trainer import Progress
from ..data.feature_rows import filled, split_images
from ..data.feature_set import FeatureSet
from ..guidance.direction_rows import images_for_directions
from ..labels.labels import LabelSet, for_entries
from .ablation import Ablation
from .attribution import AttributeImages, Attribution, resamples, sure_classes
from .class_activations import ClassMeans, ClassSums
from .code_stream import CodeRows, CodeStream, check_set, code_rows, count_rows
from .feature_profiles import class_difference
from .feature_ranking import Ranking, rank, rank_stability, side_effects
from .integrated_gradients import POINTS
from .linear_readout import check_reader

BASELINES = ("mean", "zero")


@dataclass(frozen=True)
class AttributionSettings:
    """Settings of a search for features. Raises ValueError for impossible values."""

    tau: int = 32
    """Most features per class."""
    baseline: str = BASELINES[0]
    """Where the path of integrated gradients starts: "mean" (of the classes, by noise level) or "zero"."""
    shared: float = 0.5
    """A feature among the best of two classes is dropped if its second score exceeds this share of the first."""
    max_side_effect: float = math.inf
    """Features whose effect on other attributes exceeds this multiple of that on their own are dropped."""
    images: int = 2048
    """Most images to read."""
    resamples: int = 100
    """Number of bootstrap resamples."""
    window: tuple[float, float] = (-math.inf, math.inf)
    """Log-SNR from, to, that counts; by default all recorded levels."""
    points: int = POINTS
    """Points of the path, for a predictor that is not linear."""
    relative: bool = False
    """Whether the profile is relative (:class:`..models.level_table.LevelTable`)."""
    held_out: bool = True
    """Whether to ablate on images that took no part in the ranking."""
    seed: int = 0
    """Seed of the choice of images and of the resamples."""

    def __post_init__(self) -> None:
        if self.tau < 1 or self.images < 2 or self.resamples < 0 or self.points < 1 or not self.max_side_effect > 0:
            raise ValueError(
                "features per class and points are 1 or more, images 2 or more, resamples 0 or more, the limit of side effects above 0."
            )
        if self.baseline not in BASELINES:
            raise ValueError(f"a baseline is {' or '.join(BASELINES)}, not '{self.baseline}'.")
        if not self.window[0] < self.window[1]:
            raise ValueError(f"a window goes from a lower to a higher log-SNR; met {self.window[0]} to {self.window[1]}.")


def reader_of(adp: AdpFile, sae: SaeFile) -> AttributePredictor:
    """Return the predictor of an ADP, for the site of an autoencoder.

    Raises ValueError if it has none, or reads at another site.
    """
    if adp.predictor is None:
        raise ValueError("this ADP holds no predictor, so it reads nothing that features could be found by: train one at the site.")
    if adp.site != sae.site:
        raise ValueError(
            f"this ADP reads features at '{adp.site}' and the autoencoder's are at '{sae.site}': train an ADP on a set recorded there."
        )
    return adp.predictor


def find_bias_features(
    features: FeatureSet,
    labels: LabelSet,
    sae_file: SaeFile,
    reader: AttributePredictor,
    attributes: Sequence[str],
    settings: AttributionSettings | None = None,
    progress: Progress | None = None,
    device: torch.device | str = "cpu",
) -> BiasFeatures:
    """Rank the autoencoder's features for some attributes.

    ``reader`` reads them at the autoencoder's site; whatever else it reads and the labels know is used for the side-effect scores.
    ``progress`` counts rows over all passes, and may raise to interrupt. ``device``: where features are encoded, which is most of the work;
    autoencoder and reader are on the CPU, and stay there.

    ``info`` says, by attribute, the ``images`` and ``features`` of every class, the ``shared`` features that were left out, and what
    ablation showed (:meth:`.ablation.Ablation.result`). Raises ValueError where set, labels, autoencoder and reader do
    not fit each other.
    """
    s = settings or AttributionSettings()
    sae = sae_file.sae
    check_set(features, sae_file)
    for attribute in attributes:
        check_reader(sae, reader, attribute)
    if not attributes:
        raise ValueError("name at least one attribute to find features of.")
    chosen = dict.fromkeys([*attributes, *(a for a in reader.attributes if a in labels.attributes)])
    tables = _in_reader_order(features, labels, reader, list(chosen))
    with torch.inference_mode(False), torch.no_grad():
        return _Search(features, sae_file, reader, list(attributes), tables, s, progress, torch.device(device)).run()


@dataclass
class _Search:
    """One search: its images, classes and passes."""

    features: FeatureSet
    """Set to search."""
    sae_file: SaeFile
    """Autoencoder whose features are ranked."""
    reader: AttributePredictor
    """Predictor of the attributes."""
    attributes: list[str]
    """Attributes to find features of."""
    tables: dict[str, Tensor]
    """Class probabilities [N, K] of these attributes and of those whose side effects are measured, in the reader's class order."""
    settings: AttributionSettings
    """What the user chose."""
    progress: Progress | None
    """Called with rows done and in all; may raise to interrupt."""
    device: torch.device
    """Where features are encoded."""

    def __post_init__(self) -> None:
        self.sae = self.sae_file.sae
        self._encoder = self.sae.on(self.device)
        features, attributes, settings, tables = self.features, self.attributes, self.settings, self.tables
        rows = some_images({a: tables[a] for a in attributes}, len(features.entries), settings.images, settings.seed)
        entries, held_out = [features.entries[i] for i in rows], []
        if settings.held_out and len(entries) > 1:
            entries, held_out = split_images(entries, settings.seed, {a: p[rows].argmax(-1) for a, p in tables.items()})
        self.entries, self.held_out = entries, held_out or entries
        row_of = {e.image_id: i for i, e in enumerate(features.entries)}
        self.classes = {a: self._classes(p, [row_of[e.image_id] for e in self.entries]) for a, p in tables.items()}
        self.held_out_classes = {a: self._classes(p, [row_of[e.image_id] for e in self.held_out]) for a, p in tables.items()}
        self.sizes = {a: p.shape[1] for a, p in tables.items()}
        self._done = 0
        self._total = 2 * count_rows(features, self.entries) + count_rows(features, self.held_out)

    def _classes(self, p: Tensor, rows: list[int]) -> Tensor:
        return sure_classes(p[rows], UNSURE_BELOW)

    def run(self) -> BiasFeatures:
        """Search the features of every attribute."""
        s, started = self.settings, time.monotonic()
        knots = self.sae.knots.float().cpu()
        sums = ClassSums(knots, self.sae.latents, self.classes, self.sizes)
        stream = CodeStream(self.features, self.entries, self._encoder)
        for rows in self._counted(stream):
            sums.add(rows)
        means = {a: sums.means(a) for a in self.sizes}
        passes = {a: self._attribution(a, knots, means[a]) for a in self.sizes}
        for rows in self._counted(stream):
            for attribution in passes.values():
                attribution.add(rows)
        scores = {a: p.scores for a, p in passes.items()}
        rankings = {a: rank(self._allowed(scores, a), s.tau, s.shared) for a in self.attributes}
        ablations = {a: self._ablation(a, rankings[a], torch.einsum("t,tkfg->kf", means[a].share, means[a].mean)) for a in self.attributes}
        for rows in self._counted(code_rows(self.features, self.held_out, self._encoder)):
            for ablation in ablations.values():
                ablation.add(rows)
        features, info = {}, {}
        for a in self.attributes:
            chosen = rankings[a].features
            by_level, recorded = every_level(passes[a].by_level[:, :, chosen], means[a], knots)
            features[a] = AttributeFeatures(
                self.reader.attributes[a],
                chosen,
                scores[a][:, chosen],
                by_level,
                rank_stability(passes[a].resampled, chosen, s.tau),
                side_effects(scores, a, chosen),
                torch.full((self.sizes[a], len(chosen)), math.nan),
                recorded,
                {CLASS_DIFFERENCE: class_difference(means[a], knots, chosen, s.relative)},
            )
            info[a] = self._info(a, rankings[a], ablations[a])
        facts = {
            "settings": {k: v for k, v in asdict(s).items() if k not in ("window", "max_side_effect")},
            "window": [v if math.isfinite(v) else None for v in s.window],
            "beside": s.max_side_effect if math.isfinite(s.max_side_effect) else None,
            "reader": self.reader.kind,
            "read_beside": [a for a in self.sizes if a not in self.attributes],
            "set": self.features.name,
            "attributes": info,
            "seconds": round(time.monotonic() - started, 1),
        }
        return BiasFeatures(
            features,
            self.sae_file.site,
            self.sae_file.base_model,
            self.sae_file.digest,
            self.sae.channels,
            self.sae.latents,
            self._licensed(facts),
        )

    def _allowed(self, scores: dict[str, Tensor], attribute: str) -> Tensor:
        """Set the scores of features that carry too much of other attributes to 0."""
        effects = side_effects(scores, attribute, torch.arange(self.sae.latents))
        return scores[attribute] * ~(effects > self.settings.max_side_effect)

    def _attribution(self, attribute: str, knots: Tensor, means: ClassMeans) -> Attribution:
        s = self.settings
        counts = None
        if s.resamples and attribute in self.attributes:
            counts = resamples(self.classes[attribute], self.sizes[attribute], s.resamples, s.seed)
        images = AttributeImages(attribute, self.classes[attribute], means, counts)
        return Attribution(self.sae, self.reader, images, knots, s.baseline, s.window, s.points)

    def _ablation(self, attribute: str, ranking: Ranking, mass: Tensor) -> Ablation:
        mine = self.held_out_classes[attribute]
        return Ablation(self.sae, self.reader, attribute, mine, ranking.lists, mass, seed=self.settings.seed)

    def _counted(self, stream: Iterable[CodeRows]) -> Iterator[CodeRows]:
        for rows in stream:
            yield rows
            self._done += len(rows.images)
            if self.progress:
                self.progress(min(self._done, self._total), self._total, {})

    def _info(self, attribute: str, ranking: Ranking, ablation: Ablation) -> dict[str, Any]:
        classes, names = self.classes[attribute], self.reader.attributes[attribute]
        return {
            "images": {c: int((classes == i).sum()) for i, c in enumerate(names)},
            "features": {c: ranking.lists[i].tolist() for i, c in enumerate(names)},
            "shared": ranking.shared.tolist(),
            "ablation": ablation.result(names),
        }

    def _licensed(self, info: dict[str, Any]) -> dict[str, Any]:
        licence = self.sae_file.info.get("licence")
        return {**info, "licence": licence} if licence else info


def every_level(by_level: Tensor, means: ClassMeans, knots: Tensor) -> tuple[Tensor, Tensor]:
    """Fill in the scores [T, ...] of levels that no row is near.

    From the levels around them, between the first and the last knot that rows are near. Returns the scores and these knots. Nothing is
    known of the levels beyond.
    """
    seen = means.count.sum(1) > 0
    inside = knots[(knots >= knots[seen][0]) & (knots <= knots[seen][-1])]
    return filled(by_level[seen], knots[seen].contiguous(), inside), inside


def some_images(tables: Mapping[str, Tensor], count: int, most: int, seed: int) -> list[int]:
    """Choose at most ``most`` of ``count`` images, ascending.

    Half of each attribute's part [N, K] by class, as evenly as possible; the rest at random.
    """
    if count <= most:
        return list(range(count))
    chosen = {i for p in tables.values() for i in images_for_directions(p, max(1, most // (2 * len(tables))))}
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    rest = [i for i in order if i not in chosen]
    return sorted([*chosen, *rest[: max(0, most - len(chosen))]])


def _in_reader_order(features: FeatureSet, labels: LabelSet, reader: AttributePredictor, attributes: list[str]) -> dict[str, Tensor]:
    """Return the labels with classes in the reader's order.

    attribute -> [N, K].
    """
    tables = for_entries(labels, features.entries, attributes)
    read = {a: reader.attributes[a] for a in attributes}
    remedy = "use labels with the predictor's classes, or train the predictor on these labels"
    return in_class_order(tables, matched(read, labels.attributes, "the predictor", "the label set", remedy))
