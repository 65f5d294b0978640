"""From a process that has just started to the user's function, and back."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, ClassVar

from headrace.exchange import Channel
from headrace.framework.process import ProcessSpec
from headrace.framework.stopping import StopRequestedExit
from headrace.role.context import RoleContext
from headrace.role.link import RoleLink

__all__ = ["RoleEntry"]

_LOG = logging.getLogger(__name__)


class RoleEntry:
    """Runs an entry function with its context; travels to the process by cloudpickle.

    Framework layers subclass it and set `context_class`, or override `open_context`.

    Attributes:
        entry: Function of one argument, the context. What it returns is ignored.
    """

    context_class: ClassVar[type[RoleContext]] = RoleContext

    def __init__(self, entry: Callable[[Any], object]) -> None:
        self.entry = entry

    def open_context(self, spec: ProcessSpec, link: RoleLink) -> RoleContext:
        """Connect the memory queue, if any, and return the context; the caller closes it.

        Blocks for at most `timeouts.process_start_timeout_s`.

        Raises:
            ExchangeError: The queue cannot be reached.
            WaitTimeoutError: The operator did not answer in time.
        """
        feed = None
        if spec.queue_socket is not None:
            feed = Channel.connect(
                spec.queue_socket,
                attempt=spec.attempt,
                connect_timeout_s=spec.timeouts.process_start_timeout_s,
            )
        try:
            return self.context_class(spec=spec, link=link, feed=feed)
        except BaseException:
            if feed is not None:
                feed.close()
            raise

    def run(self, context: RoleContext) -> None:
        """Call the entry function; subclasses may do something around it."""
        self.entry(context)

    def __call__(self, spec: ProcessSpec, link: RoleLink) -> None:
        """Run the entry function to its end. Blocks for as long as it runs.

        When it returns, or raises `SystemExit(0)`, its last report and the end of its output
        are sent; input that it has not read is left. The same when the node stops the process,
        but peers are not waited for. When it raises, the queue is closed without an end, so
        that the operator knows, and the exception goes on to the caller.
        """
        context = self.open_context(spec, link)
        try:
            self.run(context)
        except StopRequestedExit:
            context.stop()
            raise
        except BaseException as exc:
            if isinstance(exc, SystemExit) and exc.code in (None, 0):
                context.close(is_success=True)
                raise
            try:
                context.close(is_success=False)
            except Exception:  # noqa: BLE001 (the entry function's error is the one to tell)
                _LOG.warning("closing after a failure failed too", exc_info=True)
            raise
        context.close(is_success=True)
