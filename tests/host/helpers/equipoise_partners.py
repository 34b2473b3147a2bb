"""List what guidance and steering are combined with.

The tests run the list, and docs/composition.md prints it. A partner changes a :class:`equipoise_unet.Scene`. Names of host nodes are those
of the menu.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from equipoise_unet import CONTEXT, SIDE, Scene, control_net, some, text

POSITIVE_ONLY = frozenset({(0, True), (1, False)})
"""(number of the conditioning, whether its rows were changed): the positive is 0 and the negative 1."""


@dataclass(frozen=True)
class Partner:
    """A node or setting that is combined with guidance and steering."""

    name: str
    """Its name in the table."""
    nodes: str
    """Where it comes from."""
    rule: str
    """What the pair does, for the table."""
    apply: Callable[[Scene], Scene]
    """Returns a scene that contains it."""
    chain: bool = True
    """Whether it stands in the MODEL's chain, so that it may come before or after our node."""
    same: bool = True
    """Whether both orders of the nodes give the same image, bit for bit."""
    shows: bool = True
    """Whether the image shows that it is there."""
    waits: bool = False
    """Whether guidance waits for a reading of all images, and leaves rows of the positive alone until then."""
    rows: frozenset[tuple[int, bool]] = POSITIVE_ONLY
    """Rows that are edited by default."""
    why_not: Callable[[], str | None] = field(default=lambda: None)
    """Returns a reason why this host cannot run it even alone, or None."""

    @property
    def key(self) -> str:
        """Return the name as a test's id."""
        return self.name.lower().replace(" ", "-").replace("(", "").replace(")", "").replace(",", "").replace("'", "")


def node(module: str, name: str, *arguments: Any, **named: Any) -> Any:
    """Run a node of the host's extras and return its first output.

    It may exist in a newer or an older form. Arguments that this version lacks are left out.
    """
    cls = getattr(importlib.import_module(f"comfy_extras.nodes_{module}"), name)
    run = cls.execute if hasattr(cls, "execute") else getattr(cls(), cls.FUNCTION)
    known = inspect.signature(run).parameters
    out = run(*arguments, **{k: v for k, v in named.items() if k in known})
    return (out if isinstance(out, tuple) else out.result)[0]


def on_model(module: str, name: str, *arguments: Any, **named: Any) -> Callable[[Scene], Scene]:
    """Make a partner's change from a node that takes a MODEL first and returns one."""
    return lambda scene: scene.but(model=node(module, name, scene.model, *arguments, **named))


def sampled(**settings: Any) -> Callable[[Scene], Scene]:
    """Return a change of KSampler's settings."""
    return lambda scene: scene.but(settings=settings)


# -- in the MODEL's chain --------------------------------------------------------------------------------------------------------------


def lora(scene: Scene) -> Scene:
    """Add a low-rank change to all linear layers of the attention, with the host's loader."""
    import comfy.lora

    state, generator = {}, torch.Generator().manual_seed(1)
    network = scene.model.model.diffusion_model
    for name, module in network.named_modules():
        if name.endswith(("to_q", "to_v", "to_out.0")):
            out, into = module.weight.shape
            stem = f"lora_unet_{name.replace('.', '_')}"
            state[f"{stem}.lora_up.weight"] = torch.randn(out, 2, generator=generator) / 2
            state[f"{stem}.lora_down.weight"] = torch.randn(2, into, generator=generator) / into**0.5
    # The host knows diffusers' and kohya's names of full-sized models; of this one it is told them.
    known = {f"lora_unet_{n.replace('.', '_')}": f"diffusion_model.{n}.weight" for n, _ in network.named_modules()}
    clone = scene.model.clone()
    added = clone.add_patches(comfy.lora.load_lora(state, known), 1.0)
    assert len(added) == len(state) // 2
    return scene.but(model=clone)


