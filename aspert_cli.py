"""The `aspert` command: options and error messages. What it does is in `modeling_aspert.commands`, and in
`data_scripts.commands` for what needs no model; each is imported only when a command runs, since the first takes seconds.
"""

from __future__ import annotations

import argparse
import difflib
import os
import signal
import sys

# what stands in modeling_aspert and data_scripts too, which must not be imported for --help; a test compares them
_INPUT_FORMATS = ("text", "jsonl", "json", "csv", "tsv", "parquet")
_OUTPUT_FORMATS = ("jsonl", "json", "parquet", "csv", "brat", "spacy", "ntriples", "graphml", "neo4j")
_SPLIT_UNITS = ("document", "sentence")
_CONVERT_FORMATS = ("brat", "doccano", "label-studio", "aspert", "dygie", "drug-ae", "corp")


class _Command(argparse.ArgumentParser):
    """The options of one command. argparse itself takes no inputs behind an option, and tells a wrong option with the
    usage of `aspert`, or in its place that another is missing."""

    def parse_known_args(self, args=None, namespace=None):
        words = list(args)
        for word in words[: words.index("--")] if "--" in words else words:
            self._check_option(word)
        namespace, rest = super().parse_known_args(words, namespace)
        several = next((name for name in ("inputs", "data") if isinstance(getattr(namespace, name, None), list)), None)
        if rest and (several is None or any(word.startswith("-") and word != "-" for word in rest)):
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        if rest:
            setattr(namespace, several, [*getattr(namespace, several), *rest])
        return namespace, []

    def _check_option(self, word: str) -> None:
        name, known = word.partition("=")[0], list(self._option_string_actions)
        # argparse takes beginnings of options, and words with a blank for values
        if not name.startswith("--") or " " in word or any(option.startswith(name) for option in known):
            return
        close = difflib.get_close_matches(name, known, n=1)
        self.error(
            f"there is no option {name}: " + (f"did you mean {close[0]}?" if close else f"see {self.prog} --help")
        )


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="aspert",
        description="Joint entity and relation extraction: text goes in, entities and their relations come out.",
        epilog="`aspert COMMAND --help` tells more. Exit code 0: all was done; 2: bad usage or bad input.",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Command)

    model = argparse.ArgumentParser(add_help=False)
    model.add_argument("model", metavar="MODEL", help="a folder with a saved model, or a Hub name")
    options = argparse.ArgumentParser(add_help=False, parents=[model])
    group = options.add_argument_group("model options")
    group.add_argument("--revision", help="branch, tag or commit of a Hub name (of MODEL, not of --vote)")
    group.add_argument("--device", help="cpu, cuda, cuda:1, mps ... (default: a GPU if there is one)")
    group.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    group.add_argument("--batch-size", type=int, default=16, help="sentences a forward pass (default: 16)")
    group.add_argument(
        "--relation-threshold",
        action="append",
        metavar="[TYPE=]P",
        help="least probability of a relation, for all types or one; may be repeated (default: the model's)",
    )
    group.add_argument(
        "--entity-threshold", type=float, metavar="P", help="least probability of an entity (default: the model's)"
    )
    group.add_argument(
        "--entity-overlap",
        choices=("allow", "flat"),
        help="flat: the best of overlapping entities (default: the model's)",
    )
    group.add_argument(
        "--stride",
        type=int,
        default=64,
        metavar="WORDS",
        help="overlap of the windows over long sentences (default: 64)",
    )

    voters = argparse.ArgumentParser(add_help=False)
    voters.add_argument(
        "--vote",
        action="append",
        metavar="MODEL",
        help="another model, such as one trained with another seed; may be repeated: what more than half of all models "
        "predict is taken (of two, what both predict)",
    )

    texts = argparse.ArgumentParser(add_help=False)
    group = texts.add_argument_group("text options")
    group.add_argument(
        "--word-splitter", help="rules, rules-split-hyphens, word-punct or whitespace (default: the model's)"
    )
    group.add_argument("--language", help="language of the text, for its sentences (default: the model's)")
    group.add_argument("--no-sentence-splitting", action="store_true", help="take each record as one sentence")

    source = argparse.ArgumentParser(add_help=False)
    source.add_argument("inputs", nargs="*", metavar="INPUT", help="files, folders of .txt, or - (default: stdin)")
    source.add_argument("--text", action="append", help="a text, in place of files; may be repeated")
    source.add_argument("--input-format", choices=_INPUT_FORMATS, help="default: by the file's suffix, else text")
    source.add_argument("--column", help="the field or column with the text (of all formats but text)")

    predict = commands.add_parser(
        "predict",
        parents=[options, voters, texts, source],
        help="extract entities and relations from texts or words",
        description="Raw text, one record a line; or JSONL, CSV, TSV, Parquet, or JSON in SpERT's format (whose "
        "words JSON lines keep). All entities are predicted: those that input records hold are ignored. Results come "
        "when 256 records, or about a million characters, were read. With --output and the format jsonl, the same "
        "command goes on where a stopped run was, with the same inputs; the other formats begin anew.",
    )
    predict.add_argument("--output", metavar="PATH", help="default: JSON lines on standard output")
    predict.add_argument(
        "--format",
        choices=_OUTPUT_FORMATS,
        help="default: by the suffix of --output (.jsonl, .json, .parquet, .spacy, .nt, .graphml), jsonl without one; "
        "csv, brat and neo4j write a folder",
    )
    predict.add_argument("--progress", action="store_true", help="a progress bar even if stderr is no terminal")

    evaluate = commands.add_parser("evaluate", parents=[options, voters], help="score a model on annotated data")
    evaluate.add_argument("data", metavar="DATA.json", help="JSON or JSONL in SpERT's format")
    evaluate.add_argument("--output", metavar="DIR", help="write scores, predictions and an error analysis there")
    # the words are given
    evaluate.set_defaults(word_splitter=None, language=None, no_sentence_splitting=True)

    show = commands.add_parser(
        "show", parents=[options, voters, texts, source], help="draw entities and relations as an HTML page"
    )
    show.add_argument("--output", metavar="PAGE.html", required=True)
    show.add_argument("--title", default="Entities and relations")

    convert = commands.add_parser("convert", help="convert annotations to SpERT's JSON format")
    convert.add_argument("source_format", choices=_CONVERT_FORMATS, help="aspert: what `aspert predict` writes")
    convert.add_argument("input", help="a file; for brat a file pair or a folder")
    convert.add_argument("output", help="a .json or .jsonl file")
    convert.add_argument("--types-output", metavar="TYPES.json", help="write the types file too")
    convert.add_argument("--symmetric", action="append", metavar="TYPE", help="a symmetric relation; may be repeated")
    convert.add_argument(
        "--split-sentences", action="store_true", help="a record is a sentence of the text (default: a line)"
    )
    convert.add_argument("--language", help="language of the text, for its sentences (default: en)")

    split = commands.add_parser(
        "split",
        help="split annotated data into train, dev and test",
        description="Writes train.json, dev.json, test.json and types.json into a folder, for train.py. A document is in one "
        "of them as a whole. The same data give the same splits, whatever their order.",
    )
    split.add_argument("data", metavar="DATA.json", help="JSON or JSONL in SpERT's format")
    split.add_argument("--output", required=True, metavar="DIR")
    split.add_argument(
        "--dev",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="share of the records, 0 for no dev.json (default: 0.1)",
    )
    split.add_argument(
        "--test",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="share of the records, 0 for no test.json (default: 0.1)",
    )
    split.add_argument(
        "--by",
        choices=_SPLIT_UNITS,
        default="document",
        help="what is kept together: records whose orig_id is the same up to the number after its last _, or records with "
        "the same words (default: document)",
    )
    split.add_argument("--seed", type=int, default=0, help="another one gives other splits (default: 0)")
    split.add_argument("--types", metavar="TYPES.json", help="the types file (default: the types that occur)")

    validate = commands.add_parser("validate", help="check annotated data; every problem with its place and mend")
    validate.add_argument("data", nargs="+", metavar="DATA")
    validate.add_argument("--types", metavar="TYPES.json", help="also check that all types are known")
    validate.add_argument("--max-span-width", type=int, default=10, help="count entities of more words (default: 10)")
    validate.add_argument("--page", metavar="PAGE.html", help="draw the sentences of the files that have no error")

    info = commands.add_parser("info", parents=[model], help="labels, switches and scores of a model")
    info.add_argument("--revision", help="branch, tag or commit of a Hub name")

    spert = commands.add_parser("import-spert", help="turn a checkpoint of SpERT's code into an ASpERT model")
    spert.add_argument("spert_dir", metavar="SPERT_DIR", help="folder with config.json, model.safetensors, vocab.txt")
    spert.add_argument("--types", required=True, metavar="TYPES.json", help="the types file it was trained with")
    spert.add_argument("--output", required=True, metavar="DIR")
    spert.add_argument("--max-span-width", type=int, default=10, help="SpERT's max_span_size (default: 10)")
    spert.add_argument("--relation-threshold", type=float, default=0.4, help="SpERT's rel_filter_threshold")

    onnx = commands.add_parser(
        "export-onnx",
        parents=[model],
        help="write a model as ONNX graphs, which predict, evaluate, show and demo take too",
        description="Needs the extra onnx. The folder holds all that inference needs and runs on the CPU.",
    )
    onnx.add_argument("--revision", help="branch, tag or commit of a Hub name")
    onnx.add_argument("--output", required=True, metavar="DIR")
    onnx.add_argument("--int8", action="store_true", help="8-bit weights: faster and smaller, scores differ a little")

    constraints = commands.add_parser(
        "learn-constraints",
        parents=[model],
        help="store in a model what data show: the types each relation may join, overlapping entities or none",
        description="Changes config.json of a model in a folder of this machine.",
    )
    constraints.add_argument("data", metavar="TRAIN.json")

    thresholds = commands.add_parser(
        "learn-thresholds",
        parents=[model],
        help="store in a model the thresholds that suit development data best",
        description="Tries thresholds of entities and relations, with and without overlapping entities, and changes "
        "config.json of a model in a folder of this machine. Give data that the model was not trained on, and not those "
        "that it will be tested on.",
    )
    thresholds.add_argument("data", metavar="DEV.json")
    thresholds.add_argument("--device", help="cpu, cuda, cuda:1, mps ... (default: a GPU if there is one)")
    thresholds.add_argument("--metric", default="re_strict_micro_f1", help="the score (default: %(default)s)")

    demo = commands.add_parser("demo", parents=[options, texts], help="a web page on this machine to try a model")
    demo.add_argument("--port", type=int, default=7860)
    return parser


