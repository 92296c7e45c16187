"""coupling.*: the micro and meso loops together, as a comparison matrix (README, Small gain).

|x+| <= a |x| + g h |p|,  |p+| <= c s V |x| + (b + c s' h) |p|,  a = |1 - g V|. Our coverage laws
read H at T_cal, which x does not move: s = 0, M is triangular, and only the self-loop s' is left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from controllers.certificates.certificate import Certificate
from controllers.certificates.feedback import VOCABULARY, Loop, inner, loop_of, open_loop
from controllers.certificates.interval import Float64, Interval, box
from controllers.certificates.wrapping import bare, brought, issue
from controllers.core import require
from controllers.coverage import EntropyCoverage, FixedCoverage, SeedCoverage
from controllers.preset import Preset

NAME = "coupling.finite_step"
TINY, TILT = 2.0**-600, 2.0**-40
SCALES = np.geomspace(1e-6, 1e6, 241)  # candidates for the weight of p against x


class Matrix(NamedTuple):
    """A 2 x 2 matrix of intervals with entries >= 0, each ``[...]``."""

    xx: Interval
    xp: Interval
    px: Interval
    pp: Interval

    def upper(self) -> Float64:
        """Return the upper ends, ``[..., 2, 2]``."""
        rows = [[self.xx.high, self.xp.high], [self.px.high, self.pp.high]]
        return np.stack([np.stack(np.broadcast_arrays(*row), axis=-1) for row in rows], axis=-2)


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallGain:
    """What a box of matrices M comes to."""

    radius: float  # upper bound of the spectral radius of every M in the box
    schur: bool  # (1 - a)(1 - b - c s h) > g h c s V in the whole box, both factors positive


def comparison(
    gain: Interval,
    v: Interval,
    h: Interval,
    s: Interval,
    b: Interval,
    c: Interval,
    s_self: Interval | None = None,
) -> Matrix:
    """Return M of a box of parameters, all >= 0.

    ``gain`` ln T per nat, ``v`` nats^2, ``h`` = |dH/dp| nats, ``s`` = |dp/dH| per nat of H at the
    applied T, ``s_self`` per nat of the H the coverage law reads (``s`` where not given), ``b`` and
    ``c`` the coverage filter p+ = b p + c target.
    """
    loop = s if s_self is None else s_self
    return Matrix((box(1.0) - gain * v).abs(), gain * h, c * s * v, b + c * loop * h)


def small_gain(matrix: Matrix) -> SmallGain:
    """Decide a box of matrices: the Schur criterion, and the radius by Collatz and Wielandt."""
    upper = matrix.upper()
    require(bool(np.all(upper >= 0.0)), "a comparison matrix is >= 0", upper=upper.tolist())
    slack_x, slack_p = box(1.0) - matrix.xx, box(1.0) - matrix.pp
    crossed = matrix.xp * matrix.px
    schur = (
        np.all(slack_x.low > 0.0)
        and np.all(slack_p.low > 0.0)
        and np.all((slack_x * slack_p).low > crossed.high)
    )
    worst = max(radius_bound(m) for m in upper.reshape(-1, 2, 2))
    return SmallGain(radius=worst, schur=bool(schur))


def radius_bound(matrix: Float64) -> float:
    """Return an upper bound, rounded outward, of the spectral radius of ``[2, 2]`` >= 0.

    max_i (M y)_i/y_i bounds it for every y > 0 (Collatz-Wielandt); y is the weight that makes
    both rows equal where there is one.
    """
    raised = matrix.copy()  # larger entries never lower the radius
    raised[0, 1] = cross = max(float(matrix[0, 1]), TINY)
    gap = float(matrix[1, 1] - matrix[0, 0])
    weight = (gap + math.sqrt(gap * gap + 4.0 * cross * float(matrix[1, 0]))) / (2.0 * cross)
    # A triangular M has no positive Perron vector; a tilt comes as close as 2^-40.
    weight = max(weight, TILT * max(float(matrix.max()), 1.0) / cross)
    return contraction(raised[None], weight)


def contraction(matrices: Float64, weight: float) -> float:
    """Return max (M y)_i/y_i over ``[W, 2, 2]`` for y = (1, weight), rounded outward."""
    m, w = box(matrices), box(weight)
    first = Interval(m.low[:, 0, 0], m.high[:, 0, 0]) + w * Interval(
        m.low[:, 0, 1], m.high[:, 0, 1]
    )
    second = Interval(m.low[:, 1, 1], m.high[:, 1, 1]) + (
        Interval(m.low[:, 1, 0], m.high[:, 1, 0]) / w
    )
    return float(np.maximum(first.high, second.high).max())


def finite_step(
    preset: Preset,
    v_windows: ArrayLike,
    *,
    h: float,
    s: float = 0.0,
    n_outcomes: int = VOCABULARY,
) -> Certificate | None:
    """Bound the growth per step of a preset's two loops over windows of recorded varentropy.

    ``v_windows`` ``[W, n]`` nats^2 at the applied T; ``h`` = |dH/dp|, nats per unit of coverage;
    ``s`` = |dp/dH at the applied T|, 0 for laws that read H at T_cal, ours among them. The bound
    is the n-th root of the least common contraction of all window products in one weighted
    maximum norm, so windows may follow one another in any order. Below 1 it is a certificate.
    """
    windows = np.asarray(v_windows, np.float64)
    require(windows.ndim == 2 and windows.size > 0, "v_windows is [W, n]", shape=windows.shape)
    require(bool(np.all(windows >= 0.0)), "varentropy must be >= 0", smallest=windows.min())
    require(h >= 0.0 and s >= 0.0, "slopes must be >= 0", h=h, s=s)
    if found := brought(preset, NAME):
        return found
    micro, meso = inner(preset.temperature), meso_slope(preset.coverage)
    loop = loop_of(micro, n_outcomes)
    if open_loop(micro) and meso is not None and s == 0.0:
        return _self_loop(preset, box(meso) * box(h), {"h": h, "s_self": meso})
    if loop is None or loop.beta < 1.0 or meso is None:
        return None
    dwell = dwell_steps(preset.coverage)
    products = window_products(loop, windows, h, s, meso, dwell)
    single = _matrix(loop, windows.reshape(-1), h, s, (meso if s == 0.0 else s) * h).upper()
    n = windows.shape[1]
    own = np.array([radius_bound(m) for m in products])
    common = min(contraction(products, float(weight)) for weight in SCALES)
    rate = common ** (1.0 / n)
    return issue(
        preset,
        NAME,
        kind="sufficient",
        holds=common < 1.0,
        statement=f"{len(windows)} windows of {n} steps multiply errors by {rate:.4g} a step",
        assumptions=(
            "linear responses; errors from the moving equilibrium, where V, h and s are the slopes",
            "the windows stand for the tokens to come",
            "neither the clips nor the rate limits bind",
        ),
        constants=loop.constants(
            h=h,
            s=s,
            s_self=meso,
            windows=len(windows),
            steps=n,
            dwell=dwell,
            worst_radius=float(own.max()) ** (1.0 / n),
            mean_radius=float(np.mean(own ** (1.0 / n))),
            one_step=max(radius_bound(m) for m in single),
        ),
        bound=rate,
        unit="per step",
        derivation="Small gain",
    )


def _self_loop(preset: Preset, factor: Interval, constants: dict[str, float]) -> Certificate:
    rate = float(factor.high)
    return issue(
        preset,
        NAME,
        kind="sufficient",
        holds=rate < 1.0,
        statement=f"temperature is open loop; coverage alone {_shrinks(factor, 'a change')}",
        assumptions=("linear responses: h and s_self are slopes at the operating point",),
        constants=constants,
        bound=rate,
        unit="per change",
        derivation="Small gain",
    )


def _shrinks(factor: Interval, per: str) -> str:
    if factor.low <= 0.0:  # no slope at all; the upper end is the rounding of a zero
        return "forgets errors at once"
    return f"multiplies errors by {float(factor.high):.4g} {per}"


def meso_slope(law: Any) -> float | None:
    """Return |dp/dH| of a coverage law of ours, per nat of H at T_cal; None for others.

    A filter on the coverage adds a memory that M does not have: None as well.
    """
    wrapped = bare(law)
    filtered = wrapped is None or wrapped.delay_steps > 0 or wrapped.rates
    match None if wrapped is None or filtered else wrapped.law:
        case FixedCoverage():
            return 0.0
        case EntropyCoverage() | SeedCoverage() as ramp:
            return (ramp.p_max - ramp.p_min) / (ramp.h_high - ramp.h_low)
        case _:
            return None


def dwell_steps(law: Any) -> int:
    """Return the steps in which a coverage law of ours may change at least once."""
    wrapped = bare(law)
    inner_law = None if wrapped is None else wrapped.law
    return inner_law.dwell if isinstance(inner_law, EntropyCoverage) else 1


def window_products(
    loop: Loop, windows: Float64, h: float, s: float, meso: float, dwell: int
) -> Float64:
    """Return upper bounds of the products of M along each window ``[W, n]``, ``[W, 2, 2]``.

    Between changes a coverage law with a dwell holds, b = 1 and c = 0. When it changes is not
    known, but that it may in every ``dwell`` steps is: for s = 0 the self-loop acts n // dwell
    times, and coverage counts as held in the cross term. For s > 0 there is no such product, and a
    law with a dwell counts as held throughout: nothing is certified.
    """
    own = meso if s == 0.0 else s
    held = max(1.0, own * h) if s == 0.0 or dwell > 1 else own * h
    steps = [_matrix(loop, windows[:, t], h, s, held) for t in range(windows.shape[1])]
    product = steps[0]
    for m in steps[1:]:
        product = Matrix(
            m.xx * product.xx + m.xp * product.px,
            m.xx * product.xp + m.xp * product.pp,
            m.px * product.xx + m.pp * product.px,
            m.px * product.xp + m.pp * product.pp,
        )
    if s == 0.0:
        power = box(np.ones(len(windows)))
        for _ in range(windows.shape[1] // dwell):
            power = power * box(own) * box(h)
        product = product._replace(px=box(np.zeros(len(windows))), pp=power.abs())
    return product.upper()


def _matrix(loop: Loop, v: Float64, h: float, s: float, own: float) -> Matrix:
    gain = np.minimum(loop.gain, loop.c / (v + loop.v0))
    matrix = comparison(box(gain), box(v), box(h), box(s), box(0.0), box(1.0))
    return matrix._replace(pp=box(np.full(v.shape, own)))
