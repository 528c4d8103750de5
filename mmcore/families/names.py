"""From the name of a family to the family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from ..errors import UnsupportedError
from .continuous import Gamma, Gaussian, InverseGaussian
from .counts import Binomial, NegativeBinomial, Poisson
from .family import Family
from .links import link_named
from .quasi import Quasi, QuasiBinomial, QuasiPoisson

__all__ = ["family_named"]

_FAMILIES: Mapping[str, type[Family]] = MappingProxyType(
    {
        "gaussian": Gaussian, "binomial": Binomial, "poisson": Poisson, "gamma": Gamma,
        "inverse.gaussian": InverseGaussian, "negative.binomial": NegativeBinomial,
        "quasibinomial": QuasiBinomial, "quasipoisson": QuasiPoisson, "quasi": Quasi,
    }
)  # fmt: skip


_ALIASES = MappingProxyType(
    {
        "normal": "gaussian", "bernoulli": "binomial", "inverse_gaussian": "inverse.gaussian",
        "inversegaussian": "inverse.gaussian", "negative_binomial": "negative.binomial",
        "negbin": "negative.binomial", "nbinom": "negative.binomial", "nbinom2": "negative.binomial",
    }
)  # fmt: skip


def family_named(family: str | Family, link: str | None = None, **options: Any) -> Family:
    """The family of a name (R's, in any case) with a link (default: R's), or a family as it is.

    ``options``: ``theta`` for ``"negative.binomial"``, ``variance_name`` for ``"quasi"``.
    Raises UnsupportedError listing the names, or the links of the family, that exist.
    """
    if isinstance(family, Family):
        return family if link is None or link == family.link.name else replace(family, link=link_named(link))
    key = str(family).lower()
    made = _FAMILIES.get(_ALIASES.get(key, key))
    if made is None:
        names = ", ".join(repr(kind.name) for kind in _FAMILIES.values())
        raise UnsupportedError(f"family={family!r} is not one of {names}")
    return made(link_named(link or made.links[0]), **options)
