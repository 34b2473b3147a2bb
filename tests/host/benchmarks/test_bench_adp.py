"""The table training sampler x guidance sampler, at its smallest: every stage, in the host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch


def test_a_row_of_the_cross_scheduler_table(prompt: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import folder_paths
    from equipoise.benchmarks.adp import cross_scheduler as cross
    from equipoise.models.adp import load_adp

    output = folder_paths.get_output_directory()
    monkeypatch.setattr(cross, "boot_host", lambda base: folder_paths.set_output_directory(str(base / "output")))
    monkeypatch.setattr(cross, "_models", None)
    monkeypatch.setattr(cross, "STARTS", cross.SamplingMethod("plain", "euler", "normal", 2))
    way, image = cross.SamplingMethod("tiny", "euler", "normal", 6), cross.SamplingMethod("img2img", "euler", "normal", 3, 0.6)
    sizes = cross.TableSizes(recorded=48, steps=2, trial=16, cell=16)
    try:
        with torch.inference_mode(False), torch.enable_grad():  # a benchmark does not run inside a node
            first = cross.table_row(tmp_path, way, (way, image), sizes)
        assert list(first["cells"]) == ["tiny", "img2img"] and all(0 <= c["fd"] <= 1.42 and c["n"] == 16 for c in first["cells"].values())
        assert set(first["made"]["stage_seconds"]) == {"record", "train", "learn", "calibrate"}
        file = load_adp(tmp_path / "tiny" / "adp.safetensors")
        assert file.moves["eyeglasses"].source == "learned" and file.base_model == "equipoise-portraits"
        assert (tmp_path / "host" / "output" / "equipoise" / "calibration" / "tiny.json").is_file()
        assert cross.table_row(tmp_path, way, (way, image), sizes) == first, "everything was kept"
        again = cross.table_row(tmp_path, None, (way,), sizes)
        assert again["trained"].startswith("shipped") and not again["made"]
    finally:
        folder_paths.set_output_directory(output)
