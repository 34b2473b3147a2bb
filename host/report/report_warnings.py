"""What makes the figures of a fairness report doubtful, as far as its inputs and the queued graph tell."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...methods.report import provenance
from ..labels.classifier import HostClassifier
from .gather import BASE, STEERED, ReportInputs

LOADER = "EquipoiseLoadAttributeClassifier"


def report_warnings(given: ReportInputs, graph: provenance.Graph | None, node_id: str | None) -> list[str]:
    """What makes the figures doubtful, as far as the inputs and the graph tell."""
    found = []
    judge = given.judge
    if given.labeller is not None and same_network(judge, given.labeller):
        found.append(
            f"The labeller and the judge are the same network ('{judge.name}'): what was made by its labels is too well liked by it. "
            "Choose a judge that took no part."
        )
    if given.second is not None and same_network(judge, given.second):
        found.append(f"Both classifiers are the same network ('{judge.name}'): the second one confirms nothing.")
    if graph and node_id is not None:
        makers = provenance.upstream(graph, node_id, [STEERED])
        loaded = [graph[n].get("inputs", {}).get("classifier_name") for n in makers if graph[n].get("class_type") == LOADER]
        if judge.name in loaded:
            found.append(
                f"The judge '{judge.name}' took part in making the steered images (see Settings): its counts are too kind to them."
            )
        seeds = {name: provenance.seeds(graph, node_id, name) for name in (BASE, STEERED)}
        if given.same_seeds and len(seeds[BASE]) == len(seeds[STEERED]) == 1 and seeds[BASE] != seeds[STEERED]:
            found.append(
                f"same_seeds is on, and the graph has the seed {seeds[BASE][0]} for base and {seeds[STEERED][0]} for steered images: "
                "similarity and drift are then of unrelated images."
            )
    if given.base.shape == given.steered.shape and torch.equal(given.base, given.steered):
        found.append("Base and steered images are equal, bit for bit: nothing was steered, or one output is connected twice.")
    elif given.base.shape[1:3] != given.steered.shape[1:3]:
        (h, w), (h2, w2) = given.base.shape[1:3], given.steered.shape[1:3]
        found.append(f"Base images are {w} x {h} pixels and steered ones {w2} x {h2}: part of what differs may be the size.")
    if given.reference is not None and any(
        i.shape == given.reference.shape and torch.equal(i, given.reference) for i in (given.base, given.steered)
    ):
        found.append("The reference images are one of the two sets, bit for bit: distances to them say nothing.")
    return found


def same_network(a: HostClassifier, b: HostClassifier) -> bool:
    """Whether two classifiers are one: the same object, or the same weights under whatever name."""
    first, second = a.model.state_dict(), b.model.state_dict()
    return a is b or (first.keys() == second.keys() and all(_equal(first[k], second[k]) for k in first))


def _equal(a: Any, b: Any) -> bool:
    return isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape and torch.equal(a.detach().cpu(), b.detach().cpu())
