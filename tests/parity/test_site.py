"""The published site: complete, escaped, self-contained, and right in a real browser."""

import csv
import io
import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from parity.bench.against import Entry, Point
from parity.bench.history import Measurement, append
from parity.bench.measured import Conditions, Fits, Table
from parity.bench.timing import Ratio
from parity.commands.main import main
from parity.compare.run import run
from parity.engines.remembered import Remembered
from parity.publish.site import agreement, pages, speed
from parity.schema.case import Case
from parity.schema.known import Known
from parity.schema.results import Value, scalar
from tests.parity.browser import Browser, chromedriver

EVIL = '<script>alert("x")</script>'
CONDITIONS = Conditions(
    "2026-01-01T00:00:00Z",
    "m",
    f"cpu {EVIL}",
    2,
    (0.5, 4.0),
    "abc",
    {"python": "3.11", "blas": EVIL},
    "R 4.2.2",
    5,
)


def _entry(engine, seconds, digits, **more):
    return Entry(
        "sleepstudy", "tiny", engine, 180, 6.0, seconds, Ratio(seconds / 0.002, 1.0, 99.0, seconds, 0.002, 5), 8,
        1743.6, 0.0, 12.0, digits, "certified", **more,
    )  # fmt: skip


@pytest.fixture
def fits():
    entries = (
        _entry("mmcore", 0.002, 12.0), _entry("lme4", 0.03, 4.8), _entry("statsmodels", 0.2, 3.0),
        Entry("sleepstudy", "tiny", EVIL, 180, 6.0, message=f"refused {EVIL}"),
    )  # fmt: skip
    curves = tuple(
        Point("n", n, engine, scale * n, 8)
        for engine, scale in (("mmcore", 1e-6), ("lme4", 2e-5))
        for n in (1000, 4000, 16000)
    )
    return Fits(CONDITIONS, entries, curves)


@pytest.fixture
def reports(fake, change):
    """Two engines: one agrees, one differs; names and messages full of markup."""

    def wrong(results):
        label = f"g|{EVIL}|(Intercept)"
        return change.values(results, ranef=Value((label, "|", "`"), [1.0, np.nan, 2.0]), sigma=scalar(99.0))

    cases = [
        Case(name=name, data="Rail", formula=f"travel ~ 1 + (1 | `{EVIL}`)", note=EVIL)
        for name in ("a_one", "b_two")
    ]
    reference = Remembered(fake("theirs"))
    good = run(cases, fake("ours"), [reference], notes=[f"aloud {EVIL}"])
    return good, run(cases, fake(f"others{EVIL}", wrong), [reference])


@pytest.fixture
def content(reports, fits, tmp_path):
    history = tmp_path / "history.csv"
    rows = [
        Measurement(
            f"2026-01-0{i}T00:00:00Z",
            "m",
            f"c{i}{EVIL}",
            "3.11",
            "2.4",
            "R",
            "p",
            "fit",
            EVIL,
            s,
            3.0,
            8,
            1.0,
        )
        for i, s in enumerate((0.01, 0.01, 0.0101, 0.02, 0.0201, 0.0199), start=1)
    ]
    append(history, rows)
    known = Known(
        case="a_*",
        quantity="sigma",
        reason=f"R is wrong {EVIL}",
        evidence=f"shown by {EVIL}",
        verdict="reference_wrong",
    )
    table = Table(f"Title {EVIL}", f"note {EVIL}", ("a", EVIL), (("x", 1.5), (EVIL, None)), CONDITIONS)
    return pages.Content(
        reports,
        fits,
        (("other", table),),
        history,
        (known,),
        ((f"engine {EVIL}", f"gone {EVIL}"),),
        {"what": EVIL},
    )


class _Page(HTMLParser):
    """Tags with their attributes, ids, text; and whether what is opened is closed."""

    void = ("meta", "br", "link", "rect", "path")

    def __init__(self, text):
        super().__init__()
        self.tags, self.stack, self.text = [], [], []
        self.feed(text)
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.void:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in self.void:
            assert self.stack.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_everything_is_escaped_and_the_only_script_is_ours(content):
    text = pages.index(content)
    page = _Page(text)
    assert EVIL not in text.replace("&lt;", "<<")
    assert text.count("<script>") == 1
    assert "".join(page.text).count(EVIL) > 20
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    for name, other in pages.files(content).items():
        assert name == "index.html" or not name.endswith(".html") or "<script" not in other


def test_the_index_needs_nothing_from_elsewhere(content):
    text = pages.index(content)
    page = _Page(text)
    links = {a["href"] for tag, a in page.tags if tag == "a"}
    files = set(pages.files(content))
    ids = {a["id"] for _, a in page.tags if "id" in a}
    for link in links:
        assert link[1:] in ids if link.startswith("#") else link in files, link
    assert not re.search(r"@import|url\(|https?://", text)
    assert {a.get("src") for _, a in page.tags} == {None}
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy and "'unsafe-inline'" not in policy.split("script-src")[1]


