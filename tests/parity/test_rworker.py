"""R's processes: they may end, hang or talk; the caller gets a reply each time and the next call works."""

import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from parity.r.call import crashed, guarded_reply
from parity.r.columns import r_column
from parity.r.script import RscriptWorkers
from parity.r.values import from_json_data, to_json_data
from parity.r.worker import RWorkers, open_workers, r_environment

SOURCES = [Path(__file__).with_name("misbehave.R")]


@pytest.fixture(scope="module")
def embedded():
    with RWorkers(timeout=120, sources=SOURCES) as workers:
        yield workers


@pytest.fixture(scope="module")
def program():
    with RscriptWorkers(timeout=120, sources=SOURCES) as workers:
        yield workers


@pytest.fixture(params=["embedded", "program"])
def workers(request):
    return request.getfixturevalue(request.param)


def works(workers):
    """The next call is answered; `Rscript` starts afresh for each, so there it would show nothing."""
    if workers.name == "Rscript":
        return True
    reply = workers.call("echo", {"x": 42.0})
    return reply.status == "ok" and reply.value.tolist() == [42.0]


# --- what R may do ------------------------------------------------------------------------------------


@pytest.mark.live
@pytest.mark.parametrize("code", [0, 3])
def test_quit_is_a_crash_with_its_exit_code(workers, code):
    reply = workers.call("quit", {"save": "no", "status": code})
    assert (reply.status, reply.exit_code) == ("crashed", code)
    assert f"exit code {code}" in reply.message
    assert works(workers)


@pytest.mark.live
def test_a_segmentation_fault_is_a_crash_with_its_signal(embedded):
    pid = embedded.call("Sys.getpid").value[0]
    assert pid != os.getpid()
    reply = embedded.call("tools::pskill", {"pid": pid, "signal": 11})
    assert (reply.status, reply.exit_code) == ("crashed", -11)
    assert "SIGSEGV" in reply.message
    assert works(embedded)


@pytest.mark.live
def test_a_killed_program_is_a_crash_with_its_signal(program):
    replies = []
    thread = threading.Thread(target=lambda: replies.append(program.call("native_loop")))
    thread.start()
    deadline = time.monotonic() + 60
    while not program._running and time.monotonic() < deadline:
        time.sleep(0.02)
    program.close()
    thread.join(60)
    assert [(reply.status, reply.exit_code) for reply in replies] == [("crashed", -9)]
    assert works(program)


@pytest.mark.live
def test_native_code_without_end_is_stopped(workers):
    reply = workers.call("native_loop", timeout=3.0)
    assert reply.status == "timeout"
    assert "3 s" in reply.message
    assert reply.seconds < 30
    assert works(workers)


@pytest.mark.live
def test_closing_ends_a_call_under_way():
    workers = RWorkers(timeout=120, sources=SOURCES)
    assert works(workers)
    replies = []
    thread = threading.Thread(target=lambda: replies.append(workers.call("native_loop")))
    thread.start()
    time.sleep(0.5)
    workers.close()
    thread.join(60)
    assert [reply.status for reply in replies] == ["protocol"]
    assert works(workers)
    workers.close()


@pytest.mark.live
def test_endless_recursion_leaves_a_working_pool(workers):
    assert workers.call("endless_recursion").status in ("crashed", "r_error")
    assert works(workers)


@pytest.mark.live
def test_an_error_is_data(workers):
    reply = workers.call("stop", {"x": 'a "quoted" error\nin two lines'})
    assert (reply.status, reply.value) == ("r_error", None)
    assert reply.message == 'a "quoted" error\nin two lines'
    assert works(workers)


@pytest.mark.live
def test_warnings_and_messages_are_data(workers, capfd):
    reply = workers.call("speak")
    assert reply.status == "ok"
    assert reply.value.tolist() == [7.0]
    assert reply.warnings == ("first warning", "second warning")
    assert reply.messages == ("a message",)
    assert capfd.readouterr() == ("", "")


@pytest.mark.live
def test_what_is_no_call_is_a_protocol_failure(workers):
    unknown = workers.call("no_such_function")
    assert "no_such_function" in unknown.message
    for reply in (
        unknown,
        workers.call("echo", {"x": object()}),
        workers.call("echo", {"x": np.eye(2)}),
        workers.call("give_environment"),
    ):
        assert reply.status == "protocol", reply
    assert works(workers)


