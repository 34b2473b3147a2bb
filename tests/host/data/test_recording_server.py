"""Recording through real servers: killed, interrupted, queued again."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

from equipoise.benchmarks.core.graph_server import Server
from equipoise.tests.equipoise_patience import PATIENCE

INDEX = "index.jsonl"


def graph(name: str, images: int, steps: int = 6, **given: Any) -> dict[str, Any]:
    """Loader, latent and Record Features in API form, batches of two."""
    settings = {
        "model": ["load", 0], "vae": ["load", 1], "latent_image": ["latent", 0], "set_name": name, "images": images, "prompts": "",
        "negative_prompt": "", "first_seed": 3, "steps": steps, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
        "every": 1, "unconditional_rows": False, "spatial_levels": "0", "positive": ["load", 2],
    }  # fmt: skip
    return {
        "load": {"class_type": "EquipoiseLoadUnconditionalDiffusion", "inputs": {"model_name": "tiny_packed.safetensors"}},
        "latent": {
            "class_type": "EquipoiseEmptyPixelLatent",
            "inputs": {"model": ["load", 0], "width": 0, "height": 0, "batch_size": 2},
        },
        "record": {"class_type": "EquipoiseRecordFeatures", "inputs": settings | given},
    }


def folder(server: Server, name: str) -> Path:
    return server.base / "output" / "equipoise" / "features" / name


def recorded(server: Server, name: str) -> int:
    """Images in a set."""
    index = folder(server, name) / INDEX
    return index.read_bytes().count(b"\n") if index.is_file() else 0


def wait_for(server: Server, name: str, images: int) -> None:
    until = time.monotonic() + PATIENCE
    while recorded(server, name) < images:
        assert time.monotonic() < until, server.text()[-2000:]
        time.sleep(0.01)


def files_of(place: Path) -> dict[str, bytes]:
    return {p.relative_to(place).as_posix(): p.read_bytes() for p in place.rglob("*") if p.is_file()}


def test_a_killed_server_goes_on_where_it_was(server_current: Server) -> None:
    """The server that all tests share is killed and started again: what it holds is on disk."""
    server = server_current
    server.post("/prompt", {"prompt": graph("cut", 60)})
    wait_for(server, "cut", 9)
    server.kill()
    done = recorded(server, "cut")
    server.start()
    assert 9 < done < 60
    again = server.queue(graph("cut", 60))
    assert not again.error and f"{60 - done} recorded now" in again.outputs["record"]["text"][0]
    assert not server.queue(graph("whole", 60)).error
    cut, whole = files_of(folder(server, "cut")), files_of(folder(server, "whole"))
    assert recorded(server, "cut") == 60 and cut.keys() == whole.keys()
    assert [name for name in whole if cut[name] != whole[name]] == [], "every shard and every picture, bit for bit"


def test_an_interrupted_prompt_is_gone_on_with_and_a_finished_one_records_nothing(server: Server) -> None:
    answer = server.post("/prompt", {"prompt": graph("stopped", 400)})
    wait_for(server, "stopped", 4)
    with contextlib.suppress(ValueError):  # the answer has no body
        server.post("/interrupt", {})
    server.wait(answer["prompt_id"])
    done = recorded(server, "stopped")
    assert 4 <= done < 400
    outcome = server.queue(graph("stopped", done + 4))
    assert not outcome.error and "4 recorded now" in outcome.outputs["record"]["text"][0]
    assert server.images(outcome, "record").shape == (2, 32, 32, 3)
    before = files_of(folder(server, "stopped"))
    again = server.queue(graph("stopped", done + 2))
    assert not again.error and "nothing was left to record" in again.outputs["record"]["text"][0]
    assert files_of(folder(server, "stopped")) == before
    load = {
        "features": {"class_type": "EquipoiseLoadFeatures", "inputs": {"set_name": "stopped"}},
        "show": {"class_type": "PreviewAny", "inputs": {"source": ["features", 1]}},
    }
    shown = server.queue(load)
    assert not shown.error and f"{done + 4} images" in shown.outputs["show"]["text"][0]


def test_refusals_reach_the_user_in_words(server: Server) -> None:
    assert not server.queue(graph("refused", 2)).error
    assert "steps 6 instead of 5" in server.queue(graph("refused", 2, steps=5)).error
    assert "cannot be the name of a feature set" in server.queue(graph("../refused", 2)).error
    assert "no CLIP to encode them" in server.queue(graph("refused", 2, prompts="a cook")).error
    nothing = graph("refused", 2)
    del nothing["record"]["inputs"]["positive"]
    assert "connect a CLIP and write prompts, or connect a CONDITIONING" in server.queue(nothing).error
