"""What top-k log-probabilities say about an entropy: an interval that holds it, as tight as can be.

Let p_1..p_n be the known probabilities, r = 1 - sum p_i the mass of the N - n other tokens, and b a
bound on each of theirs: the k-th largest probability, for no token outside the k largest has more.
With q_j the others' probabilities, H = K + G(q), where K = -sum p_i ln p_i, G(q) = -sum q_j ln q_j,
over the polytope Q = {0 <= q_j <= b, sum q_j = r}.

- Upper end. G is concave and symmetric, so it is largest where all q_j are equal (Jensen):
  G <= r ln((N - n) / r). The point lies in Q, because r <= (N - n) b.
- Lower end. A concave function on a polytope is smallest at a vertex. At a vertex of Q all q_j but
  one at most lie at 0 or b (N - n - 1 of its constraints are tight beside the sum): m = floor(r/b)
  of them are b and one is r - m b, so G >= -m b ln b - (r - m b) ln(r - m b). Without a bound b is
  1, and all of r sits on one further token: G >= -r ln r.

Both ends are entropies of distributions that agree with what is known, so no interval from the same
numbers can be narrower. Rounding of the reported log-probabilities is not part of it.
"""

from __future__ import annotations

import numpy as np

from controllers.core import require

SUM_SLACK = 1e-3  # by which rounded probabilities may sum past 1, and the rest past its bound


def entropy_interval(
    log_known: np.ndarray, log_bound: np.ndarray, vocabulary: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and the highest possible entropy of each row, nats, float64 ``[rows]``.

    ``log_known`` ``[rows, n]``: ln of the known probabilities, NaN where a row knows fewer;
    ``log_bound`` ``[rows]``: ln of the most that any other token can have, 0 for no bound;
    ``vocabulary``: tokens that the model can choose from. Raises ``ValueError`` where no
    distribution agrees with the numbers.
    """
    known = ~np.isnan(log_known)
    count = known.sum(axis=1)
    most = int(count.max(initial=0))
    require(vocabulary >= most, f"vocabulary must hold the {most} known", vocabulary=vocabulary)
    p = np.exp(np.where(known, log_known, -np.inf))
    total = p.sum(axis=1)
    require(
        bool((total <= 1.0 + SUM_SLACK).all()),
        "known probabilities must not sum past 1",
        largest=float(total.max(initial=0.0)),
    )
    others = vocabulary - count
    rest = np.where(others > 0, np.maximum(1.0 - total, 0.0), 0.0)
    possible = np.exp(log_bound) * others
    short = 1.0 - total - possible
    require(
        bool((short <= SUM_SLACK).all()),
        "the other tokens of the vocabulary cannot hold the rest of the mass",
        vocabulary=vocabulary,
        missing=float(short.max(initial=0.0)),
    )
    base = _entropy(p).sum(axis=1)
    even = np.divide(rest, others, out=np.zeros_like(rest), where=others > 0)
    bound = np.maximum(np.exp(log_bound), even)
    full = np.floor(np.divide(rest, bound, out=np.zeros_like(rest), where=bound > 0))
    last = np.maximum(rest - full * bound, 0.0)
    low = base + full * _entropy(bound) + _entropy(last)
    high = base + others * _entropy(even)
    return np.minimum(low, high), high


def _entropy(p: np.ndarray) -> np.ndarray:
    """Return -p ln p, 0 at 0."""
    return -p * np.log(np.where(p > 0.0, p, 1.0))
