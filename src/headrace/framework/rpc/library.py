"""The gRPC library, set up for processes that fork; import it from here only."""

from headrace._environ import copy_environment, set_environment_default

__all__ = ["grpc", "inherited_environment"]

_INHERITED = copy_environment()

# gRPC reads these when it is first imported. A node forks to start processes that exec at once:
# gRPC's own handling of forks would only get in the way, and it logs each of them. Nor is it to
# log what strangers send to a port; what concerns a call of ours is in its status.
set_environment_default("GRPC_ENABLE_FORK_SUPPORT", "0")
set_environment_default("GRPC_VERBOSITY", "NONE")

import grpc  # noqa: E402
import grpc.aio  # noqa: E402


def inherited_environment() -> dict[str, str]:
    """Return the environment as it was before gRPC was set up, for algorithm processes."""
    return dict(_INHERITED)
