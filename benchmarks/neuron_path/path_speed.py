"""Compare the cost of our search for neuron paths with the naive algorithm.

The naive algorithm works as the published code does. Both use the same network, images and targets. Each runs in its own process, so that
its peak memory is its own, one after the other on the same threads.
"""

from __future__ import annotations

import contextlib
import resource
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...methods.neuron_path.neuron_baselines import ACTIVATION, baseline_path
from ...methods.neuron_path.path_settings import GAUSS_4, LEFT_20, PAPER, PROBABILITY, PathSettings, integration_nodes, objective
from ...methods.neuron_path.search import find_paths, score_paths
from ...models.attribute_classifier import VisionTransformer, VitSizes
from ...models.neuron_adapters import of_classifier
from .naive_path import NaiveRule, naive_path

CLASSES = tuple(f"class {i}" for i in range(10))
MEMORY_MB = 128


@dataclass(frozen=True)
class Shape:
    """Size of a random vision transformer and its input."""

    depth: int = 12
    """Layers."""
    width: int = 768
    """Width of a token."""
    mlp: int = 3072
    """Neurons of a layer."""
    heads: int = 12
    """Attention heads."""
    side: int = 4
    """Patches along an edge."""
    images: int = 1
    """Images."""
    seed: int = 0
    """Seed of weights and images."""

    @property
    def tokens(self) -> int:
        """Count the tokens: all patches and the CLS token."""
        return self.side**2 + 1


def network(shape: Shape) -> VisionTransformer:
    """Make a vision transformer with the weights of an untrained one.

    Weights are normal with a standard deviation of 0.02, biases 0.
    """
    torch.manual_seed(shape.seed)
    with torch.no_grad():
        model = VisionTransformer({"kind": CLASSES}, shape.side * 16, VitSizes(16, shape.width, shape.depth, shape.heads, shape.mlp))
        for name, p in model.named_parameters():
            if p.ndim > 1:
                torch.nn.init.normal_(p, std=0.02)
            elif "norm" not in name:
                torch.nn.init.zeros_(p)
    return model.eval()


def random_inputs(shape: Shape) -> tuple[Tensor, Tensor]:
    """Make normalised images, and return the classes that the network sees in them."""
    generator = torch.Generator().manual_seed(shape.seed + 1)
    size = shape.side * 16
    pixels = torch.randn(shape.images, 3, size, size, generator=generator)
    with torch.no_grad():
        return pixels, network(shape)(pixels)["kind"].argmax(1)


def measure_naive(shape: Shape, threads: int) -> dict[str, Any]:
    """Run the naive algorithm with the left rule and 20 points.

    For every layer it makes one full pass, and one gradient call per layer of the path.
    """
    torch.set_num_threads(threads)
    model = network(shape)
    pixels, targets = random_inputs(shape)
    points, weights = integration_nodes(LEFT_20)
    integral = (points.float(), weights.float())
    before, started, spent = _peak_mb(since_now=True), time.perf_counter(), time.process_time()
    paths, joint = [], []
    for i in range(shape.images):
        modules = [b.mlp_out for b in model.blocks]
        image, target = pixels[i : i + 1], int(targets[i])
        path, _, score, _ = naive_path(modules, lambda x: model(x)["kind"], image, target, integral, objective(PROBABILITY), NaiveRule())
        paths.append([p[0] for p in path])
        joint.append(score)
    return {
        "seconds": time.perf_counter() - started,
        "processor": time.process_time() - spent,
        "paths": paths,
        "joint": joint,
        "peak_mb": _peak_mb() - before,
        "loaded_mb": before,
    }


def measure_ours(shape: Shape, threads: int, nodes: str) -> dict[str, Any]:
    """Run our search, starting with the classifier."""
    torch.set_num_threads(threads)
    model = network(shape)
    pixels, targets = random_inputs(shape)
    before, started, spent = _peak_mb(since_now=True), time.perf_counter(), time.process_time()
    net = of_classifier(model)
    settings = PathSettings(PAPER, nodes, memory_mb=MEMORY_MB)
    result = find_paths(net, pixels, targets, settings)
    seconds, spent, peak = time.perf_counter() - started, time.process_time() - spent, _peak_mb() - before
    active = score_paths(net, pixels, targets, baseline_path(net, pixels, targets, ACTIVATION, settings), settings)
    return {
        "seconds": seconds,
        "processor": spent,
        "paths": result.path[:, :, 0].tolist(),
        "joint": result.joint.tolist(),
        "activation_joint": active.joint.tolist(),
        "peak_mb": peak,
        "loaded_mb": before,
    }


