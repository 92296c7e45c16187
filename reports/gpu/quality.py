"""SmolLM2 on real text: what pruned steps say against dense ones, token by token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from backend.gpu.cache import DeviceCache
from backend.gpu.decoder import Decoder, Reads
from backend.gpu.weights import weights_of
from reports.gpu.place import Place
from reports.gpu.record import Record
from reports.gpu.runners import empty_cache

TEXTS = ("README.md", "controllers/README.md", "simulator/README.md", "traces/README.md")
CONTEXT, SCORED = 6000, 256  # tokens of text, and how many of its last are decoded
COVERAGES = (0.99, 0.95, 0.9)


def quality(place: Place, record: Record) -> None:
    """Feed the end of a long text token by token at each coverage; compare with dense logits."""
    if place.model is None or place.dry:
        record.add("quality", note="needs --model and a device; skipped")
        return
    try:
        tokens, decoder = _text(place, place.model), _decoder(place, place.model)
        dense, _ = _fed(place, decoder, tokens, None)
        for coverage in COVERAGES:
            if place.late:
                record.add("skipped", part="quality", coverage=coverage)
                continue
            logits, kept = _fed(place, decoder, tokens, coverage)
            record.add("quality", coverage=coverage, kept_share=kept, **_against(dense, logits))
    except Exception as error:  # a kernel compiler raises types of its own
        record.failed("quality", error)


def _text(place: Place, folder: Path) -> torch.Tensor:
    from transformers import AutoTokenizer

    root = Path(__file__).parents[2]
    text = "\n".join((root / name).read_text(encoding="utf-8") for name in TEXTS)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(text).input_ids[:CONTEXT]
    if len(ids) < CONTEXT:
        raise ValueError(f"quality: the texts must have {CONTEXT} tokens; got {len(ids)}")
    return torch.tensor(ids, device=place.device)


def _decoder(place: Place, folder: Path) -> Decoder:
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    return Decoder(weights_of(model, device=place.device), place.twins())


@torch.no_grad()
def _fed(
    place: Place, decoder: Decoder, tokens: torch.Tensor, coverage: float | None
) -> tuple[torch.Tensor, float]:
    """Return the logits ``[SCORED, n]`` of the last tokens, each decoded, and the share kept."""
    shape, n = decoder.weights.shape, len(tokens)
    cache: DeviceCache = empty_cache(place, shape, 1, n, decoder.weights.dtype)
    decoder.prefill(tokens[: n - SCORED], cache, 0)
    wanted = None if coverage is None else torch.full((1,), coverage, device=place.device)
    logits, read, every = [], 0.0, 0.0
    for position in range(n - SCORED, n):
        at = cache.at(torch.tensor([position + 1], device=place.device))
        reads = Reads(wanted, kept=[])
        where = torch.tensor([position], device=place.device)
        logits.append(decoder.decode(tokens[position][None], where, cache, at, reads))
        assert reads.kept is not None
        read += float(torch.stack([layer.sum() for layer in reads.kept]).sum())
        every += float(at.n_pages.sum()) * shape.layers * shape.kv_heads
    return torch.cat(logits).float(), read / every


def _against(dense: torch.Tensor, other: torch.Tensor) -> dict[str, float]:
    p, q = dense.log_softmax(-1), other.log_softmax(-1)
    kl = (p.exp() * (p - q)).sum(-1)
    return {
        "tokens": len(dense),
        "kl_mean_nats": float(kl.mean()),
        "kl_p95_nats": float(kl.quantile(0.95)),
        "top1_agreement": float((dense.argmax(-1) == other.argmax(-1)).float().mean()),
    }
