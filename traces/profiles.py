"""The profiles we ship, and how one is found: by model, GPU and tensor parallelism, exactly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from controllers.core import require
from traces.profile import Profile, ProfileError, read_profile
from traces.profiles_devices import names_device
from traces.profiles_shapes import plain_name

FOLDER = Path(__file__).parent / "data" / "profiles"
CPU = FOLDER / "smollm2-135m_cpu.json"


def shipped(folder: Path = FOLDER) -> Iterator[tuple[Path, Profile]]:
    """Yield the shipped profiles with their files, in order of name."""
    for path in sorted(folder.glob("*.json")):
        yield path, read_profile(path)


def find_profile(model: str, gpu: str, tp: int = 1, *, folder: Path = FOLDER) -> Profile:
    """Return the shipped profile of ``model`` on ``tp`` GPUs named ``gpu``; none other will do.

    Case, organisation and "-Instruct" do not tell models apart; each word of ``gpu`` must stand in
    the device's name. No match, or more than one, is a ``ProfileError`` that lists what there is.
    """
    require(tp >= 1, "tp must be >= 1", tp=tp)
    every = list(shipped(folder))
    of_model = [row for row in every if plain_name(row[1].model) == plain_name(model)]
    on_gpu = [row for row in of_model if names_device(gpu, row[1].device)]
    found = [profile for _, profile in on_gpu if profile.gpus == tp]
    if len(found) == 1:
        return found[0]
    asked = f"model {model!r}, gpu {gpu!r}, tp {tp}"
    if found:
        raise ProfileError(f"{asked}: names several profiles: {_listed(found)}")
    known = on_gpu or of_model or every
    raise ProfileError(f"{asked}: no such profile; there is {_listed([p for _, p in known])}")


def describe(profile: Profile) -> str:
    """Return a profile's model, devices and tensor parallelism in a few words."""
    return f"{profile.model} on {profile.device}, tp {profile.gpus}"


def _listed(profiles: list[Profile]) -> str:
    degrees: dict[str, list[str]] = {}
    for profile in profiles:
        named = f"{profile.model} on {profile.device}"
        degrees.setdefault(named, []).append(str(profile.gpus))
    return "; ".join(f"{name} (tp {', '.join(tps)})" for name, tps in degrees.items()) or "none"
