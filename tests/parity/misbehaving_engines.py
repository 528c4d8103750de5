"""Engines that do wrong on purpose, for processes of their own."""

import os
import time

from parity.schema.results import Results, scalar


class _Engine:
    name, version, capabilities = "odd", "1", frozenset({"lmm", "optimum", "n_obs"})

    def run(self, case, quantities, theta=None):
        match case.name:
            case "dies":
                os._exit(7)
            case "hangs":
                time.sleep(60)
            case "raises":
                raise RuntimeError("on purpose")
            case "talks":
                return "not results"
        return Results("odd", "1", values={"n_obs": scalar(os.getpid())})


def engine():
    return _Engine()


def broken():
    raise ImportError("a library that is not there")
