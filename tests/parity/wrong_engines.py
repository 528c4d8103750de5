"""Engines with one fault each, made from mmcore: what the report must name. `package.module:factory` finds them."""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import msgspec
import numpy as np

from parity.engines.load import load
from parity.schema.case import Case
from parity.schema.results import Results, Value


class Wrong:
    """mmcore, with `change` done to its answer and `case` to the question."""

    def __init__(
        self, name: str, change: Callable[[Results, Case], Results] = lambda found, case: found,
        case: Callable[[Case], Case] = lambda case: case,
    ) -> None:  # fmt: skip
        self.name, self.version = name, "1"
        self._model, self._change, self._case = load("mmcore"), change, case
        self.capabilities = self._model.capabilities

    def run(self, case, quantities, theta=None):
        found = self._change(self._model.run(self._case(case), quantities, theta), case)
        return replace(found, engine=self.name, version=self.version)


def _values(found: Results, change: Callable[[np.ndarray], np.ndarray], *names: str) -> Results:
    held = {n: Value(v.labels, change(v.values)) for n, v in found.values.items() if n in names}
    return replace(found, values={**found.values, **held})


def ml_sigma():
    def change(found, case):
        n, p = (found.values[name].values[0] for name in ("n_obs", "p_fixed"))
        found = _values(found, lambda x: x * np.sqrt((n - p) / n), "se_fixef")
        return _values(found, lambda x: x * (n - p) / n, "vcov_fixef", "varcorr")

    return Wrong("ml_sigma", change)


def twice():
    return Wrong("twice", lambda found, case: _values(found, lambda x: 2 * x, "fixef"))


def sign():
    return Wrong("sign", lambda found, case: _values(found, lambda x: -x, "ranef"))


def relative():
    def change(found, case):
        return _values(found, lambda x: x / found.values["sigma"].values[0] ** 2, "varcorr")

    return Wrong("relative", change)


def reverse():
    return Wrong("reverse", lambda found, case: _values(found, lambda x: x[::-1], "ranef"))


def neighbor():
    return Wrong("neighbor", lambda found, case: _values(found, lambda x: np.roll(x, 1), "fitted"))


def shuffled():
    order = np.random.default_rng(1)
    return Wrong("shuffled", lambda found, case: _values(found, order.permutation, "resid_response"))


def ml_for_reml():
    return Wrong("ml_for_reml", case=lambda case: msgspec.structs.replace(case, reml=False))


def unweighted():
    return Wrong("unweighted", case=lambda case: msgspec.structs.replace(case, weights=None))


def no_offset():
    return Wrong("no_offset", case=lambda case: msgspec.structs.replace(case, offset=None))


def centered():
    return Wrong("centered", lambda found, case: _values(found, lambda x: x - x.mean(), "fitted"))


def one_group():
    def change(found, case):
        value = found.values.get("ranef")
        if value is None:
            return found
        level = value.labels[0].rsplit("|", 1)[0]
        wrong = np.array(
            [
                x * (1.1 if label.startswith(f"{level}|") else 1)
                for label, x in zip(*_both(value), strict=True)
            ]
        )
        return replace(found, values={**found.values, "ranef": Value(value.labels, wrong)})

    return Wrong("one_group", change)


def _both(value: Value):
    return value.labels, value.values


def transposed():
    def change(found, case):
        rows, columns = (int(found.values[name].values[0]) for name in ("n_obs", "p_fixed"))
        return _values(found, lambda x: x.reshape(rows, columns).T.ravel(), "x_matrix")

    return Wrong("transposed", change)


def nan():
    return Wrong("nan", lambda found, case: _values(found, lambda x: x * np.nan, "se_fixef"))


def raises():
    def change(found, case):
        raise ZeroDivisionError("on purpose")

    return Wrong("raises", change)


def dies():
    def change(found, case):
        os._exit(7) if case.name == "dyestuff_reml" else None
        return found

    return Wrong("dies", change)


def hangs():
    def change(found, case):
        time.sleep(600) if case.name == "dyestuff_reml" else None
        return found

    return Wrong("hangs", change)


def noisy():
    def change(found, case):
        print("iteration 1: on standard output")
        os.write(1, b"from compiled code\n")
        print("a warning", file=sys.stderr)
        return found

    return Wrong("noisy", change)


def slow():
    def change(found, case):
        time.sleep(3)
        return found

    return Wrong("slow", change)


def silent():
    """Claims what it does not give."""

    def change(found, case):
        return replace(found, values={n: v for n, v in found.values.items() if n != "aic"})

    return Wrong("silent", change)


def threads():
    """n_obs is the number of BLAS threads."""

    def change(found, case):
        from threadpoolctl import threadpool_info

        most = max(entry["num_threads"] for entry in threadpool_info() if entry["user_api"] == "blas")
        return replace(found, values={"n_obs": Value(("",), np.array([float(most)]))})

    return Wrong("threads", change)
