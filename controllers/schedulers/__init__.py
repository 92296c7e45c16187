"""Published scheduling policies as priority laws: the peers that ours is compared with.

Each keeps the published constants, names its source, and says where it differs from the published
system. What all have in common: one scheduler serves them (continuous batching, recompute
preemption), their ``update`` runs only when a decision is open rather than at every step, and a
blocked head of line may be overtaken by a better newcomer, as in the systems they come from.
"""

from controllers.schedulers.learned import LearnedRank
from controllers.schedulers.mlfq import MlfqState, SkipJoinMlfq
from controllers.schedulers.shortest import ShortestJob, SrptOracle
from controllers.schedulers.user import UserPriority
from controllers.schedulers.vtc import Vtc

__all__ = [
    "LearnedRank",
    "MlfqState",
    "ShortestJob",
    "SkipJoinMlfq",
    "SrptOracle",
    "UserPriority",
    "Vtc",
]