def image_prompt(scene: Scene) -> Scene:
    """Add cross-attention to further tokens in every block that has it, as IPAdapter does."""
    generator = torch.Generator().manual_seed(4)
    tokens = torch.randn(1, 4, CONTEXT, generator=generator)
    clone = scene.model.clone()

    def replaced(width: int) -> Callable[..., torch.Tensor]:
        to_k, to_v = (torch.randn(CONTEXT, width, generator=generator) / CONTEXT**0.5 for _ in range(2))

        def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: dict[str, Any]) -> torch.Tensor:
            from comfy.ldm.modules.attention import optimized_attention

            at = tokens.expand(len(q), -1, -1)
            return optimized_attention(q, k, v, extra["n_heads"]) + optimized_attention(q, at @ to_k, at @ to_v, extra["n_heads"])

        return attend

    for kind, number, width in (("input", 1, 32), ("input", 3, 64), ("middle", 0, 128), ("output", 2, 64), ("output", 4, 32)):
        clone.set_model_attn2_replace(replaced(width), kind, number)
    return scene.but(model=clone)


def perp_neg(scene: Scene) -> Scene:
    return scene.but(model=node("perpneg", "PerpNeg", scene.model, text(8), 1.0))


def rescaled(scene: Scene) -> Scene:
    return scene.but(model=node("model_advanced", "RescaleCFG", scene.model, 0.7))


def v_prediction(scene: Scene) -> Scene:
    return scene.but(model=node("model_advanced", "ModelSamplingDiscrete", scene.model, "v_prediction", False))


def windows(scene: Scene) -> Scene:
    """Sample one image at a time with context windows over the batch."""
    made = node(
        "context_windows",
        "ContextWindowsManualNode",
        scene.model,
        1,
        0,
        "standard_static",
        1,
        False,
        "pyramid",
        0,
        freenoise=False,
        cond_retain_index_list="",
        split_conds_to_windows=False,
        latent_retain_index_list="",
        causal_window_fix=False,
    )
    return scene.but(model=made, settings={"steps": 4})


def windows_fail() -> str | None:
    """Tell whether context windows fail on this host.

    v0.3.64 compares the batch's noise levels with the schedule element by element, which fails for more than one image.
    """
    import comfy.context_windows

    source = inspect.getsource(comfy.context_windows.IndexListContextHandler.set_step)
    return None if "timestep[0]" in source else "this host's context windows fail for a batch of images, also alone"


def tiles(scene: Scene) -> Scene:
    """Cut latents into overlapping tiles in the model's function wrapper, as tiled diffusion does."""

    def wrapper(apply_model: Callable[..., torch.Tensor], given: dict[str, Any]) -> torch.Tensor:
        x, t, c = given["input"], given["timestep"], given["c"]
        size, starts = SIDE - 2, [(0, 0), (0, 2), (2, 0), (2, 2)]
        repeated = {
            k: torch.cat([v] * len(starts)) if isinstance(v, torch.Tensor) and v.shape[:1] == x.shape[:1] else v for k, v in c.items()
        }
        out = apply_model(torch.cat([x[..., i : i + size, j : j + size] for i, j in starts]), torch.cat([t] * len(starts)), **repeated)
        total, count = torch.zeros_like(x), torch.zeros_like(x[:1, :1])
        for part, (i, j) in zip(out.chunk(len(starts)), starts, strict=True):
            total[..., i : i + size, j : j + size] += part
            count[..., i : i + size, j : j + size] += 1
        return total / count

    clone = scene.model.clone()
    clone.set_model_unet_function_wrapper(wrapper)
    return scene.but(model=clone)


def easy_cache_fails() -> str | None:
    """Tell whether EasyCache fails on this host.

    v0.3.64 adds what it stored for one conditioning to the rows of both.
    """
    from comfy_extras.nodes_easycache import EasyCacheHolder

    source = inspect.getsource(EasyCacheHolder.apply_cache_diff)
    return "this host's EasyCache fails where positive and negative share a call, also alone" if "x = x[slicing]" in source else None


def cached(name: str) -> Callable[[Scene], Scene]:
    """Use a cache so generous that it skips calls within a few steps."""
    return lambda scene: scene.but(model=node("easycache", name, scene.model, 3.0, 0.0, 1.0, False), settings={"steps": 5})


