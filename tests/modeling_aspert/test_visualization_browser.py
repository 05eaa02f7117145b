"""The pages in Chromium: what is drawn and where, filters, keys, hostile text, phone and desktop."""

from __future__ import annotations

import random
import time

import pytest

from modeling_aspert.error_analysis import error_analysis
from modeling_aspert.visualization import visualize

pytestmark = pytest.mark.browser
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}

# Everything drawn in the cards of a page, in page coordinates.
GEOMETRY = """
const box = (node) => { const r = node.getBoundingClientRect(); return [r.left, r.top + scrollY, r.right, r.bottom + scrollY]; };
return [...document.querySelectorAll(".card")].map((card) => ({
  card: box(card),
  text: [...card.querySelectorAll(".line")].map((line) => line.textContent).join(""),
  labels: [...card.querySelectorAll(".label")].map((node) => [node.textContent, box(node)]),
  tints: [...card.querySelectorAll(".item")].filter((g) => g.dataset.part === "entities").map((g) =>
    [Number(g.dataset.index), [...g.querySelectorAll(".tint")].map(box)]),
  covered: [...card.querySelectorAll(".covered")].map((node) => [Number(node.dataset.entity), node.textContent, box(node)]),
  ends: [...card.querySelectorAll(".item")].filter((g) => g.querySelector(".arc")).map((g) =>
    [Number(g.dataset.index), [...g.querySelectorAll(".head")].map(box)]),
}));
"""


