"""The stages of a fit, one by one; and one side of a comparison: a process that times them for the mmcore it finds.

Run as a script, ``python stages.py CHECKOUT``: imports mmcore from CHECKOUT, reads one JSON request a line from
standard input, answers with one JSON line. ``python stages.py CHECKOUT PROBLEM STAGE REPEATS`` does one stage so many
times and prints nothing: for counting instructions. Only public names are used, so that an older commit can be asked
too; a stage that commit does not have is answered with ``{"missing": reason}``.
"""

import json
import sys
import time
from functools import partial

ALWAYS = ("parse",)
LINEAR = (*ALWAYS, "design", "products", "evaluation", "gradient", "fit", "influence", "deletion", "refits")
GENERALIZED = (*ALWAYS, "fit")


def stages(mm, problem, data):
    """The stages of a problem, and the number of evaluations of its fit.

    Returns name -> function that runs the stage once and returns a number that any correct version shares.
    """
    from mmcore.design.build import build
    from mmcore.formula.parse import parse

    fit_once = partial(_fit, mm, problem, data)
    fit = fit_once()
    out = {
        "parse": lambda: float(len(parse(problem.formula).bars)),
        "fit": lambda: fit_once().criterion,
    }
    if problem.family == "gaussian":
        out |= _linear(mm, fit, lambda: float(build(problem.formula, data).n))
    return out, int(fit.optinfo.evaluations)


def _fit(mm, problem, data):
    if problem.family == "gaussian":
        return mm.lmer(problem.formula, data, reml=problem.reml)
    return mm.glmer(problem.formula, data, family=problem.family)


def _linear(mm, fit, design_once):
    try:
        from mmcore.kernels.products import cross_products
    except ImportError:  # a commit from before the wings
        from mmcore.products import cross_products  # type: ignore[import-untyped,no-redef]

    fn, design = fit.criterion_fn, fit.design
    last = design.terms[-1].group
    return {
        "design": design_once,
        "products": lambda: float(cross_products(design).n),
        "evaluation": lambda: float(fn.factor(fit.par).profile.f),
        "gradient": lambda: float(len(fn.derivatives(fit.par, fn.factor(fit.par))[0])),
        "influence": lambda: float(mm.hlm_influence(fit)["cooksd"].sum()),
        "deletion": lambda: float(mm.case_delete(fit, level=last).fixef.to_numpy().sum()),
        "refits": lambda: float(mm.case_delete(fit).fixef.to_numpy().sum()),
    }


def _answer(request, cache):
    name = request["problem"]
    if name not in cache:
        cache[name] = _made(name)
    made, evaluations = cache[name]
    if request["stage"] not in made:
        return {"missing": f"no stage {request['stage']}"}
    work = made[request["stage"]]
    # CPU time of the least disturbed repetition of the round: what the machine did besides is not this code's time
    seconds = float("inf")
    for _ in range(request["repeats"]):
        start = time.process_time()
        value = work()
        done = time.process_time()
        # a deliberate slow-down, to test that the gate sees one: time that is really spent
        while time.process_time() < done + (done - start) * request.get("slowdown", 0.0):
            pass
        seconds = min(seconds, time.process_time() - start)
    return {"seconds": seconds, "value": value, "evaluations": evaluations}


def _made(name):
    from problems import PROBLEMS  # type: ignore[import-not-found]  # beside this file: the head's problems for both sides

    import mmcore as mm

    problem = PROBLEMS[name]
    return stages(mm, problem, problem.data())


def _serve():
    cache: dict = {}
    for line in sys.stdin:
        try:
            reply = _answer(json.loads(line), cache)
        except (AttributeError, ImportError, TypeError) as error:
            reply = {"missing": f"{type(error).__name__}: {error}"}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), flush=True)


def main(checkout, once):
    """Answer requests until standard input ends, or do one stage some times."""
    here = sys.path[0]
    sys.path[:0] = [checkout]
    sys.path.append(here)
    if not once:
        return _serve()
    problem, stage, repeats = once
    work = _made(problem)[0][stage]
    for _ in range(int(repeats)):
        work()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
