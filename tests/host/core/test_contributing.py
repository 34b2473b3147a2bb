"""CONTRIBUTING.md: its examples run, as files of the folders that they are meant for, and what it names is there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from equipoise.benchmarks.core.graph_server import REPOSITORY
from equipoise.methods.core.run import Call

PAGE = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
HEADS = {
    "host/labels/labelling.py": "import torch\nfrom torch import Tensor\nfrom .labelling import ImageSource\n",
    "methods/guidance/one_direction.py": (
        "from torch import Tensor\nfrom ...models.adp import AdpFile\nfrom ..core.batch_run import BatchRun, BatchSettings\n"
        "from ..core.rows import Rows\n"
    ),
    "metrics/sureness.py": (
        "from dataclasses import dataclass\nfrom numpy.typing import ArrayLike\nfrom torch import Tensor\n"
        "from .resampling import as_array, multiplicities, percentiles, resampled_means\n"
    ),
}
"""The imports that the page leaves out."""

Example = Callable[[str], ModuleType]


@pytest.fixture
def example(load_module: Callable[[Path, str], ModuleType], tmp_path: Path) -> Example:
    """example(file): a module of that file's folder that holds the page's block for it."""

    def load(file: str) -> ModuleType:
        (block,) = re.findall(rf"```python\n# {re.escape(file)}\n(.*?)```", PAGE, flags=re.S)
        path = tmp_path / "example.py"
        path.write_text(f"from __future__ import annotations\n{HEADS[file]}{block}", encoding="utf-8")
        return load_module(path, f"equipoise.{'.'.join(file.split('/')[:-1])}.example")

    return load


def test_the_label_source_reads_and_is_kept_apart_by_its_key(host: Any, example: Example) -> None:
    source = example("host/labels/labelling.py").brightness_source(0.5)
    images = torch.stack([torch.full((4, 4, 3), v) for v in (0.1, 0.9)])
    assert source.read(images, None)["light"].argmax(1).tolist() == [1, 0]
    assert source.key != example("host/labels/labelling.py").brightness_source(0.6).key


def test_the_edit_moves_half_of_the_images_and_none_at_strength_0(example: Example) -> None:
    from equipoise.methods.core.batch_run import BatchSettings
    from equipoise.methods.core.target_text import parse_target
    from equipoise.models.adp import AdpFile, AttributePredictor

    reads = {"hair": ("short", "long")}
    predictor = AttributePredictor(reads, 6, torch.tensor([-4.0, 0.0, 4.0])).eval()
    made = example("methods/guidance/one_direction.py").OneDirection
    adp = AdpFile(predictor, {}, "tiny")
    target = parse_target("hair: short=0.5, long=0.5", reads)
    h = torch.randn(8, 6, 8, 8, generator=torch.Generator().manual_seed(1))
    options = {"sigmas": torch.ones(4), "cond_or_uncond": [1, 0]}
    out = made(adp, BatchSettings(target), torch.ones(6)).edit(adp.site, h, Call.read(options))
    moved = (out != h).flatten(1).any(1)
    assert not moved[:4].any() and int(moved[4:].sum()) == 2
    size = (out - h).flatten(1).norm(dim=1)[moved] / h.flatten(1).norm(dim=1)[moved]
    assert size.tolist() == pytest.approx([0.05, 0.05], rel=1e-4)
    assert made(adp, BatchSettings(target, strength=0.0), torch.ones(6)).edit(adp.site, h, Call.read(options)) is h


def test_the_metric_has_an_interval_that_narrows(example: Example) -> None:
    sureness = example("metrics/sureness.py").sureness
    assert sureness([[0.25, 0.75]]) == type(sureness([[0.25, 0.75]]))(0.75, None, None)
    p = np.random.default_rng(0).uniform(0.5, 1, 400)
    few, many = (sureness(np.stack([x, 1 - x], 1)) for x in (p[:25], p))
    assert few.low < few.mean < few.high and many.high - many.low < (few.high - few.low) / 2


def test_what_the_page_names_is_there() -> None:
    outside = re.sub(r"```.*?```", "", PAGE, flags=re.S)
    paths = [p for p in re.findall(r"`([\w./]+\.(?:py|md|toml))(?::|`)", outside) if "<" not in p]
    assert len(paths) >= 12 and not [p for p in paths if not (REPOSITORY / p).is_file()]
    for path, name in re.findall(r"`([\w/]+\.py): (\w+)", outside):
        assert f"def {name}(" in (REPOSITORY / path).read_text(encoding="utf-8"), f"{path}: {name}"
