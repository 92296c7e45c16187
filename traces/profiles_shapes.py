"""Shapes of dense decoders: what a model's weights, KV cache and matrix products measure."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from controllers.core import require


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """A dense decoder with grouped-query attention and a gated feed-forward block."""

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int  # width of the feed-forward block
    vocab: int
    max_context: int
    tied: bool = False  # one matrix for embedding and output

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name not in ("name", "tied"):
                whole = isinstance(value, int) and not isinstance(value, bool)
                require(whole and value >= 1, f"{field.name} must be >= 1", **{field.name: value})
        require(
            self.heads % self.kv_heads == 0,
            "heads must be a multiple of kv_heads",
            heads=self.heads,
            kv_heads=self.kv_heads,
        )

    @property
    def qkv(self) -> int:
        """Columns of the query, key and value products together."""
        return (self.heads + 2 * self.kv_heads) * self.head_dim

    @property
    def matrix_weights(self) -> int:
        """Weights that one token's forward pass multiplies with: all but the embedding table."""
        attention = self.hidden * (self.qkv + self.heads * self.head_dim)
        return self.layers * (attention + 3 * self.hidden * self.ffn) + self.hidden * self.vocab

    @property
    def weights(self) -> int:
        """Weights in memory (the norms' few thousand left out)."""
        return self.matrix_weights + (0 if self.tied else self.hidden * self.vocab)

    def kv_bytes_per_token(self, element_bytes: int = 2) -> int:
        """Return the bytes that one token position takes in the KV cache, over all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * element_bytes

    def check_split(self, tp: int) -> None:
        """Raise unless heads, KV heads and feed-forward divide by ``tp``."""
        require(tp >= 1, "tp must be >= 1", tp=tp)
        for name in ("heads", "kv_heads", "ffn"):
            value = getattr(self, name)
            require(value % tp == 0, f"{name} must be a multiple of tp", tp=tp, **{name: value})


# Facts of the models' published config.json files; names without their organisation.
SHAPES: dict[str, ModelShape] = {
    shape.name: shape
    for shape in (
        ModelShape(
            name="Llama-3.1-8B",
            layers=32,
            hidden=4096,
            heads=32,
            kv_heads=8,
            head_dim=128,
            ffn=14336,
            vocab=128256,
            max_context=131072,
        ),
        ModelShape(
            name="Llama-3.1-70B",
            layers=80,
            hidden=8192,
            heads=64,
            kv_heads=8,
            head_dim=128,
            ffn=28672,
            vocab=128256,
            max_context=131072,
        ),
        ModelShape(
            name="Qwen3-8B",
            layers=36,
            hidden=4096,
            heads=32,
            kv_heads=8,
            head_dim=128,
            ffn=12288,
            vocab=151936,
            max_context=40960,
        ),
        ModelShape(
            name="Qwen3-32B",
            layers=64,
            hidden=5120,
            heads=64,
            kv_heads=8,
            head_dim=128,
            ffn=25600,
            vocab=151936,
            max_context=40960,
        ),
        ModelShape(
            name="SmolLM2-135M",
            layers=30,
            hidden=576,
            heads=9,
            kv_heads=3,
            head_dim=64,
            ffn=1536,
            vocab=49152,
            max_context=8192,
            tied=True,
        ),
    )
}


def find_shape(model: str) -> ModelShape:
    """Return a named shape, or that of a ``config.json`` if ``model`` is such a file or a folder.

    A tuned variant has its base model's shape: see :func:`plain_name`.
    """
    path = Path(model)
    if path.is_dir():
        path = path / "config.json"
    if path.suffix == ".json":
        return read_shape(path)
    for name, shape in SHAPES.items():
        if plain_name(name) == plain_name(model):
            return shape
    known = ", ".join(SHAPES)
    raise ValueError(f"model must be one of {known}, or a config.json; got {model!r}")


def plain_name(model: str) -> str:
    """Return a model's name without organisation, case, maker's prefix and "Instruct"."""
    name = model.rstrip("/").rsplit("/", 1)[-1].lower().removeprefix("meta-")
    return name.removesuffix("-instruct")


def read_shape(path: Path) -> ModelShape:
    """Read a Hugging Face ``config.json`` of a dense decoder."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path}: must hold one JSON object; got {type(config).__name__}")
    for name in ("num_experts", "num_local_experts", "n_routed_experts"):
        if config.get(name):
            raise ValueError(f"{path}: {name}: must be absent: dense decoders only")
    heads = _whole(path, config, "num_attention_heads")
    hidden = _whole(path, config, "hidden_size")
    named = config.get("_name_or_path") or path.resolve().parent.name
    try:
        return ModelShape(
            name=str(named).rstrip("/").rsplit("/", 1)[-1],
            layers=_whole(path, config, "num_hidden_layers"),
            hidden=hidden,
            heads=heads,
            kv_heads=_whole(path, config, "num_key_value_heads", heads),
            head_dim=_whole(path, config, "head_dim", hidden // max(1, heads)),
            ffn=_whole(path, config, "intermediate_size"),
            vocab=_whole(path, config, "vocab_size"),
            max_context=_whole(path, config, "max_position_embeddings", 4096),
            tied=bool(config.get("tie_word_embeddings", False)),
        )
    except ValueError as error:
        text = str(error)
        raise ValueError(text if text.startswith(f"{path}: ") else f"{path}: {text}") from error


def _whole(path: Path, config: dict[str, Any], name: str, default: int | None = None) -> int:
    value = config.get(name)
    value = default if value is None else value
    if value is None:
        raise ValueError(f"{path}: {name}: is missing")
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{path}: {name}: must be an integer; got {value!r}")
    return value
