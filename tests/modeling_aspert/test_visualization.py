"""The page as a document: offsets, escaping, colours, saving. How it looks and acts is tested in a real browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_aspert import visualization
from modeling_aspert.visualization import Page, character_record, visualize

FOLDER = Path(visualization.__file__).parent
HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "<!--<script>",
    "]]>&lt;&amp;{{ 7*7 }}{% raw %}",
    "a\u2028b\u2029c\x00d\ud800e\u202ef",
]


class Outline(HTMLParser):
    """The elements of a page and the text of each of them."""

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.texts.append("")

    def handle_data(self, data):
        if self.texts:
            self.texts[-1] += data

    def find(self, tag):
        return [
            (attributes, text)
            for (name, attributes), text in zip(self.elements, self.texts, strict=True)
            if name == tag
        ]


def embedded(page: Page) -> dict:
    scripts = Outline(page.html).find("script")
    return json.loads(next(text for attributes, text in scripts if attributes.get("id") == "data"))


def hostile_record(text: str) -> dict:
    entity = {"type": text, "start": 0, "end": len(text), "score": 0.5}
    relation = {"type": text, "head": 0, "tail": 0, "score": 0.5}
    return {"id": text, "text": text, "entities": [entity], "relations": [relation]}


def test_words_become_characters():
    record = {
        "tokens": ["Ann", "lives", "in", "New", "York", "."],
        "entities": [{"type": "Peop", "start": 0, "end": 1}, {"type": "Loc", "start": 3, "end": 5, "score": 0.25}],
        "relations": [{"type": "Live_In", "head": 0, "tail": 1}],
        "orig_id": 7,
    }
    assert character_record(record, "record 0") == {
        "id": "7",
        "text": "Ann lives in New York .",
        "entities": [
            {"type": "Peop", "start": 0, "end": 3, "score": None},
            {"type": "Loc", "start": 13, "end": 21, "score": 0.25},
        ],
        "relations": [{"type": "Live_In", "head": 0, "tail": 1, "score": None}],
    }


@settings(deadline=None)
@given(st.lists(st.text(min_size=1), min_size=1), st.data())
def test_words_become_the_right_characters(tokens, data):
    start = data.draw(st.integers(0, len(tokens) - 1))
    end = data.draw(st.integers(start + 1, len(tokens)))
    record = {"tokens": tokens, "entities": [{"type": "A", "start": start, "end": end}], "relations": []}
    converted = character_record(record, "")
    (entity,) = converted["entities"]
    assert converted["text"][entity["start"] : entity["end"]] == " ".join(tokens[start:end])


@settings(deadline=None, max_examples=50)
@given(st.text(min_size=1), st.data())
def test_offsets_in_the_page_count_as_javascript_does(text, data):
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    page = visualize({"text": text, "entities": [{"type": "A", "start": start, "end": end}], "relations": []})
    (sentence,) = embedded(page)["sentences"]
    units = sentence["text"].encode("utf-16-le", "surrogatepass")
    (entity,) = sentence["entities"]
    covered = units[2 * entity["start"] : 2 * entity["end"]]
    assert covered == text[start:end].encode("utf-16-le", "surrogatepass")


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text):
    page = visualize(hostile_record(text), title=text)
    plain = visualize(hostile_record("plain"), title="plain")
    # The same elements as for a harmless text, and the text back unchanged from the JSON.
    tags = [tag for tag, _ in Outline(page.html).elements]
    assert tags == [tag for tag, _ in Outline(plain.html).elements]
    sentence = embedded(page)["sentences"][0]
    assert sentence["text"] == sentence["id"] == sentence["entities"][0]["type"] == text
    data = page.html.split('id="data">')[1].split("</script>")[0]
    assert data.isascii()
    assert not set("<>&") & set(data)


def test_nothing_is_loaded_and_only_the_own_script_and_style_run():
    page = visualize(hostile_record("text"))
    outline = Outline(page.html)
    assert not {tag for tag, _ in outline.elements} & {"link", "img", "iframe", "object", "embed", "base"}
    assert not any(name in attributes for _, attributes in outline.elements for name in ("src", "href", "style"))
    assert set(re.findall(r"https?://[^\s\"']+", page.html)) == {"http://www.w3.org/2000/svg"}
    policy = next(a["content"] for a, _ in outline.find("meta") if "http-equiv" in a)
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        (source,) = re.findall(f"<{tag}>(.*?)</{tag}>", page.html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"entities": []}, "record 0 has neither `text` nor `tokens`"),
        ({"text": 3}, "record 0: text is 3, not a string"),
        ({"tokens": "words"}, "record 0: tokens is not a list of strings"),
        ({"tokens": None}, "record 0: tokens is not a list of strings"),
        ({"tokens": ["a", None]}, "record 0: tokens is not a list of strings"),
        ({"text": "ab", "entities": 5}, "record 0: entities is 5, not a list"),
        ({"tokens": ["a"], "relations": True}, "record 0: relations is True, not a list"),
        (
            {"text": "ab", "entities": [{"type": "A", "start": 0, "end": 3}]},
            "entity 0: 0–3 is no span .* 2 characters",
        ),
        ({"tokens": ["a"], "entities": [{"type": "A", "start": 0, "end": 2}]}, "entity 0: 0–2 is no span .* 1 words"),
        ({"tokens": [""], "entities": [{"type": "A", "start": 0, "end": 1}]}, "words 0–1 are empty strings"),
        ({"text": "ab", "entities": [{"type": "A", "start": 1, "end": 1}]}, "1–1 is no span"),
        ({"text": "ab", "entities": [{"type": 1, "start": 0, "end": 1}]}, "type is 1, not a string"),
        ({"text": "ab", "entities": [{"type": "A", "start": 0.0, "end": 1}]}, "start is 0.0, not an integer"),
        ({"text": "ab", "entities": [{"type": "A", "start": 0, "end": 1, "score": float("nan")}]}, "score is nan"),
        ({"text": "ab", "entities": ["A"]}, "entity 0: start is None"),
        ({"text": "ab", "relations": [{"type": "R", "head": 0, "tail": 0}]}, "head 0 is not one of the 0 entities"),
    ],
)
def test_malformed_record(record, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        visualize([record], tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


def test_numpy_numbers_are_numbers():
    entity = {"type": "A", "start": np.int64(0), "end": np.int32(1), "score": np.float32(0.5)}
    assert embedded(visualize({"text": "ab", "entities": [entity]}))["sentences"][0]["entities"][0]["score"] == 0.5


def test_save_is_whole_or_nothing(tmp_path):
    path = tmp_path / "new" / "page.html"
    page = visualize([], path, title="a\ud800b")
    assert path.read_text(encoding="utf-8").count("a&#55296;b") == 2
    assert page.save(path) == path
    assert [file.name for file in path.parent.iterdir()] == ["page.html"]
    with pytest.raises(OSError):
        page.save(path.parent)  # a folder
    assert [file.name for file in path.parent.iterdir()] == ["page.html"]


def test_notebook_frame_holds_the_page():
    page = visualize(hostile_record(HOSTILE[2]))
    ((attributes, _),) = Outline(page._repr_html_()).find("iframe")
    assert attributes["srcdoc"] == page.html
    assert attributes["sandbox"] == "allow-scripts"


# ------------------------------------------------------------------------------------------------------- colours

# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
DEFICIENCIES = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
)


def linear(colour: str) -> np.ndarray:
    value = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's ratio."""
    low, high = sorted(TO_XYZ[1] @ linear(colour) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def lab(rgb: np.ndarray) -> np.ndarray:
    xyz = TO_XYZ @ np.clip(rgb, 0, 1) / (0.95047, 1, 1.08883)
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours(theme):
    css = (FOLDER / "page.css").read_text(encoding="utf-8")
    block = css.split("prefers-color-scheme: dark")[theme == "dark"]
    names = dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6})", block))
    for ground in (names["page"], names["card"]):
        assert contrast(names["ink"], ground) >= 7
        assert contrast(names["quiet"], ground) >= 4.5
        assert all(contrast(names[f"c{i}"], ground) >= 3 for i in range(8))
    assert contrast(names["hit-ink"], names["hit"]) >= 4.5
    for matrix in DEFICIENCIES.values():
        seen = [lab(np.asarray(matrix) @ linear(names[f"c{i}"])) for i in range(8)]
        assert min(np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]) >= 20