def test_the_index_is_accessible_in_structure(content):
    page = _Page(pages.index(content))
    tags = [tag for tag, _ in page.tags]
    assert ("html", {"lang": "en"}) in page.tags
    assert tags.count("h1") == 1 and {"header", "nav", "main"} <= set(tags)
    assert tags.count("table") == tags.count("caption") > 8
    assert all("scope" in a for tag, a in page.tags if tag == "th")
    pictures = [a for tag, a in page.tags if tag == "svg" and a.get("role") == "img"]
    assert len(pictures) > 5 and all(len(a["aria-label"]) > 15 for a in pictures)
    hidden = [a for tag, a in page.tags if tag == "svg" and a.get("role") != "img"]
    assert all(a.get("aria-hidden") == "true" for a in hidden)
    levels = [int(tag[1]) for tag in tags if re.fullmatch(r"h[1-6]", tag)]
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels)), levels


def test_colours_have_contrast_in_both_schemes():
    folder = Path(pages.__file__).parent
    styles = (folder.parent / "report" / "style.css").read_text(), (folder / "site.css").read_text()
    for scheme in (0, 1):
        colours = {}
        for style in styles:
            parts = re.findall(r":root\s*{([^}]*)}", style)
            colours |= dict(re.findall(r"--([a-z0-9-]+):\s*(#[0-9a-f]{6})", parts[scheme]))
        for text in ("ink", "soft", "good", "bad", "unsure", "link"):
            for ground in ("paper", "panel"):
                assert _contrast(colours[text], colours[ground]) >= 4.5, (scheme, text, ground)
        for ground in ("none", "d0", "d1", "d2", "d3", "d4", "d5", "fail", "broken"):
            assert _contrast(colours["cell-ink"], colours[ground]) >= 4.5, (scheme, ground)
        for line in range(8):
            assert _contrast(colours[f"s{line}"], colours["panel"]) >= 3.0, (scheme, line)


def _contrast(a, b):
    """The contrast ratio of two colours, as WCAG 2 defines it."""
    lights = []
    for colour in (a, b):
        channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        lights.append(float(linear @ [0.2126, 0.7152, 0.0722]))
    return (max(lights) + 0.05) / (min(lights) + 0.05)


def test_contrast_is_computed_as_defined():
    assert _contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert _contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_engines_side_by_side_count_as_their_reports_do(reports):
    good, bad = agreement.side_by_side(reports)
    assert (good.state, bad.state) == ("agree", "differ")
    assert good.agree == good.judged == sum(row.outcome == "pass" for row in reports[0].rows)
    assert bad.judged - bad.agree == sum(row.outcome == "fail" for row in reports[1].rows) > 0
    assert good.cases == 2
    assert re.fullmatch(r"engine-[A-Za-z0-9._-]+\.html", bad.page)


def test_names_of_pages_stay_in_their_folder():
    assert agreement.page_name("../../etc") == "engine--..-etc.html"
    assert agreement.page_name("") == "engine-unnamed.html"


def test_worst_cases_come_with_a_command_that_can_be_pasted(reports):
    import shlex

    rows = agreement.worst(reports[1])
    assert rows and all(shlex.split(row.command)[:2] == ["parity", "run"] for row in rows)
    words = shlex.split(rows[0].command)
    assert words[words.index("--engine") + 1] == f"others{EVIL}"
    near = agreement.worst(reports[0])
    assert near and all(row.verdict == "agree" for row in near)


def test_where_r_is_wrong_is_told_with_evidence(content):
    found = agreement.faults(content.reports, content.known)
    assert found[0].verdict == "reference_wrong" and "shown by" in found[0].evidence
    assert "shown by" in pages.index(content)


def test_a_better_optimum_is_a_fault_of_the_reference(fake):
    case = Case(name="a_case", data="Rail", formula="travel ~ 1 + (1 | Rail)")
    report = run([case], fake("ours"), [fake("theirs", own_shift=0.0)])
    assert agreement.faults([report], []) == []


def test_frontier(fits):
    shown = [e for e in fits.entries if e.seconds is not None]
    assert [speed.on_frontier(e, shown) for e in shown] == [True, False, False]
    accurate = _entry("slow", 1.0, 15.0)
    assert speed.on_frontier(accurate, [*shown, accurate])


def test_no_time_is_drawn_for_a_wrong_answer(fits):
    (picture,) = speed.pareto(fits)
    assert [row[0] for row in picture.rows] == ["mmcore", "lme4", "statsmodels"]


