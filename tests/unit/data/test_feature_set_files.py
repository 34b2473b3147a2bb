"""Feature sets survive being cut off anywhere, and are not mixed with others."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from equipoise.methods.data.feature_set import (
    INDEX,
    META,
    Entry,
    FeatureSetWriter,
    iterate_shards,
    iterate_spatial,
    open_feature_set,
    read_index,
)
from equipoise.tests.equipoise_patience import PATIENCE

LEVEL = torch.tensor([-4.0, 0.0, 4.0])
PROMPTS = ["a cook", "a doctor"]
SETTINGS = {"site": "middle", "channels": 2, "steps": 20, "cfg": 7.5, "every": 1, "prompts": PROMPTS, "model": {"mark": "a1"}}


def batch(first: int, n: int = 3) -> torch.Tensor:
    """Features [n, 3, 2, 4, 4] of the images from ``first``, which tell their image."""
    return torch.arange(first, first + n).float().view(-1, 1, 1, 1, 1).expand(n, 3, 2, 4, 4) / 8


def add(writer: FeatureSetWriter, n: int = 3, **more: object) -> None:
    first = writer.next_id
    names = [f"{i:06d}.png" for i in range(first, first + n)]
    writer.add(batch(first, n), LEVEL, names, [7 + first // 3] * n, ["a cook"] * n, **more)


def check(folder: Path, images: int) -> None:
    """The set is whole, and every image has its own features, three times."""
    found = open_feature_set(folder)
    assert [e.image_id for e in found.entries] == list(range(images))
    seen: dict[int, int] = {}
    for features, level, ids in iterate_shards(folder, found.entries):
        assert torch.equal(features[:, 0, 0, 0].float() * 8, ids.float())
        assert level.view(-1, 3).tolist() == [LEVEL.tolist()] * (len(level) // 3)
        for i in ids.tolist():
            seen[i] = seen.get(i, 0) + 1
    assert seen == dict.fromkeys(range(images), 3)
    assert not list(folder.glob(".*"))


# -- cut off -------------------------------------------------------------------------------------------------------------------------


def kill_in(monkeypatch: pytest.MonkeyPatch, function: str, at: int, folder: Path) -> None:
    """Add two batches; the ``at``-th call of a function of the os module is the last thing that happens."""

    class Killed(BaseException):
        pass

    calls: list[int] = []
    real = getattr(os, function)

    def die(*args: object, **kwargs: object) -> object:
        calls.append(1)
        if len(calls) == at:
            raise Killed
        return real(*args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(os, function, die)
        writer = FeatureSetWriter(folder, SETTINGS)
        add(writer)
        add(writer)


@pytest.mark.parametrize(("at", "images"), [(1, 0), (2, 0), (3, 3)])
def test_killed_before_a_file_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, images: int) -> None:
    """The first rename is of set.json, the others of the two shards."""
    kill_in(monkeypatch, "replace", at, tmp_path)
    for name in (".shard-000009.safetensors.123.partial", ".tmp88AdXk"):
        (tmp_path / name).write_bytes(b"what a SIGKILL leaves")
    writer = FeatureSetWriter(tmp_path, SETTINGS)
    assert len(writer.entries) == images
    while len(writer.entries) < 9:
        add(writer)
    check(tmp_path, 9)


def test_a_shard_without_index_lines_is_overwritten(tmp_path: Path) -> None:
    add(FeatureSetWriter(tmp_path, SETTINGS))
    (tmp_path / "shard-000003.safetensors").write_bytes(b"of a run that was killed before it wrote the index")
    add(FeatureSetWriter(tmp_path, SETTINGS))
    check(tmp_path, 6)


@pytest.mark.parametrize("cut", range(1, 160, 13))
def test_a_torn_last_line_is_dropped_wherever_it_is_torn(tmp_path: Path, cut: int) -> None:
    writer = FeatureSetWriter(tmp_path, SETTINGS)
    add(writer)
    add(writer)
    whole = (tmp_path / INDEX).read_bytes()
    torn = whole[:-cut]
    (tmp_path / INDEX).write_bytes(torn)
    left = len(open_feature_set(tmp_path).entries)
    # A line that only lacks its end says all that it said.
    assert left == torn.count(b"\n") + torn.endswith(b"}")
    writer = FeatureSetWriter(tmp_path, SETTINGS)
    assert len(writer.entries) == left
    add(writer, 7 - left)
    check(tmp_path, 7)


def test_a_real_kill(tmp_path: Path) -> None:
    """A process that writes without end is killed; what it indexed is whole, and is gone on with."""
    folder = tmp_path / "set"
    code = (
        "import sys, torch\n"
        "import importlib.util\n"
        "spec = importlib.util.spec_from_file_location('equipoise_dev', sys.argv[2])\n"
        "dev = importlib.util.module_from_spec(spec); spec.loader.exec_module(dev); dev.register()\n"
        "from equipoise.methods.data.feature_set import FeatureSetWriter\n"
        "writer = FeatureSetWriter(sys.argv[1], {'steps': 3})\n"
        "level = torch.tensor([-4.0, 0.0, 4.0])\n"
        "while True:\n"
        "    first = writer.next_id\n"
        "    x = torch.arange(first, first + 3).float().view(-1, 1, 1, 1, 1).expand(3, 3, 2, 4, 4) / 8\n"
        "    writer.add(x, level, [f'{i}.png' for i in range(first, first + 3)], [0] * 3, [''] * 3)\n"
    )
    script = tmp_path / "endless.py"
    script.write_text(code, encoding="utf-8")
    dev = Path(__file__).resolve().parents[3] / "dev.py"
    process = subprocess.Popen([sys.executable, str(script), str(folder), str(dev)])
    try:
        until = time.monotonic() + PATIENCE
        while not (folder / INDEX).is_file() or (folder / INDEX).stat().st_size < 2000:
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.02)
    finally:
        process.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
        process.wait(PATIENCE)
    writer = FeatureSetWriter(folder, {"steps": 3})
    n = len(writer.entries)
    assert n >= 9 and n % 3 == 0
    add(writer)
    check(folder, n + 3)


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A raw write to a full disk takes what fits and says so only by its count."""
    writer = FeatureSetWriter(tmp_path, SETTINGS)
    add(writer)
    before = (tmp_path / INDEX).read_bytes()
    real = Path.open

    def full(path: Path, mode: str = "r", *args: object, **kwargs: object) -> object:
        stream = real(path, mode, *args, **kwargs)
        if mode != "ab":
            return stream

        class Half:
            def __enter__(self) -> Half:
                return self

            def __exit__(self, *_: object) -> None:
                stream.close()

            def write(self, data: bytes) -> int:
                return stream.write(data[: len(data) // 2])

            seek, truncate = stream.seek, stream.truncate

        return Half()

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(OSError, match="disk is full"):
            add(writer)
    assert (tmp_path / INDEX).read_bytes() == before and len(writer.entries) == 3
    add(FeatureSetWriter(tmp_path, SETTINGS))
    check(tmp_path, 6)


# -- what does not fit ---------------------------------------------------------------------------------------------------------------


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    writer = FeatureSetWriter(tmp_path / "faces", SETTINGS)
    add(writer)
    add(writer)
    entries = read_index(tmp_path / "faces")
    (tmp_path / "faces" / "shard-000003.safetensors").unlink()
    for use in (open_feature_set, lambda f: FeatureSetWriter(f, SETTINGS), lambda f: list(iterate_shards(f, entries))):
        with pytest.raises(ValueError, match="'faces' names 'shard-000003.safetensors', which is not in its folder"):
            use(tmp_path / "faces")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 30}, "steps 20 instead of 30"),
        ({"cfg": 7.6}, "cfg 7.5 instead of 7.6"),
        ({"steps": 30, "cfg": 1.0}, "steps 20 instead of 30, cfg 7.5 instead of 1.0"),
        ({"prompts": ["a cook"]}, "2 prompts instead of 1"),
        ({"prompts": ["a cook", "a nurse"]}, 'prompts number 2 "a doctor" instead of "a nurse"'),
        ({"model": {"mark": "b2"}}, "another model"),
        ({"every": True}, "every 1 instead of true"),
        ({"denoise": 0.6}, "no word on its denoise"),
        ({"steps": 1, "cfg": 1.0, "every": 2, "channels": 3, "site": "output.1"}, "and 2 more differences"),
    ],
)
def test_other_settings_are_refused_and_the_difference_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    add(FeatureSetWriter(tmp_path / "faces", SETTINGS))
    with pytest.raises(ValueError) as error:
        FeatureSetWriter(tmp_path / "faces", SETTINGS | change)
    assert message in str(error.value) and "'faces'" in str(error.value) and "another name" in str(error.value)
    assert "\n" not in str(error.value) and str(error.value).count(". ") == 0, "one sentence"
    assert len(FeatureSetWriter(tmp_path / "faces", SETTINGS).entries) == 3


