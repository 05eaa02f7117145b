"""Speed against the two limits that matter: the bare encoder over the same tokens, and SpERT's own code.

    python benchmarks/speed.py                                     all that needs no SpERT
    python benchmarks/speed.py --spert SPERT --spert-weights DIR   with a checkout of lavis-nlp/spert and a checkpoint
    python benchmarks/speed.py --encoder random-base --sections extraction training
    python benchmarks/speed.py --smoke                             the shape of the result in under a minute

Every ratio comes from workloads that ran in turn, round by round, in this one command. Above 1 means that ours is
faster. Untrained heads are fitted and shifted to predict as many entities and relations as the corpus holds, the
entities about where it holds them, so that no figure depends on training. The model without the contribution is the
same model less the weights that see it.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if __package__ in (None, ""):
    # run as a script: modules are found from the repository's root, not from this folder
    sys.path[0] = str(ROOT)

# one thread means one thread: the tokenizer's own are switched off before it is loaded
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

KIND = "aspert speed"
OUTPUT = ROOT / "benchmarks" / "results" / "speed.json"
SECTIONS = ("extraction", "lengths", "heads", "training", "profile", "memory", "start", "loading")
# Ratios that the project aims for: at least, but for the names in _AT_MOST.
TARGETS = {
    "extraction ÷ bare encoder": {"small": 0.65, "base": 0.85},
    "extraction ÷ SpERT, batch 16": 5.5,
    "extraction ÷ SpERT, batch 1": 1.7,
    "extraction in ONNX ÷ SpERT, batch 16": 5.5,
    "extraction in ONNX ÷ SpERT, batch 1": 1.7,
    "sentence of 500 ÷ SpERT": 20.0,
    "sentence of 500: memory ÷ SpERT": 1 / 15,
    "heads: time a sub-word, 512 ÷ 64": 1.5,
    "training ÷ SpERT": 1.2,
    "training epoch, length-grouped ÷ SpERT": 2.0,
    "training ÷ bare encoder": {"small": 0.75, "base": 0.9},
    "contribution on ÷ off: extraction": 0.93,
    "contribution on ÷ off: training": 0.90,
    "evaluation at batch 16: peak MiB": 1024.0,
    "import beyond torch + transformers: s": 0.3,
    "aspert --help: s": 0.5,
    "loading a prepared corpus: s": 1.0,
}
_AT_MOST = {
    "sentence of 500: memory ÷ SpERT",
    "heads: time a sub-word, 512 ÷ 64",
    "evaluation at batch 16: peak MiB",
    "import beyond torch + transformers: s",
    "aspert --help: s",
    "loading a prepared corpus: s",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 2 for a wrong call."""
    arguments = build_parser().parse_args(argv)
    try:
        content = measure_all(arguments)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    from benchmarks.setting import write_result

    output = arguments.output or (OUTPUT if not arguments.smoke else None)
    print("\n" + ratio_table(content))
    for skipped in content["skipped"]:
        print(f"skipped: {skipped['what']}: {skipped['why']}")
    if output is not None:
        write_result(output, KIND, content)
        print(f"written to {output}")
    return 0


def build_parser() -> argparse.ArgumentParser:
    from benchmarks.setting import add_arguments

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="what to measure")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], help="CPU threads; 0 leaves them alone")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16], help="sentences a forward pass")
    parser.add_argument("--lengths", nargs="+", type=int, default=[32, 64, 128, 256, 500, 512], help="sub-words")
    parser.add_argument("--train-batch", type=int, default=4, help="sentences a training step")
    parser.add_argument("--grouped-batch", type=int, default=8, help="sentences a step where grouped by length")
    parser.add_argument("--train-steps", type=int, default=8, help="steps a round")
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds")
    parser.add_argument("--sentences", type=int, help="the first so many test sentences; default: all")
    parser.add_argument("--spert-workers", type=int, default=0, help="SpERT's sampling processes (its default is 4)")
    return parser


