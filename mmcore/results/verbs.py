"""Methods of fitted models that are functions of a fit: ``predict`` and ``simulate``."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from .fit import Fit
from .predict import predict
from .simulate import simulate

__all__ = ["PredictiveFit"]


class PredictiveFit(Fit):
    """A fit that predicts and simulates."""

    def predict(
        self,
        newdata: Any = None,
        *,
        re_form: str | bool | None = None,
        type: str = "link",
        allow_new_levels: bool = False,
        se_fit: bool = False,
        offset: Any = None,
    ) -> Any:
        """Predicted values of the rows of the fit or of ``newdata``: see
        :func:`mmcore.results.predict.predict`."""
        return predict(
            self,
            newdata,
            re_form=re_form,
            type=type,
            allow_new_levels=allow_new_levels,
            se_fit=se_fit,
            offset=offset,
        )

    def simulate(
        self, nsim: int = 1, rng: np.random.Generator | int | None = None, *, use_u: bool = False
    ) -> pd.DataFrame:
        """Responses drawn from the model, (n, nsim): see
        :func:`mmcore.results.simulate.simulate`."""
        return simulate(self, nsim, rng, use_u=use_u)
