from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping
from functools import cache
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from raysae.interpret import ReportContent, SelectionSummary, render_report
from raysae.interpret.report import LIMITS
from tests.interpret.demo import demo_content
from tests.interpret.test_images import encoded

HOSTILE = """<script>alert("1")</script>'><img src=x onerror=alert(2)>{{ 7*7 }}</style>\ud800"""
ALLOWED_TAGS = set(
    re.findall(
        r"\w+",
        "html head meta title style body a div nav p ol ul li main section h1 h2 h3 h4 strong dl "
        "dt dd code span figure figcaption svg line rect path circle text table caption thead "
        "tbody tr th td article header footer img details summary mark",
    )
)


class Page(HTMLParser):
    """Collects what the tests ask about: tags, attributes, headings, ids, links."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.headings: list[int] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if re.fullmatch(r"h\d", tag):
            self.headings.append(int(tag[1]))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def values(self, attribute: str) -> list[str]:
        return [value for _, name, value in self.attributes if name == attribute]


def hostile(value):
    """Put markup in front of every text of a content, at any depth."""
    if isinstance(value, str):
        return HOSTILE + value
    if isinstance(value, Mapping):
        return {HOSTILE + str(key): hostile(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(hostile(item) for item in value)
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return dataclasses.replace(
            value, **{item.name: hostile(getattr(value, item.name)) for item in fields}
        )
    return value


@pytest.fixture(scope="module")
def content() -> ReportContent:
    return demo_content()


@pytest.fixture(scope="module")
def html() -> str:
    return rendered("demo")


def empty_content() -> ReportContent:
    return ReportContent(
        corpus="c",
        selection=SelectionSummary("random", "highest", 0, 0, 0, float("nan"), "fraction 0.5"),
        stages=(),
        artifacts=(),
        settings={},
        packages={},
        rejections=(),
        scorers=(),
        best=(),
        worst=(),
        features=(),
    )


@cache
def rendered(kind: str) -> str:
    """Render each of the contents once for all tests."""
    contents = {
        "demo": demo_content,
        "hostile": lambda: hostile(demo_content()),
        "empty": empty_content,
    }
    return render_report(contents[kind]())


def test_same_content_same_page(content, html):
    assert render_report(content) == html


def test_page_shows_the_numbers(html):
    page = " ".join(Page(html).text)
    for expected in (
        "Kept 800 of 1,600 rows of builtin-noisy by cosine-cooccurring",
        "cannot tell",
        "65,536",
        "truncated-image",
        "36,000 × 36,000 pixels",
        "saes/000000000000000000000001",
        "weights.n_samples",
        "swapped-image",
        "image cannot be shown",
        "no image",
    ):
        assert expected in page


@pytest.mark.parametrize("kind", ["demo", "hostile", "empty"])
def test_page_is_inert_and_self_contained(kind):
    page = Page(rendered(kind))
    assert page.tags <= ALLOWED_TAGS
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.values("src"))
    assert all(link.startswith("#") for link in page.values("href"))
    assert not [
        name for _, name, _ in page.attributes if name in {"srcset", "action", "xlink:href"}
    ]
    policy = next(value for value in page.values("content") if "default-src" in value)
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")


def test_styles_load_nothing(html):
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_hostile_texts_are_shown_as_they_are():
    html = rendered("hostile")
    assert "<script" not in html
    assert "{{ 7*7 }}" in html
    shown = "".join(Page(html).text)
    assert '<script>alert("1")</script>' in shown
    html.encode("utf-8")


@pytest.mark.parametrize("kind", ["demo", "empty"])
def test_headings_are_in_order(kind):
    headings = Page(rendered(kind)).headings
    assert headings[0] == 1
    assert headings.count(1) == 1
    steps = itertools.pairwise(headings)
    assert all(after <= before + 1 for before, after in steps)


@pytest.mark.parametrize("kind", ["demo", "empty"])
def test_links_lead_somewhere_and_ids_are_unique(kind):
    page = Page(rendered(kind))
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in page.values("href")} <= set(ids)
    assert set(page.values("aria-labelledby")) <= set(ids)


def test_features_without_a_card_are_no_links(content):
    page = Page(render_report(dataclasses.replace(content, features=content.features[:1])))
    links = {link for link in page.values("href") if link.startswith("#feature-")}
    assert links == {"#feature-1000"}


@pytest.mark.parametrize(
    ("patches", "row_ends", "expected"),
    [
        (5, 0, None),
        (3, 2, "2 of its 5 strongest image tokens are"),
        (0, 1, "Its 1 strongest image token is"),
        (0, 5, "Its 5 strongest image tokens are"),
    ],
)
def test_a_feature_says_why_it_shows_no_patch(content, patches, row_ends, expected):
    feature = content.features[0]
    feature = dataclasses.replace(feature, patches=feature.patches[:patches], row_ends=row_ends)
    page = Page(render_report(dataclasses.replace(content, features=(feature,))))
    text = " ".join("".join(page.text).split())
    assert ("at the end of a row of patches" in text) == (expected is not None)
    assert expected is None or expected in text


def test_page_can_be_read_without_seeing(html):
    page = Page(html)
    assert ("html", "lang", "en") in page.attributes
    images = [value for tag, name, value in page.attributes if (tag, name) == ("img", "alt")]
    assert len(images) == len(page.values("src"))
    assert all(images)
    charts = html.count('<svg viewBox="0 0 360 230"')
    assert charts == 10 == len(re.findall(r'role="img" aria-label="[^"]+ [^"]+"', html))


def test_every_chart_has_axis_labels_and_a_caption(html):
    for figure in re.findall(r"<figure.*?</figure>", html, re.DOTALL):
        assert len(re.findall(r'<text x="(?:199|12)" [^>]*>[^<]+</text>', figure)) == 2
        assert re.search(r"</span>[A-Z][^<]{30,}</figcaption>", figure)


def test_lists_are_bounded_and_say_so(content):
    many = dataclasses.replace(
        content, features=content.features * 3, best=content.best * 2, worst=()
    )
    html = render_report(many)
    assert html.count('id="feature-') == LIMITS["features"]
    assert f"{LIMITS['features']} of 60 features" in html
    assert "Shown are 12 of 24." in html


def test_page_of_noise_stays_small(content):
    noise = np.random.default_rng(0).integers(0, 255, (400, 400, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), "JPEG")
    text = "&é" * 5000
    sample = dataclasses.replace(
        content.best[0], image=data, question=text, chosen=text, rejected=text
    )
    patch = dataclasses.replace(content.features[0].patches[0], image=data)
    token = dataclasses.replace(content.features[0].tokens[0], before=text, after=text)
    feature = dataclasses.replace(content.features[0], patches=(patch,) * 9, tokens=(token,) * 9)
    worst_case = dataclasses.replace(
        content, best=(sample,) * 12, worst=(sample,) * 12, features=(feature,) * 60
    )
    assert len(render_report(worst_case).encode()) < 5_000_000


def luminance(colour: str) -> float:
    parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1])
def test_colours_can_be_told_apart(html, theme):
    block = re.findall(r":root \{(.*?)\}", html, re.DOTALL)[theme]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
    for ground in ("page", "card", "tint"):
        for ink in ("ink", "soft", "accent", "warn"):
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
        assert contrast(colours["rest"], colours[ground]) >= 2.95, ground
    assert contrast(colours["mark-ink"], colours["mark"]) >= 4.5
