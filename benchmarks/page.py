"""Fill docs/performance.md with the figures of the result files; all other text is written by hand.

    python benchmarks/page.py [--check]

A block between `<!-- begin NAME -->` and `<!-- end NAME -->` holds what benchmarks/results/NAME says; a file that is
not there leaves the command that would make it.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if __package__ in (None, ""):
    # run as a script: modules are found from the repository's root, not from this folder
    sys.path[0] = str(ROOT)

from benchmarks.fast_mode import table as fast_mode_table  # noqa: E402
from benchmarks.markdown import markdown_table  # noqa: E402
from benchmarks.speed import ratio_table, where_computed  # noqa: E402
from modeling_aspert.files import write_text  # noqa: E402

PAGE = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "benchmarks" / "results"
_BLOCK = re.compile(r"(<!-- begin (?P<name>[\w.-]+) -->\n).*?(<!-- end (?P=name) -->)", re.DOTALL)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 1 where the page is not up to date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the page would change")
    arguments = parser.parse_args(argv)
    before = arguments.page.read_text(encoding="utf-8")
    after = fill(before, arguments.results)
    if arguments.check:
        if before != after:
            print(f"{arguments.page} is not what the results give: run `python benchmarks/page.py`")
        return int(before != after)
    write_text(arguments.page, after)
    return 0


def fill(page: str, results: Path) -> str:
    """The page with its blocks made anew."""

    def block(match: re.Match[str]) -> str:
        name = match["name"]
        path = results / name
        if not path.is_file():
            program = next((f"{start}.py" for start in ("memory", "fast_mode") if name.startswith(start)), "speed.py")
            text = f"Not measured yet: `python benchmarks/{program} ... --output benchmarks/results/{name}`."
        else:
            content = json.loads(path.read_text(encoding="utf-8"))
            text = _WRITERS[content["kind"]](content)
        return f"{match[1]}{text}\n{match[3]}"

    return _BLOCK.sub(block, page)


def speed_block(content: dict[str, Any]) -> str:
    """Where it was measured, the ratios, speeds by workload, and seconds by stage."""
    parts = [
        f"{_place(content['about'])} Ratios: median (range); in bold if the target is missed.",
        ratio_table(content),
    ]
    sections: dict[tuple[str, str], dict[str, dict[str, float]]] = {}
    for entry in content["measurements"]:
        unit = next((name for name in entry if name.endswith(" a second")), None)
        if unit is None:
            continue
        place = [f"{key} {entry[key]}" for key in ("batch", "length") if key in entry]
        where = ", ".join([*place, where_computed(entry)])
        sections.setdefault((entry["section"], unit), {})[where] = entry[unit]
    for (section, unit), speeds in sections.items():
        workloads = list(dict.fromkeys(name for row in speeds.values() for name in row))
        header = [f"{section}: {unit}", *workloads]
        rows = [
            [where, *(f"{row[name]:.4g}" if name in row else "" for name in workloads)]
            for where, row in speeds.items()
        ]
        parts.append(markdown_table(header, rows))
    profiles = [entry for entry in content["measurements"] if entry["section"] == "profile"]
    if profiles:
        stages = list(dict.fromkeys(stage for entry in profiles for stage in entry["stages"]))
        header = ["ms for all sentences", *stages]
        rows = [
            [
                f"contribution {'on' if entry['contribution'] else 'off'}, batch {entry['batch']}, {where_computed(entry)}",
                *(f"{1000 * entry['stages'].get(stage, {'median': 0.0})['median']:.0f}" for stage in stages),
            ]
            for entry in profiles
        ]
        parts.append(markdown_table(header, rows))
    if content["skipped"]:
        parts.append("Not measured: " + "; ".join(f"{one['what']} ({one['why']})" for one in content["skipped"]) + ".")
    return "\n\n".join(parts)


def memory_block(content: dict[str, Any]) -> str:
    """Peaks by case, and the largest batch by length."""
    parts = []
    for name in ("sweep", "extremes"):
        if name in content:
            rows = [_memory_row(case) for case in content[name]["cases"]]
            header = ["what", "sub-words", "batch", "entities", "relations", "peak MiB", "above resting", "most in"]
            parts += [_place(content[name]["about"]), markdown_table(header, rows)]
    if "budget" in content:
        budget = content["budget"]["about"]["arguments"]["budget"]
        rows = [[str(case["length"]), str(case["largest_batch"])] for case in content["budget"]["cases"]]
        parts += [
            _place(content["budget"]["about"]),
            markdown_table(["sub-words", f"largest batch in {budget:g} GiB"], rows),
        ]
    return "\n\n".join(parts)


def _memory_row(case: dict[str, Any]) -> list[str]:
    length = "test split" if case["length"] is None else str(case["length"])
    entities = "as in the corpus" if case["entities"] is None else str(case["entities"])
    row = [case["side"], length, str(case["batch"]), entities, case["relations"]]
    if "failed" in case:
        return [*row, "stopped", case["failed"].replace("|", "/"), ""]
    stages = case.get("stages") or {}
    return [*row, f"{case['peak_mib']:.0f}", f"{case['above_mib']:.0f}", next(iter(stages), "")]


def _place(about: dict[str, Any]) -> str:
    machine, versions, arguments = about["machine"], about["versions"], about["arguments"]
    device = machine["accelerator"] if arguments["device"] != "cpu" else machine["processor"]
    model = "a trained model" if arguments.get("model") else f"encoder {arguments['encoder']}"
    environment = "".join(f", {name}={value}" for name, value in about["environment"].items())
    return (
        f"{device}, {machine['cores']} cores; torch {versions['torch']}, transformers {versions['transformers']}"
        f"{environment}; {model}; {about['sentences']} sentences of {arguments['dataset']}; commit {about['commit']}."
    )


def fast_mode_block(content: dict[str, Any]) -> str:
    """Where it was measured, and each way's speed and F1."""
    bare, onnxruntime = content["bare encoder"]["sentences a second"], content["about"]["versions"].get("onnxruntime")
    place = _place(content["about"]) + (f" onnxruntime {onnxruntime}." if onnxruntime else "")
    return f"{place} The bare encoder: {bare:.0f} sentences a second.\n\n{fast_mode_table(content)}"


_WRITERS: dict[str, Callable[[dict[str, Any]], str]] = {
    "aspert speed": speed_block,
    "aspert memory": memory_block,
    "aspert fast mode": fast_mode_block,
}

if __name__ == "__main__":
    sys.exit(main())