def measure_all(arguments: argparse.Namespace) -> dict[str, Any]:
    """All sections, for each number of threads and dtype; a section that cannot run is named in `skipped`."""
    import torch

    from benchmarks.setting import Setting

    if arguments.smoke:
        arguments.threads, arguments.batches, arguments.lengths = [1], [16], [32, 64]
        arguments.repeats, arguments.sentences, arguments.train_steps = 2, 16, 1
    setting = Setting(arguments, limit=arguments.sentences)
    bench = Bench(setting)
    on_device = setting.device.type != "cpu"
    for dtype in arguments.dtype:
        for threads in arguments.threads if not on_device else [0]:
            if threads:
                torch.set_num_threads(threads)
            for section in arguments.sections:
                if section in ("memory", "start", "loading") and (threads, dtype) != (
                    arguments.threads[0] if not on_device else 0,
                    arguments.dtype[0],
                ):
                    continue
                print(f"{section}: {threads or 'all'} threads, {dtype}", file=sys.stderr, flush=True)
                getattr(bench, section)(threads, dtype)
    return {
        "about": setting.describe(),
        "attention": bench.attention,
        "ratios": bench.ratios,
        "measurements": bench.measurements,
        "skipped": bench.skipped,
    }


class Bench:
    """The sections; each adds to `measurements` (seconds by workload), `ratios` and `skipped`."""

    def __init__(self, setting: Any) -> None:
        self.setting, self.arguments = setting, setting.arguments
        self.measurements: list[dict[str, Any]] = []
        self.ratios: list[dict[str, Any]] = []
        self.skipped: list[dict[str, str]] = []
        self.attention: dict[str, str] = {}
        self._models: dict[tuple[bool, str], Any] = {}
        self._exported: dict[int, Any] = {}
        self._rival: Any = None
        layers = self.model(True).config.encoder_config
        self.size = "base" if layers.hidden_size >= 768 else "small"
        if self.arguments.spert is None:
            self.skip("all ratios to SpERT", "no --spert")

    # -- sections --------------------------------------------------------------------------------------------------

    def extraction(self, threads: int, dtype: str) -> None:
        """Words to records, against the bare encoder over the same length-sorted batches and SpERT's loop."""
        for batch in self.arguments.batches:
            ours, off = (self.extract(contribution, dtype, batch) for contribution in (True, False))
            encoder = self.encoder(dtype)
            work: dict[str, Any] = {
                "ours": ours.pieces(),
                "bare encoder": self.forward_only(encoder, ours.encoder_batches()),
                "ours, contribution off": off.pieces(),
            }
            exported = self.exported(threads, dtype)
            if exported is not None:
                in_onnx = self.extraction_of(exported, self.setting.processor, batch)
                work["ours in ONNX"] = in_onnx.pieces()
            rival = self.rival(threads, dtype)
            if rival is not None and exported is not None:
                work["ours in ONNX, scored"] = self.scored(in_onnx)
            if rival is not None:
                twin, processor = self.setting.spert_twin()
                as_spert = self.extraction_of(twin, processor, batch)
                work["ours, scored"] = self.scored(ours)
                work["SpERT's weights in our code, scored"] = self.scored(as_spert)
                work["SpERT"] = rival.evaluation(self.setting.test, batch, self.arguments.spert_workers)
            case = {"section": "extraction", "batch": batch, "threads": threads, "dtype": dtype}
            seconds = self.time(case, work, units=len(self.setting.test), unit="sentences")
            self.ratio("extraction ÷ bare encoder", seconds, "ours", "bare encoder", case)
            self.ratio("contribution on ÷ off: extraction", seconds, "ours", "ours, contribution off", case)
            if exported is not None:
                self.ratio("extraction in ONNX ÷ bare encoder", seconds, "ours in ONNX", "bare encoder", case)
            if rival is not None and exported is not None:
                name = f"extraction in ONNX ÷ SpERT, batch {batch}"
                self.ratio(name, seconds, "ours in ONNX, scored", "SpERT", case)
            if rival is not None:
                name = f"extraction ÷ SpERT, batch {batch}"
                self.ratio(name, seconds, "ours, scored", "SpERT", case)
                self.ratio(f"{name}, same weights", seconds, "SpERT's weights in our code, scored", "SpERT", case)

    def lengths(self, threads: int, dtype: str) -> None:
        """One sentence at a time, from words to record, by length."""
        for length in self.arguments.lengths:
            ours = self.extract(True, dtype, 1, records=self.sentences(length, 1))
            work = {"ours": ours, "bare encoder": self.forward_only(self.encoder(dtype), ours.encoder_batches())}
            work["ours, contribution off"] = self.extract(False, dtype, 1, records=ours.records)
            rival = self.rival(threads, dtype)
            if rival is not None:
                work["SpERT"] = rival.sentence(ours.records[0])
            case = {"section": "lengths", "length": length, "threads": threads, "dtype": dtype}
            seconds = self.time(case, work, units=1, unit="sentences")
            self.ratio(f"sentence of {length} ÷ bare encoder", seconds, "ours", "bare encoder", case)
            if rival is not None:
                self.ratio(f"sentence of {length} ÷ SpERT", seconds, "ours", "SpERT", case)

    def heads(self, threads: int, dtype: str) -> None:
        """All that follows the encoder, with the encoder's output given: time a sub-word by length."""
        from benchmarks.timing import summary
        from benchmarks.workloads import heads_only

        lengths = [length for length in (64, 128, 256, 512) if not self.arguments.smoke or length < 256]
        work = {
            str(length): heads_only(self.extract(True, dtype, 1, records=self.sentences(length, 512 // length)))
            for length in lengths
        }
        case = {"section": "heads", "threads": threads, "dtype": dtype}
        # the same number of sub-words at every length
        seconds = self.time(case, work, units=512, unit="sub-words")
        short, long = str(lengths[0]), str(lengths[-1])
        values = [slow / fast for fast, slow in zip(seconds[short], seconds[long])]
        self.add_ratio(f"heads: time a sub-word, {long} ÷ {short}", summary(values), case)

    def training(self, threads: int, dtype: str) -> None:
        """Training steps over the same random batches, dropout on, 150 + 150 negatives a sentence."""
        import torch

        from benchmarks.workloads import Training, encoder_training

        autocast = torch.bfloat16 if dtype == "bf16" else None
        order = random.Random(0).sample(range(len(self.setting.train)), len(self.setting.train))
        size = self.arguments.train_batch
        batches = [order[step * size : (step + 1) * size] for step in range(self.arguments.train_steps)]
        on, off = (
            Training(self.model(contribution), self.setting.processor, self.setting.train, batches, autocast)
            for contribution in (True, False)
        )
        bare = encoder_training(self.encoder("fp32"), on.encoder_batches(), autocast)
        work: dict[str, Any] = {"ours": on.pieces(), "ours, contribution off": off.pieces(), "bare encoder": bare}
        rival = self.rival(threads, dtype)
        if rival is not None:
            work["SpERT"] = rival.training(self.setting.train, batches)
        grouped = self.grouped_batches(on.dataset.lengths, len(batches) * size)
        work["ours, length-grouped"] = Training(
            self.model(True), self.setting.processor, self.setting.train, grouped, autocast
        ).pieces()
        case = {"section": "training", "batch": size, "threads": threads, "dtype": dtype}
        seconds = self.time(case, work, units=size * len(batches), unit="sentences")
        self.ratio("training ÷ bare encoder", seconds, "ours", "bare encoder", case)
        self.ratio("contribution on ÷ off: training", seconds, "ours", "ours, contribution off", case)
        if rival is not None:
            self.ratio("training ÷ SpERT", seconds, "ours", "SpERT", case)
            self.ratio(
                "training epoch, length-grouped ÷ SpERT",
                seconds,
                "ours, length-grouped",
                "SpERT",
                case,
            )

    def profile(self, threads: int, dtype: str) -> None:
        """Seconds of an extraction by stage."""
        from benchmarks.timing import summary

        for contribution in (True, False):
            for batch in self.arguments.batches:
                extraction = self.extract(contribution, dtype, batch)
                extraction()
                rounds = [extraction.profile(self.setting.synchronize) for _ in range(self.arguments.repeats)]
                stages = {stage: summary([one.get(stage, 0.0) for one in rounds]) for one in rounds for stage in one}
                case = {"section": "profile", "batch": batch, "threads": threads, "dtype": dtype}
                self.measurements.append(
                    {**case, "contribution": contribution, "stages": stages, "unit": "s for all sentences"}
                )

    def memory(self, threads: int, dtype: str) -> None:
        """Peaks in processes of their own."""
        from benchmarks import memory

        arguments = argparse.Namespace(**vars(self.arguments))
        arguments.contribution, arguments.threads, arguments.dtype = "on", threads or 1, dtype
        arguments.limit, arguments.timeout, arguments.data_limit = 12.0, 600.0, 64
        length = 500 if not self.arguments.smoke else 64
        sides = ["ours"] if self.arguments.smoke else ["ours", "encoder"]
        sides += ["spert"] if self.arguments.spert is not None and not self.arguments.smoke else []
        single = {side: memory.measure(arguments, side=side, length=length, batch=1) for side in sides}
        whole = single["ours"] if self.arguments.smoke else memory.measure(arguments, length=None, batch=16)
        case = {"section": "memory", "threads": threads, "dtype": dtype}
        self.measurements.append({**case, "cases": [*single.values(), whole]})
        for measured in (*single.values(), whole):
            if "failed" in measured:
                self.skip(f"memory of {measured['side']}", measured["failed"])
        if "peak_mib" in whole and not self.arguments.smoke:
            self.add_ratio("evaluation at batch 16: peak MiB", _exact(whole["peak_mib"]), case)
        if "above_mib" in single["ours"] and "above_mib" in single.get("spert", {}):
            ratio = single["ours"]["above_mib"] / single["spert"]["above_mib"]
            self.add_ratio(f"sentence of {length}: memory ÷ SpERT", _exact(ratio), case)

    def start(self, threads: int, dtype: str) -> None:
        """Import and help times in fresh processes."""
        from benchmarks import start_times

        case = {"section": "start", "threads": threads, "dtype": dtype}
        repeats = self.arguments.repeats if not self.arguments.smoke else 1
        for name, values in start_times.measure(repeats).items():
            self.add_ratio(name, values, case)

    def loading(self, threads: int, dtype: str) -> None:
        """A prepared corpus through data_scripts.load."""
        import data_scripts

        def load() -> Any:
            return data_scripts.load(self.arguments.dataset, data_dir=self.arguments.data_dir)

        case = {"section": "loading", "threads": threads, "dtype": dtype}
        seconds = self.time(case, {"load": load}, units=1, unit="data sets")
        from benchmarks.timing import summary

        self.add_ratio("loading a prepared corpus: s", summary(seconds["load"]), case)

    # -- parts -----------------------------------------------------------------------------------------------------

    def model(self, contribution: bool, dtype: str = "fp32") -> Any:
        if (contribution, dtype) not in self._models:
            model = self.setting.model(contribution, dtype)
            self._models[contribution, dtype] = model
            from benchmarks.workloads import attention_of

            self.attention[f"ours, contribution {'on' if contribution else 'off'}"] = attention_of(model.encoder)
        return self._models[contribution, dtype]

    def exported(self, threads: int, dtype: str) -> Any:
        """The model run by onnxruntime on so many threads; it computes in fp32 on the CPU."""
        if self.setting.device.type != "cpu" or dtype != "fp32":
            return None
        if threads not in self._exported:
            try:
                self._exported[threads] = self.setting.exported(self.model(True))
            except (ImportError, ValueError) as error:
                self.skip("extraction in ONNX", str(error))
                return None
        return self._exported[threads]

    def extract(self, contribution: bool, dtype: str, batch: int, records: Any = None) -> Any:
        return self.extraction_of(self.model(contribution, dtype), self.setting.processor, batch, records)

    def extraction_of(self, model: Any, processor: Any, batch: int, records: Any = None) -> Any:
        from benchmarks.workloads import Extraction

        return Extraction(model, processor, self.setting.test if records is None else records, batch)

    def scored(self, extraction: Any) -> Callable[[], Any]:
        from modeling_aspert.scoring import compute_scores

        return lambda: compute_scores(extraction(), self.setting.test)

    def encoder(self, dtype: str) -> Any:
        from benchmarks.workloads import attention_of, bare_encoder

        encoder = bare_encoder(self.model(True, dtype))
        self.attention["bare encoder"] = attention_of(encoder)
        return encoder

    def forward_only(self, encoder: Any, batches: Any) -> list[Callable[[], Any]]:
        from benchmarks.workloads import forward_only

        return [forward_only(encoder, [batch]) for batch in batches]

    def sentences(self, length: int, count: int) -> list[dict[str, Any]]:
        from benchmarks.workloads import sentences_of_length

        return sentences_of_length(self.setting.test, self.setting.processor, length, count)

    def grouped_batches(self, lengths: Sequence[int], sentences: int) -> list[list[int]]:
        """Batches of like lengths that stand for an epoch: so many sentences, spread evenly over all lengths."""
        size = self.arguments.grouped_batch
        order = sorted(range(len(lengths)), key=lambda position: lengths[position])
        groups = [order[start : start + size] for start in range(0, len(order) - size + 1, size)]
        count = max(1, sentences // size)
        return [groups[int((step + 0.5) * len(groups) / count)] for step in range(count)]

    def rival(self, threads: int, dtype: str) -> Any:
        """SpERT in the process; fp32 on the CPU only, as it comes."""
        if self.arguments.spert is None:
            return None
        if self.setting.device.type != "cpu" or dtype != "fp32":
            self.skip(f"SpERT on {self.setting.device.type} in {dtype}", "the rival is measured on the CPU in fp32")
            return None
        if self._rival is None:
            self._rival = self.setting.rival()
            self.attention["SpERT"] = self._rival.attention
        return self._rival

    def time(self, case: dict[str, Any], work: dict[str, Any], units: int, unit: str) -> dict[str, list[float]]:
        from benchmarks.timing import alternate, summary

        seconds = alternate(work, self.arguments.repeats, synchronize=self.setting.synchronize)
        speeds = {name: round(units / summary(values)["median"], 3) for name, values in seconds.items()}
        rounded = {name: [round(value, 6) for value in values] for name, values in seconds.items()}
        self.measurements.append({**case, "seconds": rounded, f"{unit} a second": speeds})
        return seconds

    def ratio(self, name: str, seconds: dict[str, list[float]], ours: str, other: str, case: dict[str, Any]) -> None:
        from benchmarks.timing import speed_ratio

        self.add_ratio(name, speed_ratio(seconds[ours], seconds[other]), case)

    def add_ratio(self, name: str, value: dict[str, float], case: dict[str, Any]) -> None:
        target = TARGETS.get(name)
        target = target[self.size] if isinstance(target, dict) else target
        rounded = {key: round(figure, 4) for key, figure in value.items()}
        entry = {"name": name, **rounded, **case}
        if target is not None:
            met = rounded["median"] <= target if name in _AT_MOST else rounded["median"] >= target
            entry |= {"target": round(target, 4), "at_most": name in _AT_MOST, "met": met}
        self.ratios.append(entry)

    def skip(self, what: str, why: str) -> None:
        if {"what": what, "why": why} not in self.skipped:
            self.skipped.append({"what": what, "why": why})


def ratio_table(content: dict[str, Any]) -> str:
    """The ratios as a Markdown table, a column for each number of threads; in bold those short of their target."""
    from benchmarks.markdown import markdown_table

    columns = list(dict.fromkeys(where_computed(entry) for entry in content["ratios"]))
    rows: dict[tuple[str, str], list[str]] = {}
    for entry in content["ratios"]:
        place = f", batch {entry['batch']}" if "batch" in entry and "batch" not in entry["name"] else ""
        target = f"{'≤' if entry['at_most'] else '≥'} {entry['target']:g}" if "target" in entry else ""
        row = rows.setdefault((entry["name"] + place, target), [""] * len(columns))
        median = f"{entry['median']:.3g}" if entry.get("met", True) else f"**{entry['median']:.3g}**"
        row[columns.index(where_computed(entry))] = f"{median} ({entry['low']:.3g} … {entry['high']:.3g})"
    return markdown_table(["what", *columns, "target"], [[name, *row, target] for (name, target), row in rows.items()])


def where_computed(entry: dict[str, Any]) -> str:
    """The threads of a measurement, or that a GPU made it, and its dtype where it is not fp32."""
    threads = entry["threads"]
    place = f"{threads} thread{'s' if threads > 1 else ''}" if threads else "GPU"
    return place if entry["dtype"] == "fp32" else f"{place}, {entry['dtype']}"


def _exact(value: float) -> dict[str, float]:
    return {"median": value, "low": value, "high": value}


if __name__ == "__main__":
    sys.exit(main())
