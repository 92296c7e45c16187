"""The simulator: SimPy carries time, recorded traces answer for the model."""

from simulator.cluster import Cluster
from simulator.executor import TraceExecutor
from simulator.model import TraceModel
from simulator.replica import Replica
from simulator.residual import Residual
from simulator.routers import LeastLoaded, RoundRobin
from simulator.run import ClusterConfig, SimulationResult, run_workload, simulate
from simulator.workload import Arrival, Asking, Workload, poisson_workload, workload_at

__all__ = [
    "Arrival",
    "Asking",
    "Cluster",
    "ClusterConfig",
    "LeastLoaded",
    "Replica",
    "Residual",
    "RoundRobin",
    "SimulationResult",
    "TraceExecutor",
    "TraceModel",
    "Workload",
    "poisson_workload",
    "run_workload",
    "simulate",
    "workload_at",
]
