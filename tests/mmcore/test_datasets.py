"""Shipped data sets: R's types, level order and doubles; errors for what is missing or altered."""

import json
import shutil

import pandas as pd
import pytest

from mmcore import datasets
from mmcore.errors import DataError


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A private copy of two data sets that a test may damage."""
    manifest = json.loads((datasets.data_dir() / "MANIFEST.json").read_text())
    manifest["datasets"] = {name: manifest["datasets"][name] for name in ("sleepstudy", "Hsb82")}
    for entry in manifest["datasets"].values():
        shutil.copy(datasets.data_dir() / entry["file"], tmp_path)
    (tmp_path / "MANIFEST.json").write_text(json.dumps(manifest))
    monkeypatch.setattr(datasets, "data_dir", lambda: tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", datasets.dataset_names())
def test_every_data_set_loads_with_the_types_of_its_manifest(name):
    frame = datasets.load_dataset(name)
    entry = datasets._entry(name)
    assert len(frame) == entry["rows"]
    for column, kind in entry["columns"].items():
        if "levels" in kind:
            assert list(frame[column].cat.categories) == kind["levels"]
            assert frame[column].cat.ordered == (kind["type"] == "ordered")
        else:
            assert pd.api.types.is_string_dtype(frame[column]) == (kind["type"] == "string")


def test_sleepstudy_holds_the_doubles_that_r_prints():
    frame = datasets.load_dataset("sleepstudy")
    assert frame["Reaction"].iloc[[0, 1, 179]].tolist() == [249.56, 258.7047, 364.1236]
    assert frame["Reaction"].sum() == pytest.approx(53731.42050, abs=1e-8)
    assert list(frame["Subject"].cat.categories[:3]) == ["308", "309", "310"]


def test_level_order_is_r_s_not_the_alphabet_s():
    assert list(datasets.load_dataset("Alfalfa")["Date"].cat.categories) == ["None", "S1", "S20", "O7"]
    rail = datasets.load_dataset("Rail")["Rail"]
    assert list(rail.cat.categories) == ["2", "5", "1", "6", "3", "4"]
    assert rail.cat.ordered


def test_missing_values_stay_missing_and_text_none_stays_text():
    phenobarb = datasets.load_dataset("Phenobarb")
    assert phenobarb["conc"].isna().sum() == 589
    assert (datasets.load_dataset("Alfalfa")["Date"] == "None").sum() == 18


def test_columns_computed_in_r_come_back_to_the_last_bit():
    frame = datasets.load_dataset("Hsb82")
    assert frame["cses"].iloc[0].hex() == (-1.0936170212765957).hex()
    assert frame["meanses"].iloc[0].hex() == (-0.43438297872340426).hex()


def test_unknown_name_lists_near_matches():
    with pytest.raises(DataError, match=r"'Sleepstudi'.*sleepstudy"):
        datasets.load_dataset("Sleepstudi")
    with pytest.raises(DataError, match=r"dataset_names\(\)"):
        datasets.load_dataset("qqqqqq")


def test_missing_file_is_named(copied):
    (copied / "sleepstudy.csv").unlink()
    with pytest.raises(DataError, match=r"'sleepstudy': cannot read .*sleepstudy.csv"):
        datasets.load_dataset("sleepstudy")


def test_altered_file_is_refused(copied):
    with (copied / "sleepstudy.csv").open("a") as file:
        file.write("1,1,308\n")
    with pytest.raises(DataError, match="checksum"):
        datasets.load_dataset("sleepstudy")


@pytest.mark.parametrize("content", ["{", "[]", '{"schema": "other/9"}'])
def test_unreadable_manifest_is_one_clear_error(copied, content):
    (copied / "MANIFEST.json").write_text(content)
    with pytest.raises(DataError, match="not a manifest of mmparity-data/1"):
        datasets.load_dataset("sleepstudy")


def test_source_and_licence_are_told():
    assert datasets.dataset_source("Exam") == {"source": "mlmRev::Exam 1.0-8", "licence": "GPL (>= 2)"}
