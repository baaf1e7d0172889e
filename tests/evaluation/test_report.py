"""The report is one valid, self-contained, escaped page with the right verdicts."""

import re
from base64 import b64decode
from html.parser import HTMLParser

import pytest
from PIL import Image

from evaluation.report import write_report


class Page(HTMLParser):
    """Collects the text of every table cell and heading, and checks that tags are closed."""

    def __init__(self, path):
        super().__init__()
        self.open, self.headings, self.rows, self.sources = [], [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        self.sources += [text for name, text in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["td"]:
            self.rows[-1].append(data)
        if self.open[-1:] in (["h1"], ["h2"]):
            self.headings.append(data)


def test_figures_are_grouped_and_judged(tmp_path):
    figures = {
        "tok.psnr": 28.1234,
        "prior.loss": 3,
        "tok.flicker": 0.00012,
        "note": "none",
        "x": 1.5,
    }
    targets = {"tok.psnr": 28.5, "prior.loss": 3.0, "x": 2}
    write_report(tmp_path / "r.html", "Run", figures, targets, lower_is_better=["prior.loss", "x"])
    page = Page(tmp_path / "r.html")
    assert page.headings == ["Run", "tok", "prior", "Figures"]
    assert [row for row in page.rows if row] == [
        ["psnr", "28.12", "\u2265 28.50", "\u2717 miss"],
        ["flicker", "0.00012"],
        ["loss", "3", "\u2264 3", "\u2713 pass"],
        ["note", "none"],
        ["x", "1.500", "\u2264 2", "\u2713 pass"],
    ]


def test_nan_never_passes(tmp_path):
    write_report(tmp_path / "r.html", "Run", {"loss": float("nan")}, {"loss": 1.0})
    assert "miss" in Page(tmp_path / "r.html").rows[1][-1]


def test_pictures_are_inside_the_page(tmp_path):
    Image.new("RGB", (3, 2), (10, 20, 30)).save(tmp_path / "a.png")
    write_report(tmp_path / "r.html", "Run", {}, None, [("A sheet", tmp_path / "a.png")])
    (source,) = Page(tmp_path / "r.html").sources
    head, _, data = source.partition(",")
    assert head == "data:image/png;base64"
    assert b64decode(data) == (tmp_path / "a.png").read_bytes()
    with pytest.raises(ValueError, match=r"a\.bmp is none of \.gif"):
        write_report(tmp_path / "r.html", "Run", {}, pictures=[("", tmp_path / "a.bmp")])


def test_strange_text_is_escaped(tmp_path):
    evil = '<script>alert("x")</script>'
    Image.new("RGB", (1, 1)).save(tmp_path / "a.png")
    pictures = [(evil, tmp_path / "a.png")]
    write_report(tmp_path / "r.html", evil, {evil: evil, "b.<i>": 1.0}, None, pictures, [evil])
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "<i>" not in text
    assert Page(tmp_path / "r.html").headings[0] == evil
    assert not re.search(r"https?://|@import", text)


def test_targets_without_a_figure_are_named(tmp_path):
    with pytest.raises(ValueError, match="'psnr' has a target, but figures has no such name"):
        write_report(tmp_path / "r.html", "Run", {"ssim": 0.9}, {"psnr": 30})
