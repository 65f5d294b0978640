"""What follows from where the others stand; no sockets."""

from __future__ import annotations

from headrace.role.roster import Roster


def test_it_is_complete_when_all_others_stand_at_the_barrier_or_are_over() -> None:
    roster = Roster(3)
    roster.reach(0, 7)
    roster.end(1)
    assert not roster.rule(held=7, passed=6).is_complete
    roster.reach(2, 7)
    assert roster.rule(held=7, passed=6).is_complete
    assert not roster.rule(held=None, passed=6).is_complete
    assert roster.answer(7) == (0, 2)
    assert not roster.rule(held=7, passed=6).is_complete


def test_nobody_else_is_always_complete() -> None:
    assert Roster(0).rule(held=1, passed=0).is_complete
    assert Roster(0).are_all_over


def test_one_that_stands_at_a_later_barrier_shows_that_the_held_one_was_aborted() -> None:
    roster = Roster(2)
    roster.reach(0, 7)
    roster.reach(1, 8)
    ruling = roster.rule(held=7, passed=6)
    assert (ruling.is_older, ruling.is_complete, ruling.released) == (True, False, ())
    roster.end(1)  # its rows have ended: whatever it stood at
    assert not roster.rule(held=7, passed=6).is_older


def test_who_stands_at_a_barrier_that_is_over_here_is_released() -> None:
    roster = Roster(3)
    roster.reach(0, 5)
    roster.reach(1, 6)
    roster.reach(2, 7)
    assert roster.rule(held=None, passed=4).released == ()
    assert roster.rule(held=None, passed=6).released == (0, 1)
    assert roster.rule(held=7, passed=4).released == (0, 1)
    roster.release((0, 1))
    assert roster.rule(held=7, passed=4).released == ()


def test_all_are_over_when_each_has_said_so() -> None:
    roster = Roster(2)
    roster.end(1)
    assert not roster.are_all_over
    roster.end(0)
    assert roster.are_all_over
