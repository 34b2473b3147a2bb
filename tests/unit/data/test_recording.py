"""What is kept of h: calls, rows, averages, and the noise levels at which whole maps are kept."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from equipoise.methods.core.rows import CONDITIONAL, UNCONDITIONAL
from equipoise.methods.core.run import Call
from equipoise.methods.data.recording import Recording, RecordingRun, RecordingSettings, parse_levels
from equipoise.models.noise_level import log_snr
from equipoise.models.sites import MIDDLE
from torch import Tensor

B, C = 2, 3
ROLES = {"p": CONDITIONAL, "q": CONDITIONAL, "r": CONDITIONAL, "n": UNCONDITIONAL}


def h(*values: float, size: tuple[int, int] = (8, 8)) -> Tensor:
    """A chunk of B rows per value; row i of it holds the value + i / 10."""
    rows = [torch.full((1, C, *size), v + i / 10) for v in values for i in range(B)]
    return torch.cat(rows)


def options(sigma: float, marks: list[int], uuids: list[str] | None = None) -> dict[str, Any]:
    return {"sigmas": torch.full((B,), sigma), "cond_or_uncond": marks} | ({} if uuids is None else {"uuids": uuids})


def record(calls: list[list[tuple[Tensor, dict[str, Any]]]], **settings: Any) -> Recording:
    """``calls``: U-Net passes of each."""
    run = RecordingRun(RecordingSettings(**settings))
    for passes in calls:
        run.begin()
        for before, given in passes:
            seen = before.clone()
            assert run.edit(MIDDLE, seen, Call.read(given, ROLES)) is seen
            assert torch.equal(seen, before)
            seen.fill_(-99.0)  # a later patch may write into h
        run.end()
    run.finish()
    return run.recording


def values(features: Tensor) -> list[list[float]]:
    """[N][calls] of features that are constant over C, 4, 4."""
    assert features.dtype == torch.float16 and features.device.type == "cpu"
    return [[round(float(v), 2) for v in image] for image in features[:, :, 0, 0, 0]]


def test_positives_of_every_call_with_their_levels() -> None:
    made = record([[(h(-1, 1), options(2.0, [1, 0], ["n", "p"]))], [(h(-2, 2), options(1.0, [1, 0], ["n", "p"]))]])
    assert made.features.shape == (B, 2, C, 4, 4) and values(made.features) == [[1.0, 2.0], [1.1, 2.1]]
    torch.testing.assert_close(made.level, log_snr(torch.tensor([2.0, 1.0])))
    assert made.unconditional is None and made.spatial is None and made.calls == 2


def test_passes_of_one_call_belong_together_whatever_their_order() -> None:
    apart = [[(h(-1), options(2.0, [1], ["n"])), (h(1), options(2.0, [0], ["p"]))]] * 3
    made = record(apart, unconditional=True)
    assert values(made.features) == [[1.0] * 3, [1.1] * 3] and values(made.unconditional[0]) == [[-1.0] * 3, [-0.9] * 3]
    other = record([list(reversed(passes)) for passes in apart], unconditional=True)
    assert torch.equal(other.features, made.features) and torch.equal(other.unconditional[0], made.unconditional[0])


def test_two_calls_at_one_noise_level_are_two() -> None:
    """Heun's second call of a step and the first of the next have the same sigma, and other latents."""
    one, two = ([(h(v), options(1.0, [0], ["p"]))] for v in (1, 2))
    made = record([one, two])
    assert values(made.features) == [[1.0, 2.0], [1.1, 2.1]] and made.calls == 2


def test_several_positives_are_averaged() -> None:
    together = [(h(-1, 1, 3), options(2.0, [1, 0, 0], ["n", "p", "q"]))]
    apart = [(h(1), options(2.0, [0], ["p"])), (h(3), options(2.0, [0], ["q"])), (h(-1), options(2.0, [1], ["n"]))]
    for passes in (together, apart):
        assert values(record([passes]).features) == [[2.0], [2.1]]


def test_tiles_are_averaged() -> None:
    made = record([[(h(-1, 1, -1, 2), options(2.0, [1, 0], ["n", "p"]))]])
    assert values(made.features) == [[1.5], [1.6]]


def test_a_perturbed_pass_is_not_what_the_model_makes_of_the_image() -> None:
    passes = [(h(-1, 1), options(2.0, [1, 0], ["n", "p"])), (h(50), options(2.0, [0], ["p"]))]
    assert values(record([passes, list(passes)]).features) == [[1.0, 1.0], [1.1, 1.1]]


