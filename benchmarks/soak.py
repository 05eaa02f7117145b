"""A long prediction: 400,000 sentences through `aspert predict`, with its memory and rate sampled all along.

    python benchmarks/soak.py

The model is tiny and random, so that the run is of our code and not of the encoder's arithmetic. The output is
compared with the input record by record. Exit code 1: memory grew, it became slower, or something is missing. Needs
Linux (/proc).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if __package__ in (None, ""):
    # run as a script: modules are found from the repository's root, not from this folder
    sys.path[0] = str(ROOT)

OUTPUT = ROOT / "benchmarks" / "results" / "soak.json"
# last tenth of the run by its first tenth
MOST_MEMORY = 1.05
# processor time a sentence; other work on the machine moves it by some per cent
MOST_TIME = 1.10
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,'-"


@dataclass
class Sample:
    """The process at one moment."""

    wall_seconds: float
    cpu_seconds: float
    resident_mib: float
    sentences: int


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 1 where a promise is not kept, 2 for a wrong call."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, default=400_000)
    parser.add_argument("--every", type=float, default=1.0, help="seconds between samples")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args(argv)
    try:
        return _soak(arguments)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _soak(arguments: argparse.Namespace) -> int:
    from benchmarks.results import describe_machine
    from benchmarks.setting import write_result

    with tempfile.TemporaryDirectory(prefix="aspert-soak-") as folder:
        model, source, output = (Path(folder) / name for name in ("model", "sentences.txt", "out.jsonl"))
        make_model(model)
        write_sentences(source, arguments.sentences)
        command = [sys.executable, "-m", "aspert_cli", "predict", str(model), str(source), "--output", str(output)]
        partial = output.with_name(output.name + ".partial")
        samples, code = watch([*command, "--device", "cpu"], _counter(partial), arguments.every)
        found = {"exit_code": code, **(summarise(samples, arguments.sentences) if code == 0 else {})}
        if code == 0:
            found["complete"], found["entities"], found["relations"] = compare(source, output)
    failures = list(broken_promises(found))
    content = {
        "machine": describe_machine(),
        "versions": {package: metadata.version(package) for package in ("torch", "transformers", "tokenizers")},
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "sentences": arguments.sentences,
        **found,
        "failures": failures,
        "samples": [asdict(sample) for sample in samples[:: max(1, len(samples) // 200)]],
    }
    write_result(arguments.output, "aspert soak", content)
    print(json.dumps({name: value for name, value in content.items() if name not in ("samples", "machine")}, indent=1))
    return 1 if failures else 0


def make_model(folder: Path) -> None:
    """Save a random model (2 layers of 2 heads, 32 wide) that finds as many entities and relations as there are."""
    import torch
    from transformers import BertConfig, BertTokenizer

    import data_scripts
    from benchmarks.workloads import Extraction, calibrate
    from modeling_aspert import AspertConfig, AspertForJointExtraction, AspertProcessor

    pieces = [*_LETTERS, *(f"##{letter}" for letter in _LETTERS)]
    vocabulary = dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces])
    records, schema = list(data_scripts.load("quickstart")["test"]), data_scripts.load_schema("quickstart")
    vocabulary |= dict.fromkeys(word for record in records for word in record["tokens"])
    tokenizer = BertTokenizer(vocab={piece: number for number, piece in enumerate(vocabulary)}, do_lower_case=False)
    processor = AspertProcessor(tokenizer, max_tokens=512)
    torch.manual_seed(0)
    encoder = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    config = AspertConfig(
        encoder_config=encoder,
        **schema.labels,
        span_classifier_size=32,
    )
    model = AspertForJointExtraction(config).eval()
    with torch.no_grad():
        # wide enough that scores differ
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.normal_(0.0, 0.3)
    gold = [sum(len(record[part]) for record in records) for part in ("entities", "relations")]
    calibrate(Extraction(model, processor, records, 16), *gold)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def sentences(count: int) -> Iterator[str]:
    """So many different sentences: of the quickstart corpus, each with a number and some of its words exchanged."""
    import data_scripts

    rng = random.Random(0)
    texts = [record["tokens"] for split in data_scripts.load("quickstart").values() for record in split]
    words = sorted({word for text in texts for word in text if word.isalpha()})
    for number in range(count):
        text = list(rng.choice(texts))
        text[rng.randrange(len(text))] = rng.choice(words)
        yield f"{number} {' '.join(text)}"


def write_sentences(path: Path, count: int) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(text + "\n" for text in sentences(count))


def watch(command: Sequence[str], count: Callable[[], int], every: float) -> tuple[list[Sample], int]:
    """Run a command; its samples, and its exit code."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment)
    samples, begun = [], time.monotonic()
    try:
        while process.poll() is None:
            measured = _measure(process.pid)
            if measured is not None:
                samples.append(Sample(round(time.monotonic() - begun, 3), *measured, count()))
            time.sleep(every)
    finally:
        process.kill()
        process.wait()
    return samples, process.returncode


