"""What a search for neuron paths is asked for: which score, at which points of the integral, of which output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

PAPER, CLEAN_LAYER, SHORTLIST = "paper", "clean-layer", "shortlist"
SEARCHES = (CLEAN_LAYER, PAPER, SHORTLIST)
LEFT_20, GAUSS_4 = "left-20", "gauss-4"
NODES = (GAUSS_4, LEFT_20)
PROBABILITY, LOG_PROBABILITY, MARGIN = "probability", "log-probability", "margin"
OBJECTIVES = (PROBABILITY, LOG_PROBABILITY, MARGIN)


@dataclass(frozen=True)
class PathSettings:
    """Settings of a search for neuron paths."""

    search: str = CLEAN_LAYER
    """Point at which the candidates of a layer are scored: "clean-layer", the layer as it is; "paper", the layer scaled with the path,
    as the published code does; "shortlist", the best ``shortlist`` of both exactly."""
    nodes: str = GAUSS_4
    """Points of the integral."""
    objective: str = PROBABILITY
    """Function that is explained. Under "probability" the score vanishes for images that the model is sure of. "log-probability" and
    "margin" (the logit over the next best) do not saturate."""
    top_k: int = 1
    """Neurons per layer."""
    shortlist: int = 8
    """Candidates that "shortlist" scores exactly."""
    shared: bool = False
    """Whether all images share one path, by the mean of their scores."""
    memory_mb: int = 1024
    """Memory in MB for what a pass stores for its gradient. Rows are done in as many chunks as that takes."""

    def checked(self, neurons: int) -> PathSettings:
        """Check the settings and return them.

        Raises ValueError for names or numbers that do not exist.
        """
        for value, known, what in (
            (self.search, SEARCHES, "search"),
            (self.nodes, NODES, "nodes"),
            (self.objective, OBJECTIVES, "objective"),
        ):
            if value not in known:
                raise ValueError(f"neuron paths know the {what} {', '.join(known)}, not '{value}': choose one of them.")
        if not 1 <= self.top_k <= neurons:
            raise ValueError(f"a layer has {neurons} neurons and {self.top_k} were asked for: choose 1 to {neurons}.")
        if self.shortlist < 1:
            raise ValueError(f"a shortlist has at least 1 neuron and was asked for {self.shortlist}: raise it.")
        return self


def integration_nodes(name: str) -> tuple[Tensor, Tensor]:
    """Return the points in 0..1 of an integral, and their weights, float64.

    Weights sum to 1. "left" is the left rule with 20 points (0 to 0.95, as published); the other is Gauss-Legendre with 4.

    Of the left rule the error is 0.3 to 0.8% at the median, of Gauss-Legendre below 1e-6, at a fifth of the cost.
    """
    if name == LEFT_20:
        return torch.arange(20, dtype=torch.float64) / 20, torch.full((20,), 1 / 20, dtype=torch.float64)
    # Abscissae and weights of order 4 on -1..1 (Abramowitz and Stegun, table 25.4).
    x = torch.tensor([-0.8611363115940526, -0.3399810435848563, 0.3399810435848563, 0.8611363115940526], dtype=torch.float64)
    w = torch.tensor([0.3478548451374538, 0.6521451548625461, 0.6521451548625461, 0.3478548451374538], dtype=torch.float64)
    return (x + 1) / 2, w / 2


def objective(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the function F(logits [B, K], targets int64 [B]) -> [B]."""

    def of_target(y: Tensor, targets: Tensor) -> Tensor:
        return y.gather(1, targets[:, None])[:, 0]

    if name == PROBABILITY:
        return lambda logits, targets: of_target(logits.softmax(-1), targets)
    if name == LOG_PROBABILITY:
        return lambda logits, targets: of_target(logits.log_softmax(-1), targets)
    return lambda logits, targets: of_target(logits, targets) - logits.scatter(1, targets[:, None], -torch.inf).amax(-1)