def compare_with_naive(shape: Shape, threads: int) -> dict[str, Any]:
    """Run both algorithms; returns the contract's keys and more.

    ``peak_mb`` is the memory on top of the loaded model.
    """
    slow = run_in_child(measure_naive, shape, threads)
    left, gauss = (run_in_child(measure_ours, shape, threads, nodes) for nodes in (LEFT_20, GAUSS_4))
    equal = [statistics.mean(float(a == b) for a, b in zip(x["paths"], slow["paths"], strict=True)) for x in (left, gauss)]
    return {
        "paths_equal_share": min(equal),
        "paths_equal_left20": equal[0],
        "paths_equal_gauss4": equal[1],
        "speedup_left20": slow["seconds"] / left["seconds"],
        "speedup_gauss4": slow["seconds"] / gauss["seconds"],
        "jas_ratio_to_activation": sum(left["joint"]) / sum(left["activation_joint"]) if sum(left["activation_joint"]) else None,
        "joint_error": max(abs(a - b) / max(abs(b), 1e-12) for a, b in zip(left["joint"], slow["joint"], strict=True)),
        "peak_mb": {"naive": slow["peak_mb"], "left20": left["peak_mb"], "gauss4": gauss["peak_mb"]},
        "loaded_mb": slow["loaded_mb"],
        "seconds_each": {"naive": slow["seconds"], "left20": left["seconds"], "gauss4": gauss["seconds"]},
        "processor_seconds": {"naive": slow["processor"], "left20": left["processor"], "gauss4": gauss["processor"]},
        "tokens": shape.tokens,
        "depth": shape.depth,
        "images": shape.images,
    }


def extrapolate(shape: Shape, threads: int, nodes: str) -> dict[str, Any]:
    """Measure ours and compute the naive time from its number of passes.

    The naive loops make L(L + 2) forward passes of a block over all points, L(L + 1)(2L + 1) / 6 + L(L + 1) backward passes and L clean
    passes. Each is multiplied by the measured seconds of one pass.
    """
    fast = run_in_child(measure_ours, shape, threads, nodes)
    forward, backward = run_in_child(block_seconds, shape, threads)
    d = shape.depth
    forwards, backwards = d * (d + 2) + d / 20, d * (d + 1) * (2 * d + 1) / 6 + d * (d + 1)
    slow = (forwards * forward + backwards * backward) * shape.images
    return {
        "seconds": fast["seconds"],
        "naive_seconds_extrapolated": slow,
        "speedup_extrapolated": slow / fast["seconds"],
        "peak_mb": fast["peak_mb"],
        "tokens": shape.tokens,
        "depth": shape.depth,
        "images": shape.images,
        "nodes": nodes,
    }


def block_seconds(shape: Shape, threads: int, repeats: int = 3) -> tuple[float, float]:
    """Time one block over 20 rows, forward with its graph and backward to its input.

    Returns medians in seconds.
    """
    torch.set_num_threads(threads)
    block = network(replace(shape, depth=1)).blocks[0]
    times: list[tuple[float, float]] = []
    for _ in range(repeats):
        x = torch.randn(20, shape.tokens, shape.width, requires_grad=True)
        started = time.perf_counter()
        y = block(x).sum()
        middle = time.perf_counter()
        torch.autograd.grad(y, x)
        times.append((middle - started, time.perf_counter() - middle))
    return statistics.median(t[0] for t in times), statistics.median(t[1] for t in times)


def run_in_child(job: Callable[..., Any], *args: Any) -> Any:
    """Run a function in a new process and return its result."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(job, *args).result()


def _peak_mb(since_now: bool = False) -> float:
    """Return the largest resident memory of this process, in MB.

    On Linux ``since_now`` restarts the count; elsewhere it counts from the start of the process.
    """
    if since_now:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / (2**20 if sys.platform == "darwin" else 1024)
