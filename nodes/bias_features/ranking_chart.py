"""The chart of ranked features that several nodes show."""

from __future__ import annotations

import torch

from ...charts.bias_features.ranking import bias_features_chart, ranking_facts
from ...models.bias_features import BiasFeatures as BiasFeaturesFile
from ..core.ui import as_batch, as_image


def ranking_image(bias: BiasFeaturesFile) -> torch.Tensor:
    """Draw the ranking of each attribute's features as an IMAGE.

    A white one if no feature speaks for any class.
    """
    speaking = [a for a, f in bias.attributes.items() if bool((f.scores > 0).any())]
    charts = [as_image(bias_features_chart(a, ranking_facts(bias.attribute(a)))) for a in speaking]
    return as_batch(charts or [torch.ones(1, 240, 960, 3)])
