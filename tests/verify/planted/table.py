"""The planted-bad laws: each with the property that must reject it, and the rules it also breaks.

``also`` names the other rules of the contract that the same defect breaks; every rule named in
neither place must be kept, so that a law is rejected for its own defect and no other.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from reports.verify.target import resolve

LAWS = "tests.verify.planted"


class Planted(NamedTuple):
    """A law, as a user would name it, and the one property that must reject it."""

    where: str  # module:attribute
    property: str
    says: str = ""  # in the words of the broken rule
    also: tuple[str, ...] = ()  # other rules of the contract broken by the same defect

    @property
    def spec(self) -> str:
        """Return what a user would ask to have verified."""
        return f"{LAWS}.{self.where}"

    @property
    def law(self) -> Any:
        """Return the law itself."""
        return resolve(self.spec).parts[0].law


# A memory outside the state makes two runs differ, and these rules compare two runs.
COMPARE = ("contract.lane_wise", "contract.resumable", "contract.bitwise", "contract.compiles")
LANE_WISE, RESUMABLE, BITWISE, COMPILES = COMPARE
TYPES, BRANCH_FREE, BOUNDED = "contract.types", "contract.branch_free", "contract.bounded"

AGAINST_THE_CONTRACT = (
    Planted("contract_laws:TakesNoState", "contract.callable", "update must take 2 argument(s)"),
    Planted("contract_laws:MisspellsASignal", "contract.callable", "'entropy'"),
    Planted("contract_laws:ForgetsTheState", "contract.callable", "must return (state, command)"),
    Planted("contract_laws:WritesInPlace", "contract.pure", "wrote to its inputs"),
    Planted("contract_laws:CountsInAnAttribute", "contract.pure", "two commands", COMPARE),
    Planted("contract_laws:CountsInTheModule", "contract.pure", "two commands", COMPARE),
    # Keyed by the step, and reads it as a number, which no graph and no device allows.
    Planted(
        "contract_laws:RemembersByPosition",
        "contract.pure",
        "the law's own seen",
        (RESUMABLE, BRANCH_FREE, COMPILES),
    ),
    # Lanes put among strangers meet another mean; numpy and torch also sum in other orders.
    Planted("contract_laws:FollowsTheMean", LANE_WISE, "neighbours", (RESUMABLE, BITWISE)),
    Planted("contract_laws:FollowsTheMost", LANE_WISE, "neighbours", (RESUMABLE,)),
    # What is put back into a float32 batch loses half its digits; torch never had them.
    Planted("contract_laws:LeaksFloat64", TYPES, "float64", (RESUMABLE, BITWISE)),
    Planted("contract_laws:KeepsHistory", TYPES, "a leaf went from", (RESUMABLE,)),
    # What reads a value cannot be in a graph either.
    Planted("contract_laws:ReadsAValue", BRANCH_FREE, "meta tensors", (COMPILES,)),
    Planted("contract_laws:Logs", COMPILES, "Logg"),
    Planted("contract_laws:NeverClips", BOUNDED, "its range by"),
    Planted("subtle_laws:LostAfter100", BOUNDED, "non-finite command"),
    Planted("subtle_laws:MovesSixteenLanes", LANE_WISE, "order of lanes"),
    Planted("contract_laws:PassesNaN", "contract.nonfinite", "h_in = nan"),
    # Lanes that do not lead are a wrong type as well.
    Planted("contract_laws:TimeLeads", RESUMABLE, "after resuming", (TYPES,)),
    Planted("contract_laws:DelaysByTuple", "contract.aliases", "another leaf's old buffer"),
    Planted("contract_laws:KeepsTheSignal", "contract.aliases", "with the signal"),
    Planted("contract_laws:RoundsApart", BITWISE, "numpy and torch differ"),
    Planted("contract_laws:PeeksAtTheLength", "contract.oracle", "oracle_tokens"),
)
AGAINST_CONTROL = (
    Planted("control_laws:WrongSign", "micro.stability"),
    Planted("control_laws:MeasuresAtOne", "micro.stability"),
    Planted("control_laws:GAIN_ABOVE_RANGE", "micro.stability"),
    Planted("control_laws:GAIN_ABOVE_DELAYED_RANGE", "micro.delay"),
    Planted("control_laws:Relay", "micro.settles"),
    Planted("control_laws:WindsUp", "micro.windup"),
    # The cap is part of the promised range.
    Planted("control_laws:IgnoresTheCap", "micro.cap", also=(BOUNDED,)),
    Planted("control_laws:DRIFTS_WHILE_OFF", "micro.bypass"),
    Planted("control_laws:FallsWithEntropy", "coverage.monotone"),
    Planted("control_laws:MarginReversed", "coverage.direction"),
    Planted("control_laws:Chatters", "coverage.chatter"),
    Planted("control_laws:IgnoresTheMask", "coverage.masked"),
    Planted("control_laws:DemotesTheLate", "priority.urgency"),
    Planted("control_laws:HoldsBackTheFinished", "priority.completion"),
    Planted("control_laws:PassesItsCeiling", "priority.bounded"),
    Planted("control_laws:NeverAges", "priority.aging"),
    Planted("control_laws:AgesTooLittle", "priority.aging"),
    Planted("control_laws:NeverAges", "starvation.fresh_arrivals"),
    Planted("control_laws:SmallestFirst", "starvation.memory_hog"),
    Planted("subtle_laws:StrongFromToken400", "micro.stability"),
    Planted("subtle_laws:CapsTheCommandOnly", "micro.windup"),
    Planted("subtle_laws:ChangesOurs", "micro.stability"),
    Planted("subtle_laws:InheritsItsClaim", "priority.aging"),
    Planted("subtle_laws:InheritsItsClaim", "starvation.frozen_waiter"),
)
PLANTED = (*AGAINST_THE_CONTRACT, *AGAINST_CONTROL)
SOUND = ("sound:Integrator", "sound:GATED", "sound:Ramp", "sound:Aged")
