"""The sparse autoencoder: activations, atoms, changes of activations, and its file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from equipoise.models import topk
from equipoise.models.files import read_safetensors, write_safetensors
from equipoise.models.sae import ACTIVATIONS, BATCH_TOPK, TOPK, SaeFile, SparseAutoencoder, load_sae, save_sae
from equipoise.models.topk import top_k

KNOTS = torch.linspace(-10, 9, 5)


def autoencoder(activation: str = TOPK, channels: int = 6, latents: int = 32, k: int = 4) -> SparseAutoencoder:
    sae = SparseAutoencoder(channels, latents, k, KNOTS, activation).requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    sae.mean.copy_(torch.randn(sae.mean.shape, generator=generator))
    sae.scale.copy_(torch.rand(sae.scale.shape, generator=generator) + 0.5)
    sae.bias.copy_(torch.randn(channels, generator=generator) * 0.1)
    sae.encoder_bias.copy_(torch.randn(latents, generator=generator) * 0.1)
    sae.threshold.fill_(0.8)
    return sae.eval()


def features(channels: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(3, channels, 5, 7, generator=generator), torch.tensor([-12.0, 0.3, 4.0])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_are_sparse_and_not_negative(activation: str) -> None:
    sae, (h, level) = autoencoder(activation), features()
    z = sae.encode(h, level)
    assert z.shape == (3, 32, 5, 7) and z.dtype == torch.float32 and float(z.min()) == 0
    assert int(z.count_nonzero()) > 100
    if activation == TOPK:
        assert int(z.count_nonzero(dim=1).max()) == 4
    else:
        assert float(z[z > 0].min()) > 0.8 and int(z.count_nonzero(dim=1).max()) > 4
    torch.testing.assert_close(sae.decoder.norm(dim=1), torch.ones(32))


def test_the_largest_are_kept() -> None:
    sae, (h, level) = autoencoder(), features()
    x = sae.normalise(h, level).movedim(1, -1)
    wanted = ((x - sae.bias) @ sae.encoder.T + sae.encoder_bias).relu()
    least = wanted.topk(4, dim=-1)[0][..., -1:]
    torch.testing.assert_close(sae.encode(h, level).movedim(1, -1), wanted * (wanted >= least))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_reconstruction_is_the_decoded_activations(activation: str) -> None:
    sae, (h, level) = autoencoder(activation), features()
    torch.testing.assert_close(sae(h, level), sae.decode(sae.encode(h, level), level))
    torch.testing.assert_close(sae.denormalise(sae.normalise(h, level), level), h)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_chosen_latents_alone(activation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sae, (h, level) = autoencoder(activation), features()
    chosen = torch.tensor([30, 2, 17])
    whole = sae.encode(h, level)
    assert torch.equal(sae.active(h, level, chosen), whole[:, chosen])
    monkeypatch.setattr("equipoise.models.sae.CHUNK", 32 * 10)  # ten positions at a time
    assert torch.equal(sae.active(h, level, chosen), whole[:, chosen])
    torch.testing.assert_close(sae(h, level), sae.decode(whole, level))


def test_a_change_of_activations_is_decoded_without_bias() -> None:
    sae, (h, level) = autoencoder(), features()
    z = sae.encode(h, level)
    changed = (z + torch.randn(z.shape, generator=torch.Generator().manual_seed(3))).relu()
    wanted = sae.decode(changed, level) - sae.decode(z, level)
    torch.testing.assert_close(sae.delta(changed - z, level), wanted, atol=1e-5, rtol=1e-5)
    chosen = torch.tensor([5, 9])
    only = torch.zeros_like(z)
    only[:, chosen] = 1.5
    torch.testing.assert_close(sae.delta(only[:, chosen], level, chosen), sae.delta(only, level), atol=1e-6, rtol=1e-5)
    assert not sae.delta(torch.zeros(3, 2, 5, 7), level, chosen).any() and not sae.delta(torch.zeros_like(z), level).any()


@pytest.mark.parametrize("few_threads", [0, 10_000])
@pytest.mark.parametrize(("m", "k"), [(7, 7), (32, 3), (1024, 16), (1000, 9), (1021, 4)])
def test_the_fast_selection_is_exact(m: int, k: int, few_threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topk, "FEW_THREADS", few_threads)
    x = torch.randn(50, m, generator=torch.Generator().manual_seed(m))
    values, places = top_k(x, k)
    assert torch.equal(values.sort(1)[0], x.topk(k, dim=1)[0].sort(1)[0]) and torch.equal(x.gather(1, places), values)
    assert all(len(row.unique()) == k for row in places)
    x[0, : m // 2] = x[0, m // 2]  # some are equal
    assert torch.equal(top_k(x, k)[0].sort(1)[0], x.topk(k, dim=1)[0].sort(1)[0])
    equal, places = top_k(torch.zeros(2, m), k)
    assert not equal.any() and all(len(row.unique()) == k for row in places)


def test_any_size_and_full_width() -> None:
    sae = SparseAutoencoder(1280, 10240, 32, KNOTS).requires_grad_(False)
    for height, width in ((8, 8), (4, 6)):
        h, level = torch.randn(1, 1280, height, width), torch.zeros(1)
        found = sae.active(h, level, torch.arange(0, 10240, 1000))
        assert found.shape == (1, 11, height, width) and sae(h, level).shape == h.shape
        assert sae.delta(found, level, torch.arange(0, 10240, 1000)).shape == h.shape


def test_the_file_brings_everything_back(tmp_path: Path) -> None:
    sae, (h, level) = autoencoder(BATCH_TOPK), features()
    for weight in sae.parameters():
        weight.copy_(weight.half().float())
    file = SaeFile(sae, "output.1", "tiny", {"fvu": 0.05, "l0": 4.0, "dead_share": 0.01, "licence": "CC0"})
    save_sae(file, tmp_path / "a.safetensors")
    loaded = load_sae(tmp_path / "a.safetensors")
    assert (loaded.site, loaded.base_model, loaded.info) == ("output.1", "tiny", file.info)
    assert (loaded.sae.k, loaded.sae.activation, loaded.digest) == (4, BATCH_TOPK, file.digest)
    assert torch.equal(loaded.sae.encode(h, level), sae.encode(h, level))
    assert not any(p.requires_grad for p in loaded.sae.parameters()) and "unexplained variance 0.050" in loaded.text()
    half = load_sae(tmp_path / "a.safetensors", torch.bfloat16)
    assert half.sae.decoder.dtype == torch.bfloat16 and half.digest == file.digest
    assert float((half.sae(h, level) - sae(h, level)).pow(2).mean() / sae(h, level).pow(2).mean()) < 0.02
    other = autoencoder(BATCH_TOPK)
    other.encoder_bias[0] += 1
    assert SaeFile(other, "output.1", "tiny").digest != file.digest
    meta = read_safetensors(tmp_path / "a.safetensors")[1]
    assert meta["format"] == "equipoise-sae" and meta["licence"] == "CC0" and meta["digest"] == file.digest


def test_bad_input_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="between 1 and the number of latents"):
        SparseAutoencoder(6, 32, 33, KNOTS)
    with pytest.raises(ValueError, match="topk or batch-topk, not 'relu'"):
        SparseAutoencoder(6, 32, 4, KNOTS, "relu")
    h, level = features(5)
    with pytest.raises(ValueError, match="6 channels, and this h has the shape"):
        autoencoder().encode(h, level)
    path = tmp_path / "a.safetensors"
    save_sae(SaeFile(autoencoder(), "middle", "tiny"), path)
    tensors, meta = read_safetensors(path)
    for change, said in (
        ({"format": "equipoise-adp"}, "not a sparse autoencoder"),
        ({"format_version": "2"}, "update Equipoise"),
        ({"k": "64"}, "does not fit its own metadata"),
        ({"latents": "16"}, "does not fit its own metadata"),
        ({"info": "{"}, "does not fit its own metadata"),
    ):
        write_safetensors(tmp_path / "b.safetensors", tensors, meta | change)
        with pytest.raises(ValueError, match=said):
            load_sae(tmp_path / "b.safetensors")
    write_safetensors(tmp_path / "b.safetensors", tensors, {k: v for k, v in meta.items() if k != "site"})
    with pytest.raises(ValueError, match="lacks the metadata site"):
        load_sae(tmp_path / "b.safetensors")
    tensors["bias"][0] = float("nan")
    write_safetensors(tmp_path / "b.safetensors", tensors, meta)
    with pytest.raises(ValueError, match="not finite"):
        load_sae(tmp_path / "b.safetensors")
    (tmp_path / "b.safetensors").write_bytes(path.read_bytes()[:400])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load_sae(tmp_path / "b.safetensors")
