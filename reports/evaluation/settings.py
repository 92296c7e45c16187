"""What is compared with dense attention: a coverage law and how pages are chosen."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from backend.setup import BYTES_PER_NUMBER
from backend.sparse import SparseAttention
from controllers.core import Law, describe, require
from controllers.coverage import FixedCoverage
from controllers.preset import Preset
from kernels.low_bit_keys.naive import bytes_share

DENSE = "dense"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One way to prune. ``coverage`` is a law; rows short of ``min_context`` tokens are dense."""

    name: str
    coverage: Law
    sparse: SparseAttention = field(default_factory=SparseAttention)
    min_context: int = 1
    probe_every: int = 0  # tokens between dense probes; 0 never

    def __post_init__(self) -> None:
        require(self.name not in ("", DENSE), "a setting needs a name of its own", name=self.name)
        require(self.min_context >= 1, "min_context must be >= 1", min_context=self.min_context)
        require(self.probe_every >= 0, "probe_every must be >= 0", probe_every=self.probe_every)

    def to_json(self) -> dict[str, Any]:
        """Return what a result file keeps of it."""
        return {
            "name": self.name,
            "coverage": describe(self.coverage),
            "sparse": asdict(self.sparse),
            "min_context": self.min_context,
            "probe_every": self.probe_every,
        }


def fixed(coverage: float, **options: Any) -> Setting:
    """Return a setting of constant coverage; ``options`` are those of ``SparseAttention``."""
    given: dict[str, Any] = {"min_pages": 1} | options  # quality, however short the row
    sparse = SparseAttention(**given)
    parts = [sparse.scorer, f"p={coverage:g}"]
    if sparse.dense_layers:
        parts.append(f"dense={sparse.dense_layers}")
    if sparse.block_pages > 1:
        parts.append(f"block={sparse.block_pages}")
    law = FixedCoverage(coverage=coverage)
    return Setting(name=" ".join(parts), coverage=law, sparse=sparse)


def of_preset(preset: Preset, sparse: SparseAttention | None = None) -> Setting:
    """Return what a preset does to attention, its dense probes included."""
    return Setting(
        name=preset.name,
        coverage=preset.coverage,
        sparse=sparse or SparseAttention(),
        min_context=max(1, preset.sparse_min_context),
        probe_every=preset.probe_every,
    )


def sweep() -> tuple[Setting, ...]:
    """Return the settings of the committed comparison: every scorer, and what helps the default."""
    return (
        *(fixed(p, scorer="oracle") for p in (0.95, 0.98)),
        *(fixed(p, scorer="mean_std") for p in (0.90, 0.95, 0.98)),
        fixed(0.95, scorer="mean_std", dense_layers=2),
        fixed(0.95, scorer="mean_std", block_pages=2),
        *(fixed(p, scorer="lagged") for p in (0.95, 0.97)),
        *(fixed(p, scorer="low_bit") for p in (0.95, 0.97, 0.98)),
        fixed(0.98, scorer="quest"),
    )


def score_price(sparse: SparseAttention, *, page_tokens: int, head_dim: int) -> float:
    """Return what scoring a page reads over the page's own K and V, in float32.

    Two vectors of statistics per page (and one number, if lagged), or a code per token. The
    oracle's scores cost nothing here: no engine has them, so its bytes are a bound and no offer.
    """
    if sparse.scorer == "oracle":
        return 0.0
    if sparse.scorer == "low_bit":
        return bytes_share(head_dim, BYTES_PER_NUMBER)
    numbers = 2 * head_dim + (sparse.scorer == "lagged")
    return numbers / (2 * head_dim * page_tokens)
