"""The small text-to-image model: in training, in its file, and through the host's own nodes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from equipoise_tiny_text import CLIP, UNET, tiny_net, write_tiny_text

NAME = "tiny_text.safetensors"


@pytest.fixture(scope="module")
def text_file(host: Any) -> Iterator[Path]:
    path = write_tiny_text(host.diffusion_folder / NAME)
    yield path
    path.unlink()


@pytest.fixture
def loaded(prompt: Any, text_file: Path) -> tuple[Any, Any, Any]:
    """(model, clip, vae) through the node."""
    from equipoise.nodes.small_models.load_quickstart_text_model import LoadQuickstartTextModel

    return LoadQuickstartTextModel.execute(text_file.name).result


def encode(host: Any, clip: Any, text: str) -> Any:
    """The host's CLIP Text Encode."""
    return host.nodes.CLIPTextEncode().encode(clip, text)[0]


def empty(model: Any, batch: int = 2) -> dict[str, Any]:
    from equipoise.nodes.small_models.empty_pixel_latent import EmptyPixelLatent

    return EmptyPixelLatent.execute(model, 0, 0, batch).result[0]


def draw(host: Any, loaded: Any, text: str = "a doctor with eyeglasses", negative: str = "", model: Any = None, **more: Any) -> Any:
    """LATENT samples by the host's nodes."""
    patched, clip = model or loaded[0], loaded[1]
    more = {"cfg": 4.0, **more}
    return host.ksampler(patched, encode(host, clip, text), encode(host, clip, negative), empty(loaded[0]), **more)["samples"]


def test_the_hosts_nodes_make_an_image(prompt: Any, loaded: Any) -> None:
    latent = draw(prompt, loaded)
    assert latent.shape == (2, 12, 16, 16) and torch.equal(latent, draw(prompt, loaded))
    image = prompt.nodes.VAEDecode().decode(loaded[2], {"samples": latent})[0]
    assert image.shape == (2, 32, 32, 3) and image.isfinite().all() and image.min() >= 0 and image.max() <= 1
    assert image.std() > 0.01 and not torch.equal(image[0], image[1])


def test_prompt_negative_and_cfg_all_count(prompt: Any, loaded: Any) -> None:
    base = draw(prompt, loaded)
    others = [
        draw(prompt, loaded, "a photo of a doctor without eyeglasses"),
        draw(prompt, loaded, negative="a chef"),
        draw(prompt, loaded, cfg=1.0),
        draw(prompt, loaded, cfg=7.5),
    ]
    assert all((o - base).abs().max() > 1e-3 for o in others)


def test_the_classes_are_the_hosts_own(loaded: Any) -> None:
    import comfy.model_base
    import comfy.sd
    import comfy.sd1_clip
    from comfy.ldm.modules.attention import SpatialTransformer
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    model, clip, _vae = loaded
    assert type(model.model.diffusion_model) is UNetModel and isinstance(model.model, comfy.model_base.BaseModel)
    assert type(clip) is comfy.sd.CLIP and type(clip.cond_stage_model) is comfy.sd1_clip.SD1ClipModel
    norms = [m for m in model.model.diffusion_model.modules() if isinstance(m, torch.nn.GroupNorm)]
    assert norms and {m.num_groups for m in norms} == {8}
    assert sum(isinstance(m, SpatialTransformer) for m in model.model.diffusion_model.modules()) == 4


def test_the_clip_reads_words_as_training_did(prompt: Any, loaded: Any) -> None:
    net, tokens = tiny_net()
    texts = ["a photo of a doctor", "a photo of a doctor with eyeglasses", ""]
    expected = net.context(tokens(texts))
    for text, rows in zip(texts, expected, strict=True):
        found = encode(prompt, loaded[1], text)[0][0]
        assert found.shape == (1, 77, 32)
        torch.testing.assert_close(found[0], rows, rtol=1e-3, atol=1e-3)
    assert (expected[0] - expected[1]).abs().max() > 0.1