def test_marks_may_differ_as_devices_compute_them(tmp_path: Path) -> None:
    add(FeatureSetWriter(tmp_path, SETTINGS | {"conditioning": {"mark": [0.5, 1.0]}}))
    FeatureSetWriter(tmp_path, SETTINGS | {"conditioning": {"mark": [0.501, 1.001]}})
    with pytest.raises(ValueError, match="another conditioning"):
        FeatureSetWriter(tmp_path, SETTINGS | {"conditioning": {"mark": [0.6, 1.0]}})


def test_a_set_without_images_takes_other_settings(tmp_path: Path) -> None:
    """As after a first try that would not fit on the disk."""
    FeatureSetWriter(tmp_path, SETTINGS)
    add(FeatureSetWriter(tmp_path, SETTINGS | {"every": 5}))
    assert open_feature_set(tmp_path).meta["every"] == 5


def test_images_of_an_unknown_origin_are_not_added_to(tmp_path: Path) -> None:
    add(FeatureSetWriter(tmp_path))
    (tmp_path / META).unlink()
    assert open_feature_set(tmp_path).meta == {}
    with pytest.raises(ValueError, match=f"no {META}"):
        FeatureSetWriter(tmp_path, SETTINGS)


@pytest.mark.parametrize(
    ("content", "message"), [("{", "broken"), ("[]", "broken"), ('{"version": 99}', "newer Equipoise"), ('{"version": "x"}', "broken")]
)
def test_a_set_file_that_cannot_be_read(tmp_path: Path, content: str, message: str) -> None:
    add(FeatureSetWriter(tmp_path, SETTINGS))
    (tmp_path / META).write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        open_feature_set(tmp_path)