@pytest.fixture
def opened(browser, tmp_path):
    """Opens a page at a size, waits until its first sentences are drawn, and fails on any message in the console."""

    def open_page(page, size="desktop", theme="light", windows=4):
        # A window several times as tall, so that all sentences of the small pages are drawn.
        width, height = SIZES[size]
        metrics = {"width": width, "height": height * windows, "deviceScaleFactor": 1, "mobile": size == "phone"}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = [{"name": "prefers-color-scheme", "value": theme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        browser.get(page.save(tmp_path / "page.html").as_uri())
        wait(browser, "return !document.querySelector('.card') || document.querySelector('.card').shown")
        return browser

    yield open_page
    assert browser.get_log("browser") == []


def wait(browser, script, seconds=10):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        result = browser.execute_script(script)
        if result:
            return result
        time.sleep(0.05)
    raise AssertionError(f"never true: {script}")


def settle(browser):
    """Two frames later: filters act in the next one."""
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")


def characters(text, entities, relations=(), **more):
    """``entities``: (type, words, which occurrence of them)."""
    items = []
    for number, (name, words, *occurrence) in enumerate(entities):
        start = -1
        for _ in range(1 + sum(occurrence)):
            start = text.index(words, start + 1)
        items.append(
            {"id": number, "type": name, "text": words, "start": start, "end": start + len(words), "score": 0.9}
        )
    links = [{"type": name, "head": head, "tail": tail, "score": 0.6} for name, head, tail in relations]
    return {"text": text, "entities": items, "relations": links, **more}


SIMPLE = characters(
    "John Wilkes Booth, who assassinated President Lincoln, was born in Maryland.",
    [("Peop", "John Wilkes Booth"), ("Peop", "President Lincoln"), ("Loc", "Maryland")],
    [("Kill", 0, 1), ("Live_In", 0, 2)],
)
NESTED = characters(
    "Treatment can cause severe phenytoin toxicity in elderly patients of the University of Michigan Hospital.",
    [
        ("Adverse-Effect", "severe phenytoin toxicity"),
        ("Drug", "phenytoin"),
        ("Population", "elderly patients"),
        ("Organization", "University of Michigan Hospital"),
        ("Organization", "University of Michigan"),
        ("Location", "Michigan"),
        ("Overlap", "patients of the University"),
    ],
    [("Adverse-Effect", 0, 1), ("Part_Of", 4, 3), ("Located_In", 4, 5), ("Treated_At", 2, 3)],
)
TWELVE = characters(
    "Marie Curie worked with Pierre Curie in Paris at the Sorbonne, was born in Warsaw, and received the Nobel Prize "
    "in Stockholm for polonium and radium.",
    [
        ("Peop", "Marie Curie"),
        ("Peop", "Pierre Curie"),
        ("Loc", "Paris"),
        ("Org", "Sorbonne"),
        ("Loc", "Warsaw"),
        ("Award", "Nobel Prize"),
        ("Loc", "Stockholm"),
        ("Chemical", "polonium"),
        ("Chemical", "radium"),
    ],
    [
        ("Spouse", 0, 1),
        ("Live_In", 0, 2),
        ("Work_For", 0, 3),
        ("Born_In", 0, 4),
        ("Received", 0, 5),
        ("Discovered", 0, 7),
        ("Discovered", 0, 8),
        ("Live_In", 1, 2),
        ("Work_For", 1, 3),
        ("Located_In", 3, 2),
        ("Awarded_In", 5, 6),
        ("Conjunction", 7, 8),
    ],
)
ARABIC = characters(
    "وُلد نجيب محفوظ في القاهرة وعمل مع طه حسين (Taha Hussein) سنة 1934.",
    [("Person", "نجيب محفوظ"), ("Location", "القاهرة"), ("Person", "طه حسين"), ("Person", "Taha Hussein")],
    [("Born_In", 0, 1), ("Colleague", 0, 2), ("Same_As", 2, 3)],
)
EMOJI = characters("😀👩‍🔬 Marie é 𝔸 in Paris", [("Peop", "Marie"), ("Loc", "Paris")], [("Live_In", 0, 1)])
LINES = characters("First line.\r\n\tAnn\n\nlives in Rome ", [("Peop", "Ann"), ("Loc", "Rome")], [("Live_In", 0, 1)])
# Entities that nothing shows of: a space where a line ends, a line end, a character without width.
UNSEEN = characters(
    "Ann \nlives\u200b in Rome", [("A", " \n"), ("B", "\n"), ("C", "\u200b")], [("R", 0, 1), ("S", 1, 2)]
)


def long_sentence(words=200, seed=0):
    rng = random.Random(seed)
    tokens = [rng.choice("model network of the a improves evaluation on graphs with in".split()) for _ in range(words)]
    entities = [
        {
            "type": rng.choice(["Task", "OtherScientificTerm"]),
            "start": i,
            "end": i + rng.choice([1, 2, 3]),
            "score": 0.8,
        }
        for i in range(0, words - 4, 9)
    ]
    relations = [
        {"type": "Used-for", "head": i, "tail": min(i + rng.choice([1, 2, 3]), len(entities) - 1), "score": 0.5}
        for i in range(0, len(entities) - 1, 2)
    ]
    return {"tokens": tokens, "entities": entities, "relations": relations}


RECORDS = {
    "simple": SIMPLE,
    "nested": NESTED,
    "twelve": TWELVE,
    "arabic": ARABIC,
    "emoji": EMOJI,
    "lines": LINES,
    "unseen": UNSEEN,
    "long": long_sentence(),
}


def packed(text):
    """Without white space (a line on the screen ends without its own) and characters of no width."""
    return "".join(text.replace("\u200b", "").split())


def overlap(one, other):
    return min(one[2], other[2]) - max(one[0], other[0]) > 1 and min(one[3], other[3]) - max(one[1], other[1]) > 1


# ------------------------------------------------------------------------------------------------------ drawing


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", RECORDS)
def test_drawing(opened, name, size):
    record = RECORDS[name]
    browser = opened(visualize(record), size)
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    (card,) = browser.execute_script(GEOMETRY)
    text = record.get("text") or " ".join(record["tokens"])
    assert packed(card["text"]) == packed(text)
    left, top, right, bottom = card["card"]

    # Every item has its name, inside the card, and no name lies on another.
    labels = card["labels"]
    items = [*record["entities"], *record["relations"]]
    assert sorted(label for label, _ in labels) == sorted(item["type"] for item in items)
    for label, box in labels:
        assert left <= box[0] and box[2] <= right and top <= box[1] and box[3] <= bottom, label
    for i, (label, box) in enumerate(labels):
        for other, another in labels[:i]:
            assert not overlap(box, another), (label, other)

    # The words under an entity's colour are its words.
    tints = dict(card["tints"])
    for index, entity in enumerate(record["entities"]):
        under = [
            words
            for _, words, box in card["covered"]
            if any(overlap(box, tint) and box[0] >= tint[0] - 1 and box[2] <= tint[2] + 1 for tint in tints[index])
        ]
        expected = entity.get("text") or " ".join(record["tokens"][entity["start"] : entity["end"]])
        assert packed("".join(under)) == packed(expected)

    # Both ends of a relation touch their entities.
    for index, (head, tail) in card["ends"]:
        relation = record["relations"][index]
        for end, entity in ((head, relation["head"]), (tail, relation["tail"])):
            assert any(overlap(end, tint) for tint in tints[entity]), (relation, end, tints[entity])


def test_right_to_left(opened):
    (card,) = opened(visualize(ARABIC)).execute_script(GEOMETRY)
    tints = dict(card["tints"])
    assert tints[0][0][0] > tints[1][0][2] > tints[2][0][2]  # the first entity is the rightmost
    assert tints[0][0][2] > card["card"][2] - 100  # and the text starts at the right


def test_wide_and_narrow_again(opened):
    browser = opened(visualize(TWELVE))
    lines = "return document.querySelectorAll('.line').length"
    wide = browser.execute_script(lines)
    metrics = {"width": 390, "height": 2000, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    assert wait(browser, lines.replace("length", f"length > {wide}"))


def test_empty_text_and_text_without_entities(opened):
    empty = {"text": "", "entities": [], "relations": []}
    browser = opened(visualize([empty, {"text": "Nothing here.", "entities": [], "relations": []}]))
    assert [card["labels"] for card in browser.execute_script(GEOMETRY)] == [[], []]
    assert not browser.execute_script("return document.querySelector('#filters').checkVisibility()")
    assert "(empty text)" in browser.find_element("css selector", ".card").text


def test_symmetric_relation_has_no_arrowhead(opened):
    arrows = "return document.querySelectorAll('path.head').length"
    assert opened(visualize(SIMPLE)).execute_script(arrows) == 2
    assert opened(visualize(SIMPLE, symmetric_relations=["Kill"])).execute_script(arrows) == 1


def test_dark(opened):
    ground = "return getComputedStyle(document.body).backgroundColor"
    assert opened(visualize(SIMPLE)).execute_script(ground) == "rgb(246, 247, 249)"
    assert opened(visualize(SIMPLE), theme="dark").execute_script(ground) == "rgb(16, 19, 24)"


def test_many_sentences_stay_fluid(opened):
    records = [long_sentence(25, seed) for seed in range(1000)]
    start = time.monotonic()
    browser = opened(visualize(records), windows=1)
    assert time.monotonic() - start < 20  # about 2 s
    cards = "return document.querySelectorAll('.card').length"
    assert browser.execute_script(cards) <= 150
    took = browser.execute_async_script(
        """const done = arguments[0], slider = document.querySelector('#threshold'), start = performance.now();
        slider.value = 0.7;
        slider.dispatchEvent(new Event('input'));
        requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - start)));"""
    )
    assert took < 2000  # about 100 ms
    for _ in range(100):
        browser.execute_script("scrollTo(0, document.documentElement.scrollHeight)")
        settle(browser)
        if browser.execute_script(cards) == 1000:
            break
    assert browser.execute_script(cards) == 1000
    wait(browser, "scrollTo(0, 1e9); return [...document.querySelectorAll('.card')].pop().shown")


# ------------------------------------------------------------------------------------------------------- safety


@pytest.mark.parametrize(
    "text",
    [
        "<script>parent.hostile = hostile = 1</script>",
        "</script><script>hostile = 1</script>",
        '"><img src="file:///x" onerror="hostile = 1">',
        "<!--<script>hostile = 1",
        "a\u2028hostile = 1\u2029b {{ 7 * 7 }} &lt;b&gt;",
        "\u202ereversed\u202c \x00 \u200b \ud800",
    ],
)
def test_hostile_text(opened, text):
    record = characters(text, [(text, text)], [(text, 0, 0)], id=text)
    page = visualize(record, title=text)
    browser = opened(page)
    counts = "return ['script', 'img', 'iframe', 'style'].map((tag) => document.getElementsByTagName(tag).length)"
    assert browser.execute_script(counts) == [2, 0, 0, 1]
    assert browser.execute_script("return typeof hostile") == "undefined"
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    # As UTF-16 numbers: the driver cannot carry a lone surrogate.
    shown = browser.execute_script(
        "return [...document.querySelector('.label').textContent].map((c) => c.charCodeAt(0))"
    )
    expected = text if len(text) <= 40 else text[:39] + "…"
    assert shown == [ord(character) for character in expected]
    analysed = error_analysis([record], [characters(text, [], id=text)], title=text)
    browser = opened(analysed)
    assert browser.execute_script(counts) == [2, 0, 0, 1]
    assert browser.execute_script("return typeof hostile") == "undefined"


def test_an_injected_script_would_not_run(opened):
    """The policy is a second fence: even markup that got into the page does nothing."""
    browser = opened(visualize(SIMPLE))
    browser.execute_script(
        "document.querySelector('h1').innerHTML = '<img src=x onerror=\"hostile = 1\"><a href=\"javascript:1\">a</a>'"
    )
    settle(browser)
    assert browser.execute_script("return typeof hostile") == "undefined"
    messages = [entry["message"] for entry in browser.get_log("browser")]
    assert messages and all("Content Security Policy" in message for message in messages)


def test_notebook(browser, tmp_path):
    """The frame in another document: sandboxed, and drawn."""
    path = tmp_path / "notebook.html"
    path.write_text(f"<!DOCTYPE html><body>{visualize(SIMPLE)._repr_html_()}</body>", encoding="utf-8")
    browser.get(path.as_uri())
    browser.switch_to.frame(0)
    wait(browser, "return document.querySelectorAll('.label').length === 5")
    browser.switch_to.default_content()


# ------------------------------------------------------------------------------------------- filters and the keys


def drawn(browser):
    settle(browser)
    return [label for card in browser.execute_script(GEOMETRY) for label, _ in card["labels"]]


def press(browser, name, nth=0):
    browser.execute_script(
        "[...document.querySelectorAll('button')].filter((b) => b.textContent.startsWith(arguments[0]))[arguments[1]].click()",
        name,
        nth,
    )


def test_filter_by_type(opened):
    browser = opened(visualize(SIMPLE))
    assert sorted(drawn(browser)) == ["Kill", "Live_In", "Loc", "Peop", "Peop"]
    press(browser, "Kill")
    assert sorted(drawn(browser)) == ["Live_In", "Loc", "Peop", "Peop"]
    press(browser, "Loc")  # takes its relation along
    assert sorted(drawn(browser)) == ["Peop", "Peop"]
    press(browser, "show all")
    press(browser, "show all")
    assert len(drawn(browser)) == 5
    press(browser, "hide all")
    assert drawn(browser) == []


def test_threshold(opened):
    browser = opened(visualize(SIMPLE))
    script = (
        "const s = document.querySelector('#threshold'); s.value = arguments[0]; s.dispatchEvent(new Event('input'))"
    )
    browser.execute_script(script, 0.7)  # entities have 0.9, relations 0.6
    assert sorted(drawn(browser)) == ["Loc", "Peop", "Peop"]
    browser.execute_script(script, 0.95)
    assert drawn(browser) == []


def test_no_scores_no_threshold(opened):
    gold = {"tokens": ["Ann"], "entities": [{"type": "Peop", "start": 0, "end": 1}], "relations": []}
    assert not opened(visualize(gold)).find_elements("css selector", "#threshold")


def test_search(opened):
    browser = opened(visualize([SIMPLE, NESTED, EMOJI]))
    box = browser.find_element("css selector", "#search")
    box.send_keys("MARIE")
    settle(browser)
    assert [card["text"] for card in browser.execute_script(GEOMETRY)] == [EMOJI["text"]]
    assert [mark.text for mark in browser.find_elements("css selector", "mark")] == ["Marie"]
    box.clear()
    box.send_keys("adverse-")  # a label
    settle(browser)
    assert [card["text"] for card in browser.execute_script(GEOMETRY)] == [NESTED["text"]]
    box.clear()
    box.send_keys("(.*[")  # no pattern
    settle(browser)
    assert browser.execute_script(GEOMETRY) == []
    assert "Showing 0 of 3 sentences" in browser.find_element("css selector", "#status").text


def test_only_sentences_with_something_drawn(opened):
    browser = opened(visualize([SIMPLE, {"text": "Nothing.", "entities": [], "relations": []}]))
    browser.find_element("css selector", "#only-worth").click()
    settle(browser)
    assert len(browser.execute_script(GEOMETRY)) == 1


def test_hover(opened):
    action_chains = pytest.importorskip("selenium.webdriver").ActionChains
    browser = opened(visualize(NESTED))
    words = next(node for node in browser.find_elements("css selector", ".covered") if node.text == "Michigan")
    action_chains(browser).move_to_element(words).perform()
    tip = browser.find_element("css selector", "#tip")
    assert tip.text.split("\n") == ["Location", "Michigan", "score 0.900"]  # the innermost
    lit = browser.execute_script("return [...document.querySelectorAll('.item.on .label')].map((n) => n.textContent)")
    assert sorted(lit) == ["Located_In", "Location", "Organization"]
    action_chains(browser).move_to_element(browser.find_element("css selector", "h1")).perform()
    assert not tip.is_displayed()


def test_keyboard(opened):
    keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
    browser = opened(visualize(SIMPLE))
    browser.execute_script("document.querySelector('#only-worth').focus()")
    active = browser.switch_to.active_element
    for _ in range(20):
        active.send_keys(keys.TAB)
        active = browser.switch_to.active_element
        if active.get_attribute("class") == "drawing":
            break
    assert "3 entities, 2 relations" in active.get_attribute("aria-label")
    names = []
    for _ in range(6):
        browser.switch_to.active_element.send_keys(keys.ARROW_RIGHT)
        names.append(browser.switch_to.active_element.get_attribute("aria-label"))
    assert names[0] == names[5] == "Entity Peop, John Wilkes Booth, score 0.900"
    assert names[3].replace("\u2068", "").replace("\u2069", "") == (
        "Relation Kill, John Wilkes Booth → President Lincoln, score 0.600"
    )
    assert browser.find_element("css selector", "#tip").is_displayed()
    browser.switch_to.active_element.send_keys(keys.ESCAPE)
    assert not browser.find_element("css selector", "#tip").is_displayed()
    assert browser.switch_to.active_element.get_attribute("class") == "drawing"


def test_list_of_facts(opened):
    browser = opened(visualize(SIMPLE), "phone")
    summary = browser.find_element("css selector", ".facts summary")
    assert summary.text == "3 entities, 2 relations"
    summary.click()
    facts = wait(browser, "return [...document.querySelectorAll('.facts li')].map((node) => node.textContent)")
    facts = [fact.replace("\u2068", "").replace("\u2069", "") for fact in facts]
    assert facts[2:4] == ["Loc: Maryland, score 0.900", "Kill: John Wilkes Booth → President Lincoln, score 0.600"]


# ------------------------------------------------------------------------------------------------ error analysis

TOKENS = "Ann Lee of Acme Corp met Bob in Rome".split()


def words(entities, relations=()):
    return {
        "tokens": TOKENS,
        "entities": [{"type": name, "start": start, "end": end, "score": 0.75} for name, start, end in entities],
        "relations": [{"type": name, "head": head, "tail": tail, "score": 0.45} for name, head, tail in relations],
    }


GOLD = [words([("Peop", 0, 2), ("Org", 3, 5), ("Peop", 6, 7), ("Loc", 8, 9)], [("Work_For", 0, 1), ("Meet", 0, 2)])]
FOUND = [words([("Peop", 0, 2), ("Org", 3, 4), ("Loc", 6, 7), ("Peop", 5, 6)], [("Work_For", 0, 1)])]


@pytest.mark.parametrize("size", SIZES)
def test_error_page(opened, size):
    browser = opened(error_analysis(FOUND * 2, GOLD * 2), size)
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    expected = [
        "+ Peop",
        "− Loc",
        "− Meet",
        "↔ Org",
        "↔ Work_For",
        "↔ gold: Org",
        "↔ gold: Work_For",
        "≠ Loc (gold: Peop)",
        "✓ Peop",
    ]
    assert sorted(drawn(browser)) == sorted(expected * 2)


def test_a_number_of_the_table_shows_its_sentences(opened):
    right = [words([("Peop", 0, 2)])]
    browser = opened(error_analysis(FOUND + right, GOLD + right))
    cards = "return document.querySelectorAll('.card').length"
    assert browser.execute_script(cards) == 1  # the other holds no error
    browser.execute_script("document.querySelector('[title=\"✓ Correct: Peop\"]').click()")
    assert drawn(browser) == ["✓ Peop", "✓ Peop"]
    browser.execute_script("document.querySelector('[title=\"gold Org, predicted none\"]').click()")
    assert drawn(browser) == ["↔ gold: Org"]
    browser.execute_script("document.querySelector('[title=\"− Missed: Meet\"]').click()")
    assert sorted(drawn(browser)) == ["− Meet", "≠ Loc (gold: Peop)", "✓ Peop"]  # with its two entities
    press(browser, "Only")
    assert len(drawn(browser)) == 9


def test_filter_by_outcome(opened):
    browser = opened(error_analysis(FOUND, GOLD))
    press(browser, "hide all", 0)
    press(browser, "hide all", 0)  # the second group; the first now says "show all"
    assert drawn(browser) == []
    press(browser, "− missed")
    assert drawn(browser) == ["− Loc"]


def test_sorting(opened):
    browser = opened(error_analysis(FOUND, GOLD))
    column = "return [...document.querySelectorAll('table.full')[1].tBodies[0].rows].map((r) => r.cells[arguments[0]].dataset.value)"
    assert browser.execute_script(column, 0) == ["Loc", "Org", "Peop"]
    press(browser, "Gold")
    assert browser.execute_script(column, 4) == ["2", "1", "1"]
    press(browser, "Gold")
    assert browser.execute_script(column, 4) == ["1", "1", "2"]
    header = browser.execute_script("return document.querySelector('th[aria-sort=ascending]').textContent")
    assert header == "Gold"
