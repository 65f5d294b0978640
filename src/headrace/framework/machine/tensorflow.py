"""What the ends of TensorFlow's roles mean: a pure function of the roles of a job."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.framework.machine.facts import RoleFacts, RolePolicy

__all__ = ["tensorflow_policy"]

_HELPERS = frozenset({"evaluator", "tensorboard"})
_DECIDERS = frozenset({"chief", "worker"})


def tensorflow_policy(name: str, roles: Mapping[str, RoleFacts]) -> RolePolicy:
    """Return the policy of the role `name`.

    Stream mode (a role has an input): a role with an input decides. Each of its processes must
    finish, so that no row is dropped; other roles are stopped then. A failure is for Flink.

    Batch mode: the chief decides; where there is none, worker 0; where there is no worker
    either, every role that is neither ps nor helper. With a ps (parameter servers) a failed
    worker is started again alone, since the variables live elsewhere and the others do not
    wait for it; a failed ps or chief restarts the group, in which finished workers stay
    finished. Without a ps (all-reduce) each failure restarts the group, finished members
    included, since a collective needs every member.

    Evaluator and tensorboard, without an input, are helpers in both modes: they decide nothing,
    harm nobody, and are started again alone.
    """
    if roles[name].has_input:
        return RolePolicy()
    if name in _HELPERS:
        return RolePolicy(decides_end=False, is_helper=True, restarts_alone=True)
    if any(role.has_input for role in roles.values()):
        return RolePolicy(decides_end=False)
    has_ps = "ps" in roles
    match name:
        case "ps":
            return RolePolicy(decides_end=False, restarts_finished=True)
        case "chief":
            return RolePolicy(restarts_finished=not has_ps)
        case "worker":
            return RolePolicy(
                decides_end="chief" not in roles,
                first_decides=True,
                restarts_alone=has_ps,
                restarts_finished=not has_ps,
            )
        case _:
            return RolePolicy(decides_end=not _DECIDERS & roles.keys())