def test_a_set_that_holds_nothing_yet(tmp_path: Path) -> None:
    (tmp_path / INDEX).touch()
    with pytest.raises(ValueError, match="no images yet"):
        open_feature_set(tmp_path)


@pytest.mark.parametrize(("value", "place"), [(float("nan"), (1, 2)), (float("inf"), (0, 0)), (1e6, (2, 1))])
def test_features_that_are_no_numbers_are_refused_by_image_and_level(tmp_path: Path, value: float, place: tuple[int, int]) -> None:
    features = batch(0).clone()
    features[place[0], place[1], 0, 0, 0] = value
    writer = FeatureSetWriter(tmp_path, SETTINGS)
    with pytest.raises(ValueError, match=f"'{place[0]}.png' at log-SNR {float(LEVEL[place[1]]):.2f} are not finite"):
        writer.add(features, LEVEL, ["0.png", "1.png", "2.png"], [0] * 3, [""] * 3)
    assert not (tmp_path / INDEX).exists() and not list(tmp_path.glob("*.safetensors"))


def test_an_index_made_by_hand(tmp_path: Path) -> None:
    """Only the keys of the contract, others that are not known, no end of the last line, and shards without "conditional"."""
    from safetensors.torch import save_file

    add(FeatureSetWriter(tmp_path / "made"))
    hand = tmp_path / "hand"
    hand.mkdir()
    lines = [json.loads(line) for line in (tmp_path / "made" / INDEX).read_text().splitlines()]
    contract = ("image_id", "file", "seed", "prompt", "shard", "offset", "rows")
    text = "\n".join(json.dumps({k: line[k] for k in contract} | {"comment": "kept"}) for line in lines)
    (hand / INDEX).write_text(text, encoding="utf-8")
    from equipoise.models.files import read_safetensors

    tensors, _ = read_safetensors(tmp_path / "made" / "shard-000000.safetensors")
    tensors.pop("conditional")
    save_file(tensors, hand / "shard-000000.safetensors")
    check(hand, 3)
    assert not list(iterate_shards(hand, read_index(hand), conditional=False))[0][0].numel()
    add(FeatureSetWriter(hand))
    check(hand, 6)


# -- rows of the negative, unpooled features ------------------------------------------------------------------------------------------


def test_rows_of_the_negative_are_marked_and_asked_for(tmp_path: Path) -> None:
    writer = FeatureSetWriter(tmp_path, SETTINGS)
    add(writer, unconditional=(-batch(0)[:, :2] - 1, LEVEL[:2]))
    add(writer, places=[0, 1, 2])
    entries = read_index(tmp_path)
    assert [(e.offset, e.rows, e.unconditional) for e in entries[:4]] == [(0, 5, 2), (5, 5, 2), (10, 5, 2), (0, 3, 0)]
    assert [e.place for e in entries] == [0, 0, 0, 0, 1, 2]
    check(tmp_path, 6)
    (features, level, ids), (none, _, _) = iterate_shards(tmp_path, entries, conditional=False)
    assert ids.tolist() == [0, 0, 1, 1, 2, 2] and level.tolist() == [-4.0, 0.0] * 3 and (features < 0).all() and not len(none)
    both = list(iterate_shards(tmp_path, entries, conditional=None))
    assert [len(ids) for _, _, ids in both] == [15, 9]
    # An image's rows are contiguous, from its offset, the conditional ones first.
    assert both[0][2].tolist() == [i for i in range(3) for _ in range(5)]
    assert (both[0][0][:, 0, 0, 0] < 0).tolist() == [False, False, False, True, True] * 3


