"""What a process learns of a request to end, and what it must not take for one."""

from __future__ import annotations

import subprocess
import sys

import pytest

_BEGIN = """
import multiprocessing, os, signal, threading
from headrace.framework.stopping import StopRequestedExit, raise_on_sigterm, require_no_stop

raise_on_sigterm()
"""
_FORKED = """
def own_stop():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        require_no_stop()  # it is the parent's that it would read
    finally:
        os._exit(1)

with multiprocessing.get_context("fork").Pool(2) as pool:
    print(pool.map(abs, [-1, -2]))
require_no_stop()
pid = os.fork()
if not pid:
    own_stop()
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
require_no_stop()
print("goes on")
"""
_ASKED = """
def see():
    while True:
        try:
            require_no_stop()
        except StopRequestedExit:
            seen.append(threading.current_thread().name)
            return

seen = []
threads = [threading.Thread(target=see, name=name) for name in "ab"]
for thread in threads:
    thread.start()
try:
    os.kill(os.getpid(), signal.SIGTERM)
    while True:
        threading.Event().wait(0.1)
except StopRequestedExit:
    for thread in threads:
        thread.join()
    print(*sorted(seen))
"""


@pytest.mark.parametrize(
    ("program", "printed"),
    [
        pytest.param(
            _FORKED, "[1, 2]\n-15\ngoes on\n", id="processes that it has forked are ended"
        ),
        pytest.param(_ASKED, "a b\n", id="it is asked, and all of its threads see it"),
    ],
)
def test_a_process_is_asked_to_end_by_its_own_signal_alone(program: str, printed: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _BEGIN + program],
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == (printed, "", 0)
