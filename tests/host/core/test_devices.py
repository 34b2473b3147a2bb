"""Weights of other kinds than float32, and a device that lacks an operation."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from equipoise.benchmarks.core.random_adp import random_adp
from equipoise.benchmarks.core.random_sae import random_bias, random_sae
from equipoise.methods.core.run import Call
from equipoise_unet import MIDDLE, UP, Scene, tiny_sd
from torch import Tensor, nn

ATTRIBUTES = {"eyeglasses": ("no", "yes")}
KINDS = ("guidance", "steering")


def quantised_operations() -> Any:
    """As GGUF loaders do: linear layers keep whole numbers and scales, and make the weight again at every call."""
    import comfy.ops

    class Linear(nn.Module):
        def __init__(self, in_features: int, out_features: int, bias: bool = True, device: Any = None, dtype: Any = None) -> None:
            super().__init__()
            self.register_buffer("numbers", torch.zeros(out_features, in_features, dtype=torch.int8))
            self.register_buffer("scale", torch.ones(out_features, 1))
            self.bias = nn.Parameter(torch.zeros(out_features), requires_grad=False) if bias else None

        def take(self, weight: Tensor, bias: Tensor | None) -> None:
            scale = weight.abs().amax(1, keepdim=True) / 127
            self.scale.copy_(scale)
            self.numbers.copy_((weight / scale).round())
            if bias is not None:
                self.bias.copy_(bias)

        def forward(self, x: Tensor) -> Tensor:
            bias = None if self.bias is None else self.bias.to(x.dtype)
            return nn.functional.linear(x, (self.numbers * self.scale).to(x.dtype), bias)

    return type("Quantised", (comfy.ops.disable_weight_init,), {"Linear": Linear})


def quantised() -> Any:
    """The small U-Net with 8-bit linear layers."""
    plain, made = tiny_sd(), tiny_sd(operations=quantised_operations())
    layers = dict(plain.model.diffusion_model.named_modules())
    taken = 0
    with torch.no_grad():
        for name, module in made.model.diffusion_model.named_modules():
            if hasattr(module, "take"):
                module.take(layers[name].weight, layers[name].bias)
                taken += 1
            elif isinstance(module, nn.Conv2d | nn.GroupNorm | nn.LayerNorm):
                module.load_state_dict(layers[name].state_dict())
    assert taken > 40
    return made


MODELS: dict[str, Callable[[], Any]] = {
    "float16": lambda: tiny_sd(torch.float16),
    "bfloat16": lambda: tiny_sd(torch.bfloat16),
    "bfloat16 weights, float32 arithmetic": lambda: tiny_sd(torch.bfloat16, torch.float32),
    "fp8 e4m3 weights, float32 arithmetic": lambda: tiny_sd(torch.float8_e4m3fn, torch.float32),
    "fp8 e5m2 weights, bfloat16 arithmetic": lambda: tiny_sd(torch.float8_e5m2, torch.bfloat16),
    "8-bit linear layers": quantised,
}


@pytest.fixture(scope="module")
def files(load_module: Callable[[Path, str], Any], repository: Path, host: Any) -> tuple[Any, Any, Any]:
    """A random ADP, autoencoder and bias features for the small U-Net."""
    sae = random_sae(UP[1], UP[0], "sd15")
    return random_adp(ATTRIBUTES, MIDDLE[1], base_model="sd15", size=0.5), sae, random_bias(sae, ATTRIBUTES)


def settings(kind: str, **given: Any) -> Any:
    from equipoise.methods.bias_features.run import SteerSettings
    from equipoise.methods.core.target_text import parse_target
    from equipoise.methods.guidance.run import GuidanceSettings

    made = GuidanceSettings if kind == "guidance" else SteerSettings
    return made(parse_target("eyeglasses: uniform", ATTRIBUTES), **given)


def apply(model: Any, kind: str, files: tuple[Any, Any, Any], finished: list[Any] | None = None, **given: Any) -> Any:
    from equipoise.host.bias_features.apply import apply_steering
    from equipoise.host.guidance.apply import apply_guidance

    adp, sae, bias = files
    on_finish = None if finished is None else lambda run: finished.append(run.summary())
    if kind == "guidance":
        return apply_guidance(model, adp, settings(kind, **given), on_finish)
    return apply_steering(model, sae, bias, settings(kind, **given), on_finish=on_finish)


def change(image: Tensor, other: Tensor) -> Tensor:
    """[N]: as a share of the other's norm."""
    return (image - other).flatten(1).norm(dim=1) / other.flatten(1).norm(dim=1)