def summarise(samples: Sequence[Sample], total: int) -> dict[str, Any]:
    """Memory and time a sentence of the first and the last tenth of the sentences.

    Raises:
        ValueError: too few samples.
    """
    # the output grows by leaps, so the clock is read where it has just grown
    working = [sample for sample, before in zip(samples[1:], samples) if sample.sentences > before.sentences]
    first = [sample for sample in working if sample.sentences <= total / 10]
    last = [sample for sample in working if sample.sentences >= total * 9 / 10]
    if len(first) < 2 or len(last) < 2:
        raise ValueError("too few samples: give more --sentences, or fewer seconds with --every")

    def rate(part: Sequence[Sample], clock: str) -> float:
        return (getattr(part[-1], clock) - getattr(part[0], clock)) / (part[-1].sentences - part[0].sentences) * 1000

    tenths = {}
    for name, part in (("first", first), ("last", last)):
        tenths[name] = {
            "resident_mib": round(statistics.median(sample.resident_mib for sample in part), 1),
            "cpu_ms_per_sentence": round(rate(part, "cpu_seconds"), 4),
            "wall_ms_per_sentence": round(rate(part, "wall_seconds"), 4),
        }
    return {
        "wall_seconds": samples[-1].wall_seconds,
        "cpu_seconds": samples[-1].cpu_seconds,
        "sentences_per_second": round(1000 / rate(working, "wall_seconds"), 1),
        "highest_resident_mib": max(sample.resident_mib for sample in samples),
        "first_tenth": tenths["first"],
        "last_tenth": tenths["last"],
        "memory_ratio": round(tenths["last"]["resident_mib"] / tenths["first"]["resident_mib"], 4),
        "cpu_ratio": round(tenths["last"]["cpu_ms_per_sentence"] / tenths["first"]["cpu_ms_per_sentence"], 4),
    }


def compare(source: Path, output: Path) -> tuple[bool, int, int]:
    """Whether there is a record for each sentence, in order, and how many entities and relations there are."""
    entities = relations = 0
    with source.open(encoding="utf-8") as texts, output.open(encoding="utf-8") as records:
        for line in records:
            record, text = json.loads(line), next(texts, None)
            if text is None or record["text"] != text.rstrip("\n"):
                return False, entities, relations
            entities += len(record["entities"])
            relations += len(record["relations"])
        return next(texts, None) is None, entities, relations


def broken_promises(found: dict[str, Any]) -> Iterator[str]:
    if found["exit_code"] != 0:
        yield f"exit code {found['exit_code']}"
        return
    if not found["complete"]:
        yield "the output is not the input's"
    for name, most in (("memory_ratio", MOST_MEMORY), ("cpu_ratio", MOST_TIME)):
        if found[name] > most:
            yield f"{name} {found[name]} > {most}"


def _counter(path: Path) -> Callable[[], int]:
    """Lines of a file that grows, counted from where the last call stopped."""
    state = {"position": 0, "lines": 0}

    def count() -> int:
        if path.exists():
            with path.open("rb") as file:
                file.seek(state["position"])
                content = file.read()
            state["position"] += len(content)
            state["lines"] += content.count(b"\n")
        return state["lines"]

    return count


def _measure(pid: int) -> tuple[float, float] | None:
    """(CPU seconds, resident MiB) of a process; None when it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return None
    cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return cpu, round(resident * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


if __name__ == "__main__":
    sys.exit(main())
