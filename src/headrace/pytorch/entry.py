"""From a process that has just started to a PyTorch entry function in a process group."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from headrace.errors import CollectiveError
from headrace.framework.process import ProcessSpec
from headrace.pytorch.compiler import put_off_compiler
from headrace.pytorch.context import TorchContext
from headrace.pytorch.device import choose_device
from headrace.pytorch.group import GroupSpec, is_peer_lost, open_group
from headrace.pytorch.settings import TorchSettings
from headrace.role import (
    RoleContext,
    RoleEntry,
    RoleLink,
    choose_threads,
    let_the_cause_go_first,
)

__all__ = ["TorchEntry"]


class TorchEntry(RoleEntry):
    """Runs an entry function with a `TorchContext`; travels to the process by cloudpickle.

    Before the function starts, the workers of its role have met in a process group: gloo, or
    nccl where GPUs are assigned. Torch's threads are set to the cores of the host divided by
    its workers, unless the environment says OMP_NUM_THREADS.

    Args:
        entry: Function of one argument, the `TorchContext`.
        settings: What holds for every worker.

    Source: `torch.distributed.init_process_group`; docs/adr/0032.
    """

    context_class = TorchContext

    def __init__(
        self, entry: Callable[[TorchContext], object], settings: TorchSettings | None = None
    ) -> None:
        super().__init__(entry)
        self.settings = settings or TorchSettings()

    def prepare(self, context: RoleContext, spec: ProcessSpec, link: RoleLink) -> None:
        """Give a new context its settings, threads, device and process group.

        Blocks until all workers have met, at most `timeouts.gather_timeout_s`.

        Raises:
            ConfigError: There is no GPU for this worker, or it is to save and cannot write.
            WaitTimeoutError: Not all workers came in time.
            CollectiveError: A peer ended meanwhile.
        """
        assert isinstance(context, TorchContext)
        put_off_compiler()
        context.use_settings(self.settings)
        hosts = spec.cluster.get(spec.role, ())
        context.device = self._device(hosts, spec.index)
        threads = choose_threads(hosts, spec.index)
        if threads is not None:
            torch.set_num_threads(threads)
        if context.device.type == "cuda":
            torch.cuda.set_device(context.device)
        open_group(
            GroupSpec(
                role=spec.role,
                rank=spec.index,
                world_size=spec.parallelism,
                attempt=spec.attempt,
                host=spec.host,
                backend="nccl" if context.device.type == "cuda" else "gloo",
                rendezvous_timeout_s=spec.timeouts.gather_timeout_s,
                collective_timeout_s=spec.timeouts.collective_timeout_s,
            ),
            link,
        )
        context.watch_steps()

    def run(self, context: RoleContext) -> None:
        """Call the function; if it fails for a lost peer, let the peer say why first."""
        try:
            super().run(context)
        except CollectiveError:
            raise  # has waited already
        except RuntimeError as error:
            if is_peer_lost(error):
                let_the_cause_go_first()
            raise

    def _device(self, hosts: Sequence[str], index: int) -> torch.device:
        if self.settings.device == "cpu":
            return torch.device("cpu")
        return choose_device(hosts, index, is_required=self.settings.device == "cuda")
