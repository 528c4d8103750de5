"""Functions in a process of their own: whatever it does, the caller goes on within the limit, and nothing lives on."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from parity.process import Died, GivenUp, Process, Processes, Raised, TimeIsUp

LIMIT = 60.0


def stop_self():
    os.kill(os.getpid(), signal.SIGSTOP)


def length(text):
    return len(text)


def ends(code):
    os._exit(code)


def dies_by(number):
    os.kill(os.getpid(), number)


def refuses_to_end():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(1)


def starts_a_child():
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid


def fails():
    raise ValueError("on purpose")


def gives_a_lock():
    return threading.Lock()


def living(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"


@pytest.fixture
def process():
    made = Process()
    yield made
    made.close()


def test_a_call_is_answered_and_the_process_kept(process):
    assert process.call(os.getpid, limit=LIMIT) == process.pid != os.getpid()
    assert process.call(length, "four", limit=LIMIT) == 4


def test_a_process_that_is_stopped_while_it_starts_is_killed_at_the_limit_of_the_start():
    process = Process(stop_self, start_limit=3.0)
    start = time.monotonic()
    with pytest.raises(TimeIsUp, match="stopped after 3 s while it started"):
        process.call(os.getpid, limit=LIMIT)
    assert time.monotonic() - start < 20
    assert not living(process.pid)


def test_a_process_that_is_stopped_before_python_runs_is_killed_too():
    process = Process(start_limit=3.0)
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(TimeIsUp, match="while it started"):
        process.call(os.getpid, limit=LIMIT)
    assert not living(process.pid)


def test_sending_much_to_a_stopped_process_does_not_hang(process):
    process.call(os.getpid, limit=LIMIT)
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(TimeIsUp, match=r"stopped after 1 s$"):
        process.call(length, "x" * 10_000_000, limit=1.0)
    assert not living(process.pid)


def test_a_process_that_ignores_sigterm_is_killed(process):
    with pytest.raises(TimeIsUp):
        process.call(refuses_to_end, limit=1.0)
    assert not living(process.pid)


def test_children_are_killed_with_it(process):
    child = process.call(starts_a_child, limit=LIMIT)
    assert living(child)
    process.close()
    deadline = time.monotonic() + 10
    while living(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not living(child)


@pytest.mark.parametrize("code", [0, 7])
def test_a_process_that_ends_is_told_with_its_code(process, code):
    with pytest.raises(Died, match=f"exit code {code}"):
        process.call(ends, code, limit=LIMIT)
    assert not process.alive


def test_a_process_that_a_signal_ends_is_told_with_its_signal(process):
    with pytest.raises(Died, match="signal SIGSEGV"):
        process.call(dies_by, signal.SIGSEGV, limit=LIMIT)


def test_an_error_comes_back_with_its_traceback(process):
    with pytest.raises(Raised, match=r"ValueError: on purpose \(test_process.py:") as caught:
        process.call(fails, limit=LIMIT)
    assert 'raise ValueError("on purpose")' in caught.value.trace
    assert process.call(length, "four", limit=LIMIT) == 4


def test_an_answer_that_cannot_be_sent_is_told(process):
    with pytest.raises(Raised, match="cannot pickle"):
        process.call(gives_a_lock, limit=LIMIT)
    assert process.call(length, "four", limit=LIMIT) == 4


def test_an_initializer_that_fails_ends_the_process():
    with pytest.raises(Died):
        Process(fails).call(os.getpid, limit=LIMIT)


def test_closing_ends_a_call_under_way():
    processes = Processes(Process, 10)
    ends = []

    def call():
        try:
            processes.call(refuses_to_end, limit=LIMIT)
        except Exception as error:
            ends.append(type(error))

    thread = threading.Thread(target=call)
    thread.start()
    time.sleep(2)
    processes.close()
    thread.join(20)
    assert ends == [GivenUp]


def test_processes_are_replaced_after_some_calls_and_after_a_loss():
    processes = Processes(Process, 2)
    pids = [processes.call(os.getpid, limit=LIMIT) for _ in range(4)]
    assert pids[0] == pids[1] != pids[2] == pids[3]
    with pytest.raises(Died):
        processes.call(ends, 3, limit=LIMIT)
    assert processes.call(os.getpid, limit=LIMIT) not in pids
    processes.close()
    assert not any(living(pid) for pid in pids)


def test_the_program_ends_with_a_process_still_open():
    code = "from parity.process import Process; import os; p = Process(); print(p.call(os.getpid, limit=60))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert not living(int(done.stdout))
