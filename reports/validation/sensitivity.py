"""Which inputs matter: one of them changed at a time, and how far the means move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from controllers.presets import get_preset
from controllers.steplaw import StepLaw
from reports.validation.golden import Setup, Simulated, simulate_run
from traces.golden_law import TableLaw

POOL = 3400 / 2588  # a pool sized by 0.9 of the RTX 4090's memory alone, over the resolved one
CPU_S = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One input changed, and the means that it moved, percent of the run as it was."""

    name: str
    ttft_pct: float
    tpot_pct: float
    e2e_pct: float
    preemptions: int


def changes(setup: Setup) -> dict[str, Callable[[Setup], Setup]]:
    """Return what is tried on a run, by name; sizes are relative to what the run resolved."""
    limits = setup.limits
    law = setup.law
    assert isinstance(law, TableLaw), "a golden run is priced by tables"
    tables = law.tables
    pages, size = limits.n_pages, limits.page_tokens
    seqs = 256 if limits.max_seqs != 256 else 128
    budget = 4 * limits.token_budget

    def priced(**changed: object) -> Callable[[Setup], Setup]:
        new = replace(law, tables=replace(tables, **changed))  # type: ignore[arg-type]
        return lambda s: s.with_(law=new)

    skew = f"skew of contexts {'left out' if tables.skewed else 'taken in'}"
    affine = StepLaw.from_json(law.to_json())
    return {
        f"KV blocks {round(POOL * pages):,} instead of {pages:,}": lambda s: s.with_(
            n_pages=round(POOL * pages)
        ),
        f"max_num_seqs {seqs} instead of {limits.max_seqs}": lambda s: s.with_(max_seqs=seqs),
        f"token budget {budget:,} instead of {limits.token_budget:,}": lambda s: s.with_(
            token_budget=budget
        ),
        f"page of {2 * size} tokens instead of {size}": lambda s: s.with_(
            page_tokens=2 * size, n_pages=pages // 2
        ),
        **({} if tables.skew is None else {skew: priced(skewed=not tables.skewed)}),
        "1 ms of CPU a step": priced(cpu_s=CPU_S),
        "affine step law instead of tables": lambda s: s.with_(law=affine),
        "no KV found again after preemption": lambda s: s.with_(keeps_preempted=False),
        "arrivals join the next step": lambda s: s.with_(plans_ahead=False),
        "preempted wait behind a blocked head": lambda s: s.with_(preset=get_preset("baseline")),
    }


def sensitivity(setup: Setup, base: Simulated) -> list[Change]:
    """Return what each change does to ``base``, the simulation of ``setup``."""
    return [
        _change(name, simulate_run(change(setup)), base) for name, change in changes(setup).items()
    ]


def _change(name: str, changed: Simulated, base: Simulated) -> Change:
    moved = {
        f"{metric}_pct": 100.0
        * (getattr(changed, f"{metric}_s").mean() / getattr(base, f"{metric}_s").mean() - 1.0)
        for metric in ("ttft", "tpot", "e2e")
    }
    return Change(name=name, preemptions=changed.preemptions, **moved)
