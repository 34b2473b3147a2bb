"""Give tests the benchmarks' random checkpoints under a path."""

from equipoise.benchmarks.core.random_checkpoints import (
    CONFIGS,
    PREFIX,
    random_conditioning,
    random_tensors,
    random_weights,
    shapes,
    write_checkpoint,
)

__all__ = ["CONFIGS", "PREFIX", "random_conditioning", "random_tensors", "random_weights", "shapes", "write_checkpoint"]
