"""An engine with a fault, for the commands: sigma is off where there are weights and a slope."""

from dataclasses import replace

from parity.engines.load import load
from parity.schema.results import Value


class Planted:
    name, version = "planted", "1"

    def __init__(self):
        self._model = load("mmcore")
        self.capabilities = self._model.capabilities

    def run(self, case, quantities, theta=None):
        found = self._model.run(case, quantities, theta)
        if found.status != "ok" or case.weights is None or len(found.values["theta"].labels) < 3:
            return found
        sigma = found.values["sigma"]
        return replace(found, values={**found.values, "sigma": Value(sigma.labels, 1.001 * sigma.values)})


def engine():
    return Planted()
