"""What pruning was measured to cost, quoted beside a plan's savings.

A simulation reads the likelihood of dense attention, whatever it prunes, so a saving in KV would
look free. ``entropic quality`` has measured it on a live model; a plan quotes the figures of the
setting whose coverage is nearest to the preset's mean, and names the model they are of.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

MEASURED = Path(__file__).parent / "results" / "quality.json"
SCORER, TEXT = "mean_std", "sampled"  # the estimator whose page shares the traces hold
DENSE = 0.9995  # a mean coverage from here on prunes next to nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Quoted:
    """Measured effects of pruning at one coverage, on the model they were measured on."""

    model: str
    setting: str
    coverage: float
    nll_change_nats: float
    nll_change_ci95: float
    kl_nats: float
    top1_agreement: float
    kv_bytes_share: float
    context_tokens: int  # of the shortest prompt it was measured on

    def line(self, planned_model: str) -> str:
        """Return the quotation in words."""
        whose = "" if self.model == planned_model else ", another model than the planned one"
        return (
            f"measured on {self.model}{whose}, {self.setting}: NLL {self.nll_change_nats:+.3f} ± "
            f"{self.nll_change_ci95:.3f} nat per token, KL to dense {self.kl_nats:.3f} nat, top-1 "
            f"agreement {100 * self.top1_agreement:.1f} %, KV bytes {100 * self.kv_bytes_share:.0f}"
            f" % of dense at contexts of {self.context_tokens:,} tokens and more"
        )

    def to_json(self) -> dict[str, object]:
        """Return the quotation by name."""
        return asdict(self)


def quoted(coverage: float | None, path: Path = MEASURED) -> Quoted | None:
    """Return what was measured at the coverage nearest to ``coverage``; None where none prunes."""
    if coverage is None or coverage >= DENSE:
        return None
    document = json.loads(path.read_text(encoding="utf-8"))
    plain = [e for e in document["entries"] if _plain(e)]
    if not plain:
        return None
    best = min(plain, key=lambda entry: abs(_mean(entry, "coverage_asked") - coverage))
    return Quoted(
        model=str(document["model"]),
        setting=str(best["setting"]),
        coverage=_mean(best, "coverage_asked"),
        nll_change_nats=_mean(best, "nll_change_nats"),
        nll_change_ci95=float(best["nll_change_nats"]["ci95"]),
        kl_nats=_mean(best, "kl_nats"),
        top1_agreement=_mean(best, "top1_agreement"),
        kv_bytes_share=_mean(best, "kv_bytes_share"),
        context_tokens=int(best["shortest_prompt_tokens"]),
    )


def _plain(entry: Mapping[str, object]) -> bool:
    """Whether an entry is the plain scorer's: a coverage, and no other change."""
    words = str(entry["setting"]).split()
    return entry["text"] == TEXT and words[0] == SCORER and len(words) == 2


def _mean(entry: Mapping[str, dict[str, float]], name: str) -> float:
    return float(entry[name]["mean"])