@pytest.mark.live
def test_calls_from_several_threads_each_get_their_answer(embedded):
    replies = {}

    def ask(number):
        replies[number] = [embedded.call("echo", {"x": float(number)}).value[0] for _ in range(5)]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert replies == {0: [0.0] * 5, 1: [1.0] * 5}


# --- what crosses the border ----------------------------------------------------------------------------


def awkward_numbers():
    rng = np.random.default_rng(20)
    spread = rng.standard_normal(2000) * 10.0 ** rng.integers(-300, 300, 2000)
    special = [0.0, -0.0, np.nan, np.inf, -np.inf, 5e-324, 1.7976931348623157e308, 0.1, 1 / 3, 2**53 + 1.0]
    return np.concatenate([special, spread])


@pytest.mark.live
def test_doubles_return_to_the_last_bit(workers):
    sent = awkward_numbers()
    got = workers.call("echo", {"x": sent}).value
    nan = np.isnan(sent)
    np.testing.assert_array_equal(np.isnan(got), nan)
    assert got[~nan].tobytes() == sent[~nan].tobytes()


@pytest.mark.live
@pytest.mark.parametrize(
    "sent",
    [
        ["a", "", "NA", "NaN", 'quote " and \\ and\ttab', "Grüße, 数"],
        ["NA"],
        [True, False],
        {"a": ["x"], "b": {"c": ["y", "z"], "d": None}},
    ],
    ids=["text", "the word NA", "logical", "nested"],
)
def test_text_and_lists_return_as_they_were(workers, sent):
    assert workers.call("echo", {"x": sent}).value == sent


@pytest.mark.live
def test_a_hundred_thousand_vectors_do_not_wear_out_the_process(embedded):
    """A helper in C of rpy2's memoryviews gives away references to None until the process dies; it is not used."""
    for _ in range(2):
        reply = embedded.call("base::as.list", {"x": np.arange(50_000.0)})
        assert (reply.status, len(reply.value)) == ("ok", 50_000)
        assert reply.value[-1] == [49_999.0]


@pytest.mark.live
def test_integers_and_scalars_return_as_doubles(workers):
    sent = {
        "a": np.array([0, -1, 2**31 - 1, -(2**31) + 1], dtype=np.int32),
        "b": 3,
        "c": np.float64(0.5),
        "d": None,
    }
    got = workers.call("echo", {"x": sent}).value
    np.testing.assert_array_equal(got["a"], sent["a"].astype(float))
    assert (got["b"].tolist(), got["c"].tolist(), got["d"]) == ([3.0], [0.5], None)


COLUMNS = {
    "double with NA": (pd.Series([1.5, np.nan, -2.0]), "numeric", None, ["1.5", None, "-2"]),
    "nullable double": (pd.Series([1.5, None], dtype="Float64"), "numeric", None, ["1.5", None]),
    "integer": (pd.Series([3, 100000, -7]), "integer", None, ["3", "100000", "-7"]),
    "nullable integer": (pd.Series([3, None], dtype="Int64"), "integer", None, ["3", None]),
    "too large for an integer": (pd.Series([2**31, 5]), "numeric", None, ["2147483648", "5"]),
    "logical": (pd.Series([True, False]), "logical", None, ["TRUE", "FALSE"]),
    "nullable logical": (pd.Series([True, None], dtype="boolean"), "logical", None, ["TRUE", None]),
    "text, code-point order": (
        pd.Series(["b", "B", None, "a"]), "factor", ["B", "a", "b"], ["b", "B", None, "a"],
    ),
    "factor, own order, unused level": (
        pd.Series(pd.Categorical(["y", "x", None], categories=["y", "unused", "x"])),
        "factor", ["y", "unused", "x"], ["y", "x", None],
    ),
    "ordered factor": (
        pd.Series(pd.Categorical(["hi", "lo"], categories=["lo", "hi"], ordered=True)),
        "ordered", ["lo", "hi"], ["hi", "lo"],
    ),
    "categories of numbers": (
        pd.Series(pd.Categorical([10, 2, 10], categories=[2, 10])), "factor", ["2", "10"], ["10", "2", "10"],
    ),
    "categories of doubles": (
        pd.Series(pd.Categorical([0.5, 2.0])), "factor", ["0.5", "2"], ["0.5", "2"],
    ),
}  # fmt: skip


