"""Warnings of a fairness report: inputs and graphs that make its figures doubtful."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...methods.report import provenance
from ..labels.classifier import HostClassifier
from .gather import BASE, STEERED, ReportInputs

LOADER = "EquipoiseLoadAttributeClassifier"


def report_warnings(inputs: ReportInputs, graph: provenance.Graph | None, node_id: str | None) -> list[str]:
    """List what makes the figures doubtful, as far as the inputs and the graph show."""
    warnings = []
    judge = inputs.judge
    if inputs.labeller is not None and same_network(judge, inputs.labeller):
        warnings.append(
            f"The labeller and the judge are the same network ('{judge.name}'): it reads images made with its own labels too favourably. "
            "Choose a judge that took no part."
        )
    if inputs.second is not None and same_network(judge, inputs.second):
        warnings.append(f"Both classifiers are the same network ('{judge.name}'): the second one confirms nothing.")
    if graph and node_id is not None:
        makers = provenance.upstream(graph, node_id, [STEERED])
        loaded = [graph[n].get("inputs", {}).get("classifier_name") for n in makers if graph[n].get("class_type") == LOADER]
        if judge.name in loaded:
            warnings.append(
                f"The judge '{judge.name}' took part in making the steered images (see Settings): its counts are too favourable."
            )
        seeds = {name: provenance.seeds(graph, node_id, name) for name in (BASE, STEERED)}
        if inputs.same_seeds and len(seeds[BASE]) == len(seeds[STEERED]) == 1 and seeds[BASE] != seeds[STEERED]:
            warnings.append(
                f"same_seeds is on, but the graph has the seed {seeds[BASE][0]} for base and {seeds[STEERED][0]} for steered images: "
                "similarity and drift then compare unrelated images."
            )
    if inputs.base.shape == inputs.steered.shape and torch.equal(inputs.base, inputs.steered):
        warnings.append("Base and steered images are equal, bit for bit: nothing was steered, or one output is connected twice.")
    elif inputs.base.shape[1:3] != inputs.steered.shape[1:3]:
        (h, w), (h2, w2) = inputs.base.shape[1:3], inputs.steered.shape[1:3]
        warnings.append(f"Base images are {w} x {h} pixels and steered ones {w2} x {h2}: part of the difference may come from the size.")
    if inputs.reference is not None and any(
        i.shape == inputs.reference.shape and torch.equal(i, inputs.reference) for i in (inputs.base, inputs.steered)
    ):
        warnings.append("The reference images are equal to one of the two sets, bit for bit: distances to them mean nothing.")
    return warnings


def same_network(a: HostClassifier, b: HostClassifier) -> bool:
    """Return whether two classifiers have the same weights, under any name."""
    if not (a.has_network and b.has_network):
        return a.fingerprint() == b.fingerprint()
    first, second = a.model.state_dict(), b.model.state_dict()
    return a is b or (first.keys() == second.keys() and all(_equal(first[k], second[k]) for k in first))


def _equal(a: Any, b: Any) -> bool:
    return isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape and torch.equal(a.detach().cpu(), b.detach().cpu())