def compiled(scene: Scene) -> Scene:
    """Compile the model as TorchCompileModel does, with a back end that only traces."""
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    clone = scene.model.clone()
    set_torch_compile_wrapper(clone, backend="eager")
    return scene.but(model=clone)


def differential(scene: Scene) -> Scene:
    return masked(scene.but(model=node("differential_diffusion", "DifferentialDiffusion", scene.model)))


# -- conditionings, latents, samplers --------------------------------------------------------------------------------------------------


def controlled(scene: Scene) -> Scene:
    import nodes as host_nodes

    image = torch.rand(1, SIDE * 8, SIDE * 8, 3, generator=torch.Generator().manual_seed(6))
    positive, negative = host_nodes.ControlNetApplyAdvanced().apply_controlnet(
        scene.positive, scene.negative, control_net(), image, 1.0, 0.0, 1.0
    )
    return scene.but(positive=positive, negative=negative)


def areas(scene: Scene) -> Scene:
    import nodes as host_nodes

    left = host_nodes.ConditioningSetArea().append(text(11), SIDE * 4, SIDE * 8, 0, 0, 1.0)[0]
    return scene.but(positive=[*scene.positive, *left])


def masks(scene: Scene) -> Scene:
    import nodes as host_nodes

    half = torch.zeros(1, SIDE * 8, SIDE * 8)
    half[..., : SIDE * 4] = 1
    set_mask = host_nodes.ConditioningSetMask().append
    return scene.but(positive=[*set_mask(text(11), half, "default", 1.0)[0], *set_mask(text(12), 1 - half, "default", 1.0)[0]])


def in_turn(scene: Scene) -> Scene:
    import nodes as host_nodes

    within = host_nodes.ConditioningSetTimestepRange().set_range
    return scene.but(positive=[*within(scene.positive, 0.0, 0.5)[0], *within(text(11), 0.5, 1.0)[0]])


def hooked(scene: Scene) -> Scene:
    """Add a LoRA that belongs to the positive alone."""
    import comfy.hooks
    import node_helpers

    weight = "diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_v.weight"
    hooks = comfy.hooks.HookGroup()
    hook = comfy.hooks.WeightHook(strength_model=1.0, strength_clip=0.0)
    hook.need_weight_init = False
    shape = scene.model.model.state_dict()[weight].shape
    hook.weights = {weight: ("diff", (0.3 * torch.randn(shape, generator=torch.Generator().manual_seed(2)),))}
    hooks.add(hook)
    return scene.but(positive=node_helpers.conditioning_set_values(scene.positive, {"hooks": hooks}))


def image_to_image(scene: Scene) -> Scene:
    return scene.but(latent=some(scene.latent), settings={"denoise": 0.6})


def masked(scene: Scene) -> Scene:
    mask = torch.zeros(1, 1, SIDE * 8, SIDE * 8)
    mask[..., : SIDE * 4, :] = 1
    return scene.but(latent={**some(scene.latent), "noise_mask": mask}, settings={"denoise": 0.8})


def basic_guider(scene: Scene) -> Scene:
    return scene.but(guider=lambda model, s: node("custom_sampler", "BasicGuider", model, s.positive))


def cfg_guider(scene: Scene) -> Scene:
    return scene.but(guider=lambda model, s: node("custom_sampler", "CFGGuider", model, s.positive, s.negative, 3.0))


def dual_guider(scene: Scene) -> Scene:
    return scene.but(
        guider=lambda model, s: node("custom_sampler", "DualCFGGuider", model, s.positive, text(11), s.negative, 3.0, 2.0, style="regular")
    )


def perp_guider(scene: Scene) -> Scene:
    return scene.but(guider=lambda model, s: node("perpneg", "PerpNegGuider", model, s.positive, s.negative, text(8), 3.0, 1.0))