def test_words_that_no_caption_uses_are_all_alike(prompt: Any, loaded: Any) -> None:
    blurry, ugly, doctor = (encode(prompt, loaded[1], f"a {w}")[0][0] for w in ("blurry", "ugly", "doctor"))
    assert torch.equal(blurry, ugly) and not torch.equal(blurry, doctor)
    assert torch.equal(doctor, encode(prompt, loaded[1], "A Doctor")[0][0])


def test_weights_in_brackets_count(prompt: Any, loaded: Any) -> None:
    plain, strong = (encode(prompt, loaded[1], f"a chef with {w}")[0][0] for w in ("glasses", "(glasses:1.5)"))
    assert (plain - strong).abs().max() > 1e-3


def test_the_host_asks_the_network_what_it_was_trained_on(prompt: Any, loaded: Any) -> None:
    net, tokens = tiny_net()
    inner = loaded[0].model
    assert float(inner.model_sampling.sigma_max) == pytest.approx(157.407, abs=1e-3)
    torch.manual_seed(1)
    x, t, rows = torch.randn(2, 12, 16, 16), 700, tokens(["a chef", "a photo of a teacher"])
    sigma = inner.model_sampling.sigmas[t]
    scale = torch.sqrt(1 + sigma**2)
    denoised = inner.apply_model(x * scale, sigma.expand(2), c_crossattn=net.context(rows))
    velocity = net(x, torch.full((2,), float(t)), rows)
    torch.testing.assert_close(denoised, x / scale - sigma / scale * velocity, rtol=1e-3, atol=1e-3)


