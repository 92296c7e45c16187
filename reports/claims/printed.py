"""What the paper prints and judges compare with: numbers of section 6, headings, citations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from reports.claims.serve import ATTENTION, BASELINE, FULL, SAMPLING, SCHEDULING

ROUNDING = 0.005  # Table 1 has two decimals
PARTS = (SAMPLING, SCHEDULING, ATTENTION)

# Table 1: latency, throughput, d tau/dC, quality; baseline = 1.
TABLE_1: Mapping[str, tuple[float, float, float, float]] = MappingProxyType(
    {
        BASELINE: (1.00, 1.00, 1.00, 1.00),
        SAMPLING: (0.98, 1.02, 1.08, 1.00),
        SCHEDULING: (0.88, 1.15, 1.12, 1.00),
        ATTENTION: (0.85, 1.20, 1.25, 0.98),
        FULL: (0.70, 1.40, 1.55, 1.00),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A column of Table 1, and how we measure it."""

    name: str
    column: int
    ours: str  # metric of ``Served``
    better: int  # +1: more is better, -1: less is


METRICS = (
    Metric(name="latency", column=0, ours="e2e_s.mean", better=-1),
    Metric(name="throughput", column=1, ours="tokens_per_busy_s", better=1),
    Metric(name="d tau/dC", column=2, ours="tau_per_cost", better=1),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """A printed range of change against the baseline, per cent, and our metric for it."""

    what: str
    metric: str
    low: float
    high: float

    def met(self, mean: float, half: float) -> bool:
        """Tell whether a measured interval reaches the range; going further than it counts."""
        above = mean + half >= self.low or self.high < 0.0
        below = mean - half <= self.high or self.low > 0.0
        return above and below


# Sections 6.5-6.8. "Negligible" change of throughput is read as within 2 %, Table 1's own figure.
SAMPLING_RANGES = (
    Range(what="collapse rate", metric="tau_nats_per_token", low=5.0, high=8.0),
    Range(what="throughput", metric="tokens_per_busy_s", low=-2.0, high=2.0),
)
SCHEDULING_RANGES = (
    Range(what="mean latency", metric="e2e_s.mean", low=-15.0, high=-10.0),
    Range(what="throughput", metric="throughput_tokens_per_s", low=12.0, high=18.0),
)
ATTENTION_RANGES = (
    Range(what="KV bytes read", metric="kv_bytes_read_per_token", low=-25.0, high=-15.0),
)
FULL_RANGES = (
    Range(what="mean latency", metric="e2e_s.mean", low=-35.0, high=-25.0),
    Range(what="throughput", metric="tokens_per_busy_s", low=30.0, high=45.0),
    Range(what="d tau/dC", metric="tau_per_cost", low=40.0, high=60.0),
)
ATTENTION_FLOPS_SAVED = (0.20, 0.30)  # section 6.7

# What a reader needs to repeat section 6, and what the text gives.
SETUP: Mapping[str, str] = MappingProxyType(
    {
        "model": "",  # "a fixed pretrained decoder-only transformer"
        "hardware": "",  # "identical hardware"
        "engine and version": "",  # "a common inference backend"; vLLM is named, no version
        "prompts": "",  # "a heterogeneous mixture"
        "load": "",
        "gains and set-point": "",
        "seeds": "",
        "intervals": "",
    }
)
# Sections that announce as expected what others report as found.
EXPECTED_OF: Mapping[str, str] = MappingProxyType(
    {"6.11": "6.5", "6.12": "6.6", "6.13": "6.7", "6.14": "6.8"}
)

HEADINGS = (
    "Introduction",
    "Entropic-Time Principle",
    "Entropy Estimation and Computational Cost",
    "System Architecture",
    "Macro-Scale: Entropy-Aware Scheduling",
    "Meso-Scale: Entropic Attention Pruning",
    "Micro-Scale: Entropy-Stabilized Sampling",
    "Coupled Self-Organization",
    "Self-Organization and Emergent Behavior",
    "Calibration, Robustness, and Safe Control",
    "Ablation Study Design and Results",
    "Theoretical Guarantees",
    "Relation to Speculative Decoding and Mixture-of-Experts Inference",
    "Comparison with Speculative Decoding",
    "Comparison with Mixture-of-Experts (MoE) Inference",
    "Reviewer Guidance and Scope",
    "Limitations and Scope",
    "Related Work",
    "Conclusion",
    "Robustness to Entropy Estimation Error via ISS Arguments",
)
PROMISED = ("pseudocode", "algorithm", "integration", "implementation")  # the abstract's words
LEFT_OVER = ("reviewer",)  # addressed to referees, not readers


@dataclass(frozen=True, slots=True, kw_only=True)
class Citation:
    """An arXiv number as printed, and the number of the work that the entry names."""

    entry: str
    printed: str
    actual: str


# Every entry of the paper's list that carries an arXiv number.
CITATIONS = (
    Citation(entry="[1] Longformer", printed="2004.05150", actual="2004.05150"),
    Citation(entry="[4] Sparse Transformers", printed="1904.10509", actual="1904.10509"),
    Citation(entry="[12] Adaptive Computation Time", printed="1603.08983", actual="1603.08983"),
    # 2302.01318 is Chen et al., "Accelerating LLM decoding with speculative sampling".
    Citation(entry="[18] Speculative decoding", printed="2302.01318", actual="2211.17192"),
)
