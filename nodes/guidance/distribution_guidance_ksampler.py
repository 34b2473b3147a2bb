"""Distribution Guidance KSampler: the patch and the host's KSampler in one node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from comfy_api.latest import io

from ...host.core.passes.pass_cache import run_key
from ...host.guidance.sampling import GuidedSampling, guided_ksample
from ...host.labels.classifier import HostClassifier
from ...host.ledger.assigned import assigned_text
from ...host.ledger.ledgers import running_node
from ...methods.core.targets import TargetDistribution
from ...models.adp import AdpFile
from ...models.class_order import in_class_order, matched
from ..core.inputs import SAMPLER, ledger_input, sampler_seed
from ..core.queued import checked_strength, queued_graph, queued_id
from ..core.sockets import MAIN, Classifier, assigned_output, schema
from .edit_inputs import GUIDANCE_EDIT


class DistributionGuidanceKSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseDistributionGuidanceKSampler",
            display_name="Distribution Guidance KSampler",
            category=MAIN,
            description=(
                "KSampler with Distribution Guidance in one node. With a VAE and a classifier it also counts the images that "
                "missed their class. With 'repair' it samples those images again."
            ),
            search_aliases=["fair", "debias", "balance", "diversity", "gender", "women", "same face", "ksampler", "balancing act"],
            inputs=[
                io.Model.Input("model", tooltip="SD1.5, SDXL, or a model from Load Unconditional Diffusion. The node changes a copy."),
                sampler_seed(
                    "Seed of the noise, and seed for rounding. When the batch does not divide evenly, it decides which class "
                    "gets the extra image."
                ),
                *SAMPLER.inputs(),
                io.Conditioning.Input("positive", tooltip="What to draw."),
                io.Conditioning.Input("negative", tooltip="What to avoid. For an unconditional model, connect the same as positive."),
                io.Latent.Input("latent_image", tooltip="Latent to start from. Its batch is the batch that follows the target."),
                SAMPLER.denoise(),
                *GUIDANCE_EDIT.inputs(),
                io.Int.Input(
                    "repair",
                    default=0,
                    min=0,
                    max=10,
                    tooltip="Number of rounds in which images that the classifier does not read as assigned are sampled again with a "
                    "new seed. 0 is off. It needs vae and classifier.",
                ),
                io.Int.Input(
                    "images_per_pass",
                    default=0,
                    min=0,
                    max=4096,
                    optional=True,
                    tooltip="Number of images per sampling pass. Lower it if you run out of memory. 0 samples the whole batch at once. "
                    "Shares always apply to the whole batch. If you cancel a run, queue it again and it continues after its last pass.",
                ),
                io.Vae.Input(
                    "vae", optional=True, tooltip="Decodes the images for the classifier, for repair and for the count of misses."
                ),
                Classifier.Input(
                    "classifier",
                    optional=True,
                    tooltip="Reads the images, for repair and for the count of misses. Use the one that labelled the ADP's data.",
                ),
                ledger_input(),
            ],
            outputs=[
                io.Latent.Output("latent", display_name="LATENT", tooltip="The samples, for VAE Decode."),
                io.String.Output("report", display_name="report", tooltip="Quotas, readings, images sampled again, and what was rounded."),
                assigned_output(),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, strength: float) -> bool | str:
        return checked_strength(cls, strength, 0.0, 100.0)

    @classmethod
    def execute(
        cls, model: io.Model.Type, adp: AdpFile, target: TargetDistribution, latent_image: io.Latent.Type, repair: int, **widgets: Any
    ) -> io.NodeOutput:
        vae, classifier = widgets.get("vae"), widgets.get("classifier")
        if repair and (vae is None or classifier is None):
            raise ValueError(
                "repair needs to see the images: connect a VAE and a classifier (Load Attribute Classifier), or set repair to 0."
            )
        settings = GUIDANCE_EDIT.take({**widgets, "target": target}, model)
        classify = None if vae is None or classifier is None else classifier_of_latents(vae, classifier, adp, target)
        positive, negative = widgets["positive"], widgets["negative"]
        key = run_key(queued_graph(cls), queued_id(cls), latent_image, positive, negative)
        sampling = GuidedSampling(settings, SAMPLER.take(widgets), repair, widgets.get("images_per_pass", 0), key, widgets.get("ledger"))
        latent, outcome = guided_ksample(model, adp, sampling, positive, negative, latent_image, classify)
        assigned = assigned_text(target.reordered(adp.attributes), outcome.cells, running_node(), outcome.missed)
        return io.NodeOutput(latent, outcome.text(), assigned)


def classifier_of_latents(
    vae: io.Vae.Type, classifier: HostClassifier, adp: AdpFile, target: TargetDistribution
) -> Callable[[torch.Tensor], dict[str, torch.Tensor]]:
    """Return a function from latent samples to class probabilities in the ADP's class order.

    Raises ValueError where the classifier does not know the target's attributes.
    """
    wanted = {a: adp.attributes[a] for a in target.attributes}
    order = matched(wanted, classifier.attributes, "the ADP", "the classifier", "connect one that does, or set repair to 0")

    def classify(samples: torch.Tensor) -> dict[str, torch.Tensor]:
        return in_class_order(classifier.probabilities(vae.decode(samples)), order)

    return classify


NODES = [DistributionGuidanceKSampler]
