"""The recordings that are shipped: whole, made for the cases as they are, labelled and consistent."""

import numpy as np
import pytest

from parity.references.recordings import read_recording
from parity.resources import recorded_dir
from parity.schema.case import frame, load_cases

FILES = sorted(path for path in recorded_dir().rglob("*.json*"))
HLMDIAG = [path for path in FILES if path.parent.name == "hlmdiag-0.5.1"]
NESTED = [
    path for path in HLMDIAG if "crossed" not in path.name
]  # HLMdiag has no leverage for crossed factors
CASES = {case.name: case for case in load_cases()}


def identity(path):
    return f"{path.parent.name}/{path.name}"


def by_label(value):
    return dict(zip(value.labels, value.values, strict=True))


@pytest.mark.parametrize("path", FILES, ids=identity)
def test_recording_is_whole_and_made_for_its_case_as_it_is(path):
    recording = read_recording(path)
    assert recording.case.id == CASES[path.name.partition(".json")[0]].id
    assert recording.results.provenance
    for name, value in recording.results.values.items():
        assert len(set(value.labels)) == len(value.labels), name


def test_all_models_recorded_with_hlmdiag_are_there():
    assert len(HLMDIAG) == 12
    assert {read_recording(path).results.version for path in HLMDIAG} == {
        "HLMdiag 0.5.1, lme4 1.1-31, R 4.2.2"
    }


@pytest.mark.parametrize("path", NESTED, ids=identity)
def test_group_leverage_is_the_mean_over_the_rows_of_the_group_that_its_label_names(path):
    recording = read_recording(path)
    values = recording.results.values
    data = frame(recording.case)
    for part in ("overall", "fixef", "ranef", "ranef_uc"):
        rows = by_label(values[f"leverage_{part}"])
        for label, mean in by_label(values[f"leverage_{part}_group"]).items():
            members = data.index[in_group(data, label)]
            assert mean == pytest.approx(np.mean([rows[str(row)] for row in members]), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("path", NESTED, ids=identity)
def test_leverage_of_the_fixed_effects_sums_to_their_number(path):
    values = read_recording(path).results.values
    assert values["leverage_fixef"].values.sum() == pytest.approx(len(values["fixef"].labels), rel=1e-10)


def in_group(data, label):
    group, level = label.split("|")
    columns = [data[name].astype(str) for name in group.split(":")]
    joined = columns[0].str.cat(columns[1:], sep=":") if columns[1:] else columns[0]
    return joined == level


WITH_REFITS = [path for path in HLMDIAG if "deletion_fixef_group" in read_recording(path).results.values]


@pytest.mark.parametrize("path", WITH_REFITS, ids=identity)
def test_one_step_deletion_is_close_to_the_recorded_refits(path):
    """Cook's distance from the refits, by hand: the same units stand out, so labels of refits are right."""
    values = read_recording(path).results.values
    beta = by_label(values["fixef"])
    C = values["vcov_fixef"].values.reshape(len(beta), len(beta))
    refits = by_label(values["deletion_fixef_group"])
    units = dict.fromkeys(label.rpartition("|")[0] for label in refits)
    one_step = by_label(values["cooks_distance_marginal_group"])
    refitted = []
    for unit in units:
        change = np.array([beta[name] - refits[f"{unit}|{name}"] for name in beta])
        refitted.append(change @ np.linalg.solve(C, change) / len(beta))
    expected = [one_step[unit] for unit in units]
    np.testing.assert_allclose(refitted, expected, rtol=1.0, atol=0.1 * max(expected))
