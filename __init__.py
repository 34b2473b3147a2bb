"""Equipoise: controls who appears in the images of a diffusion model, by shares that the user states, and measures the result.

Inside ComfyUI this file registers the nodes; elsewhere ``import equipoise`` needs no host. Nothing is imported or registered on import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfy_api.latest import ComfyExtension, io

WEB_DIRECTORY = "./web"


async def comfy_entrypoint() -> ComfyExtension:
    """Return the pack's extension to the host (V3).

    Its node list makes the model folders known and imports the nodes.
    """
    import logging

    from comfy_api.latest import ComfyExtension

    class Equipoise(ComfyExtension):
        async def get_node_list(self) -> list[type[io.ComfyNode]]:
            try:
                from .host.core.files import register_model_folders
                from .host.core.queue_check import register_queue_check
                from .host.labels.class_routes import register_routes
                from .host.report.report_route import register_report_route
                from .nodes import all_nodes

                register_model_folders()
                register_routes()
                register_queue_check()
                register_report_route()
                return all_nodes()
            except Exception:
                # the host shortens this to one warning line; the traceback is what helps
                logging.getLogger(__name__).exception("Equipoise could not be loaded; none of its nodes is available.")
                raise

    return Equipoise()
