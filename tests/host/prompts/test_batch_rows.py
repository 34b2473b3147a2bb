"""A prompt per image: row i of a batch in one pass equals the image drawn alone with prompt i, in every family that is offered."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from equipoise_families import FAMILIES, RandomClip, empty_latent, family_model, largest_difference
from equipoise_nodes import execute

PROMPT, WORDS, IMAGES = "a photo of a {gender} doctor at work", "woman: young woman | lady\nman: man", 4


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {}


@pytest.fixture
def drawn(prompt: Any, models: dict[str, Any], request: pytest.FixtureRequest) -> Any:
    """Sample a family's model; return images in the units of its network."""

    def draw(name: str, positive: Any, negative: Any, latent: Any, **settings: Any) -> torch.Tensor:
        with torch.inference_mode(False), torch.no_grad():
            model = models.setdefault(name, None) or family_model(FAMILIES[name])
        models[name] = model
        samples = prompt.ksampler(model, positive, negative, latent, seed=3, steps=2, cfg=3.0, scheduler="simple", **settings)["samples"]
        return model.model.process_latent_in(samples)

    return draw


def balanced(name: str, latent: Any, **inputs: Any) -> Any:
    from equipoise.nodes.prompts.balanced_prompts import BalancedPrompts

    values = {"prompt": PROMPT, "words": WORDS, "weights": "half and half", "seed": 3, **inputs}
    return execute(BalancedPrompts, **values, latent=latent, clip=RandomClip(FAMILIES[name])).result


@pytest.mark.parametrize("name", FAMILIES)
def test_row_i_equals_the_image_alone_with_prompt_i(drawn: Any, name: str) -> None:
    clip, latent = RandomClip(FAMILIES[name]), empty_latent(FAMILIES[name], IMAGES)
    prompts, latents, conditioning, _, _ = balanced(name, latent)
    negative = clip.encode_from_tokens_scheduled("bad")
    batch = drawn(name, conditioning, negative, latent)
    assert len(prompts) > 1 and len(latents) == len(prompts)
    differences = []
    for text, part in zip(prompts, latents, strict=True):
        positive = clip.encode_from_tokens_scheduled(text)
        together = drawn(name, positive, negative, part)
        for row, image in enumerate(part["batch_index"]):
            alone = drawn(name, positive, negative, {"samples": latent["samples"][:1], "batch_index": [image]})
            differences += [largest_difference(batch[image], alone[0]), largest_difference(together[row], alone[0])]
    spread = largest_difference(batch[0], batch[1:])
    print(f"\n{name}: largest difference {max(differences):.1e}, of images that differ by up to {spread:.2f}")
    assert max(differences) < 1e-4 < spread




@pytest.mark.parametrize("name", ["controlled", "lora", "image_prompt", "areas", "in_turn", "masked", "image_to_image"])
def test_the_rows_stay_independent_beside_other_nodes(prompt: Any, name: str) -> None:
    """ControlNet, LoRA, IPAdapter, areas, timestep ranges, inpainting and image to image."""
    import equipoise_partners
    from equipoise.host.core.passes.batch_slices import latent_rows
    from equipoise_unet import SIDE, Scene, tiny_sd

    latent = {"samples": torch.zeros(IMAGES, 4, SIDE, SIDE)}
    prompts, parts, conditioning, _, _ = balanced("SD1.5", latent)
    clip, add = RandomClip(FAMILIES["SD1.5"]), getattr(equipoise_partners, name)
    plain = Scene(prompt, tiny_sd()).but(latent=latent, negative=clip.encode_from_tokens_scheduled("bad"))
    scene = add(plain.but(positive=conditioning))
    batch = scene.sample()
    assert largest_difference(batch, plain.but(positive=conditioning).sample()) > 1e-2, "the other node does nothing"
    whole = {**scene.latent, "batch_index": list(range(IMAGES))}
    for text, part in zip(prompts, parts, strict=True):
        alone = add(plain.but(positive=clip.encode_from_tokens_scheduled(text)))
        for image in part["batch_index"]:
            sampled = alone.but(latent=latent_rows(whole, [image])).sample()
            assert largest_difference(batch[image], sampled[0]) < 1e-4 * float(batch.std())
