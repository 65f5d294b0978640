"""The decisions of the master: events in, commands out. No I/O, no clock, no thread.

A machine is a value, `Machine`: an immutable table `(state, type of event) -> row` and the
policy of each role. `JobMachine` is one at work. Shipped: `ALL_FINISH`, `PYTORCH` and
`TENSORFLOW`.
"""

from headrace.framework.machine.check import diagram, validate
from headrace.framework.machine.commands import (
    ArmDeadline,
    Command,
    DeadlineName,
    FailJob,
    FinishJob,
    StartProcesses,
    StopProcesses,
)
from headrace.framework.machine.events import (
    AnyEvent,
    Event,
    GatherDeadlineReached,
    MasterStarted,
    NodeEvent,
    NodeLost,
    NodeRegistered,
    ProcessEvent,
    ProcessFailed,
    ProcessFinished,
    ProcessStopped,
    RecoverDeadlineReached,
    StopDeadlineReached,
    StopRequested,
)
from headrace.framework.machine.facts import (
    Job,
    JobState,
    NodeFacts,
    ProcessState,
    RoleFacts,
    RolePolicy,
)
from headrace.framework.machine.job_machine import JobMachine, replay
from headrace.framework.machine.log import decode_log, encode_event, encode_job
from headrace.framework.machine.shipped import (
    ALL_FINISH,
    PYTORCH,
    TENSORFLOW,
    shipped_machine,
)
from headrace.framework.machine.table import (
    Arc,
    Handler,
    Machine,
    PolicyRule,
    Step,
    Table,
    ignoring,
)

__all__ = [
    "ALL_FINISH",
    "PYTORCH",
    "TENSORFLOW",
    "AnyEvent",
    "Arc",
    "ArmDeadline",
    "Command",
    "DeadlineName",
    "Event",
    "FailJob",
    "FinishJob",
    "GatherDeadlineReached",
    "Handler",
    "Job",
    "JobMachine",
    "JobState",
    "Machine",
    "MasterStarted",
    "NodeEvent",
    "NodeFacts",
    "NodeLost",
    "NodeRegistered",
    "PolicyRule",
    "ProcessEvent",
    "ProcessFailed",
    "ProcessFinished",
    "ProcessState",
    "ProcessStopped",
    "RecoverDeadlineReached",
    "RoleFacts",
    "RolePolicy",
    "StartProcesses",
    "Step",
    "StopDeadlineReached",
    "StopProcesses",
    "StopRequested",
    "Table",
    "decode_log",
    "diagram",
    "encode_event",
    "encode_job",
    "ignoring",
    "replay",
    "shipped_machine",
    "validate",
]
