"""How attention reads fewer pages: options of the data plane, unknown to the simulator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from controllers.core import require

Scorer = Literal["mean_std", "quest", "lagged", "low_bit", "oracle"]
SCORERS: tuple[Scorer, ...] = get_args(Scorer)


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseAttention:
    """How pages are scored and chosen where a row's coverage is below 1.

    ``mean_std`` and ``quest`` read statistics of each page's keys. ``lagged`` takes the larger of
    the ``mean_std`` estimate and an exponential moving average of the mass each page was measured
    to get, one number per page and KV head. ``low_bit`` scores every token by a 4-bit copy of its
    key: close to the oracle and as many bytes as ``mean_std`` in float32, but about .6 of dense
    attention's time on one CPU core, where ``mean_std`` takes about .04. ``oracle`` runs dense
    attention first: the bound of what any scorer can reach, for ablation, and slower than dense
    attention itself.
    """

    scorer: Scorer = "mean_std"
    dense_layers: int = 0  # this many first layers stay dense
    block_pages: int = 1  # choose blocks of this many pages; each page is still scored
    min_pages: int = 128  # rows with fewer pages run dense: choosing costs what it saves
    lag_rate: float = 0.25  # weight of the newest measurement under "lagged"
    measure_masses: bool = False  # keep each page's attention mass of the step, for eviction
    measure_information: bool = False  # keep sum of a_i s_i likewise

    def __post_init__(self) -> None:
        require(self.scorer in SCORERS, f"scorer must be one of {SCORERS}", scorer=self.scorer)
        require(self.dense_layers >= 0, "dense_layers must be >= 0", dense_layers=self.dense_layers)
        require(self.block_pages >= 1, "block_pages must be >= 1", block_pages=self.block_pages)
        require(self.min_pages >= 1, "min_pages must be >= 1", min_pages=self.min_pages)
        require(0.0 < self.lag_rate <= 1.0, "lag_rate must lie in (0, 1]", lag_rate=self.lag_rate)

    def from_tokens(self, page_tokens: int) -> int:
        """Return the shortest context that may be pruned, tokens; a profile carries it."""
        return (self.min_pages - 1) * page_tokens + 1

    @property
    def measures(self) -> bool:
        """Whether each page's mass of the step is kept."""
        return self.measure_masses or self.measure_information