@pytest.mark.parametrize(("every", "kept"), [(1, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (3, [0, 3]), (9, [0])])
def test_every_kth_call(every: int, kept: list[int]) -> None:
    made = record([[(h(k), options(2.0 - 0.3 * k, [0], ["p"]))] for k in range(5)], every=every)
    assert values(made.features)[0] == [float(k) for k in kept] and made.calls == 5
    torch.testing.assert_close(made.level, log_snr(2.0 - 0.3 * torch.tensor(kept)))


def test_calls_without_rows_of_the_positive_do_not_count() -> None:
    """As where another patch answers from its cache."""
    calls = [[(h(k), options(2.0, [0], ["p"]))] for k in range(3)]
    made = record([calls[0], [], [(h(-5), options(2.0, [1], ["n"]))], calls[1], calls[2]], every=2)
    assert values(made.features)[0] == [0.0, 2.0] and made.calls == 3


def test_rows_of_the_negative_where_there_are_any() -> None:
    first, second = [(h(-1, 1), options(2.0, [1, 0], ["n", "p"]))], [(h(2), options(1.0, [0], ["p"]))]
    made = record([first, second], unconditional=True)
    features, level = made.unconditional
    assert values(features) == [[-1.0], [-0.9]] and level.tolist() == [float(log_snr(2.0))]
    assert made.features.shape[1] == 2
    assert record([second], unconditional=True).unconditional is None


def test_maps_are_pooled_to_the_grid() -> None:
    ramp = torch.arange(64.0).view(1, 1, 8, 8).expand(B, C, 8, 8).contiguous()
    made = record([[(ramp.clone(), options(1.0, [0], ["p"]))]])
    torch.testing.assert_close(made.features[0, 0, 0].float(), torch.nn.functional.adaptive_avg_pool2d(ramp, 4)[0, 0])


def test_nothing_outside_a_call_is_recorded_and_a_call_that_failed_is_dropped() -> None:
    run = RecordingRun(RecordingSettings())
    run.edit(MIDDLE, h(1), Call.read(options(1.0, [0], ["p"]), ROLES))
    run.begin()
    run.edit(MIDDLE, h(7), Call.read(options(1.0, [0], ["p"]), ROLES))
    run.begin()  # the sampler tried again
    run.edit(MIDDLE, h(2), Call.read(options(1.0, [0], ["p"]), ROLES))
    run.end()
    run.finish()
    assert values(run.recording.features) == [[2.0], [2.1]]
    run.release()
    with pytest.raises(ValueError, match="no features were recorded"):
        run.finish()


def test_rows_that_cannot_be_told_apart_are_told_of() -> None:
    with pytest.raises(ValueError, match="rows of 1 U-Net calls do not fit the batch"):
        record([[(h(1)[:1], options(1.0, [0], ["p"]))]])
    with pytest.raises(ValueError, match="no U-Net call had rows of the positive"):
        record([[]])


# -- maps ----------------------------------------------------------------------------------------------------------------------------


def test_the_calls_nearest_to_the_asked_levels_are_kept_whole() -> None:
    levels = [-4.0, -2.5, -1.0, 0.5, 2.0]
    calls = [[(h(k, size=(5, 6)), options(float(torch.exp(torch.tensor(-v / 2))), [0], ["p"]))] for k, v in enumerate(levels)]
    maps, at = record(calls, spatial_levels=(-2.2, 9.0, 1.9), every=4).spatial
    assert maps.shape == (B, 2, C, 5, 6) and values(maps) == [[1.0, 4.0], [1.1, 4.1]], "9 and 1.9 share the last call"
    torch.testing.assert_close(at, torch.tensor([-2.5, 2.0]))


def test_maps_average_positives_and_leave_out_parts_and_negatives() -> None:
    """A positive with an area comes as a smaller map, in a pass of its own."""
    part = (h(40, size=(4, 4)), options(1.0, [0], ["q"]))
    whole = (h(-1, 1, 3), options(1.0, [1, 0, 0], ["n", "p", "r"]))
    for passes in ([part, whole], [whole, part]):
        maps, _ = record([passes], spatial_levels=(0.0,)).spatial
        assert maps.shape == (B, 1, C, 8, 8) and values(maps) == [[2.0], [2.1]]


@pytest.mark.parametrize(
    ("text", "levels"),
    [("", ()), (" \n", ()), ("2, -2;0\n1", (-2.0, 0.0, 1.0, 2.0)), ("1 1", (1.0,)), ("sigma=1, Sigma=2", (float(log_snr(2.0)), 0.0))],
)
def test_levels_as_users_write_them(text: str, levels: tuple[float, ...]) -> None:
    assert parse_levels(text) == pytest.approx(levels)


@pytest.mark.parametrize("text", ["a", "1, x", "sigma=0", "sigma=-1", "nan", "inf", "sigma=", "step=3", "=2"])
def test_words_that_are_no_levels(text: str) -> None:
    with pytest.raises(ValueError, match="is not a noise level"):
        parse_levels(text)


def test_exact_recordings_keep_what_half_precision_rounds_away() -> None:
    one = 1 + 2.0**-14
    made = record([[(h(one), options(2.0, [0], ["p"]))]], exact=True)
    assert made.features.dtype == torch.float32 and float(made.features[0, 0, 0, 0, 0]) == one
    assert float(record([[(h(one), options(2.0, [0], ["p"]))]]).features[0, 0, 0, 0, 0]) == 1.0
