"""Errors that say that memory or a disk is full: no mistake of the program."""

from __future__ import annotations

__all__ = ["says_full"]

_KINDS = {"OutOfMemoryError", "ResourceExhaustedError"}  # torch's and TensorFlow's, by name
_TEXTS = ("out of memory", "can't allocate memory")  # of torch's other `RuntimeError`s


def says_full(error: BaseException) -> bool:
    """Return whether a restart may mend `error`, when there is room again.

    The frameworks have kinds of their own for that, which need not be imported here: torch's
    is a `RuntimeError`, on a GPU for example while the process before still holds its memory.
    """
    if isinstance(error, MemoryError | OSError):
        return True
    if any(kind.__name__ in _KINDS for kind in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _TEXTS)
