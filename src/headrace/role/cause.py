"""Who dies of a peer's death speaks second."""

from __future__ import annotations

import threading

__all__ = ["let_the_cause_go_first"]

_CAUSE_FIRST_S = 2.0  # in which the master hears of a peer's death before it hears of ours


def let_the_cause_go_first() -> None:
    """Wait after the loss of a peer, so that the master hears of the peer's own end first.

    Blocks for two seconds at most. Nothing tells when the master has heard. Mostly the node
    stops this process meanwhile, and `StopRequestedExit` comes out of here.
    """
    threading.Event().wait(_CAUSE_FIRST_S)