PATCHES = (
    Partner("LoRA", "Load LoRA", "The LoRA changes weights, so its effect is already in what is read and edited.", lora),
    Partner("IPAdapter", "attention replacements of IPAdapter's kind", "They act in the attention, before h is read.", image_prompt),
    Partner(
        "FreeU",
        "FreeU",
        "FreeU scales h. The reading and the edit always come first, and FreeU then scales the result.",
        on_model("freelunch", "FreeU", 1.1, 1.2, 0.9, 0.2),
    ),
    Partner("FreeU V2", "FreeU_V2", "The same as FreeU.", on_model("freelunch", "FreeU_V2", 1.3, 1.4, 0.9, 0.2)),
    Partner(
        "PAG",
        "Perturbed-Attention Guidance",
        "Its additional call uses the positive prompt and is edited like it. So the two still differ by their attention alone.",
        on_model("pag", "PerturbedAttentionGuidance", 2.0),
        rows=POSITIVE_ONLY,
    ),
    Partner(
        "SAG",
        "Self-Attention Guidance",
        "Its additional call uses the negative prompt and is not edited.",
        on_model("sag", "SelfAttentionGuidance", 0.8, 2.0),
        rows=POSITIVE_ONLY | {(0, False)},
    ),
    Partner(
        "Perp-Neg",
        "Perp-Neg (deprecated)",
        "The call of the empty prompt has its own conditioning and is not edited.",
        perp_neg,
        rows=POSITIVE_ONLY | {(0, False)},
    ),
    Partner("RescaleCFG", "RescaleCFG", "It changes the predictions, after the U-Net.", rescaled),
    Partner("Mahiro", "Mahiro", "It changes the predictions, after the U-Net.", on_model("mahiro", "Mahiro")),
    Partner("TCFG", "TCFG", "It changes the predictions, after the U-Net.", on_model("tcfg", "TCFG")),
    Partner("APG", "Adaptive Projected Guidance", "It changes the predictions, after the U-Net.", on_model("apg", "APG", 0.5, 5.0, 0.0)),
    Partner("CFGNorm", "CFGNorm", "It changes the predictions, after the U-Net.", on_model("cfg", "CFGNorm", 0.7)),
    Partner("Zero-star", "CFGZeroStar", "It changes the predictions, after the U-Net.", on_model("cfg", "CFGZeroStar")),
    Partner("FreSca", "FreSca", "It changes the predictions, after the U-Net.", on_model("fresca", "FreSca", 1.0, 1.25, 4)),
    Partner(
        "Epsilon Scaling", "Epsilon Scaling", "It changes the predictions, after the U-Net.", on_model("eps", "EpsilonScaling", 1.05)
    ),
    Partner(
        "Attention multiply",
        "UNetSelfAttentionMultiply",
        "It changes weights, so its effect is already in what is read and edited.",
        on_model("attention_multiply", "UNetSelfAttentionMultiply", 1.0, 1.2, 1.3, 1.1),
    ),
    Partner(
        "v-prediction",
        "ModelSamplingDiscrete",
        "It changes the noise levels. Put it before our node, because start_percent and end_percent use the schedule that they find there.",
        v_prediction,
    ),
    Partner(
        "HyperTile",
        "HyperTile",
        "It tiles the attention. h keeps its size.",
        on_model("hypertile", "HyperTile", 32, 2, 0, False),
    ),
    Partner(
        "Token merging",
        "TomePatchModel",
        "It merges tokens in the attention. h keeps its size.",
        on_model("tomesd", "TomePatchModel", 0.5),
    ),
    Partner(
        "Deep Shrink",
        "PatchModelAddDownscale",
        "h is smaller for some steps. Moves and profiles are resized to it.",
        on_model("model_downscale", "PatchModelAddDownscale", 3, 2.0, 0.0, 0.6, True, "bicubic", "bicubic"),
    ),
    Partner(
        "Tiled diffusion",
        "packs that sample in tiles (MultiDiffusion, Mixture of Diffusers)",
        "The reading of an image is the mean over its tiles, and the image has one class. Each tile is edited as if it were the whole "
        "image. So an attribute with a fixed position in the picture, such as eyeglasses, comes out wrong if tiles are small. Use guidance "
        "for the first sampling, and tile the upscale without it.",
        tiles,
    ),
    Partner(
        "Context windows",
        "Context Windows (Manual), dim 0",
        "A window over the batch shows some of the images at a time. If classes are assigned by a reading, guidance waits until all images "
        "are read, so the first step is edited only in its last window. If they are assigned from the seed, every step is edited.",
        windows,
        shows=False,
        waits=True,
        why_not=windows_fail,
    ),
    Partner(
        "EasyCache",
        "EasyCache",
        "A step that reuses a prediction is not read or edited. It repeats an edited one.",
        cached("EasyCacheNode"),
        why_not=easy_cache_fails,
    ),
    Partner(
        "LazyCache",
        "LazyCache",
        "The same as EasyCache.",
        cached("LazyCacheNode"),
    ),
    Partner(
        "torch.compile",
        "TorchCompileModel",
        "The edit breaks the compiled graph and runs uncompiled. The test uses the back end that only traces. We ran Inductor by hand "
        "on the CPU, with the same result. It compiles again in its second run, which differs from the first by 7e-7 with or without our "
        "nodes.",
        compiled,
    ),
    Partner("Differential Diffusion", "DifferentialDiffusion with a denoise mask", "The same as inpainting.", differential),
)
"""They stand in the MODEL's chain."""

