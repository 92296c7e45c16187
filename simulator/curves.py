"""Entropy between the recorded temperatures: Hermite curves in ln T, cubic past the first segment.

For fixed logits dH/dlnT = V, so the recorded (H, V) at a node is a value and its exact slope. V
between nodes is the derivative of the same cubic; interpolating V itself, linearly or monotonely,
was 5 to 10 times worse on even nodes. On Zipf and peaky synthetic rows H is off by .0002-.0006 rms
(.004 at worst) and V by .004-.009; on wide Gaussian rows, colder than any model's, by .0039 and
.034. Nothing is extrapolated: an ln T outside the recorded
range raises.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controllers.core import require

ROUNDING = 1e-6  # float32 ln T of an end node may exceed the float64 node by this much
ZERO = np.zeros(())  # sooner than a number, which numpy makes an array of each time
Weights = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # of h0, v0, h1, v1; each [B]
QUINTIC_NODES = 3  # H and V at three nodes fix a quintic
QUADRATURE_POINTS = 8  # Gauss-Legendre, per segment; the integrand is a cubic times exp


@dataclass(frozen=True, slots=True)
class Segment:
    """Where each lane lies between two nodes: left node ``[B]`` and the four cubic weights."""

    left: np.ndarray  # int [B]
    s: np.ndarray  # [B], fraction of the segment, in [0, 1]
    width: np.ndarray  # [B], nodes may be uneven
    weights: Weights


def locate(x_nodes: np.ndarray, x: np.ndarray) -> Segment:
    """Find the segment of each ln T in ``x`` ``[B]``; raise outside the recorded range."""
    x = np.asarray(x, np.float64)
    _require_inside(x_nodes, x)
    left = np.minimum(np.maximum(np.searchsorted(x_nodes, x, "right") - 1, 0), len(x_nodes) - 2)
    width = x_nodes[left + 1] - x_nodes[left]
    s = np.minimum(np.maximum((x - x_nodes[left]) / width, 0.0), 1.0)
    return Segment(left, s, width, _cubic(s, width))


def _inside(x_nodes: np.ndarray, x: np.ndarray) -> bool:
    low, high = x_nodes.item(0) - ROUNDING, x_nodes.item(-1) + ROUNDING
    # By place: half the time of finding the values, and a NaN is found too.
    return not x.size or (x.item(x.argmin()) >= low and x.item(x.argmax()) <= high)


def _require_inside(x_nodes: np.ndarray, x: np.ndarray) -> None:
    if not _inside(x_nodes, x):
        low, high = np.exp(x_nodes[0]), np.exp(x_nodes[-1])
        outside = np.exp([x.min(), x.max()]).tolist()
        raise ValueError(f"temperature must lie in the recorded [{low:g}, {high:g}]; got {outside}")


def _cubic(s: np.ndarray, width: np.ndarray) -> Weights:
    r, s2, r2 = 1.0 - s, s * s, (1.0 - s) * (1.0 - s)
    return (1.0 + 2.0 * s) * r2, s * r2 * width, s2 * (3.0 - 2.0 * s), -s2 * r * width


def _cubic_slope(s: np.ndarray, width: np.ndarray) -> Weights:
    rise = 6.0 * s * (1.0 - s) / width
    return -rise, (1.0 - s) * (1.0 - 3.0 * s), rise, s * (3.0 * s - 2.0)


def hermite(x_nodes: np.ndarray, h: np.ndarray, v: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return H in nats at ln T ``x`` ``[B]``, from values ``h`` and slopes ``v`` ``[B, N]``."""
    here = locate(x_nodes, x)
    lane, i = np.arange(len(here.left)), here.left
    a, b, c, d = here.weights
    return a * h[lane, i] + b * v[lane, i] + c * h[lane, i + 1] + d * v[lane, i + 1]


