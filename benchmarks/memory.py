"""Peak memory by sentence length and batch size, the largest batch for a budget, and the worst sentences.

    python benchmarks/memory.py sweep --lengths 64 128 256 512 --batches 1 16
    python benchmarks/memory.py budget --budget 2 --lengths 128 512
    python benchmarks/memory.py extremes

Every figure comes from a process of its own: resident memory at its highest, and how much that is above the resting
process with the model loaded.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import json
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if __package__ in (None, ""):
    # run as a script: modules are found from the repository's root, not from this folder
    sys.path[0] = str(ROOT)

KIND = "aspert memory"
OUTPUT = ROOT / "benchmarks" / "results" / "memory.json"
# Predicted entities a word, as in CoNLL04.
ENTITIES_PER_WORD = 0.13
_MIB = 2**20


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 2 for a wrong call."""
    arguments = build_parser().parse_args(argv)
    try:
        return arguments.action(arguments)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def build_parser() -> argparse.ArgumentParser:
    from benchmarks.setting import add_arguments

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="command", required=True)
    sweep = actions.add_parser("sweep", help="peak by length and batch")
    sweep.set_defaults(action=_sweep)
    sweep.add_argument("--batches", nargs="+", type=int, default=[1, 16])
    budget = actions.add_parser("budget", help="the largest batch by length that stays within a budget")
    budget.set_defaults(action=_budget)
    budget.add_argument(
        "--budget", type=float, default=2.0, help="GiB of resident memory, the model's weights included"
    )
    extremes = actions.add_parser(
        "extremes", help="a 512-sub-word sentence with 200 entities; with nothing but entities"
    )
    extremes.set_defaults(action=_extremes)
    extremes.add_argument("--length", type=int, default=512, help="sub-words")
    for action in (sweep, budget):
        action.add_argument("--lengths", nargs="+", type=int, default=[32, 64, 128, 256, 512])
    for action in (sweep, budget, extremes):
        add_arguments(action)
        action.add_argument("--contribution", choices=("on", "off"), default="on")
        action.add_argument("--threads", type=int, default=1)
        action.add_argument("--limit", type=float, default=8.0, help="GiB at which a process is stopped")
        action.add_argument("--timeout", type=float, default=600.0, help="seconds after which a process is stopped")
        action.add_argument("--data-limit", type=int, default=64, help="test sentences that give the words")
    child = actions.add_parser("child", help=argparse.SUPPRESS)
    child.set_defaults(action=_child)
    child.add_argument("specification")
    return parser


# -- parent ----------------------------------------------------------------------------------------------------------


