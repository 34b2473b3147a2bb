"""Weights under which attributes do not go along with each other."""

from __future__ import annotations

import torch
from equipoise.methods.guidance.raking import raked


def labels(n: int = 6000) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    job = torch.randint(0, 4, (n,), generator=generator)
    glasses = (torch.rand(n, generator=generator) < torch.tensor([0.05, 0.1, 0.2, 0.45])[job]).long()
    tone = torch.multinomial(torch.tensor([0.7, 0.2, 0.1]), n, replacement=True, generator=generator)
    return {"glasses": glasses, "job": job, "tone": tone}


def test_classes_weigh_the_same_and_have_the_same_company() -> None:
    given = labels()
    w = raked(given, "glasses")
    assert abs(float(w.sum()) - 1) < 1e-5
    for c in (0, 1):
        inside = given["glasses"] == c
        assert abs(float(w[inside].sum()) - 0.5) < 1e-5
        for other, k in (("job", 4), ("tone", 3)):
            made = torch.zeros(k).index_add_(0, given[other][inside], w[inside]) / w[inside].sum()
            wanted = torch.bincount(given[other], minlength=k) / len(inside)
            assert float((made - wanted).abs().max()) < 0.01, (c, other)
    plain = torch.bincount(given["job"][given["glasses"] == 1], minlength=4) / (given["glasses"] == 1).sum()
    assert float(plain[3]) > 0.5  # what there was to undo


def test_no_image_weighs_more_than_ten_times_its_classs_average() -> None:
    given = {"a": torch.tensor([0] * 100 + [1] * 100), "b": torch.tensor([0] * 99 + [1] + [1] * 100)}
    w = raked(given, "a")
    assert float(w[:100].max()) <= 10.5 * 0.5 / 100
    assert float(w[99]) > 5 * float(w[0])