def test_unpooled_features_have_shards_of_their_own(tmp_path: Path) -> None:
    writer = FeatureSetWriter(tmp_path, SETTINGS | {"kind": "spatial"})
    maps = torch.arange(3).float().view(3, 1, 1, 1, 1).expand(3, 2, 5, 6, 7)
    add(writer, spatial=(maps, LEVEL[:2]))
    add(writer)
    assert open_feature_set(tmp_path).meta["kind"] == "spatial"
    ((features, level, ids),) = iterate_spatial(tmp_path, read_index(tmp_path))
    assert features.shape == (6, 5, 6, 7) and features.dtype == torch.float16 and ids.tolist() == [0, 0, 1, 1, 2, 2]
    assert torch.equal(features[:, 0, 0, 0], ids.half()) and level.tolist() == [-4.0, 0.0] * 3
    check(tmp_path, 6)
    with pytest.raises(ValueError, match="no unpooled features"):
        list(iterate_spatial(tmp_path, read_index(tmp_path)[3:]))
    (tmp_path / "spatial-000000.safetensors").unlink()
    with pytest.raises(ValueError, match="names 'spatial-000000.safetensors'"):
        open_feature_set(tmp_path)


def test_ids_go_on_above_the_highest_where_a_line_was_taken_out(tmp_path: Path) -> None:
    writer = FeatureSetWriter(tmp_path)
    add(writer)
    lines = (tmp_path / INDEX).read_text().splitlines(keepends=True)
    (tmp_path / INDEX).write_text(lines[0] + lines[2])
    writer = FeatureSetWriter(tmp_path)
    assert writer.next_id == 3
    add(writer)
    assert [e.image_id for e in read_index(tmp_path)] == [0, 2, 3, 4, 5]


def test_lines_hold_the_contract_and_no_more_than_needed() -> None:
    entry = Entry(3, "000003.png", 9, "a cook", "shard-000003.safetensors", 0, 50)
    assert list(json.loads(entry.line())) == ["image_id", "file", "seed", "prompt", "shard", "offset", "rows"]
    assert json.loads(Entry(3, "a", 9, "", "s", 0, 50, place=2).line())["place"] == 2


def test_fifty_calls_at_full_width_take_what_was_promised(tmp_path: Path) -> None:
    """1280 channels on the 4x4 grid, 50 calls, 2 images: at most 2.1 MB each; rows of the negative double it."""
    features = torch.randn(2, 50, 1280, 4, 4, generator=torch.Generator().manual_seed(0))
    level = torch.linspace(-5, 6, 50)
    FeatureSetWriter(tmp_path / "a", SETTINGS).add(features, level, ["0.png", "1.png"], [0, 0], ["a photo of a doctor"] * 2)
    FeatureSetWriter(tmp_path / "b", SETTINGS).add(features, level, ["0.png", "1.png"], [0, 0], [""] * 2, unconditional=(features, level))
    one, both = (sum(p.stat().st_size for p in (tmp_path / name).iterdir()) / 2 for name in ("a", "b"))
    assert 2_048_000 < one <= 2_100_000
    assert 1.99 * one < both <= 4_200_000
    read = next(iter(iterate_shards(tmp_path / "a", read_index(tmp_path / "a"))))[0]
    assert torch.equal(read, features.flatten(0, 1).half())
    shutil.rmtree(tmp_path / "b")


def test_what_the_command_line_records_says_how(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from equipoise.cli.main import main

    words = ["sample", "--n", "2", "--batch", "2", "--record", str(tmp_path / "set")]
    assert main([*words, "--steps", "2", "--out", str(tmp_path / "a")]) == 0
    assert main([*words, "--steps", "2", "--seed", "2", "--out", str(tmp_path / "b")]) == 0
    found = open_feature_set(tmp_path / "set")
    assert [e.seed for e in found.entries] == [0, 1, 2, 3]
    assert found.meta["base_model"] == "equipoise-portraits" and found.meta["steps"] == 2 and found.meta["site"] == "middle"
    features, _, _ = next(iterate_shards(found.folder, found.entries))
    assert features.shape == (4, found.meta["channels"], 4, 4)
    capsys.readouterr()
    assert main([*words, "--steps", "3", "--out", str(tmp_path / "c")]) == 1
    assert "recorded with steps 2 instead of 3" in capsys.readouterr().err
