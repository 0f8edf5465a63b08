"""Links of the pages lead somewhere, also those to a heading, and no page is out of reach."""

import re

import pytest
from places import ROOT

from bixt3d.io import FORMATS
from bixt3d.io.finding import CONVERTERS

PAGES = sorted(
    p for place in (".", "docs", "data", "weights", "tests/golden") for p in (ROOT / place).glob("*.md")
)
FENCE = re.compile(r"^(```|~~~).*?^\1[ ]*$", re.DOTALL | re.MULTILINE)


def headings(path):
    """Anchors of a page as code hosts make them: lower case, no punctuation, a hyphen for each space."""
    anchors = []
    for title in re.findall(r"^#+ +(.*)$", FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).replace("`", "")
        anchor = re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")
        times = anchors.count(anchor)
        anchors.append(f"{anchor}-{times}" if times else anchor)
    return anchors


def links(path):
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", path.read_text(encoding="utf-8")))
    return [t for t in re.findall(r"\]\(\s*([^)\s]+)\s*\)", text) if not re.match(r"[a-z]+:", t)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in links(page):
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), link
        assert path.is_relative_to(ROOT), link
        if anchor:
            assert anchor in headings(path), link


def test_anchors_are_made_as_on_a_code_host(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A `b_c`: d, e's\n```\n# no heading\n```\n## [x](y.md) 1,024\n## X 1,024\n")
    assert headings(page) == ["a-b_c-d-es", "x-1024", "x-1024-1"]
    page.write_text("[a](b.md) `[c](d.md)` [e\nf](g.md#h) <https://i> [j](https://k) ![l](m.png)\n")
    assert links(page) == ["b.md", "g.md#h", "m.png"]


def test_every_page_is_named_by_another():
    named = {(page.parent / link.partition("#")[0]).resolve() for page in PAGES for link in links(page)}
    for page in (ROOT / "docs").glob("*.md"):
        assert page in named


@pytest.mark.parametrize(
    ("page", "lists"),
    [
        ("README.md", [FORMATS]),
        ("data/README.md", [FORMATS]),
        ("docs/prediction.md", [FORMATS, CONVERTERS]),
    ],
)
def test_pages_list_the_formats_that_are_read_and_those_that_are_not(page, lists):
    text = (ROOT / page).read_text(encoding="utf-8")
    found = [match.split() for match in re.findall(r"\.[a-z0-9]+(?: \.[a-z0-9]+){4,}", text)]
    assert [sorted(names) for names in found] == [sorted(names) for names in lists]