@pytest.mark.live
@pytest.mark.parametrize("name", COLUMNS)
def test_columns_arrive_as_r_would_hold_them(embedded, name):
    series, cls, levels, text = COLUMNS[name]
    reply = embedded.call("describe_column", {"column": r_column(series)})
    assert reply.status == "ok", reply.message
    assert cls in reply.value["class"]
    assert reply.value["levels"] == levels
    assert reply.value["text"] == text
    assert reply.value["missing"] == [value is None for value in text]


@pytest.mark.live
@pytest.mark.parametrize("name", COLUMNS)
def test_both_ways_in_send_the_same_column(embedded, name):
    import json

    column = r_column(COLUMNS[name][0])
    through_json = json.loads(json.dumps(to_json_data(column)))
    as_lists = {
        key: np.array(x) if isinstance(x, list) and key == "values" else x for key, x in through_json.items()
    }
    for key, value in column.items():
        got = as_lists[key]
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(np.array(got, dtype=float), value)
        else:
            assert got == value


@pytest.mark.live
def test_factors_are_identical_to_those_r_makes_itself(embedded):
    for levels, ordered in ((["b", "a", "unused"], False), (["a", "b"], True)):
        series = pd.Series(pd.Categorical(["a", "b", "a"], categories=levels, ordered=ordered))
        arguments = {"column": r_column(series), "x": list(series), "levels": levels, "ordered": ordered}
        assert embedded.call("same_factor", arguments).value == [True]


def test_a_column_without_a_like_in_r_is_refused():
    with pytest.raises(ValueError, match="'when'"):
        r_column(pd.Series(pd.to_datetime(["2020-01-01"]), name="when"))
    with pytest.raises(ValueError, match=r"'mixed'.*int"):
        r_column(pd.Series(["a", 1], name="mixed", dtype=object))


# --- without R ------------------------------------------------------------------------------------------


def test_json_data_keep_what_json_lacks():
    numbers = awkward_numbers()
    back = from_json_data(to_json_data(numbers))
    np.testing.assert_array_equal(np.isnan(back), np.isnan(numbers))
    assert back[~np.isnan(back)].tobytes() == numbers[~np.isnan(numbers)].tobytes()
    with pytest.raises(TypeError, match="int64"):
        to_json_data(np.array([1]))


def test_replies_say_what_happened():
    assert "SIGSEGV" in crashed(-11).message
    assert "signal 99" in crashed(-99).message
    failed = guarded_reply({"ok": [False], "value": None, "error": ["no"], "warnings": ["w"], "messages": []})
    assert (failed.status, failed.message, failed.warnings) == ("r_error", "no", ("w",))


def test_a_machine_without_r_gets_a_clear_answer(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    r_environment.cache_clear()
    try:
        assert not r_environment().lme4
        with pytest.raises(RuntimeError, match="R is not installed"):
            open_workers()
        reply = RscriptWorkers().call("echo")
        assert (reply.status, "no Rscript" in reply.message) == ("protocol", True)
    finally:
        r_environment.cache_clear()


@pytest.mark.live
def test_an_r_that_is_stopped_while_it_starts_costs_one_call(monkeypatch):
    """SIGSTOP before R is up: the limit of the start ends it, and the next call has a new R."""
    import signal

    from parity.r import worker

    stopped = []

    class Stopped(worker.Process):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            if not stopped:
                stopped.append(self.pid)
                os.kill(self.pid, signal.SIGSTOP)

    monkeypatch.setattr(worker, "Process", Stopped)
    with RWorkers(timeout=120, sources=SOURCES, start_limit=20.0) as workers:
        reply = workers.call("echo", {"x": 1.0}, timeout=1.0)
        assert (reply.status, reply.message) == ("timeout", "R was stopped after 20 s while it started")
        assert 19 < reply.seconds < 40
        assert works(workers)
    with pytest.raises(ProcessLookupError):
        os.kill(stopped[0], 0)