@pytest.mark.parametrize("what", MODELS)
def test_weights_of_other_kinds(prompt: Any, files: tuple[Any, Any, Any], what: str) -> None:
    model = MODELS[what]()
    scene, exact = Scene(prompt, model), Scene(prompt, tiny_sd())
    plain = scene.sample()
    assert plain.isfinite().all()
    for kind in KINDS:
        finished: list[Any] = []
        edited = scene.but(model=apply(model, kind, files, finished)).sample()
        assert edited.isfinite().all() and sorted(finished[0].cells.tolist()) == [0, 1]
        assert torch.equal(scene.but(model=apply(model, kind, files, strength=0.0)).sample(), plain)
        same_cells = tuple(finished[0].cells.tolist())
        in_float = exact.but(model=apply(exact.model, kind, files, cells=same_cells)).sample()
        ratio = change(edited, plain) / change(in_float, exact.sample())
        assert (ratio > 0.5).all() and (ratio < 2).all(), f"{kind}: the edit is as strong as in float32 ({ratio.tolist()})"


class Elsewhere(Tensor):
    """On torch's meta device, where nothing can be read out, with its numbers beside it."""

    numbers: Tensor

    def cpu(self) -> Tensor:
        return self.numbers


@pytest.mark.parametrize("kind", KINDS)
def test_a_device_that_lacks_an_operation(
    prompt: Any, files: tuple[Any, Any, Any], kind: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from equipoise.host.core.hooks import edit_on_device
    from equipoise.methods.bias_features.run import SteeringRun
    from equipoise.methods.guidance.run import GuidanceRun

    adp, sae, bias = files
    site, width = MIDDLE if kind == "guidance" else UP

    def run() -> Any:
        return GuidanceRun(adp, settings(kind)) if kind == "guidance" else SteeringRun(sae, bias, settings(kind))

    from equipoise.methods.core import batch_run

    def lacking(h: Tensor) -> Tensor:
        if h.device.type == "meta":
            raise NotImplementedError("adaptive pooling is not there")
        return pool(h)

    pool = batch_run.pool
    monkeypatch.setattr(batch_run, "pool", lacking)  # steering without an ADP does not pool; there it is nonzero that meta lacks
    options = {"sigmas": torch.full((2,), 2.0), "cond_or_uncond": [0]}
    there, here = run(), run()
    outputs: list[Tensor] = []
    edit = there.edit
    there.edit = lambda *args: (outputs.append(edit(*args)), outputs[-1])[1]
    with caplog.at_level(logging.WARNING, "equipoise"):
        for call in range(3):
            numbers = torch.randn(2, width, 4, 4, generator=torch.Generator().manual_seed(call))
            h = torch.empty(numbers.shape, device="meta").as_subclass(Elsewhere)
            h.numbers = numbers
            out = edit_on_device(there, site, h, Call.read(options))
            assert out.device.type == "meta" and out.shape == h.shape
            wanted = here.edit(site, numbers, Call.read(options))
            assert not torch.equal(wanted, numbers) and torch.equal(outputs[-1], wanted)
    assert there.on_cpu and len(outputs) == 3
    assert len(caplog.messages) == 1 and "is computed on the CPU, which is slower: meta lacks an operation" in caplog.messages[0]


def test_what_the_cpu_lacks_is_not_hidden(prompt: Any) -> None:
    from equipoise.host.core.hooks import edit_on_device

    class Run:
        on_cpu, what = False, "a run"

        def edit(self, *args: Any) -> Tensor:
            raise NotImplementedError("no such operation")

    with pytest.raises(NotImplementedError, match="no such operation"):
        edit_on_device(Run(), "middle", torch.zeros(1, 1, 1, 1), None)
