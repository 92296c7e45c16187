"""What judges share besides the context: rulings from checks, and figures in words."""

from __future__ import annotations

from reports.claims.claim import Judgement, Ruling


def ruled(
    *, holds: bool, because: str, corrected: str = "", repaired: bool = False, **numbers: float
) -> Judgement:
    """Rule on two checks: of the claim as printed, and of its corrected statement (``repaired``).

    A corrected statement that was checked and did not stand is not repeated.
    """
    stands = bool(repaired) and corrected != ""
    ruling = Ruling.HOLDS if holds else Ruling.CORRECTED if stands else Ruling.REFUTED
    return Judgement(
        ruling=ruling,
        because=because,
        corrected=corrected if ruling is Ruling.CORRECTED else "",
        numbers={name: float(value) for name, value in numbers.items()},
    )


def untestable(because: str) -> Judgement:
    """Say that nothing here decides the claim, and why."""
    return Judgement(ruling=Ruling.UNTESTABLE, because=because)


def fig(x: float) -> str:
    """Return ``x`` to three significant figures, in plain digits where they are few."""
    return f"{float(x):.3g}"


def pct(share: float) -> str:
    """Return a share as a percentage; only all is 100 %, and only none is 0 %."""
    value = 100.0 * float(share)
    if 0.0 < value < 0.1:
        return "under 0.1 %"
    if 99.9 < value < 100.0:
        return "over 99.9 %"
    return f"{value:.3g} %"