def test_split_calls_give_the_same_image(prompt: Any, loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    together = draw(prompt, loaded)
    rows: list[int] = []
    forward = loaded[0].model.diffusion_model.forward
    monkeypatch.setattr(loaded[0].model.diffusion_model, "forward", lambda x, *a, **k: rows.append(len(x)) or forward(x, *a, **k))
    draw(prompt, loaded)
    assert set(rows) == {4}
    rows.clear()
    monkeypatch.setattr(loaded[0].model, "memory_usage_factor", 1e9)
    alone = draw(prompt, loaded)
    assert set(rows) == {2}
    torch.testing.assert_close(alone, together, rtol=1e-3, atol=1e-3)


def test_patches_reach_the_network_and_stay_with_their_clone(prompt: Any, loaded: Any) -> None:
    base = draw(prompt, loaded)
    clone = loaded[0].clone()
    seen = set()

    def attention(q: Any, k: Any, v: Any, extra: Any) -> Any:
        seen.add(extra["block"])
        return q, k, v * 0.5

    clone.set_model_attn2_patch(attention)
    clone.set_model_output_block_patch(lambda h, skip, options: (h * 0.9, skip))
    assert (draw(prompt, loaded, model=clone) - base).abs().max() > 1e-3
    assert seen == {("input", 1), ("middle", 0), ("output", 2), ("output", 3)}
    assert torch.equal(draw(prompt, loaded), base)


def test_a_lora_in_the_usual_names_applies_to_both_networks(prompt: Any, loaded: Any) -> None:
    import comfy.sd

    model, clip, vae = loaded
    unet, text = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k", "lora_te_text_model_encoder_layers_0_mlp_fc1"
    torch.manual_seed(2)
    lora = {}
    for name, (inside, outside) in {unet: (32, 32), text: (32, 64)}.items():
        lora |= {f"{name}.lora_down.weight": torch.randn(4, inside), f"{name}.lora_up.weight": torch.randn(outside, 4)}
    with_lora = comfy.sd.load_lora_for_models(model, clip, lora, 1.0, 1.0)
    assert len(with_lora[0].patches) == 1 and len(with_lora[1].patcher.patches) == 1
    base = draw(prompt, loaded)
    assert (draw(prompt, loaded, model=with_lora[0]) - base).abs().max() > 1e-3
    assert (encode(prompt, with_lora[1], "a chef")[0][0] - encode(prompt, clip, "a chef")[0][0]).abs().max() > 1e-3
    assert torch.equal(draw(prompt, loaded), base)


def test_guidance_knows_the_model(loaded: Any) -> None:
    from equipoise.host.core.sites import base_model, site_channels

    assert base_model(loaded[0]) == "equipoise-portraits-text"
    assert site_channels(loaded[0]) == {"middle": 64, "output.0": 64, "output.1": 64, "output.2": 32}


def test_a_conditioning_of_another_width_is_refused(prompt: Any, loaded: Any) -> None:
    other = [[torch.zeros(1, 77, 768), {}]]
    with pytest.raises(
        ValueError, match=r"needs conditionings of width 32, and this one has width 768: encode the prompts with the CLIP of Load Q"
    ):
        prompt.ksampler(loaded[0], other, other, empty(loaded[0]))


def test_each_loader_lists_and_takes_its_own_files(prompt: Any, text_file: Path, tiny_models: Path) -> None:
    from equipoise.nodes.small_models.load_quickstart_text_model import LoadQuickstartTextModel
    from equipoise.nodes.small_models.load_unconditional_diffusion import LoadUnconditionalDiffusion

    assert text_file.name in LoadQuickstartTextModel.define_schema().inputs[0].options
    assert not any(n.startswith("tiny_p") for n in LoadQuickstartTextModel.define_schema().inputs[0].options)
    assert text_file.name not in LoadUnconditionalDiffusion.define_schema().inputs[0].options
    assert "tiny_plain.safetensors" in LoadUnconditionalDiffusion.define_schema().inputs[0].options
    with pytest.raises(ValueError, match="'tiny_text.safetensors' is a text-to-image model: load it with Load Quickstart Text Model"):
        LoadUnconditionalDiffusion.execute(text_file.name)
    with pytest.raises(ValueError, match="'tiny_plain.safetensors' is not a text model of this pack .*Load Unconditional Diffusion"):
        LoadQuickstartTextModel.execute("tiny_plain.safetensors")
    with pytest.raises(FileNotFoundError, match="'gone.safetensors' is not in models/equipoise/diffusion"):
        LoadQuickstartTextModel.execute("gone.safetensors")


def _without(key: str) -> Callable[[dict[str, Any], dict[str, str]], None]:
    return lambda tensors, meta: tensors.pop(key)


def _meta(key: str, value: str) -> Callable[[dict[str, Any], dict[str, str]], None]:
    return lambda tensors, meta: meta.update({key: value})


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (_meta("format_version", "2"), "format version 2, and this Equipoise reads 1: update"),
        (_meta("prediction", "eps"), "must be a velocity model with the linear schedule"),
        (_meta("unet", "{"), "metadata 'unet' should be JSON"),
        (_meta("unet", json.dumps({**UNET, "channel_mult": [1, 10**9]})), "metadata 'unet' should be JSON"),
        (_meta("unet", json.dumps({**UNET, "channel_mult": 3})), "channels of its U-Net do not fit"),
        (_meta("unet", json.dumps({**UNET, "num_head_channels": 0})), "U-Net weights do not fit"),
        (_meta("unet", json.dumps({**UNET, "channel_mult": [1, 3]})), "U-Net weights do not fit"),
        (_meta("clip", json.dumps({**CLIP, "hidden_size": "32"})), "metadata 'clip' should be JSON"),
        (_meta("clip", json.dumps({**CLIP, "hidden_size": 64})), "text model does not fit"),
        (_meta("norm_groups", "7"), "U-Net weights do not fit"),
        (_meta("norm_groups", "x"), "'norm_groups' should be a whole number from 1 and is 'x'"),
        (_meta("pixel_unshuffle", "4"), "do not fit pixel_unshuffle=4"),
        (_without("unet.out.2.weight"), "U-Net weights do not fit"),
        (_without("clip.token_ids"), "text model does not fit"),
        (_without("clip.final_layer_norm.weight"), "text model does not fit"),
        (lambda tensors, meta: tensors.update({"clip.token_ids": tensors["clip.token_ids"] + 10**6}), "text model does not fit"),
    ],
)
def test_a_damaged_file_is_refused_in_a_sentence(prompt: Any, text_file: Path, tmp_path: Path, damage: Any, sentence: str) -> None:
    from equipoise.host.small_models.text_model import load_text_model
    from equipoise.models.files import read_safetensors, write_safetensors

    tensors, meta = read_safetensors(text_file)
    damage(tensors, meta)
    write_safetensors(tmp_path / "damaged.safetensors", tensors, meta)
    with pytest.raises(ValueError, match=re.escape(sentence)) as refused:
        load_text_model(tmp_path / "damaged.safetensors")
    assert str(refused.value).startswith("'damaged.safetensors'") and "\n" not in str(refused.value)


