"""The ML framework: master, nodes, runners. Nothing of Flink, Arrow, TensorFlow or PyTorch.

Processes are started as `python -m headrace.framework.master`, `.node` and `.runner`. This
package exports what others build for them and what an algorithm process uses; the state
machine is in `headrace.framework.machine`, running without Flink in `headrace.framework.local`.
"""

from headrace.framework.failure import Failure
from headrace.framework.link import ProcessLink
from headrace.framework.payload import dump_payload
from headrace.framework.process import ProcessSpec, read_process_spec
from headrace.framework.runner import Runner, RunnerCommand, RunnerContext
from headrace.framework.spec import MasterSpec, NodeSpec, PlannedRole, encode_spec

__all__ = [
    "Failure",
    "MasterSpec",
    "NodeSpec",
    "PlannedRole",
    "ProcessLink",
    "ProcessSpec",
    "Runner",
    "RunnerCommand",
    "RunnerContext",
    "dump_payload",
    "encode_spec",
    "read_process_spec",
]
