"""From a case to a fitted model of mmcore."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

import mmcore as mm
from mmcore.design.build import build
from mmcore.glmm.response import reader
from parity.schema.case import Case, frame

__all__ = ["fit_case"]


def fit_case(case: Case, theta: np.ndarray | None) -> Any:
    data = frame(case)
    options: dict[str, Any] = {
        "weights": case.weights,
        "offset": case.offset,
        "contrasts": case.contrasts or None,
    }
    if case.kind in ("glm", "glmm"):
        return _generalised(case, data, theta, options)
    if theta is not None:
        return mm.fit_at(case.formula, data, theta, reml=case.reml, **options)
    if "|" not in case.formula:
        return mm.lm(case.formula, data, **options)
    return mm.lmer(case.formula, data, reml=case.reml, **options)


def _generalised(case: Case, data: Any, theta: np.ndarray | None, options: dict[str, Any]) -> Any:
    if theta is not None and case.estimates_size:
        at = _generalised(msgspec.structs.replace(case, size=float(theta[-1])), data, theta[:-1], options)
        counted = replace(at.solution, size_estimated=True)  # it is one of the coordinates
        return mm.GeneralizedFit(at.design, at.family, counted, at.status, at.optinfo)
    sized = {} if case.size is None else {"theta": case.size}
    family = mm.family_named(case.family, case.link, **sized)
    if case.kind == "glm":
        return mm.glm(case.formula, data, family=family, **options)
    if theta is None:
        # like with like: the references are lme4's, up to 2.0
        return mm.glmer(case.formula, data, family=family, nagq=case.nagq, criterion="lme4", **options)
    n_theta = len(theta)
    if case.nagq > 0:
        n_theta -= build(case.formula, data, allow_saturated=True, response=reader(family), **options).p
    return mm.fit_at(
        case.formula, data, theta[:n_theta], beta=theta[n_theta:] if case.nagq > 0 else None,
        family=family, nagq=case.nagq, criterion="lme4", **options,
    )  # fmt: skip