BESIDE = (
    Partner(
        "ControlNet",
        "Apply ControlNet",
        "Its residual is part of h when h is read and edited. It sees the noisy image, not the edit.",
        controlled,
        chain=False,
    ),
    Partner(
        "Areas",
        "Conditioning (Set Area)",
        "An area has its own call on a part of the picture. It is read and edited as if it were the whole image, towards the class of the "
        "image.",
        areas,
        chain=False,
    ),
    Partner(
        "Masks",
        "Conditioning (Set Mask)",
        "Every positive prompt is read and edited, whatever its mask. The reading of an image is their mean.",
        masks,
        chain=False,
    ),
    Partner(
        "Prompts in turn",
        "ConditioningSetTimestepRange",
        "The positive prompt that is active at a step is edited.",
        in_turn,
        chain=False,
    ),
    Partner(
        "LoRA on a conditioning",
        "Create Hook LoRA, Set CLIP Hooks",
        "The positive prompt has its own call, which is read and edited.",
        hooked,
        chain=False,
    ),
    Partner(
        "img2img",
        "a LATENT and denoise below 1",
        "Sampling begins inside the window, so only the rest of the window has an effect. The lower the denoise, the smaller the effect.",
        image_to_image,
        chain=False,
    ),
    Partner(
        "Inpainting",
        "Set Latent Noise Mask",
        "h covers the whole picture, and ComfyUI restores what the mask keeps. So an edit changes the image inside the mask only.",
        masked,
        chain=False,
    ),
    *(
        Partner(
            f"CFG++ ({name})",
            name,
            "The sampler uses both predictions. The one of the positive prompt is edited.",
            sampled(sampler=name, cfg=1.5, steps=3),
            chain=False,
        )
        for name in ("euler_cfg_pp", "dpmpp_2m_cfg_pp", "res_multistep_cfg_pp")
    ),
    Partner(
        "Basic Guider",
        "SamplerCustomAdvanced, BasicGuider",
        "There is only a positive prompt.",
        basic_guider,
        chain=False,
        rows=frozenset({(0, True)}),
    ),
    Partner("CFG Guider", "SamplerCustomAdvanced, CFGGuider", "The same as KSampler.", cfg_guider, chain=False),
    Partner(
        "Dual CFG Guider",
        "SamplerCustomAdvanced, DualCFGGuider",
        "Both positive prompts are edited and the negative is not, whatever their numbers are.",
        dual_guider,
        chain=False,
        rows=frozenset({(0, False), (1, True), (2, True)}),
    ),
    Partner(
        "Perp-Neg Guider",
        "SamplerCustomAdvanced, PerpNegGuider",
        "The negative and the empty prompt are not edited.",
        perp_guider,
        chain=False,
        rows=frozenset({(0, True), (1, False), (2, False)}),
    ),
)
"""They come in at the sampler."""

PARTNERS = PATCHES + BESIDE
