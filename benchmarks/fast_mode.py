"""Ways to run a trained model faster on a CPU: time from words to records, and what each costs in F1.

    python benchmarks/fast_mode.py --model DIR [--dataset conll04] [--ways int8-onnx ...]

Each way's time, in the batches that the library makes, is compared with the fp32 forward pass of the bare encoder over
batches sorted by length; all ways take turns, round by round, on one thread. Time is that of the process and not of the
clock on the wall, so that other work on the machine counts less; the best round counts. F1 is measured in the same batches.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if __package__ in (None, ""):
    # run as a script: modules are found from the repository's root, not from this folder
    sys.path[0] = str(ROOT)

# one thread means one thread: the tokenizer's own are switched off before it is loaded
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

KIND = "aspert fast mode"
OUTPUT = ROOT / "benchmarks" / "results" / "fast_mode.json"
WAYS = ("fp32", "bf16", "int8-torch", "compile", "fp32-onnx", "int8-onnx")
# the project's aim for the ratio to the bare encoder, and how much of F1 it may cost
TARGET, TOLERANCE = 1.5, 0.2


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 2 for a wrong call."""
    arguments = build_parser().parse_args(argv)
    try:
        content = measure_all(arguments)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    from benchmarks.setting import write_result

    print("\n" + table(content))
    output = arguments.output or (OUTPUT if not arguments.smoke else None)
    if output is not None:
        write_result(output, KIND, content)
        print(f"written to {output}")
    return 0


def build_parser() -> argparse.ArgumentParser:
    from benchmarks.setting import add_arguments

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--batch", type=int, default=16, help="sentences a forward pass")
    parser.add_argument("--repeats", type=int, default=3, help="timed rounds")
    parser.add_argument("--sentences", type=int, help="the first so many test sentences; default: all")
    return parser


def measure_all(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds and F1 of each way; one that cannot run is named in `skipped`."""
    import torch

    from benchmarks.setting import Setting
    from benchmarks.timing import alternate
    from benchmarks.workloads import Extraction, bare_encoder, forward_only
    from modeling_aspert.scoring import compute_scores

    if arguments.device != "cpu":
        raise ValueError("--device: the ways are those of a CPU")
    if arguments.smoke:
        arguments.repeats, arguments.sentences = 1, arguments.sentences or 16
    torch.set_num_threads(1)
    setting = Setting(arguments, limit=arguments.sentences)
    model = setting.model(True)
    config, skipped, scores = model.config, [], {}
    with tempfile.TemporaryDirectory(prefix="aspert-benchmark-") as work:
        workloads: dict[str, Callable[[], Any]] = {}
        for way in arguments.ways:
            print(way, file=sys.stderr, flush=True)
            try:
                fast = _MAKERS[way](copy.deepcopy(model), setting.processor, Path(work) / way)
                extraction = Extraction(fast, setting.processor, setting.test, arguments.batch)
                records = extraction()
            except Exception as error:  # each way fails in its own way, and the others go on
                reason = " ".join(str(error).split())[:200]
                skipped.append({"what": way, "why": f"{type(error).__name__}: {reason}"})
                continue
            workloads[way] = extraction
            found = compute_scores(
                records, setting.test, config.entity_types, config.relation_types, config.symmetric_relations
            )
            scores[way] = {"ner": found["ner_micro_f1"], "re strict": found["re_strict_micro_f1"]}
        reference = Extraction(model, setting.processor, setting.test, arguments.batch)
        workloads["bare encoder"] = forward_only(bare_encoder(model), reference.encoder_batches())
        # of the process's own time
        seconds = alternate(workloads, arguments.repeats, clock=time.process_time)
    bare = min(seconds.pop("bare encoder"))
    ways = {
        way: {
            "seconds": values,
            "ratio": bare / min(values),
            "sentences a second": len(setting.test) / min(values),
            "f1": scores[way],
        }
        for way, values in seconds.items()
    }
    reference_f1 = scores.get("fp32", {})
    for result in ways.values():
        result["f1 lost"] = {name: reference_f1[name] - value for name, value in result["f1"].items() if reference_f1}
        result["met"] = result["ratio"] >= TARGET and max(result["f1 lost"].values(), default=0.0) <= TOLERANCE
    about = setting.describe()
    if importlib.util.find_spec("onnxruntime"):
        about["versions"]["onnxruntime"] = metadata.version("onnxruntime")
    return {
        "about": about,
        "bare encoder": {"seconds": bare, "sentences a second": len(setting.test) / bare},
        "ways": ways,
        "target": TARGET,
        "skipped": skipped,
    }


def _bf16(model: Any, processor: Any, folder: Path) -> Any:
    import torch

    return model.to(torch.bfloat16)


def _int8_torch(model: Any, processor: Any, folder: Path) -> Any:
    import torch

    # the heads' first layers are taken apart in inference, which quantised layers do not allow
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.encoder = torch.ao.quantization.quantize_dynamic(model.encoder, {torch.nn.Linear}, dtype=torch.qint8)
    return model


def _compiled(model: Any, processor: Any, folder: Path) -> Any:
    import torch

    model.encoder = torch.compile(model.encoder, dynamic=True)
    return model


def _onnx(model: Any, processor: Any, folder: Path, int8: bool = False) -> Any:
    from modeling_aspert.onnx_export import export_onnx
    from modeling_aspert.onnx_model import AspertOnnxModel

    export_onnx(model, processor, folder, int8=int8)
    return AspertOnnxModel(folder, threads=1)


_MAKERS: dict[str, Callable[[Any, Any, Path], Any]] = {
    "fp32": lambda model, processor, folder: model,
    "bf16": _bf16,
    "int8-torch": _int8_torch,
    "compile": _compiled,
    "fp32-onnx": _onnx,
    "int8-onnx": lambda model, processor, folder: _onnx(model, processor, folder, int8=True),
}


def table(content: dict[str, Any]) -> str:
    """Ratios, speeds and F1 as Markdown."""
    from benchmarks.markdown import markdown_table

    fp32 = content["ways"].get("fp32", {}).get("ratio")
    rows = [
        [
            way,
            f"{result['ratio']:.2f}",
            f"{result['ratio'] / fp32:.2f}" if fp32 else "",
            f"{result['sentences a second']:.0f}",
            f"{max(result['seconds']) / min(result['seconds']):.2f}",
            *(f"{value:.2f} ({0 - result['f1 lost'].get(name, 0.0):+.2f})" for name, value in result["f1"].items()),
        ]
        for way, result in content["ways"].items()
    ]
    header = [
        "way",
        "÷ bare encoder",
        "÷ fp32",
        "sentences a second",
        "slowest ÷ best round",
        "NER F1",
        "RE strict F1",
    ]
    lines = [markdown_table(header, rows)]
    lines += [f"Not measured: {one['what']} ({one['why']})." for one in content["skipped"]]
    return "\n\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
