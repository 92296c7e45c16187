"""Proofs about laws, as data: functions from a law to the certificate of one property, or None.

``None`` means that there is no theory for a law of that kind. A law of a user's own may bring its
certificates (``Certified``). Derivations: ``controllers/README.md``.
"""

from controllers.certificates.certificate import Certificate
from controllers.certificates.coupling import finite_step, small_gain
from controllers.certificates.coverage import (
    coverage_chatter,
    coverage_direction,
    coverage_masked,
    coverage_monotone,
)
from controllers.certificates.lateness import delay, delay_limit, linear_delay_limit
from controllers.certificates.noise import (
    least_correlation,
    same_step_variance_ratio,
    variance,
    variance_ratio,
)
from controllers.certificates.priority import (
    aging,
    priority_bounded,
    priority_completion,
    priority_urgency,
)
from controllers.certificates.rails import (
    bypass,
    cap,
    reachable,
    require_target,
    saturates,
    windup,
)
from controllers.certificates.stability import settles, stability
from controllers.certificates.starvation import budget_steps, service_gap, sure_slots
from controllers.certificates.tube import iss
from controllers.certificates.wrapping import Certified

__all__ = [
    "Certificate",
    "Certified",
    "aging",
    "budget_steps",
    "bypass",
    "cap",
    "coverage_chatter",
    "coverage_direction",
    "coverage_masked",
    "coverage_monotone",
    "delay",
    "delay_limit",
    "finite_step",
    "iss",
    "least_correlation",
    "linear_delay_limit",
    "priority_bounded",
    "priority_completion",
    "priority_urgency",
    "reachable",
    "require_target",
    "same_step_variance_ratio",
    "saturates",
    "service_gap",
    "settles",
    "small_gain",
    "stability",
    "sure_slots",
    "variance",
    "variance_ratio",
    "windup",
]
