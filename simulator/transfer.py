"""Moving a prompt's KV from a prefill server to a decode server: one link per sender, in order."""

from __future__ import annotations

from controllers.core import require
from simulator.cluster_fleet import Machine
from simulator.description import Transfer


def send(transfer: Transfer, sender: Machine, tokens: int, now_ns: int) -> int:
    """Put the KV of ``tokens`` on the sender's link; return the time ns when it has arrived.

    The link carries one prompt at a time, first come first served; latency does not occupy it.
    The sender's pages are free at once: what is on the link counts against no pool.
    """
    require(tokens >= 1, "tokens must be >= 1", tokens=tokens)
    seconds = tokens * transfer.bytes_per_token / transfer.bandwidth_bytes_per_s
    began_ns = max(now_ns, sender.link_free_ns)
    sender.link_free_ns = began_ns + round(1e9 * seconds)
    return sender.link_free_ns + round(1e9 * transfer.latency_s)