def measure(arguments: argparse.Namespace, **case: Any) -> dict[str, Any]:
    """Run one case in a process of its own.

    Args:
        case: ``side`` (ours, spert or encoder), ``length`` (None for the test split itself), ``batch``, ``entities`` (a number a
            sentence, or "all") and ``relations`` ("few" or "untrained").

    Returns:
        The case with ``resting_mib``, ``peak_mib``, ``above_mib``, ``seconds`` and ``stages``; or with ``failed``.
    """
    case = {"side": "ours", "length": 64, "batch": 1, "entities": None, "relations": "few", **case}
    names = ("encoder", "tokenizer", "model", "dataset", "data_dir", "spert", "spert_weights", "spert_types", "device")
    names += ("contribution", "threads", "limit", "data_limit")
    shared = {name: getattr(arguments, name, None) for name in names}
    shared = {name: str(value.resolve()) if isinstance(value, Path) else value for name, value in shared.items()}
    if case["length"] is None:
        shared["data_limit"] = getattr(arguments, "sentences", None)
    dtype = arguments.dtype if isinstance(arguments.dtype, str) else arguments.dtype[0]
    specification = json.dumps({**shared, "dtype": dtype, **case})
    command = [sys.executable, str(Path(__file__)), "child", specification]
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=arguments.timeout)
    except subprocess.TimeoutExpired:
        return {**case, "failed": f"not finished after {arguments.timeout} s"}
    if done.returncode == 0:
        return {**case, **json.loads(done.stdout.splitlines()[-1])}
    reason = (done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"])[-1]
    return {**case, "failed": reason}


def _sweep(arguments: argparse.Namespace) -> int:
    lengths, batches = (arguments.lengths, arguments.batches) if not arguments.smoke else ([64], [1])
    cases = [
        measure(arguments, side=side, length=length, batch=batch)
        for length in lengths
        for batch in batches
        for side in (("ours", "encoder", "spert") if arguments.spert else ("ours", "encoder"))
    ]
    return _write(arguments, "sweep", cases)


def _budget(arguments: argparse.Namespace) -> int:
    lengths = arguments.lengths if not arguments.smoke else [64]
    most = 1024 if not arguments.smoke else 2

    def fits(length: int) -> Callable[[int], bool]:
        def within(batch: int) -> bool:
            peak = measure(arguments, length=length, batch=batch).get("peak_mib")
            return peak is not None and peak <= arguments.budget * 1024

        return within

    cases = [{"length": length, "largest_batch": largest(fits(length), most)} for length in lengths]
    return _write(arguments, "budget", cases)


def _extremes(arguments: argparse.Namespace) -> int:
    length = min(arguments.length, 64) if arguments.smoke else arguments.length
    cases = [
        measure(arguments, length=length, entities=entities, relations=relations)
        for entities in (min(200, length), "all")
        for relations in ("few", "untrained")
    ]
    return _write(arguments, "extremes", cases)


def largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest number from 1 to ``most`` that fits, by doubling and bisection; 0 where 1 does not fit."""
    if not fits(1):
        return 0
    low, high = 1, 2
    while high <= most and fits(high):
        low, high = high, high * 2
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _write(arguments: argparse.Namespace, part: str, cases: list[dict[str, Any]]) -> int:
    from benchmarks.setting import Setting, write_result

    output = arguments.output or OUTPUT
    content: dict[str, Any] = {}
    if output.is_file():
        before = json.loads(output.read_text(encoding="utf-8"))
        content = {name: value for name, value in before.items() if name not in ("kind", "format")}
    content[part] = {
        "about": Setting(arguments, limit=arguments.data_limit).describe(),
        "smoke": arguments.smoke,
        "cases": cases,
    }
    write_result(output, KIND, content)
    for case in cases:
        print(json.dumps({name: value for name, value in case.items() if name != "stages"}))
        for stage, mib in case.get("stages", {}).items():
            print(f"    {stage:16} {mib:8.0f} MiB above resting")
    print(f"written to {output}")
    return 0


# -- child -----------------------------------------------------------------------------------------------------------


def _child(arguments: argparse.Namespace) -> int:
    import time

    import torch

    from benchmarks.setting import Setting

    case = argparse.Namespace(**json.loads(arguments.specification))
    for name in ("data_dir", "spert", "spert_weights", "spert_types"):
        setattr(case, name, Path(getattr(case, name)) if getattr(case, name) else None)
    limit = int(case.limit * 2**30)
    # what would take more is stopped by itself, not by the machine running out
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    torch.set_num_threads(case.threads)
    setting = Setting(case, limit=case.data_limit)
    work, stages = _workload(setting, case)
    start = time.perf_counter()
    if setting.device.type == "cuda":
        figures = _cuda_peak(work)
    else:
        figures = _resident_peak(work)
    figures["seconds"] = round(time.perf_counter() - start, 3)
    if stages is not None and setting.device.type == "cpu":
        figures["stages"] = stages()
    print(json.dumps(figures))
    return 0


def _workload(
    setting: Any, case: argparse.Namespace
) -> tuple[Callable[[], Any], Callable[[], dict[str, float]] | None]:
    """The work of a case, warmed up on a short sentence; and a way to ask each of its stages for its peak."""
    from benchmarks.workloads import (
        Extraction,
        bare_encoder,
        build_model,
        calibrate,
        forward_only,
        is_trained,
        sentences_of_length,
        without_contribution,
    )

    records = setting.test
    if case.length is not None:
        records = sentences_of_length(setting.test, setting.processor, case.length, case.batch)
    short = sentences_of_length(setting.test, setting.processor, 16, 1)
    if case.side == "spert":
        rival = setting.rival()
        rival.sentence(short[0])()
        if len(records) == 1:
            return rival.sentence(records[0]), None
        return rival.evaluation(records, case.batch), None
    import torch

    model = build_model(setting.encoder, setting.processor, setting.labels)
    if case.contribution == "off":
        model = without_contribution(model)
    model.to(setting.device)
    extraction = Extraction(model, setting.processor, records, case.batch)
    if not is_trained(setting.encoder) or case.entities is not None:
        _force(extraction, case, calibrate)
    if case.dtype == "bf16":
        model.to(torch.bfloat16)
    Extraction(model, setting.processor, short, 1)()
    if case.side == "encoder":
        encoder, batches = bare_encoder(model), extraction.encoder_batches()
        del model.encoder
        return forward_only(encoder, batches), None
    return extraction.in_whole_batches, lambda: _stage_peaks(extraction)


def _force(extraction: Any, case: argparse.Namespace, calibrate: Callable[..., Any]) -> None:
    """Make the untrained heads predict so many entities, and hardly any relation or what chance gives."""
    import torch

    model = extraction.model
    bias = model.relation_classifier.output.bias.data
    untrained = bias.clone()
    bias -= 20.0
    classifier = model.span_classifier.output if model.span_classifier.is_mlp else model.span_classifier.input
    if case.entities == "all":
        classifier.bias.data[0] -= 1e4
    else:
        words = sum(len(words) for words in extraction.words)
        wanted = round(ENTITIES_PER_WORD * words) if case.entities is None else case.entities * len(extraction.words)
        # calibration forward passes see no entity, so they cost no pairs
        with torch.no_grad():
            classifier.bias.data[0] += 1e4
            calibrate(extraction, wanted, None)
    if case.relations == "untrained":
        bias.copy_(untrained)


def _resident_peak(work: Callable[[], Any]) -> dict[str, float]:
    _give_back()
    resting = _status("VmRSS")
    exact = _reset_peak()
    work()
    peak = _status("VmHWM") if exact else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"resting_mib": round(resting, 1), "peak_mib": round(peak, 1), "above_mib": round(peak - resting, 1)}


def _cuda_peak(work: Callable[[], Any]) -> dict[str, float]:
    import torch

    resting = torch.cuda.memory_allocated() / _MIB
    torch.cuda.reset_peak_memory_stats()
    work()
    peak = torch.cuda.max_memory_allocated() / _MIB
    return {"resting_mib": round(resting, 1), "peak_mib": round(peak, 1), "above_mib": round(peak - resting, 1)}


def _stage_peaks(extraction: Any) -> dict[str, float]:
    """Highest resident memory above resting within each stage, in MiB, in order of size; a second run of the work."""
    from benchmarks.timing import patched

    _give_back()
    resting = _status("VmRSS")
    peaks: dict[str, float] = {}

    def wrap(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            _reset_peak()
            try:
                return function(*args, **kwargs)
            finally:
                peaks[stage] = max(peaks.get(stage, 0.0), round(_status("VmHWM") - resting, 1))

        return watched

    with patched(extraction.stages(wrap)):
        extraction.in_whole_batches()
    return dict(sorted(peaks.items(), key=lambda item: -item[1]))


def _status(name: str) -> float:
    """A figure of /proc/self/status in MiB; without /proc, the highest resident memory so far."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            line = next(line for line in file if line.startswith(f"{name}:"))
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return int(line.split()[1]) / 1024


def _give_back() -> None:
    """Hand freed memory back to the system, so that it does not count as resting."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _reset_peak() -> bool:
    """Let the kernel's highest resident memory start anew; False where it cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