def test_training_moves_every_weight_and_lowers_the_loss(host: Any) -> None:
    from equipoise.factory.train_text import TextLoss, draw_labelled_images

    net, tokens = tiny_net()
    net.train().requires_grad_(True)
    loss = TextLoss(net, tokens, *draw_labelled_images(64, 1), batch=8)
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3)
    values = []
    for step in range(12):
        value = loss(torch.Generator().manual_seed(step % 2))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert sum(values[-2:]) < 0.7 * sum(values[:2])
    assert not [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()]


def test_the_start_is_the_unconditional_model_without_its_attention(host: Any, tmp_path: Path) -> None:
    """With both attentions silent the two networks are one function, whatever the prompt."""
    from equipoise.factory.text_training import TextNet, warm_start
    from equipoise.factory.train_diffusion import CONFIG, export_diffusion
    from equipoise.models.adm_unet import AdmConfig, AdmUNet

    torch.manual_seed(3)
    source = AdmUNet(AdmConfig(**{**CONFIG, "norm_groups": 8})).half().float()
    for module in source.modules():
        if hasattr(module, "proj_out"):
            torch.nn.init.zeros_(module.proj_out.weight)
            torch.nn.init.zeros_(module.proj_out.bias)
    export_diffusion(source, tmp_path / "start.safetensors", {})
    net = TextNet(20)
    taken = warm_start(net, tmp_path / "start.safetensors")
    attention = [k for k in source.state_dict() if re.search(r"\.(qkv|proj_out|norm)\.", k)]
    assert taken == len(source.state_dict()) - len(attention) and len(attention) == 24
    x, t = torch.randn(2, 12, 16, 16), torch.tensor([30, 900])
    with torch.no_grad():
        expected = source(x, t)
        for tokens in (torch.zeros(2, 77, dtype=torch.long), torch.arange(154).reshape(2, 77) % 20):
            torch.testing.assert_close(net(x, t, tokens), expected, rtol=1e-4, atol=1e-4)
    export_diffusion(AdmUNet(AdmConfig(**{**CONFIG, "norm_groups": 32})), tmp_path / "other.safetensors", {})
    with pytest.raises(ValueError, match="was trained with 32 norm groups and this network has 8"):
        warm_start(net, tmp_path / "other.safetensors")


def test_training_may_start_from_a_text_model(host: Any, tmp_path: Path) -> None:
    from equipoise.factory.text_training import TextNet, export_text_model, warm_start

    torch.manual_seed(4)
    first, again = TextNet(5), TextNet(5)
    export_text_model(first, [3, 5, 8, 13, 21], tmp_path / "first.safetensors", {})
    assert warm_start(again, tmp_path / "first.safetensors") == len(first.state_dict())
    for name, value in first.state_dict().items():
        assert torch.equal(value.half(), again.state_dict()[name].half()), name
    with pytest.raises(ValueError, match="is a text model of another shape"):
        warm_start(TextNet(6), tmp_path / "first.safetensors")


def test_the_trained_shape_is_small_and_sd15_in_plan(host: Any, tmp_path: Path) -> None:
    from equipoise.factory.captions import vocabulary
    from equipoise.factory.text_training import TextNet, Tokens, export_text_model

    tokens = Tokens(vocabulary())
    export_text_model(TextNet(len(tokens.ids)), tokens.ids, tmp_path / "full.safetensors", {})
    assert (tmp_path / "full.safetensors").stat().st_size < 6 * 2**20 and len(tokens.ids) < 40
    with pytest.raises(KeyError):
        tokens(["a photo of a dentist"])
