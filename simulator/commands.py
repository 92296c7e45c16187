"""What commands that simulate share: their options, and a scenario made of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar, cast, get_args

import typer

if TYPE_CHECKING:
    from simulator.scenario import Scenario
    from simulator.sessions import Sessions
    from traces.arrivals import Arrivals
    from traces.profile import Profile
    from traces.store import Trace

TraceFile = Annotated[
    Path | None, typer.Option("--trace", help="Recorded entropy trace; default: the one we ship.")
]
ProfileFile = Annotated[
    Path | None,
    typer.Option("--profile", help="Device profile (JSON); default: the CPU we measured."),
]
Rate = Annotated[
    float | None,
    typer.Option(help="Requests per second; default 75 % of the replicas' full-batch capacity."),
]
Requests = Annotated[int | None, typer.Option(help="Requests; default: every recorded one, once.")]
Replicas = Annotated[int, typer.Option(help="Servers behind the router.")]
RouterOption = Annotated[
    str,
    typer.Option(
        "--router",
        help="How a server is chosen: round_robin, least_loaded, power_of_two, prefix_aware, "
        "fastest, expected_work or entropy_aware.",
    ),
]
CutPrompts = Annotated[
    bool,
    typer.Option(
        "--cut-prompts", help="Cut prompts of arrivals beyond max_context; default: refuse them."
    ),
]
Users = Annotated[
    int | None,
    typer.Option(help="Users in a closed loop, who ask, read, think and ask on; no --arrivals."),
]
Turns = Annotated[
    float | None, typer.Option(help="Of --users: mean turns of a conversation; default 5.")
]
Think = Annotated[
    float | None,
    typer.Option(help="Of --users: mean s from an answer to the next question; default 10."),
]
ArrivalsFile = Annotated[
    Path | None,
    typer.Option(
        "--arrivals",
        help="Recorded arrivals (Azure, Mooncake, BurstGPT, Vidur, ...), with their lengths.",
    ),
]
Warmup = Annotated[
    float, typer.Option(help="Leave out of every metric what arrived or began before, s.")
]
MaxSeqs = Annotated[int | None, typer.Option(help="Residents at once; default: the profile's.")]
TokenBudget = Annotated[int | None, typer.Option(help="Tokens per step; default: the profile's.")]
Pages = Annotated[int | None, typer.Option(help="KV pages in the pool; default: the profile's.")]
TargetNats = Annotated[float, typer.Option(help="Entropy set-point H*.")]
SloTtft = Annotated[
    float | None, typer.Option(help="First-token deadline, s; default 3 x the longest prefill.")
]
SloTpot = Annotated[
    float | None, typer.Option(help="Bound on s per output token; default 3 x a full dense step.")
]
Lengths = Annotated[
    str | None,
    typer.Option(
        help="Whose lengths: trace or arrivals; default: the arrivals', if they have any."
    ),
]
ModelName = Annotated[str | None, typer.Option("--model", help="Planned model; with --gpu.")]
GpuName = Annotated[str | None, typer.Option("--gpu", help="Device of a shipped profile.")]
Tp = Annotated[int, typer.Option("--tp", help="GPUs of one replica (tensor parallel).")]
Roofline = Annotated[
    bool, typer.Option("--roofline", help="Price steps from datasheet numbers instead.")
]
ModeOption = Annotated[
    str, typer.Option("--mode", help="auto, macro, steps, calls or online; the ledger is the same.")
]
Topology = Annotated[
    Path | None, typer.Option("--topology", help="Cluster description (JSON) for --replicas.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

Choice = TypeVar("Choice")


def device(
    profile: Path | None,
    model: str | None,
    gpu: str | None,
    tp: int,
    *,
    roofline: bool = False,
    required: bool = False,
) -> Profile:
    """Return the profile that options name: a file, or a shipped one by model, GPU and degree."""
    from simulator import defaults
    from traces.profile import read_profile

    if model is None and gpu is None:
        if roofline or tp != 1:
            raise ValueError("--tp and --roofline need --model and --gpu")
        if profile is None and required:
            raise ValueError("a device must be named: --model and --gpu, or --profile")
        return read_profile(defaults.PROFILE if profile is None else profile)
    if profile is not None:
        raise ValueError(f"--profile {profile} already names a device; leave --model and --gpu out")
    if model is None or gpu is None:
        missing = "--model" if model is None else "--gpu"
        raise ValueError(f"{missing} is missing: --model and --gpu go together")
    return defaults.find_profile(model, gpu, tp, roofline=roofline)


def assemble(
    trace: Path | None,
    profile: Path | Profile | None,
    arrivals: Path | Arrivals | None,
    *,
    rate: float | None,
    requests: int | None,
    replicas: int = 1,
    router: str = "round_robin",
    max_seqs: int | None = None,
    token_budget: int | None = None,
    pages: int | None = None,
    target_nats: float = 1.0,
    slo_ttft: float | None = None,
    slo_tpot: float | None = None,
    lengths: str | None = None,
    mode: str = "auto",
    topology: Path | None = None,
    users: int | None = None,
    turns: float | None = None,
    think: float | None = None,
    cut_prompts: bool = False,
    warmup: float = 0.0,
    whole_trace: bool = True,
) -> Scenario:
    """Read the files that options name and return the scenario.

    Without ``whole_trace`` only what a simulation reads of the trace is opened, from the cache.
    """
    from simulator import defaults
    from simulator.cluster import RouterName
    from simulator.cluster_modes import ModeName
    from simulator.scenario import Lengths as LengthsName
    from simulator.scenario import build
    from traces.arrivals import read_arrivals
    from traces.profile import read_profile

    routers: tuple[RouterName, ...] = get_args(RouterName)
    modes: tuple[ModeName, ...] = get_args(ModeName)
    kinds: tuple[LengthsName, ...] = get_args(LengthsName)
    whose: LengthsName | None = None
    if lengths is not None:
        whose = _one_of("lengths", lengths, kinds)
    if profile is None or isinstance(profile, Path):
        profile = read_profile(defaults.PROFILE if profile is None else profile)
    if isinstance(arrivals, Path):
        arrivals = read_arrivals(arrivals)
    recorded = _recorded(defaults.TRACE if trace is None else trace, whole=whole_trace)
    cluster = None
    if topology is not None:
        from simulator.description_file import read_plan

        cluster = read_plan(topology, page_tokens=int(recorded.metadata["page_tokens"]))
    sessions = None
    if users is None:
        for option, value in {"--turns": turns, "--think": think}.items():
            if value is not None:
                raise ValueError(f"{option} is of users in a closed loop; give --users")
    else:
        given = {"--arrivals": arrivals, "--rate": rate, "--lengths": lengths}
        for option, value in given.items():
            if value is not None:
                raise ValueError(f"--users asks in a closed loop; leave {option} out")
        sessions = closed_loop(users, turns, think, requests)
    return build(
        recorded,
        profile,
        rate_per_s=rate,
        n_requests=requests,
        sessions=sessions,
        cut_prompts=cut_prompts,
        warmup_s=warmup,
        replicas=replicas,
        router=_one_of("router", router, routers),
        arrivals=arrivals,
        max_seqs=max_seqs,
        token_budget=token_budget,
        pages=pages,
        target_nats=target_nats,
        ttft_slo_s=slo_ttft,
        tpot_slo_s=slo_tpot,
        lengths=whose,
        mode=_one_of("mode", mode, modes),
        cluster=cluster,
    )


def closed_loop(
    users: int, turns: float | None, think: float | None, requests: int | None
) -> Sessions:
    """Return sessions of ``users``; ``requests`` of all together, or a conversation each."""
    from controllers.core import require
    from simulator.sessions import Sessions

    turns, think = 5.0 if turns is None else turns, 10.0 if think is None else think
    require(users >= 1, "users must be >= 1", users=users)
    require(math.isfinite(turns) and turns >= 1.0, "turns must be >= 1", turns=turns)
    require(math.isfinite(think) and think >= 0.0, "think must be >= 0", think=think)
    whole = requests is None or (requests >= users and requests % users == 0)
    require(whole, f"requests must be a multiple of {users}, the users", requests=requests)
    each = max(1, round(turns)) if requests is None else requests // users
    return Sessions(users=users, requests_per_user=each, turns=turns, think_s=think)


def _recorded(path: Path, *, whole: bool) -> Trace:
    if whole:
        from traces.store import read_trace

        return read_trace(path)
    from simulator.library import load_library

    return cast("Trace", load_library(path))  # which has every name that a scenario reads


def _one_of(option: str, value: str, known: tuple[Choice, ...]) -> Choice:
    for one in known:
        if one == value:
            return one
    raise ValueError(f"{option} must be one of {', '.join(map(str, known))}; got {value!r}")
