"""Feature Atlas."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io, ui

from ...charts.bias_features.feature_atlas import AtlasRow, feature_atlas
from ...host.core.progress import host_progress
from ...host.labels.labelling import thumbnails
from ...methods.bias_features.atlas import chosen_features, class_of, class_scores, exciting_images, feature_notes, note_legend
from ...methods.data.feature_set import FeatureSet
from ...models.bias_features import BiasFeatures as BiasFeaturesFile
from ...models.bias_features import check_sae
from ...models.sae import SaeFile
from ..core.sockets import LAB, BiasFeatures, Features, Sae, schema

SHOWN = 5
"""Images of a row."""


class FeatureAtlas(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseFeatureAtlas",
            display_name="Feature Atlas",
            category=LAB,
            description=(
                "Shows what single features of an autoencoder stand for: the recorded images that activate each feature most, "
                "with a heat map of the activation, the noise levels at which it is active, and the classes that it speaks for."
            ),
            search_aliases=[
                "interpretability",
                "sparse autoencoder",
                "difflens",
                "feature browser",
                "activation",
                "heat map",
                "dictionary",
            ],
            is_output_node=True,
            inputs=[
                Features.Input(
                    "features", tooltip="A feature set with its pictures, recorded at the autoencoder's site, from Load Features."
                ),
                Sae.Input("sae", tooltip="The sparse autoencoder, from Load SAE."),
                BiasFeatures.Input("bias_features", tooltip="Bias features of this autoencoder, from Load Bias Features."),
                io.String.Input("attribute", default="eyeglasses", tooltip="Attribute whose features are shown."),
                io.String.Input(
                    "class_name",
                    default="",
                    tooltip="Class whose best features are shown. Empty: the best features of every class in turn.",
                ),
                io.Int.Input("count", default=8, min=1, max=64, tooltip="How many features are shown, the best first. Each has one row."),
                io.Boolean.Input("overlay", default=True, tooltip="On: the heat map lies over the images. Off: the images alone."),
            ],
            outputs=[
                io.Image.Output("atlas", display_name="atlas", tooltip="One image with a row per feature, 960 pixels wide."),
                io.String.Output(
                    "text", display_name="text", tooltip="The features with their scores and the names of their pictures, one line each."
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        features: FeatureSet,
        sae: SaeFile,
        bias_features: BiasFeaturesFile,
        attribute: str,
        class_name: str,
        count: int,
        overlay: bool,
    ) -> io.NodeOutput:
        check_sae(bias_features, sae)
        attribute_features = bias_features.attribute(attribute.strip())
        chosen = chosen_features(attribute_features, class_name.strip(), count)
        shown = [int(attribute_features.features[p]) for p in chosen]
        excited = exciting_images(features, sae, shown, SHOWN, host_progress("Feature Atlas"))
        scores, notes = [class_scores(attribute_features, p) for p in chosen], [feature_notes(attribute_features, p) for p in chosen]
        rows = [
            AtlasRow(f"#{e.feature}", thumbnails(features, e.images), e.heat, e.knots, e.by_level, s, n)
            for e, s, n in zip(excited, scores, notes, strict=True)
        ]
        drawn = feature_atlas(rows, f"features that carry {attribute.strip()}", overlay, note_legend(attribute_features))
        lines = []
        for e, s, n in zip(excited, scores, notes, strict=True):
            files = ", ".join(features.entries[i].file for i in e.images)
            carried = ", ".join(f"{c} {100 * v:+.2f}" for c, v in s.items())
            lines.append(f"#{e.feature} carries (points of probability) {carried}; {'; '.join(n)}; most excited: {files}")
        atlas, text = torch.from_numpy(drawn).unsqueeze(0).float() / 255, "\n".join(lines)
        wanted = class_name.strip()
        sendable = [  # what web/feature_atlas.js makes buttons of
            {"feature": e.feature, "attribute": attribute.strip(), "class_name": wanted or class_of(attribute_features, p)}
            for e, p in zip(excited, chosen, strict=True)
        ]
        shown: dict[str, Any] = {
            **ui.PreviewImage(atlas, cls=cls).as_dict(),
            **ui.PreviewText(text).as_dict(),
            "equipoise_features": sendable,
        }
        return io.NodeOutput(atlas, text, ui=shown)


NODES = [FeatureAtlas]
