"""Tables of the theory figures on one token's logits: response, cobweb, tube.

Everything runs the real laws on the verifier's plants. ``theory_limits`` holds the tables of the
two figures that search: the stability region and the service gap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from controllers import certificates
from controllers.core import TemperatureLaw
from controllers.entropy import max_varentropy
from controllers.temperature import X_MAX, X_MIN, EntropyFeedback, SeedLiteral
from reports.verify.micro_loop import DRIFTS, NOISES, Loop, run
from reports.verify.micro_tube import slopes_met
from reports.verify.plants import Plant, Recorded, peak_levels, recorded_rows
from traces.schema import T_NODES
from traces.store import Trace

VOCABULARY = 50_257  # GPT-2's, the default of the certificates
TANGENTS_T = (0.5, 0.8, 1.0, 1.25, 1.55)
CANDIDATES = 512  # recorded tokens of which the one of median peak varentropy is shown
MULTIPLES = (0.5, 1.0, 1.9, 3.0)  # gain N_n of the cobwebs
START_T, STAR_T = 0.85, 1.0  # of the cobwebs
GRID = 201
HOT_T = 1.7  # where the run from outside the tube starts
REACH_T = 1.25  # the tube's equilibrium stays within this factor of T = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """Entropy (nats) and its slope V (nats^2) of one fixed row of logits at ln T ``x``, ``[K]``."""

    title: str
    x: np.ndarray
    h: np.ndarray
    v: np.ndarray
    tangents: np.ndarray  # int [t]: indices into x where the slope is drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Responses:
    """A recorded token, the distribution of largest varentropy, and what text reaches."""

    curves: tuple[Response, ...]
    outcomes: int
    n_max: float  # N_n, nats^2
    text_t: np.ndarray  # recorded temperatures [N]
    text_v: np.ndarray  # largest V of any recorded token there, nats^2 [N]
    text_tokens: int

    def caption(self) -> str:
        """Return what the figure shows, with its numbers."""
        return (
            f"The slope of entropy in ln T is the varentropy. No row of {self.outcomes:,} logits "
            f"exceeds {self.n_max:.2f} nats²; {self.text_tokens:,} recorded tokens reach "
            f"{self.text_v.max():.2f}."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Web:
    """One law's map x -> x+ on fixed logits, and the steps it takes from one start; ln T."""

    law: str  # "printed" or "corrected"
    multiple: float  # gain N_n
    gain: float  # ln T per nat
    x: np.ndarray  # [K]
    after: np.ndarray  # x+ at x, [K]
    path: np.ndarray  # x of every step, the start first, [t]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cobweb:
    """Webs of both laws at the same gains, on the same logits."""

    webs: tuple[Web, ...]
    outcomes: int
    x_star: float  # ln T where H = H*

    def caption(self) -> str:
        """Return what the figure shows, with its numbers."""
        return (
            f"x+ over x, without c and rate limit, on logits whose varentropy is Nₙ = "
            f"{max_varentropy(self.outcomes):.2f} nats² at the set-point (circle). From "
            f"the square, the printed law runs away at every gain; the corrected one holds to 2/Nₙ."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TubeRuns:
    """Runs of one law under bounded noise and drift beside the radius certified for them."""

    law: str
    labels: tuple[str, ...]  # of the lanes: "noise, drift"
    error: np.ndarray  # x - x*, ln T [t, L]; all but the last lane start on x*
    command: np.ndarray  # of the last lane, ln T [t]
    x_star: np.ndarray  # of the last lane, ln T [t]
    noise_nats: float
    drift: float  # ln T a step
    mu: float  # smallest and largest slope met, nats^2
    v_max: float
    radius: float  # ln T

    @property
    def worst(self) -> float:
        """Return the largest error of the lanes that start on the equilibrium, ln T."""
        return float(np.abs(self.error[:, :-1]).max())

    def caption(self) -> str:
        """Return what the figure shows, with its numbers."""
        return (
            f"Measured entropy off by at most {self.noise_nats:g} nat, x* moving by {self.drift:g} "
            f"a token, V in [{self.mu:.2f}, {self.v_max:.2f}] nats²: radius {self.radius:.3f}, "
            f"worst of {len(self.labels) - 1} runs {self.worst:.3f}, conservatism ratio "
            f"{self.radius / self.worst:.2f}."
        )


def responses(trace: Trace, *, seed: int) -> Responses:
    """Read H and V of a recorded token and of the extremal distribution over T in [.3, 1.8]."""
    token = typical_token(seed)
    peak = peak_levels(np.array([VOCABULARY]), np.zeros(1))
    v = trace.columns["v"]
    return Responses(
        curves=(
            _response(f"recorded token (row {token.rows[0]:,})", token),
            _response(f"largest varentropy of {VOCABULARY:,} outcomes", peak),
        ),
        outcomes=VOCABULARY,
        n_max=max_varentropy(VOCABULARY),
        text_t=T_NODES,
        text_v=v.max(axis=0),
        text_tokens=len(v),
    )


def typical_token(seed: int) -> Recorded:
    """Return, of the recorded tokens from ``seed`` on, the one of median peak varentropy."""
    many = recorded_rows(np.arange(seed, seed + CANDIDATES))
    peaks = np.max([many.response(np.full(CANDIDATES, x))[1] for x in np.log(T_NODES)], axis=0)
    chosen = int(np.argsort(peaks, kind="stable")[CANDIDATES // 2])
    return recorded_rows(np.array([seed + chosen]))


def _response(title: str, plant: Plant) -> Response:
    x = np.linspace(X_MIN, X_MAX, GRID)
    h, v = np.array([plant.response(np.array([at])) for at in x])[:, :, 0].T
    tangents = np.abs(x[:, None] - np.log(TANGENTS_T)).argmin(axis=0)
    return Response(title=title, x=x, h=h, v=v, tangents=tangents)


def cobweb(*, steps: int = 40) -> Cobweb:
    """Run the printed and the plain corrected law on the logits of largest varentropy at T = 1."""
    n_max = max_varentropy(VOCABULARY)
    webs = []
    for multiple in MULTIPLES:
        gain = multiple / n_max
        plain = EntropyFeedback(gain=gain, c=math.inf, rate=math.inf)
        webs.append(_web("printed", SeedLiteral(eta=gain), multiple, gain, steps))
        webs.append(_web("corrected", plain, multiple, gain, steps))
    return Cobweb(webs=tuple(webs), outcomes=VOCABULARY, x_star=math.log(STAR_T))


def _web(name: str, law: TemperatureLaw, multiple: float, gain: float, steps: int) -> Web:
    x_star, x = math.log(STAR_T), np.linspace(X_MIN, X_MAX, GRID)
    start = np.array([math.log(START_T)])

    def commands(starts: np.ndarray, steps: int) -> np.ndarray:
        star = np.full(len(starts), x_star)
        plant = peak_levels(np.full(len(starts), VOCABULARY), star)
        return run(law, plant, Loop(steps=steps, x_user=starts, x_star=star)).u

    path = np.concatenate([start, commands(start, steps)[:, 0]])
    after = commands(x, 1)[0]
    return Web(law=name, multiple=multiple, gain=gain, x=x, after=after, path=path)


def tube(
    *, seed: int, noise_nats: float = 0.15, drift: float = 0.005, steps: int = 400
) -> TubeRuns:
    """Run the default law under every noise and drift, and once more from outside its tube.

    The equilibrium of a recorded token moves with the scale of its logits, so that its slope at the
    equilibrium stays what it was. mu and v_max are the slopes that these very runs met.
    """
    law, token = EntropyFeedback(), typical_token(seed)
    kinds = [(noise, path) for path in DRIFTS for noise in NOISES]
    noises, paths = (np.array(column) for column in zip(*kinds, ("random", "sweep"), strict=True))
    lanes = len(noises)
    x_star = np.zeros(lanes)
    start = np.where(np.arange(lanes) == lanes - 1, math.log(HOT_T), x_star)
    reach = math.log(REACH_T)
    loop = Loop(
        steps=steps, x_user=start, x_star=x_star, noise=noises, noise_nats=noise_nats, drift=drift,
        path=paths, seed=np.full(lanes, seed), low=-reach, high=reach,
    )  # fmt: skip
    plant = Recorded(
        curves=token.curves, rows=np.repeat(token.rows, lanes), outcomes=token.outcomes
    )
    path = run(law, plant, loop)
    low, high = slopes_met(path, plant)
    mu, v_max = float(low.min()), float(high.max())
    proof = certificates.iss(law, mu, noise_nats, drift, v_max=v_max)
    return TubeRuns(
        law=type(law).__name__,
        labels=tuple(f"{noise} noise, {way}" for noise, way in zip(noises, paths, strict=True)),
        error=path.error,
        command=path.u[:, -1],
        x_star=path.x_star[:, -1],
        noise_nats=noise_nats,
        drift=drift,
        mu=mu,
        v_max=v_max,
        radius=math.inf if proof is None else proof.bound,
    )
