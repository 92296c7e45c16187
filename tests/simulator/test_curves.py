"""Curves against exact entropies; each bound is about 1.5 times the worst error measured."""

from __future__ import annotations

import numpy as np
import pytest

from controllers.entropy import entropy_varentropy
from simulator.curves import CurveTable, hermite, locate, nll_nodes, varentropy
from traces.schema import X_NODES as RECORDED

X_NODES = np.sort(np.append(RECORDED, 0.0))  # the simulator adds the recorded T_cal = 1

DENSE_X = np.linspace(X_NODES[0], X_NODES[-1], 49)
KINDS = ("random", "zipf", "near_tie", "raised_token")


def some_logits(kind: str) -> np.ndarray:
    rng = np.random.default_rng(11)
    rows, n = 24, 5000
    rank = np.log(np.arange(1, n + 1))
    match kind:
        case "random":
            return rng.normal(0.0, rng.uniform(1.0, 5.0, (rows, 1)), (rows, n))
        case "zipf":
            return -rng.uniform(1.0, 4.0, (rows, 1)) * rank + rng.normal(0.0, 0.7, (rows, n))
        case "near_tie":
            logits = -rng.uniform(1.0, 2.0, (rows, 1)) * rank - rng.uniform(4.0, 14.0, (rows, 1))
            logits[:, 0], logits[:, 1] = 0.0, rng.uniform(-0.5, 0.5, rows)
            return logits
        case _:
            logits = -rng.uniform(0.8, 2.0, (rows, 1)) * rank + rng.normal(0.0, 0.7, (rows, n))
            logits[:, 0] += rng.uniform(4.0, 14.0, rows)
            return logits


def exact(logits: np.ndarray, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return H, V and expected NLL at T = 1, each [rows, nodes]."""
    at_one = logits - logits.max(axis=1, keepdims=True)
    at_one = at_one - np.log(np.exp(at_one).sum(axis=1, keepdims=True))
    columns = []
    for x in nodes:
        h, v = entropy_varentropy(logits, x)
        p = np.exp((logits - logits.max(axis=1, keepdims=True)) / np.exp(x))
        p /= p.sum(axis=1, keepdims=True)
        columns.append((h, v, -(p * at_one).sum(axis=1)))
    h, v, nll = np.array(columns).transpose(1, 2, 0)
    return h, v, nll


def table_of(logits: np.ndarray) -> CurveTable:
    h, v, _ = exact(logits, X_NODES)
    return CurveTable.of(X_NODES, h, v)


def read(table: CurveTable, rows: int, x: np.ndarray) -> tuple[np.ndarray, ...]:
    lanes = np.repeat(np.arange(rows), len(x))
    found = table.outcome(lanes, np.tile(x, rows))
    return tuple(column.reshape(rows, len(x)) for column in found)


@pytest.mark.parametrize(
    ("kind", "h_worst", "v_worst", "nll_worst"),
    [
        ("random", 0.066, 0.61, 0.044),
        ("zipf", 0.007, 0.075, 0.007),
        ("near_tie", 0.004, 0.06, 0.005),
        ("raised_token", 0.006, 0.10, 0.008),
    ],
)
def test_curves_stay_near_the_exact_values_between_nodes(
    kind: str, h_worst: float, v_worst: float, nll_worst: float
) -> None:
    logits = some_logits(kind)
    found = read(table_of(logits), len(logits), DENSE_X)
    errors = [np.abs(a - b).max() for a, b in zip(found, exact(logits, DENSE_X), strict=True)]
    assert errors[0] < h_worst
    assert errors[1] < v_worst
    assert errors[2] < nll_worst


@pytest.mark.parametrize("kind", KINDS)
def test_curves_pass_through_their_nodes(kind: str) -> None:
    logits = some_logits(kind)
    h, v, _ = exact(logits, X_NODES)
    found_h, found_v, _ = read(table_of(logits), len(logits), X_NODES)
    np.testing.assert_allclose(found_h, h, rtol=0.0, atol=1e-12)
    np.testing.assert_allclose(found_v, v, rtol=0.0, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_expected_nll_is_t_h_minus_the_integral_of_h(kind: str) -> None:
    logits = some_logits(kind)
    fine = np.linspace(X_NODES[0], X_NODES[-1], 2001)
    h, v, nll = exact(logits[:2], fine)
    found = nll_nodes(fine, h, v)  # no interpolation error left, so this is the identity itself
    np.testing.assert_allclose(found, nll, rtol=0.0, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_expected_nll_rises_with_ln_t_by_t_v(kind: str) -> None:
    logits, step = some_logits(kind)[:4], 1e-4
    x = np.linspace(-1.3, 0.6, 9)
    _, v, _ = exact(logits, x)
    rise = exact(logits, x + step)[2] - exact(logits, x - step)[2]
    np.testing.assert_allclose(rise / (2 * step), np.exp(x) * v, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_slope_of_the_cubic_beats_linear_interpolation_of_v(kind: str) -> None:
    logits = some_logits(kind)
    _, v_nodes, _ = exact(logits, X_NODES)
    _, v, _ = exact(logits, DENSE_X)
    _, cubic, _ = read(table_of(logits), len(logits), DENSE_X)
    linear = np.array([np.interp(DENSE_X, X_NODES, row) for row in v_nodes])
    assert np.square(cubic - v).mean() < 0.1 * np.square(linear - v).mean()


def test_lane_functions_and_table_agree() -> None:
    logits = some_logits("zipf")
    h, v, _ = exact(logits, X_NODES)
    x = np.random.default_rng(5).uniform(X_NODES[1], X_NODES[-1], len(logits))  # cubic from here on
    found_h, found_v = CurveTable.of(X_NODES, h, v).entropy(np.arange(len(logits)), x)
    np.testing.assert_allclose(found_h, hermite(X_NODES, h, v, x), rtol=0.0, atol=1e-13)
    np.testing.assert_allclose(found_v, varentropy(X_NODES, h, v, x), rtol=0.0, atol=1e-12)


def test_the_first_segment_is_the_quintic_through_three_nodes() -> None:
    u = X_NODES - X_NODES[0]
    h, v = 1.0 + u + 0.3 * u**5, 1.0 + 1.5 * u**4
    at = np.linspace(X_NODES[0], X_NODES[1], 9)[:-1]
    table = CurveTable.of(X_NODES, np.tile(h, (len(at), 1)), np.tile(v, (len(at), 1)))
    found_h, found_v = table.entropy(np.arange(len(at)), at)
    w = at - X_NODES[0]
    np.testing.assert_allclose(found_h, 1.0 + w + 0.3 * w**5, rtol=0.0, atol=1e-9)
    np.testing.assert_allclose(found_v, 1.0 + 1.5 * w**4, rtol=0.0, atol=1e-8)


@pytest.mark.parametrize("temperature", [0.2, 2.1, float("nan")])
def test_nothing_is_extrapolated(temperature: float) -> None:
    with pytest.raises(ValueError, match="recorded"):
        locate(X_NODES, np.log([1.0, temperature]))


def test_end_nodes_rounded_to_float32_are_inside() -> None:
    ends = np.array([X_NODES[0], X_NODES[-1]], np.float32)
    assert locate(X_NODES, ends).left.tolist() == [0, len(X_NODES) - 2]
