"""Searches for neuron paths as nodes run them: with the host's progress and interruption, over as many images at once as memory allows."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...methods.core.trainer import Progress
from ...methods.neuron_path.class_path import MEAN_SCORE, MODE, RULES, class_paths, mode_path
from ...methods.neuron_path.neuron_baselines import RANDOM, baseline_path, contributions
from ...methods.neuron_path.path_settings import CLEAN_LAYER, SEARCHES, SHORTLIST, PathSettings, integration_nodes
from ...methods.neuron_path.search import FoundPaths, find_paths, score_paths
from ...models.neuron_path import NeuronPathFile, check_network
from ...models.neuron_vit import NeuronVit
from ..core.progress import host_progress

Search = Callable[[Tensor, Tensor, Progress], FoundPaths]
"""(pixels, targets, progress) -> paths of these images."""
SCORES = ("activation", "contribution", "joint", "additive", "objective")


def search_paths(net: NeuronVit, pixels: Tensor, targets: Tensor, settings: PathSettings, model: str) -> NeuronPathFile:
    """Search the paths of preprocessed images.

    ``model``: its name, for reports.

    Raises ValueError for settings that there are not, and for no images.
    """
    s = settings.checked(net.neurons)
    more = {"shortlist": s.shortlist} if s.search == SHORTLIST else {}
    return _file(net, pixels, targets, s, s.search, model, lambda x, t, progress: find_paths(net, x, t, s, progress), more)


def baseline_paths(
    net: NeuronVit, pixels: Tensor, targets: Tensor, kind: str, settings: PathSettings, seed: int, model: str
) -> NeuronPathFile:
    """Find paths by a baseline of ``methods/neuron_path/neuron_baselines.py``.

    They have the same scores as paths from a search.
    """
    s = settings.checked(net.neurons)
    parts = 0

    def search(x: Tensor, t: Tensor, progress: Progress) -> FoundPaths:
        nonlocal parts
        path = baseline_path(net, x, t, kind, s, seed + 7919 * parts, progress)  # no two parts of the images draw alike
        parts += 1
        return score_paths(net, x, t, path, s)

    return _file(net, pixels, targets, s, kind, model, search, {"seed": seed} if kind == RANDOM else {})


def class_path(file: NeuronPathFile, rule: str, net: NeuronVit | None = None, pixels: Tensor | None = None) -> NeuronPathFile:
    """Make one path for each class of a file with a path per image.

    A row for each class.

    ``rule``: "mode", the most frequent neurons; or "mean score", that with the best mean score over the class's images. net, pixels: the
    network and the preprocessed images of the file, which the second rule needs; with them scores are measured, as means over the images.
    Raises ValueError without them, for another network, and for another number of images.
    """
    if rule not in RULES:
        raise ValueError(f"a class path is chosen by {' or '.join(RULES)}, not '{rule}': choose one of them.")
    if net is None or pixels is None:
        if rule == MEAN_SCORE:
            raise ValueError(f"a class path by its {rule} is searched for in the images: connect them and the model, or choose {MODE}.")
        return class_paths(file, {c: mode_path(file.of_class(c).path) for c in file.classes})
    check_network(file, net)
    if len(pixels) != file.images:
        raise ValueError(f"there are {file.images} neuron path(s) and {len(pixels)} image(s): connect the images that they were found in.")
    recorded = {k: file.info[k] for k in ("nodes", "objective", "shortlist") if k in file.info}
    s = PathSettings(file.method if file.method in SEARCHES else CLEAN_LAYER, top_k=file.top_k, shared=True, **recorded)
    chosen, figures = {}, []
    for label in file.classes:
        index = [i for i, t in enumerate(file.target) if t == label]

        def search(x: Tensor, t: Tensor, progress: Progress, index: list[int] = index) -> FoundPaths:
            if rule == MEAN_SCORE:
                return find_paths(net, x, t, s, progress)
            return score_paths(net, x, t, mode_path(file.path[index]).expand(len(x), -1, -1), s)

        paths, added = _over(net, pixels[index], file.targets()[index], s, search)
        chosen[label] = paths.path[0].cpu()
        figures.append([x.float().mean(0).cpu() for x in (paths.activation, added, paths.joint, paths.additive, paths.objective)])
    measured = {name: torch.stack(rows) for name, rows in zip(SCORES, zip(*figures, strict=True), strict=True)}
    return replace(class_paths(file, chosen), method=s.search if rule == MEAN_SCORE else file.method, **measured)


def images_per_search(net: NeuronVit, settings: PathSettings) -> int:
    """Return how many images the memory for a search holds.

    Of the layers' states and tangents; at least one image; all, if they share a path.
    """
    if settings.shared:
        return 2**31
    points = len(integration_nodes(settings.nodes)[0]) + 1
    row = net.tokens * (6 * net.heads * net.tokens + 20 * net.width + 5 * net.neurons) * net.weights["cls"].element_size()
    return max(1, int(settings.memory_mb * 2**20 // (points * row)))


def _file(
    net: NeuronVit, pixels: Tensor, targets: Tensor, s: PathSettings, method: str, model: str, search: Search, more: dict[str, Any]
) -> NeuronPathFile:
    started = time.monotonic()
    paths, added = _over(net, pixels, targets, s, search)
    info = {
        "model": model,
        "family": net.family,
        "rows": net.rows,
        "objective": s.objective,
        "nodes": s.nodes,
        "images": len(pixels),
        "seconds": round(time.monotonic() - started, 2),
        **more,
    }
    figures = [x.detach().float().cpu() for x in (paths.activation, added, paths.joint, paths.additive, paths.objective)]
    return NeuronPathFile(
        method,
        net.name,
        tuple(net.labels),
        tuple(net.labels[int(t)] for t in targets),
        paths.path.cpu(),
        *figures,
        net.neurons,
        net.fingerprint(),
        s.shared,
        info,
    )


def _over(net: NeuronVit, pixels: Tensor, targets: Tensor, s: PathSettings, search: Search) -> tuple[FoundPaths, Tensor]:
    """Search the paths of all images, some at a time.

    Also returns what each neuron adds [B, L, K].
    """
    report, size, total = host_progress("Find Neuron Path"), images_per_search(net, s), max(1, len(pixels))
    parts, added = [], []
    for start in range(0, total, size):
        x, t = pixels[start : start + size], targets[start : start + size]

        def progress(step: int, steps: int, figures: dict[str, float], start: int = start, count: int = len(x)) -> None:
            report(start * steps + step * count, total * steps, figures)

        parts.append(search(x, t, progress))
        added.append(contributions(net, x, t, parts[-1].path, s))
    one = {name: torch.cat([getattr(p, name) for p in parts]) for name in ("path", "joint", "additive", "objective", "activation")}
    return FoundPaths(**one), torch.cat(added)
