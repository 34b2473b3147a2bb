"""Load SAE."""

from __future__ import annotations

from comfy_api.latest import io

from ...host.core import files as model_files
from ...models.sae import load_sae
from ..core.inputs import model_file_input
from ..core.sockets import LAB, Sae, schema

SAE_KEY = "equipoise_sae"
DEFAULT_FILE = "portraits.safetensors"


class LoadSAE(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        files = model_files.choices(SAE_KEY)
        return schema(
            node_id="EquipoiseLoadSAE",
            display_name="Load SAE",
            category=LAB,
            description=(
                "Loads a k-sparse autoencoder (SAE; DiffLens, CVPR 2025). It decomposes the activations of a U-Net into "
                "single features, and some of these carry an attribute. The file belongs to one diffusion model and one place in "
                "it."
            ),
            search_aliases=["sparse autoencoder", "k-sparse", "h-space", "difflens", "dictionary", "interpretability"],
            inputs=[model_file_input("sae_name", files, DEFAULT_FILE, model_files.folder_hint(SAE_KEY))],
            outputs=[
                Sae.Output("sae", display_name="SAE", tooltip="For Bias Feature Steer, Steer Sweep and Feature Atlas."),
                io.String.Output(
                    "text",
                    display_name="text",
                    tooltip="What the file says about itself: its model, site, sizes, and how much it leaves unexplained. Show it with "
                    "Preview Any.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, sae_name: str | None) -> bool | str:
        return model_files.checked_choice(SAE_KEY, sae_name)

    @classmethod
    def fingerprint_inputs(cls, sae_name: str) -> str:
        return model_files.fingerprint(SAE_KEY, sae_name)

    @classmethod
    def execute(cls, sae_name: str) -> io.NodeOutput:
        sae = load_sae(model_files.resolve(SAE_KEY, sae_name))
        return io.NodeOutput(sae, sae.text())


NODES = [LoadSAE]
