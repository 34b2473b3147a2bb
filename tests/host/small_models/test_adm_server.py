"""Whole graphs with the pack's own diffusion nodes, queued over HTTP on both supported hosts."""

from __future__ import annotations

from typing import Any

import numpy as np
from equipoise.benchmarks.core.graph_server import Server


def graph(file: str, cfg: float = 1.0, text: str | None = None, batch: int = 3, steps: int = 3) -> dict[str, Any]:
    """Loader, latent, sampler, decoder and preview in API form; with a class label where ``text`` is given."""
    nodes: dict[str, Any] = {
        "load": {"class_type": "EquipoiseLoadUnconditionalDiffusion", "inputs": {"model_name": f"{file}.safetensors"}},
        "latent": {
            "class_type": "EquipoiseEmptyPixelLatent",
            "inputs": {"model": ["load", 0], "width": 0, "height": 0, "batch_size": batch},
        },
        "sample": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["load", 0],
                "positive": ["load", 2],
                "negative": ["load", 2],
                "latent_image": ["latent", 0],
                "seed": 5,
                "steps": steps,
                "cfg": cfg,
                "sampler_name": "dpmpp_2m",
                "scheduler": "karras",
                "denoise": 1.0,
            },
        },
        "decode": {"class_type": "VAEDecode", "inputs": {"samples": ["sample", 0], "vae": ["load", 1]}},
        "show": {"class_type": "PreviewImage", "inputs": {"images": ["decode", 0]}},
    }
    if text is not None:
        nodes["label"] = {"class_type": "EquipoiseClassLabel", "inputs": {"model": ["load", 0], "class_label": text}}
        nodes["sample"]["inputs"] |= {"positive": ["label", 0], "negative": ["label", 1]}
    return nodes


def test_an_unconditional_graph_gives_images_and_the_same_ones_again(server: Server) -> None:
    first = server.queue(graph("tiny_packed"))
    assert not first.error
    images = server.images(first, "show")
    assert images.shape == (3, 32, 32, 3) and images.std() > 1 and not np.array_equal(images[0], images[1])
    # another cfg is another graph for the host's cache, and the same pictures
    again = server.queue(graph("tiny_packed", cfg=8.0))
    assert "sample" not in again.cached and "load" in again.cached
    assert np.array_equal(images, server.images(again, "show"))


def test_a_class_conditional_graph_with_guidance(server: Server) -> None:
    doctor = server.queue(graph("tiny_classes", cfg=2.0, text="doctor"))
    cook = server.queue(graph("tiny_classes", cfg=2.0, text="0"))
    assert not doctor.error and not cook.error
    pictures = server.images(doctor, "show"), server.images(cook, "show")
    assert pictures[0].shape == (3, 16, 16, 3) and not np.array_equal(*pictures)


def test_refusals_reach_the_user_in_words(server: Server) -> None:
    assert "set cfg to 1" in server.queue(graph("tiny_no_null", cfg=4.0, text="4")).error
    assert "It knows 0 = cook, 1 = doctor" in server.queue(graph("tiny_classes", text="pilot")).error
    assert "connect Class Label" in server.queue(graph("tiny_no_null")).error
    wide = graph("tiny_plain")
    wide["latent"]["inputs"]["width"] = 15
    assert "multiple of 2, and got 15" in server.queue(wide).error
    answer = server.post("/prompt", {"prompt": graph("absent")})
    if "prompt_id" in answer:  # v0.3.64 does not check a V3 node's combo before it runs
        assert "'absent.safetensors' is not in models/equipoise/diffusion" in server.wait(answer["prompt_id"]).error
    else:
        assert "not in list" in str(answer["node_errors"]).lower()


def test_a_changed_file_is_loaded_again(server: Server) -> None:
    import shutil

    folder = server.base / "models" / "equipoise" / "diffusion"
    shutil.copy(folder / "tiny_plain.safetensors", folder / "swapped.safetensors")
    before = server.images(server.queue(graph("swapped")), "show")
    shutil.copy(folder / "tiny_learned_sigma.safetensors", folder / "swapped.safetensors")
    outcome = server.queue(graph("swapped"))
    assert "load" not in outcome.cached and not np.array_equal(before, server.images(outcome, "show"))
