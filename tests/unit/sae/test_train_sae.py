"""Training a sparse autoencoder: its gradients, its stream of tokens, resuming, several processes, and a dictionary that it finds again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from equipoise.cli.main import main
from equipoise.methods.core.checkpoint import NOTHING, RESUMED, STALE
from equipoise.methods.data.feature_set import FeatureSet, FeatureSetWriter, iterate_shards, open_feature_set
from equipoise.methods.sae.loss import Active, add_gradients, by_latent
from equipoise.methods.sae.statistics import fit_normalisation, geometric_median
from equipoise.methods.sae.tokens import TokenStream, divided, token_source
from equipoise.methods.sae.train import checkpoint_path, train_sae
from equipoise.methods.sae.training import SaeSettings, SaeTraining
from equipoise.models.sae import ACTIVATIONS, BATCH_TOPK, TOPK, SparseAutoencoder, load_sae
from equipoise.tests.equipoise_patience import PATIENCE

CHANNELS, ATOMS, K = 12, 24, 3
LEVELS = torch.tensor([-7.3, -1.2, 2.6])
QUICK = SaeSettings(latents=24, k=K, steps=40, batch=64, warmup=5)


def planted(seed: int = 0) -> torch.Tensor:
    """Atoms of norm 1: [ATOMS, CHANNELS]."""
    return F.normalize(torch.randn(ATOMS, CHANNELS, generator=torch.Generator().manual_seed(seed)), dim=1)


def record(folder: Path, images: int = 24, per_shard: int = 4, meta: dict[str, object] | None = None) -> FeatureSet:
    """A set of maps 4x4 whose positions are sparse sums of planted atoms, with another mean and scale at every noise level."""
    generator = torch.Generator().manual_seed(1)
    writer = FeatureSetWriter(folder, {"base_model": "tiny", "site": "output.1", "map": [4, 4]} if meta is None else meta)
    atoms = planted()
    for start in range(0, images, per_shard):
        n = min(per_shard, images - start)
        on = torch.rand(n * len(LEVELS) * 16, ATOMS, generator=generator).argsort(1)[:, :2]
        z = torch.zeros(len(on), ATOMS).scatter_(1, on, torch.rand(on.shape, generator=generator) + 0.5)
        x = (z @ atoms).view(n, len(LEVELS), 4, 4, CHANNELS).movedim(-1, 2)
        x = x * torch.tensor([1.0, 5.0, 0.2]).view(1, -1, 1, 1, 1) + torch.tensor([3.0, 0.0, -1.0]).view(1, -1, 1, 1, 1)
        writer.add(x, LEVELS, [f"{start + i}.png" for i in range(n)], [0] * n, [""] * n)
    return open_feature_set(folder)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> FeatureSet:
    return record(tmp_path_factory.mktemp("sae") / "set")


def trained_tensors(file: object) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in file.sae.state_dict().items()}  # type: ignore[attr-defined]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_are_those_of_autograd(activation: str) -> None:
    sae = SparseAutoencoder(CHANNELS, 24, K, torch.zeros(1), activation)
    with torch.no_grad():
        for p in (sae.encoder, sae.encoder_bias, sae.bias):
            p += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    x = torch.randn(50, CHANNELS, generator=torch.Generator().manual_seed(5))
    before = F.linear(x - sae.bias, sae.encoder, sae.encoder_bias)
    least = before.detach().flatten().topk(50 * K)[0][-1] if activation == BATCH_TOPK else before.detach().topk(K, dim=1)[0][:, -1:]
    z = (before * (before >= least)).relu()
    error = z @ sae.decoder + sae.bias - x
    dead = torch.tensor([3, 4, 9, 20])
    other = before[:, dead].relu()
    other = other * (other >= other.detach().topk(2, dim=1)[0][:, -1:])
    left = other @ sae.decoder[dead] + error.detach()
    auxiliary = left.pow(2).mean()
    main_loss = error.pow(2).mean()
    wanted = torch.autograd.grad(main_loss + auxiliary / 32, [sae.encoder, sae.encoder_bias, sae.decoder], retain_graph=True)
    step = add_gradients(sae, x, dead, 1 / 32, k_aux=2)
    for found, right in zip((sae.encoder.grad, sae.encoder_bias.grad, sae.decoder.grad), wanted, strict=True):
        torch.testing.assert_close(found, right, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(sae.bias.grad, torch.autograd.grad(main_loss, sae.bias)[0], atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(step.loss, main_loss.detach())
    torch.testing.assert_close(step.auxiliary, auxiliary.detach())
    assert torch.equal(step.fired, (z > 0).any(0)) and float(step.active) == pytest.approx(float((z > 0).sum() / 50))


def test_active_latents_are_put_in_order() -> None:
    offsets = torch.tensor([0, 2, 2, 5])  # the second token has none
    order, tokens, starts = by_latent(Active(torch.ones(5), torch.tensor([4, 0, 3, 0, 1]), offsets), 6)
    assert (order.tolist(), tokens.tolist(), starts.tolist()) == ([1, 3, 4, 2, 0], [0, 2, 2, 2, 0], [0, 2, 3, 3, 4, 5])
    assert {t.dtype for t in (order, tokens, starts)} == {torch.int64}


def test_statistics_are_exact_at_levels_between_knots() -> None:
    sae = SparseAutoencoder(3, 8, 2, torch.linspace(-10, 9, 20))
    level = torch.tensor([-7.3, -1.2, 2.6]).repeat(200)
    shape = torch.tensor([[1.0, 2.0, 3.0], [-4.0, 0.0, 4.0], [10.0, 10.0, 10.0]]).repeat(200, 1)
    noise = torch.randn(600, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    h = shape[:, :, None, None] + noise * torch.tensor([1.0, 3.0, 0.1]).repeat(200).view(-1, 1, 1, 1)
    fit_normalisation(sae, [(h[:300], level[:300]), (h[300:], level[300:])])
    x = sae.normalise(h, level)
    for at in LEVELS:
        part = x[level == at]
        assert float(part.mean(dim=(0, 2, 3)).abs().max()) < 1e-3 and float(part.pow(2).mean()) == pytest.approx(1, abs=0.03)
    assert sae.mean.isfinite().all() and float(sae.scale.min()) > 0 and float(sae.scale[0]) == pytest.approx(float(sae.scale[2]), rel=0.05)
    far = torch.cat([torch.randn(500, 2), torch.full((20, 2), 100.0)])
    assert float(geometric_median(far).abs().max()) < 0.2


def test_the_stream_mixes_and_can_be_entered_anywhere(features: FeatureSet) -> None:
    source = token_source(features)
    assert (source.channels, source.positions) == (CHANNELS, 16)
    stream = TokenStream(source, features.entries, 50, seed=3, group=300)
    first = [next_batch for _, next_batch in zip(range(60), stream.batches(), strict=False)]
    for start in (1, 7, 33):
        for (x, level), (y, other) in zip(first[start:], stream.batches(start), strict=False):
            assert torch.equal(x, y) and torch.equal(level, other)
    assert all(len(level.unique()) == 3 and x.shape == (50, CHANNELS) for x, level in first)
    epoch = torch.cat([x for x, _ in first[:21]])  # of 24 images of 3 levels of 16 positions, three groups
    assert len(epoch.unique(dim=0)) == len(epoch) and not torch.equal(first[0][0], first[21][0])
    other = next(TokenStream(source, features.entries, 50, seed=4, group=300).batches())[0]
    assert not torch.equal(other, first[0][0])


def test_images_are_divided_over_processes(features: FeatureSet) -> None:
    source = token_source(features)
    parts = [divided(source, features.entries, rank, 3) for rank in range(3)]
    assert sorted(e.image_id for p in parts for e in p) == list(range(24))
    assert not {e.shard for e in parts[0]} & {e.shard for e in parts[1]}
    single = [divided(source, features.entries, rank, 10) for rank in range(10)]
    assert sorted(e.image_id for p in single for e in p) == list(range(24))
    with pytest.raises(ValueError, match="24 images cannot be divided over 30 processes"):
        divided(source, features.entries, 29, 30)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_planted_dictionary_is_found(features: FeatureSet, activation: str) -> None:
    file = train_sae(features, replace(QUICK, latents=24, steps=1000, batch=256, lr=1e-2, activation=activation, dead_after=5000))
    info = file.info
    assert info["fvu"] < 0.08 and info["dead_share"] <= 0.05 and 0 < info["l0"] <= K + 0.5
    assert len(info["fvu_by_log_snr"]) == 3 and max(row[1] for row in info["fvu_by_log_snr"]) < 0.15
    cosine = (planted() @ file.sae.decoder.T).amax(1)
    assert float((cosine > 0.9).float().mean()) > 0.9
    torch.testing.assert_close(file.sae.decoder.norm(dim=1), torch.ones(24), atol=1e-3, rtol=0)
    assert (file.site, file.base_model) == ("output.1", "tiny")


def test_a_resumed_training_has_the_same_losses(features: FeatureSet, tmp_path: Path) -> None:
    source = token_source(features)

    path = tmp_path / "a.safetensors"

    def fresh(path: Path | None = path) -> SaeTraining:
        sae = SparseAutoencoder(CHANNELS, 24, K, torch.linspace(-10, 9, 20), BATCH_TOPK)
        fit_normalisation(sae, source.rows(features.entries))
        return SaeTraining(sae, replace(QUICK, activation=BATCH_TOPK, dead_after=500), path=path)

    stream = TokenStream(source, features.entries, 64, 0, group=500)
    whole = fresh(None)
    whole.train(stream)

    class Stop(Exception):
        pass

    def stop(step: int, total: int, figures: dict[str, float]) -> None:
        if step == 20:
            raise Stop

    cut = fresh()
    with pytest.raises(Stop):
        cut.train(stream, stop)
    assert cut.step == 20
    again = fresh()
    assert again.resume() == RESUMED and again.step == 20
    again.train(stream)
    assert again.losses == whole.losses and len(whole.losses) == 40
    for a, b in zip(again.sae.state_dict().values(), whole.sae.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    other = SaeTraining(again.sae, replace(QUICK, lr=1.0), path=path)
    assert other.resume() == STALE and fresh(tmp_path / "none.safetensors").resume() == NOTHING
    path.write_bytes(path.read_bytes()[:500])
    assert fresh().resume() == STALE


def test_an_interrupted_training_leaves_a_checkpoint_that_is_gone_on_with(features: FeatureSet) -> None:
    whole = train_sae(features, QUICK)
    path = checkpoint_path(features, QUICK)
    seen: list[int] = []

    def stop(step: int, total: int, figures: dict[str, float]) -> None:
        seen.append(step)
        if step == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_sae(features, QUICK, stop, path)
    file = train_sae(features, QUICK, lambda step, total, figures: seen.append(step), path)
    assert seen == [10, 20, 30, 40] and file.digest == whole.digest
    assert file.info["trained"]["loss"] == whole.info["trained"]["loss"]
    path.unlink()


def test_a_set_that_grew_is_trained_on_anew(tmp_path: Path) -> None:
    small = record(tmp_path / "set", 8)
    first = train_sae(small, QUICK, checkpoint=checkpoint_path(small, QUICK))
    steps: list[int] = []
    again = train_sae(small, QUICK, lambda step, total, figures: steps.append(step), checkpoint_path(small, QUICK))
    assert not steps and again.digest == first.digest, "it was finished"
    x = torch.randn(4, 3, CHANNELS, 4, 4, generator=torch.Generator().manual_seed(9))
    FeatureSetWriter(tmp_path / "set").add(x, LEVELS, [f"new{i}.png" for i in range(4)], [0] * 4, [""] * 4)
    grown, old = open_feature_set(tmp_path / "set"), checkpoint_path(small, QUICK)
    assert grown.digest != small.digest and checkpoint_path(grown, QUICK) != old
    made = train_sae(grown, QUICK, lambda step, total, figures: steps.append(step), old)  # even where it is handed the old checkpoint
    assert steps == [10, 20, 30, 40] and made.digest != first.digest and made.info["trained"]["images"] == 12


def test_bad_sets_are_refused_in_a_sentence(features: FeatureSet, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="between 1 and the number of latents"):
        train_sae(features, replace(QUICK, k=25))
    with pytest.raises(ValueError, match="at least 1 step"):
        train_sae(features, replace(QUICK, steps=0))
    with pytest.raises(ValueError, match="record at least two"):
        train_sae(record(tmp_path / "one", 1), QUICK)
    with pytest.raises(ValueError, match="averages over regions alone"):
        train_sae(record(tmp_path / "pooled", meta={"latent": [4, 64, 64]}), QUICK)
    with pytest.raises(ValueError, match="averages over regions alone"):
        train_sae(record(tmp_path / "large", meta={"map": [8, 8]}), QUICK)
    with pytest.raises(ValueError, match="does not say how large the maps were.*'spatial_levels'"):  # pictures of any size, middle block
        train_sae(record(tmp_path / "pictures", meta={"source": "images", "site": "middle", "size": 512}), QUICK)
    two = record(tmp_path / "two", 8, 4)
    writer = FeatureSetWriter(tmp_path / "two")
    writer.add(torch.zeros(4, 3, CHANNELS + 1, 4, 4), LEVELS, [f"x{i}.png" for i in range(4)], [0] * 4, [""] * 4)
    with pytest.raises(ValueError, match="put together from two models"):
        train_sae(open_feature_set(two.folder), QUICK)
    empty = record(tmp_path / "empty", 4)
    index = tmp_path / "empty" / "index.jsonl"
    lines = [json.loads(line) for line in index.read_text(encoding="utf-8").splitlines()]
    index.write_text("".join(json.dumps({**line, "rows": 0}) + "\n" for line in lines), encoding="utf-8")
    with pytest.raises(ValueError, match="holds no rows"):
        train_sae(open_feature_set(empty.folder), QUICK)
    index.write_text("".join(json.dumps({**line, "rows": 9}) + "\n" for line in lines), encoding="utf-8")
    with pytest.raises(ValueError, match="where the index says otherwise"):
        train_sae(open_feature_set(empty.folder), QUICK)


def test_unpooled_maps_are_taken_where_there_are_some(tmp_path: Path) -> None:
    writer = FeatureSetWriter(tmp_path / "set", {"latent": [4, 64, 64]})
    generator = torch.Generator().manual_seed(0)
    for start in range(0, 8, 4):
        maps = torch.randn(4, 2, CHANNELS, 6, 5, generator=generator)
        names = [f"{start + i}.png" for i in range(4)]
        writer.add(torch.randn(4, 3, CHANNELS, 4, 4), LEVELS, names, [0] * 4, [""] * 4, spatial=(maps, torch.tensor([-2.0, 3.0])))
    file = train_sae(open_feature_set(tmp_path / "set"), replace(QUICK, steps=10), base_model="named")
    assert (file.info["trained"]["kind"], file.info["trained"]["positions"], file.base_model) == ("spatial", 30, "named")
    assert file.sae(torch.randn(1, CHANNELS, 9, 9), torch.zeros(1)).shape == (1, CHANNELS, 9, 9)


def test_the_command_trains_and_says_what_is_wrong(features: FeatureSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.safetensors"
    words = ["train-sae", "--features", str(features.folder), "--out", str(out), "--k", "3", "--steps", "30", "--batch", "64"]
    assert main([*words, "--licence", "CC0-1.0", "--device", "cpu"]) == 0
    assert f"wrote {out}" in capsys.readouterr().out
    file = load_sae(out)
    assert (file.sae.latents, file.sae.k, file.sae.activation) == (8 * CHANNELS, 3, TOPK) and file.info["licence"] == "CC0-1.0"
    assert main([*words, "--latents", "2"]) == 1
    assert "cannot have 3 active latents" in capsys.readouterr().err
    assert main([*words, "--device", "nothing"]) == 1
    assert "not a device that PyTorch knows" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="gloo over torchrun is tried on Linux and macOS")
def test_two_processes_train_as_one(features: FeatureSet, tmp_path: Path, repository: Path) -> None:
    """Both halves of a batch, gradients averaged: every process has the same weights, and they explain as much as one process's."""
    (tmp_path / "equipoise").symlink_to(repository, target_is_directory=True)
    out = tmp_path / "two.safetensors"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "equipoise", "train-sae"]
    command += ["--features", str(features.folder), "--out", str(out), "--latents", "24", "--k", "3", "--steps", "200", "--batch", "128"]
    result = subprocess.run(
        [*command, "--lr", "0.01", "--device", "cpu"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count(f"wrote {out}") == 1
    two = load_sae(out)
    assert two.info["trained"]["processes"] == 2
    one = train_sae(features, replace(QUICK, steps=200, batch=128, lr=0.01, warmup=100))
    assert two.info["held_out_tokens"] == one.info["held_out_tokens"]
    torch.testing.assert_close(two.sae.mean, one.sae.mean, atol=1e-4, rtol=1e-4)
    assert two.info["fvu"] == pytest.approx(one.info["fvu"], abs=0.08)


def test_halves_of_a_batch_give_the_gradients_of_the_whole(fresh_python: Callable[..., str], features: FeatureSet) -> None:
    """One step in two processes, each with half of the tokens, is the step that one process takes with all of them."""
    code = f"""
import sys
import torch, torch.distributed as dist, torch.multiprocessing as mp
from equipoise.methods.sae.training import SaeSettings, SaeTraining
from equipoise.models.sae import SparseAutoencoder

def updated(x, level):
    training = SaeTraining(SparseAutoencoder({CHANNELS}, 24, 3, torch.zeros(1)), SaeSettings(latents=24, k=3, steps=9, batch=64, warmup=1))
    for _ in range(3):
        training.update(x, level)
    return torch.cat([p.detach().flatten() for p in training.parameters]), training.losses, training.since

rank = int(sys.argv[1]) if len(sys.argv) > 1 else 0
x, level = torch.randn(64, {CHANNELS}, generator=torch.Generator().manual_seed(0)), torch.zeros(64)
whole, losses, since = updated(x, level)
if len(sys.argv) == 1:
    import os, subprocess, tempfile
    store = os.path.join(tempfile.mkdtemp(), "store")
    runs = [subprocess.Popen([sys.executable, __file__, str(r), store], stdout=subprocess.PIPE, text=True) for r in (0, 1)]
    print([r.communicate(timeout={PATIENCE})[0].strip() for r in runs])
else:
    dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
    half, shared, seen = updated(x[rank * 32 : rank * 32 + 32], level[:32])
    torch.testing.assert_close(half, whole, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(torch.tensor(shared), torch.tensor(losses), atol=1e-6, rtol=1e-5)
    assert torch.equal(seen, since)
    dist.destroy_process_group()
    print("same")
"""
    assert fresh_python(code, OMP_NUM_THREADS="1").strip() == "['same', 'same']"


def test_a_set_can_be_recorded_at_an_up_block(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sample", "--n", "2", "--steps", "2", "--out", str(tmp_path / "out"), "--record", str(tmp_path / "set"), "--site"]
    assert main([*words, "output.1"]) == 0
    features = open_feature_set(tmp_path / "set")
    assert (features.meta["site"], features.meta["channels"], features.meta["map"]) == ("output.1", 96, [8, 8])
    source = token_source(features)
    (maps, level), (pooled, _, _) = next(source.rows(features.entries)), next(iterate_shards(features.folder, features.entries))
    assert (source.channels, source.positions, len(level)) == (96, 64, 4)
    torch.testing.assert_close(F.avg_pool2d(maps.float(), 2), pooled.float(), atol=0.02, rtol=0.01)
    words[words.index("--out") + 1] = str(tmp_path / "other")
    assert main([*words, "output.9"]) == 1
    assert "no site 'output.9': choose one of middle, output.0, output.1" in capsys.readouterr().err