def main(argv: list[str] | None = None) -> int:
    if argv is None:
        end_on_interrupt()
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.version:
        from importlib.metadata import version

        print(version("aspert"))
        return 0
    if args.command is None:
        parser.print_help(sys.stderr)
        return 2
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if argv is None and sys.stdout is not None:
        # JSON is UTF-8, also where Windows redirects it to a file
        sys.stdout.reconfigure(encoding="utf-8", errors=sys.stdout.errors)
    if argv is None and hasattr(signal, "SIGPIPE"):
        # `aspert predict ... | head` ends without a traceback
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        if args.command in ("convert", "split", "validate"):
            from data_scripts import commands
        else:
            from transformers.utils import logging

            logging.disable_progress_bar()
            # what is wrong with a model is said in one line
            logging.set_verbosity_error()
            from modeling_aspert import commands
        if argv is None:
            raise_on_interrupt()
        getattr(commands, args.command.replace("-", "_"))(args)
    except KeyboardInterrupt:
        print("interrupted: nothing is half-written; JSON lines go on with the same command", file=sys.stderr)
        return 130
    except Exception as error:
        if os.environ.get("ASPERT_TRACEBACK"):
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    return 0


def end_on_interrupt() -> None:
    """Let an interrupt end the process with a line: within the imports, which take seconds, it would be a traceback, or
    lost."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(
            signal.SIGINT,
            lambda *_: (print("interrupted: nothing was begun", file=sys.stderr, flush=True), os._exit(130)),
        )


def raise_on_interrupt() -> None:
    """Let an interrupt be a KeyboardInterrupt, but where it is ignored, as in the background."""
    if callable(signal.getsignal(signal.SIGINT)):
        signal.signal(signal.SIGINT, signal.default_int_handler)


def one_line(error: Exception) -> str:
    """What is wrong; of several problems with data, their number and the first."""
    problems = getattr(error, "problems", ())
    if len(problems) > 1:
        return f"{len(problems)} problems, the first: {problems[0]} (`aspert validate FILE` lists all)"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join(line.strip() for line in lines)


if __name__ == "__main__":
    sys.exit(main())
