"""Reports: complete, escaped, self-contained, and within the size that their readers allow."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from parity.compare.run import REPORT_SCHEMA, run
from parity.compare.words import exact
from parity.publish.report import ReportError, write
from parity.publish.report.machine import to_json, to_junit
from parity.publish.report.markdown import to_markdown
from parity.publish.report.page import to_html
from parity.publish.report.text import failure_text
from parity.schema.case import Case
from parity.schema.results import Results, Value, scalar

EVIL = '<script>alert("x")</script>'


@pytest.fixture
def report(fake, change):
    """One case that agrees, one that differs, one whose reference died; names and messages full of markup."""

    def wrong(results):
        if ours.asked[-1][0] != "b_differs":
            return results
        label = f"g|{EVIL}|(Intercept)"
        return change.values(results, ranef=Value((label, "|", "`"), [1.0, np.nan, 2.0]), sigma=scalar(99.0))

    def theirs(results):
        if reference.asked[-1][0] == "c_dies":
            return Results("theirs", "1", "crashed", f"{EVIL} \x00\x1b[0m & gone")
        return results

    ours, reference = fake(f"ours{EVIL}", wrong), fake("theirs", theirs)
    cases = [
        Case(
            name=name,
            data="Rail",
            formula=f"travel ~ 1 + (1 | `{EVIL}`)",
            note=f"a note {EVIL}",
            weights=EVIL,
        )
        for name in ("a_agrees", "b_differs", "c_dies")
    ]
    return run(cases, ours, [reference], notes=[f"said aloud {EVIL}"])


class _Page(HTMLParser):
    """Collects tags, attributes and text of a page."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.open, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in _VOID:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text.append(data)


_VOID = ("meta", "br", "rect")


@pytest.fixture
def page(report):
    parser = _Page()
    parser.feed(to_html(report))
    assert parser.open == []
    return parser


def test_page_escapes_every_name_and_message(report, page):
    html = to_html(report)
    assert "<script" not in html
    assert html.count("&lt;script&gt;") > 10
    assert EVIL in "".join(page.text)
    assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_page_needs_nothing_from_elsewhere(report, page):
    html = to_html(report)
    assert {"script", "link", "img", "iframe", "object"}.isdisjoint(page.tags)
    assert not [value for name, value in page.attributes if name in ("src", "href", "xlink:href", "action")]
    assert not re.search(r"@import|url\(|https?://", html)
    assert "default-src 'none'" in html


def test_page_is_for_both_schemes_and_narrow_screens(report, page):
    html = to_html(report)
    assert "prefers-color-scheme: dark" in html
    assert ("content", "width=device-width, initial-scale=1") in page.attributes
    assert ("lang", "en") in page.attributes
    assert all(any(name == "aria-label" for name, _ in attributes) for attributes in _maps(html))


def _maps(html):
    return [re.findall(r'([a-z-]+)="([^"]*)"', tag) for tag in re.findall(r'<svg[^>]*role="img"[^>]*>', html)]


def test_heat_map_has_a_square_for_each_case_and_quantity(report):
    from parity.publish.report.page import panels
    from parity.schema.quantities import REGISTRY

    cells = {cell.title.split(":")[0]: cell for panel in panels(report) for cell in panel.cells}
    compared = {row.quantity for row in report.rows} & set(REGISTRY)
    assert len(compared) > 80
    assert len(cells) == len(compared) * 3
    assert cells["a_agrees, fixef"].style == "d5" and cells["a_agrees, fixef"].text == "15"
    assert cells["b_differs, sigma"].style == "fail"
    assert cells["c_dies, sigma"].style == "broken"
    assert "at_theta against theirs: disagree" in cells["b_differs, sigma"].title


def test_times_are_shown_only_where_the_answer_was_right(report):
    content = json.loads(to_json(report))
    seconds = {case["name"]: case["seconds"] for case in content["cases"]}
    assert seconds["a_agrees"] == {"engine": 0.01, "reference": 0.01}
    assert seconds["b_differs"] is None and seconds["c_dies"] is None