def varentropy(x_nodes: np.ndarray, h: np.ndarray, v: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return V at ln T ``x`` ``[B]``: the slope of ``hermite``, never below zero, in nats^2."""
    here = locate(x_nodes, x)
    lane, i = np.arange(len(here.left)), here.left
    a, b, c, d = _cubic_slope(here.s, here.width)
    slope = a * h[lane, i] + b * v[lane, i] + c * h[lane, i + 1] + d * v[lane, i + 1]
    return np.maximum(slope, 0.0)


def nll_nodes(x_nodes: np.ndarray, h: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return the expected NLL at T = 1 of a token sampled at each node, ``[B, N]``, in nats.

    N(T) = E_{p_T}[-ln p_1] = T H(T) - int_1^T H dT', because ln Z_T + ln p_T = z / T and
    d(T ln Z_T)/dT = H. Its slope in ln T is exactly T V, so N is interpolated like H. The integral
    is taken over the Hermite curve.
    """
    point, weight = np.polynomial.legendre.leggauss(QUADRATURE_POINTS)
    t_nodes, width = np.exp(x_nodes), np.diff(x_nodes)

    def integral(i: int, end: float) -> np.ndarray:  # of H dT from node i to ln T = end, [B]
        x = x_nodes[i] + (end - x_nodes[i]) * (point + 1.0) / 2.0
        basis = _cubic((x - x_nodes[i]) / width[i], width[i])
        a, b, c, d = ((f * weight * np.exp(x)).sum() * (end - x_nodes[i]) / 2.0 for f in basis)
        return a * h[:, i] + b * v[:, i] + c * h[:, i + 1] + d * v[:, i + 1]

    pieces = [integral(i, x_nodes[i + 1]) for i in range(len(width))]
    from_first = np.cumsum([np.zeros(len(h)), *pieces], axis=0).T  # [B, N]
    unit = int(locate(x_nodes, np.zeros(1)).left[0])
    to_one = from_first[:, unit] + integral(unit, 0.0)
    return t_nodes * h - (from_first - to_one[:, None])


@dataclass(frozen=True, slots=True)
class CurveTable:
    """Every recorded row's H, V and expected NLL, ready to be read many lanes at a time.

    Kept as polynomials in u = ln T less the left node of its segment, so that reading a lane takes
    one gather. In the first segment, the widest, H is the quintic through three nodes: cold rows
    bend there, and over 883 live tokens between T = .3 and .5 the cubic was off by .0217 nat at
    worst, the quintic by .0072. Elsewhere, and for the NLL everywhere, it is the Hermite cubic.
    """

    x_nodes: np.ndarray  # [N], increasing, with ln T = 0 inside
    # By segment, then row: requests read row after row and seldom change segment, so that what
    # they read lies together, and segments that no temperature visits are never touched.
    h_terms: np.ndarray  # float64 [(N - 1) * rows, 6]: factors of 1, u, .. u^5; a slope is V
    nll_terms: np.ndarray  # float64 [(N - 1) * rows, 4]

    @classmethod
    def of(cls, x_nodes: np.ndarray, h: np.ndarray, v: np.ndarray) -> CurveTable:
        """Build the table from recorded ``h`` and ``v`` ``[rows, N]``."""
        x_nodes = np.asarray(x_nodes, np.float64)
        require(bool(np.all(np.diff(x_nodes) > 0.0)), "x_nodes must increase", x_nodes=x_nodes)
        require(x_nodes[0] < 0.0 < x_nodes[-1], "x_nodes must enclose ln T = 0", x_nodes=x_nodes)
        h, v = np.asarray(h, np.float64), np.asarray(v, np.float64)
        h_terms = np.zeros((len(x_nodes) - 1, len(h), 2 * QUINTIC_NODES))
        h_terms[:, :, :4] = _terms(x_nodes, h, v)
        if len(x_nodes) >= QUINTIC_NODES:
            known = np.concatenate([h[:, :QUINTIC_NODES], v[:, :QUINTIC_NODES]], axis=1)
            h_terms[0] = known @ _quintic(x_nodes[:QUINTIC_NODES] - x_nodes[0]).T
        nll_terms = _terms(x_nodes, nll_nodes(x_nodes, h, v), np.exp(x_nodes) * v)
        return cls(x_nodes, h_terms.reshape(-1, h_terms.shape[-1]), nll_terms.reshape(-1, 4))

    @property
    def rows(self) -> int:
        """Recorded rows."""
        return len(self.h_terms) // (len(self.x_nodes) - 1)

    @property
    def nodes(self) -> np.ndarray:
        """H and V at every node, float64 ``[rows, N, 2]``."""
        rows = np.arange(self.rows)
        found = [self.read(rows, np.full(len(rows), x)) for x in self.x_nodes]
        return np.array(found).transpose(2, 0, 1)

    def require_inside(self, x: np.ndarray | float) -> None:
        """Raise where the recording cannot answer for an ln T of ``x``."""
        _require_inside(self.x_nodes, np.asarray(x, np.float64))

    def entropy(self, rows: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (H, V) of ``rows`` ``[B]`` at ln T ``x`` ``[B]``."""
        self.require_inside(x)
        return self.read(rows, x)

    def outcome(self, rows: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return H, V and expected NLL at T = 1 of ``rows`` sampled at ln T ``x``, all ``[B]``."""
        self.require_inside(x)
        return self.read_all(rows, x)

    def holds(self, x: np.ndarray) -> bool:
        """Tell whether the recording can answer for every ln T of ``x``."""
        return _inside(self.x_nodes, x)

    def read_all(
        self, rows: np.ndarray, x: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return what ``outcome`` does, for a caller who checks the range himself."""
        index, u = self._place(rows, x)
        h, v = _value_and_slope(self.h_terms.take(index, axis=0), u)
        return h, v, _cubic_value(self.nll_terms.take(index, axis=0), u)

    def read(self, rows: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (H, V) as ``entropy`` does, for a caller who checks the range himself."""
        index, u = self._place(rows, x)
        return _value_and_slope(self.h_terms.take(index, axis=0), u)

    def read_nll(self, rows: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return the NLL as ``outcome`` does, for a caller who checks the range himself."""
        index, u = self._place(rows, x)
        return _cubic_value(self.nll_terms.take(index, axis=0), u)

    def _place(self, rows: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return which polynomial answers for each lane, and where in its segment."""
        x = np.asarray(x, np.float64)
        left = self.x_nodes[1:-1].searchsorted(x, "right")
        u = x - self.x_nodes.take(left)
        left *= self.rows
        left += rows
        return left, u


def _value_and_slope(c: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Evaluate quintics ``c`` ``[B, 6]`` and their slopes at ``u``, neither below zero (Horner)."""
    c0, c1, c2, c3, c4, c5 = c.T
    value = c5 * u
    slope = value + value
    value += c4
    slope += c4
    for term in (c3, c2, c1):
        value *= u
        value += term
        slope *= u
        slope += value
    value *= u
    value += c0
    return np.maximum(value, ZERO, out=value), np.maximum(slope, ZERO, out=slope)


def _cubic_value(c: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Evaluate cubics ``c`` ``[B, 4]`` at ``u``, never below zero."""
    c0, c1, c2, c3 = c.T
    value = c3 * u
    for term in (c2, c1):
        value += term
        value *= u
    value += c0
    return np.maximum(value, ZERO, out=value)


def _terms(x_nodes: np.ndarray, value: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Return the Hermite cubics of each segment as powers of u, ``[N - 1, rows, 4]``."""
    width = np.diff(x_nodes)
    rise = np.diff(value, axis=1) / width
    second = (3.0 * rise - 2.0 * slope[:, :-1] - slope[:, 1:]) / width
    third = (slope[:, :-1] + slope[:, 1:] - 2.0 * rise) / (width * width)
    return np.stack([value[:, :-1].T, slope[:, :-1].T, second.T, third.T], axis=-1)


def _quintic(x: np.ndarray) -> np.ndarray:
    """Return the matrix from values and slopes at three nodes ``x`` to polynomial coefficients."""
    power = np.arange(2 * len(x))
    values = x[:, None] ** power
    slopes = power * x[:, None] ** np.maximum(power - 1, 0)
    return np.linalg.inv(np.concatenate([values, slopes]))
