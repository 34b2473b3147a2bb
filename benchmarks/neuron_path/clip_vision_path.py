"""``bench clip-vision-path``: time Find Neuron Path on a ViT-L/14 in a ComfyUI server.

The weights are random, because only time and memory are measured, for one image on the CPU. The quick run uses a baseline's paths instead
of a search, which needs a tenth of the passes.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ...factory.portraits import portraits
from ...methods.neuron_path.neuron_baselines import GRADIENT
from ...methods.neuron_path.path_settings import CLEAN_LAYER, GAUSS_4, PROBABILITY
from ...models.files import write_safetensors
from ...models.zero_shot_head import ZeroShotHead, save_zero_shot_head
from ..core.graph_server import Server, checkout

WIDTH, DEPTH, MLP, PROJECTED, PATCH, SIZE = 1024, 24, 4096, 768, 14, 224
MEMORY_MB = 512
FILE = "vit_l_14_random.safetensors"
LIMIT = 4 * 3600.0


def run(quick: bool) -> dict[str, Any]:
    """Measure seconds and peak memory; without ComfyUI return None and the reason."""
    path = checkout("COMFYUI_PATH", "~/ComfyUI")
    if not (path / "main.py").is_file():
        return {"seconds_per_image": None, "notes": f"This needs ComfyUI, but there is none at '{path}'. Set COMFYUI_PATH to a checkout."}
    with tempfile.TemporaryDirectory(prefix="equipoise-bench-clip-vision-") as folder:
        base = Path(folder)
        write_inputs(base)
        with Server(path, base) as server:
            empty = peak_mb(server)
            began = time.monotonic()
            loaded = server.queue(clip_vision_graph(None), limit=LIMIT)
            loading = time.monotonic() - began
            began, spent = time.monotonic(), cpu_seconds(server)
            outcome = server.queue(clip_vision_graph(GRADIENT if quick else CLEAN_LAYER), limit=LIMIT)
            taken = time.monotonic() - began
            spent = None if spent is None else round(cpu_seconds(server) - spent, 1)
            peak = peak_mb(server)
    if loaded.error or outcome.error:
        raise RuntimeError(f"The graph failed: {loaded.error or outcome.error}")
    return {
        "model": f"ViT-L/14: {DEPTH} layers of width {WIDTH}, perceptron {MLP}, {(SIZE // PATCH) ** 2 + 1} tokens; random weights",
        "method": GRADIENT if quick else CLEAN_LAYER,
        "nodes": GAUSS_4,
        "images": 1,
        "threads": 1,
        "memory_mb": MEMORY_MB,
        "seconds_per_image": round(taken, 1),
        "cpu_seconds_per_image": spent,
        "seconds_to_load_and_encode": round(loading, 1),
        "peak_mb": peak,
        "peak_mb_of_the_empty_server": empty,
        "report": "".join(outcome.outputs["report"]["text"]),
        "load_average": [round(x, 1) for x in os.getloadavg()] if hasattr(os, "getloadavg") else None,
    }


def write_inputs(base: Path) -> None:
    """Write the model, a head of random embeddings and an image into ComfyUI's folders."""
    torch.manual_seed(0)
    models = base / "models"
    write_safetensors(models / "clip_vision" / FILE, vit_l_weights())
    head = ZeroShotHead("eyeglasses", ("yes", "no"), torch.nn.functional.normalize(torch.randn(2, PROJECTED), dim=-1))
    save_zero_shot_head(head, models / "equipoise" / "zero_shot_heads" / FILE)
    picture = (portraits(1, seed=3).images[0].movedim(0, -1).clamp(0, 1) * 255).byte().numpy()
    (base / "input").mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(base / "input" / "portrait.png")


def vit_l_weights(depth: int = DEPTH) -> dict[str, Tensor]:
    """Make random fp16 weights for CLIP's ViT-L/14, under the host's names.

    They are large enough that different images give different results.
    """

    def drawn(*shape: int, std: float = 0.03) -> Tensor:
        return (torch.randn(shape) * std).half()

    tokens = (SIZE // PATCH) ** 2 + 1
    at = "vision_model"
    weights = {
        f"{at}.embeddings.class_embedding": drawn(WIDTH, std=0.5),
        f"{at}.embeddings.patch_embedding.weight": drawn(WIDTH, 3, PATCH, PATCH),
        f"{at}.embeddings.position_embedding.weight": drawn(tokens, WIDTH, std=0.1),
        "visual_projection.weight": drawn(PROJECTED, WIDTH),
    }
    norms = [f"{at}.pre_layrnorm", f"{at}.post_layernorm"]
    for i in range(depth):
        layer = f"{at}.encoder.layers.{i}"
        norms += [f"{layer}.layer_norm1", f"{layer}.layer_norm2"]
        maps = {f"self_attn.{n}_proj": (WIDTH, WIDTH) for n in "qkv"} | {
            "self_attn.out_proj": (WIDTH, WIDTH),
            "mlp.fc1": (MLP, WIDTH),
            "mlp.fc2": (WIDTH, MLP),
        }
        for name, shape in maps.items():
            weights[f"{layer}.{name}.weight"], weights[f"{layer}.{name}.bias"] = drawn(*shape), drawn(shape[0])
    for name in norms:
        weights[f"{name}.weight"], weights[f"{name}.bias"] = torch.ones(WIDTH).half(), torch.zeros(WIDTH).half()
    return weights


def clip_vision_graph(method: str | None) -> dict[str, Any]:
    """Make the graph in API form.

    ``method`` None: only load the model and encode the image.
    """

    def node(kind: str, **inputs: Any) -> dict[str, Any]:
        return {"class_type": kind, "inputs": inputs}

    loaded = {
        "image": node("LoadImage", image="portrait.png"),
        "vision": node("CLIPVisionLoader", clip_name=FILE),
        "seen": node("CLIPVisionEncode", clip_vision=["vision", 0], image=["image", 0], crop="center"),
        "kept": node("PreviewAny", source=["seen", 0]),
    }
    if method is None:
        return loaded
    asked = {"images": ["image", 0], "clip_vision": ["vision", 0], "zero_shot_head": ["head", 0], "attribute": "", "target": ""}
    asked |= {"objective": PROBABILITY, "nodes": GAUSS_4, "top_k": 1, "shared": False, "memory_mb": MEMORY_MB}
    if method == CLEAN_LAYER:
        paths = node("EquipoiseFindNeuronPath", **asked, search=method, shortlist=8)
    else:
        paths = node("EquipoiseBaselinePaths", **asked, method=method, seed=0)
    made = {"classes": "a: b, c", "templates": "{}", "scale": 100.0, "head_name": FILE, "save_as": "", "overwrite": False}
    return {
        **loaded,
        "head": node("EquipoiseZeroShotAttributeHead", **made),
        "found": paths,
        "chart": node("PreviewImage", images=["found", 1]),
        "report": node("PreviewAny", source=["found", 2]),
    }


def peak_mb(server: Server) -> float | None:
    """Return the server's largest resident memory so far, in MiB; None if unknown."""
    status = Path(f"/proc/{server.pid}/status")
    if not status.is_file():
        return None
    line = next(x for x in status.read_text(encoding="utf-8").splitlines() if x.startswith("VmHWM"))
    return round(int(line.split()[1]) / 1024)


def cpu_seconds(server: Server) -> float | None:
    """Return the server's processor seconds so far; None if unknown.

    Other programs on the machine do not lengthen them.
    """
    stat = Path(f"/proc/{server.pid}/stat")
    if not stat.is_file():
        return None
    user, system = stat.read_text(encoding="utf-8").rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