def test_scaling_tells_the_fitted_exponent(fits):
    (picture,) = speed.scaling(fits)
    assert "mmcore: seconds grow as rows to the power of 1.00" in picture.caption
    assert picture.rows[0] == ("1,000", "0.001", "0.02")


def test_the_step_of_a_history_is_told(content):
    (picture,) = speed.trends(content.history)
    assert "a step of 1.9" in picture.caption or "a step of 2.0" in picture.caption
    assert "stroke-dasharray" not in picture.svg and 'class="mark"' in picture.svg


def test_rows_are_complete_and_harmless_in_a_spreadsheet(content):
    rows = list(csv.DictReader(io.StringIO(pages.rows_csv(content.reports))))
    assert len(rows) == sum(len(report.rows) for report in content.reports)
    assert pages._cell("=1+1") == "'=1+1"
    assert pages._cell(0.1) == "0.1" and pages._cell(-0.25) == "-0.25" and pages._cell(None) == ""


def test_badge_is_in_the_format_of_its_reader(content):
    found = json.loads(pages.files(content)["badge.json"])
    assert found["schemaVersion"] == 1 and found["color"] == "brightgreen"


def test_a_reference_is_asked_once_for_several_engines(fake, case):
    reference = fake("theirs")
    remembered = Remembered(reference)
    first = run([case], fake("one"), [remembered])
    asked = len(reference.asked)
    second = run([case], fake("two"), [remembered])
    assert len(reference.asked) == asked
    assert [row.verdict for row in first.rows] == [row.verdict for row in second.rows]


def test_a_site_without_any_figures_says_so(reports):
    text = pages.index(pages.Content(reports))
    assert "No times were measured" in text
    assert "Nothing is listed" in text


def test_the_command_writes_a_site_and_its_exit_code_is_that_of_the_first_engine(tmp_path):
    words = ["report", str(tmp_path / "site"), "rail_reml", "--engine", "mmcore", "--reference", "recorded"]
    done = CliRunner().invoke(main, [*words, "--measured", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert {"index.html", "engine-mmcore.html", "engine-mmcore.json", "rows.csv", "badge.json"} == {
        path.name for path in (tmp_path / "site").iterdir()
    }


def test_an_engine_that_is_asked_for_must_be_there(tmp_path):
    done = CliRunner().invoke(main, ["report", str(tmp_path / "site"), "rail_reml", "--engine", "nothing"])
    assert done.exit_code == 2 and "no engine is named 'nothing'" in done.output


def test_a_report_on_speed_needs_figures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["bench", "report", "out"])
    assert done.exit_code == 3 and "hold no figures" in done.output


# --- in a real browser ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def driver():
    if chromedriver() is None:
        pytest.skip("no Chromium with chromedriver here: the pages were not looked at in a browser")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_in_a_browser_nothing_fails_and_nothing_sticks_out(driver, content, tmp_path, dark):
    pages.write(content, tmp_path / "site")
    with Browser(360, 740, dark) as browser:
        for path in sorted((tmp_path / "site").glob("*.html")):
            browser.open(path)
            assert browser.messages() == [], path.name
            assert browser.run("return document.documentElement.scrollWidth <= innerWidth"), path.name
            sizes = browser.run(
                "return [...document.querySelectorAll('svg[role=img]')].filter(s => s.checkVisibility())"
                ".map(s => s.getBoundingClientRect()).map(r => Math.min(r.width, r.height))"
            )
            assert sizes and min(sizes) > 30, path.name
            ground = browser.run("return getComputedStyle(document.body).backgroundColor")
            assert ground == ("rgb(15, 20, 25)" if dark else "rgb(255, 255, 255)")


def test_in_a_browser_tables_sort_and_markup_stays_text(driver, content, tmp_path):
    pages.write(content, tmp_path)
    with Browser(1200, 900) as browser:
        browser.open(tmp_path / "index.html")
        assert browser.run("return document.querySelectorAll('script').length") == 1
        column = "[...document.querySelectorAll('#speed ~ .scroll table')][0]"
        browser.run(f"{column}.tHead.rows[0].cells[3].firstChild.click()")
        shown = browser.run(f"return [...{column}.tBodies[0].rows].map(r => r.cells[3].textContent)")
        assert shown == ["2", "30", "200", ""]
        browser.run(f"{column}.tHead.rows[0].cells[3].firstChild.click()")
        assert browser.run(f"return [...{column}.tBodies[0].rows].map(r => r.cells[3].textContent)") == [
            "200", "30", "2", "",
        ]  # fmt: skip
        assert (
            browser.run(f"return {column}.tHead.rows[0].cells[3].getAttribute('aria-sort')") == "descending"
        )
