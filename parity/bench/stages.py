"""One side of a comparison: a process that times the stages of the mmcore it finds on its path.

Run as a script, ``python stages.py CHECKOUT``: imports mmcore from CHECKOUT, reads one JSON request a line from
standard input, answers with one JSON line. It uses public names only, so that an older commit can be asked too;
a stage that commit does not have is answered with ``{"missing": reason}``.
"""

import json
import sys
import time


def _stages(mm, problem, data):
    """Name -> function of one run of the stage; each returns a number that both sides must share."""
    from mmcore.design import build
    from mmcore.formula import parse
    from mmcore.products import cross_products

    design = build(problem.formula, data)
    fit = mm.lmer(problem.formula, data, reml=problem.reml)
    fn = fit.criterion_fn
    return {
        "parse": lambda: float(len(parse(problem.formula).bars)),
        "design": lambda: float(build(problem.formula, data).n),
        "products": lambda: float(cross_products(design).n),
        "evaluation": lambda: float(fn.factor(fit.par).profile.f),
        "gradient": lambda: float(len(fn.derivatives(fit.par, fn.factor(fit.par))[0])),
        "fit": lambda: mm.lmer(problem.formula, data, reml=problem.reml).criterion,
        "influence": lambda: float(mm.hlm_influence(fit)["cooksd"].sum()),
        "deletion": lambda: float(
            mm.case_delete(fit, level=fit.design.terms[-1].group).fixef.to_numpy().sum()
        ),
    }, fit.optinfo.evaluations


def _answer(request, cache):
    from problems import PROBLEMS  # beside this file: the head's problems for both sides

    import mmcore as mm

    name = request["problem"]
    if name not in cache:
        problem = PROBLEMS[name]
        cache[name] = _stages(mm, problem, problem.data())
    stages, evaluations = cache[name]
    if request["stage"] not in stages:
        return {"missing": f"no stage {request['stage']}"}
    work = stages[request["stage"]]
    # the least disturbed repetition of the round: what the machine did besides is not this code's time
    seconds = float("inf")
    for _ in range(request["repeats"]):
        start = time.perf_counter()
        value = work()
        done = time.perf_counter()
        # a deliberate slow-down, to test that the gate sees one: time that is really spent
        while time.perf_counter() < done + (done - start) * request.get("slowdown", 0.0):
            pass
        seconds = min(seconds, time.perf_counter() - start)
    return {"seconds": seconds, "value": value, "evaluations": evaluations}


def main():
    """Answer requests until standard input ends."""
    checkout = sys.argv[1]
    here = sys.path[0]
    sys.path[:0] = [checkout]
    sys.path.append(here)
    cache = {}
    for line in sys.stdin:
        try:
            reply = _answer(json.loads(line), cache)
        except (AttributeError, ImportError, TypeError) as error:
            reply = {"missing": f"{type(error).__name__}: {error}"}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