def test_json_has_a_schema_and_numbers_that_read_back(report):
    text = to_json(report)
    content = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert content["schema"] == REPORT_SCHEMA
    assert len(content["rows"]) == len(report.rows)
    row = next(r for r in content["rows"] if r["quantity"] == "sigma" and r["case"] == "b_differs")
    assert (row["verdict"], row["outcome"], row["got"], row["measure"]) == (
        "disagree",
        "fail",
        99.0,
        "relative",
    )
    assert (
        next(r for r in content["rows"] if r["quantity"] == "ranef" and r["case"] == "b_differs")["error"]
        == "Inf"
    )


def test_junit_counts_and_survives_control_characters(report):
    root = ElementTree.fromstring(to_junit(report))
    suites = {suite.get("name"): suite for suite in root}
    assert suites["a_agrees"].get("failures") == "0"
    assert int(suites["b_differs"].get("failures")) == len(suites["b_differs"].findall(".//failure")) > 0
    assert suites["c_dies"].get("errors") == "2"
    assert "gone" in suites["c_dies"].find(".//error").get("message")
    failure = suites["b_differs"].find(".//testcase[@name='sigma']/failure")
    assert "reference$quantities$sigma(m)" in failure.text


def test_markdown_puts_failures_first_and_cannot_be_broken_by_names(report):
    text = to_markdown(report)
    assert "<script" not in text.replace("```text", "```").split("```")[0]
    assert (
        text.index("## Differences")
        < text.index("## Comparisons that could not be made")
        < text.index("## Cases")
    )
    rows = [line for line in text.splitlines() if line.startswith("| b_differs") and "disagree" in line]
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in rows}
    assert widths == {9}


@pytest.mark.parametrize("limit", [200_000, 5_000, 700])
def test_markdown_is_never_longer_than_allowed(report, limit):
    bad = [row for row in report.rows if row.outcome == "fail"]
    many = replace(report, rows=(*report.rows, *bad * 1000))
    text = to_markdown(many, limit)
    assert len(text.encode()) <= limit
    assert "cut to the size" in text
    assert text.count("```") % 2 == 0


def test_failure_text_has_all_that_is_needed(report):
    row = next(r for r in report.rows if r.quantity == "sigma" and r.case == "b_differs")
    text = failure_text(report, row)
    for part in (
        row.case_id, "sigma: residual standard deviation", "99", exact(row.want), "relative",
        "1e-10", row.why,
        "deviance", 'data("Rail", package = "nlme")', "theta <- c(0.8", "mkMerMod",
        "reference$quantities$sigma(m)",
    ):  # fmt: skip
        assert part in text, part


def test_numbers_are_told_at_17_digits():
    assert exact(0.1 + 0.2) == "0.30000000000000004"
    assert float(exact(1 / 3)) == 1 / 3
    assert exact(None) == "none"


def test_snippet_of_a_weighted_subset_is_the_model(fake, change):
    case = Case(
        name="w", data="Orthodont", formula="distance ~ age + (1 | Subject)", weights="w", offset="o",
        reml=False, contrasts={"Sex": "contr.sum"}, columns={"w": (1.0, 0.1), "o": (2.0,)}, rows=(0, 50, 2),
    )  # fmt: skip
    report = run(
        [case], fake("ours", lambda r: change.values(r, leverage_fixef=scalar(1.0))), [fake("theirs")]
    )
    row = next(r for r in report.rows if r.quantity == "leverage_fixef")
    text = failure_text(report, row)
    for part in (
        'd[["w"]] <- rep_len(c(1, 0.10000000000000001), nrow(d))',
        "d <- d[seq(1, min(50, nrow(d)), by = 2), ]",
        "REML = FALSE, weights = w, offset = o, contrasts = list(Sex = \"contr.sum\")",
        "reference$first_principles$leverage_fixef(reference$first_principles$.workspace(m))",
    ):  # fmt: skip
        assert part in text, part


def test_one_file_that_cannot_be_written_leaves_the_others(report, tmp_path, monkeypatch):
    (tmp_path / "parity.xml").mkdir()
    with pytest.raises(ReportError, match=r"parity\.xml"):
        write(report, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"index.html", "parity.json", "parity.xml", "summary.md"}


def test_a_full_disk_is_told_and_leaves_no_half_file(report, tmp_path, monkeypatch):
    from pathlib import Path

    def full(self, text, encoding=None):
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(ReportError, match="No space left on device"):
        write(report, tmp_path)
    assert list(tmp_path.iterdir()) == []
