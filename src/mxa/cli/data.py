"""Commands that make and check data sets."""

from dataclasses import fields
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from tqdm import tqdm

from mxa.cli.shared import Command, add_data_options, advance, data_options
from mxa.data.options import read
from mxa.errors import ConfigError
from mxa.preprocess import Preprocess
from mxa.quiet import quiet


def _phantom_parser() -> ArgumentParser:
    parser = ArgumentParser(
        allow_abbrev=False,
        description="Draw phantom radiographs with CheXpert's layout, label statistics, boxes and masks.",
    )
    parser.add_argument("out", type=str, help="new folder")
    parser.add_argument("--images", type=int, default=2000, help="number of images over all splits")
    parser.add_argument("--size", type=int, default=320, help="short side in pixels")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same files")
    parser.add_argument("--workers", type=int, default=None, help="drawing processes; default one per processor")
    return parser


def _phantom(options: Namespace) -> int:
    from mxa.data.phantom import make_phantom

    with tqdm(unit="image", disable=None) as bar:
        out = make_phantom(
            Path(options.out),
            images=options.images,
            size=options.size,
            seed=options.seed,
            workers=options.workers,
            progress=advance(bar),
        )
    print(f"{out}: phantom radiographs in CheXpert's layout; `mxa data check {out} --dataset chexpert` looks them over")
    return 0


def _pack_parser() -> ArgumentParser:
    parser = ArgumentParser(
        allow_abbrev=False,
        description="Decode and resize a data set's pictures once, into one memory map that all runs share (`mxa train "
        "--pack DIR`). A killed run goes on when it is called again. `mxa data pack DIR --verify` checks a pack.",
    )
    parser.add_argument("root", type=str, help="the data set's folder; with --verify the pack's")
    parser.add_argument("--out", type=str | None, default=None, help="new folder for the pack")
    parser.add_argument("--verify", action="store_true", help="compare a pack with its checksums instead")
    parser.add_argument("--max_rejects", type=int, default=0, help="unreadable pictures that may be left out")
    parser.add_argument("--full_decode", action="store_true", help="decode large JPEGs in full, several times as slow")
    parser.add_argument("--workers", type=int | None, default=None, help="decoding threads; default one per processor")
    parser.add_class_arguments(Preprocess, "preprocess", skip={"mean", "std", "version"})
    add_data_options(parser, set())
    return parser


def _pack(options: Namespace) -> int:
    from mxa.data.pack import REJECTS, read_manifest
    from mxa.data.packing import make_pack, verify_pack

    if options.verify == (options.out is not None):
        raise ConfigError("give either --out, the new pack's folder, or --verify")
    if options.verify:
        with tqdm(unit="image", disable=None) as bar:
            wrong = verify_pack(Path(options.root), progress=advance(bar))
        print("\n".join(wrong) if wrong else f"{options.root}: every block is what it was")
        return 1 if wrong else 0
    parser = _pack_parser()
    table = read(data_options(parser, options, options.root))
    contract: Preprocess = parser.instantiate(options)["preprocess"]
    with tqdm(unit="image", disable=None) as bar, quiet():
        out = make_pack(
            table,
            Path(options.out),
            contract,
            reduced=not options.full_decode,
            allowed=options.max_rejects,
            workers=options.workers,
            progress=advance(bar),
        )
    made = read_manifest(out)
    left_out = f", without {made['rejects']} unreadable ones ({REJECTS})" if made["rejects"] else ""
    print(f"{out}: {made['images']} pictures of {options.root}{left_out}, {contract.size} px; train with --pack {out}")
    return 0


def _check_parser() -> ArgumentParser:
    parser = ArgumentParser(
        allow_abbrev=False,
        description="Report everything that is wrong with a data set, by file and row; exit 1 if anything is.",
    )
    parser.add_argument("root", type=str, help="the data set's folder")
    parser.add_argument("--no_pixels", action="store_true", help="check the tables only, open no image")
    others = {field.name for field in fields(Preprocess)} - {"wide_range"}
    parser.add_class_arguments(Preprocess, "preprocess", skip=others)
    add_data_options(parser, set())
    return parser


def _check(options: Namespace) -> int:
    from mxa.data.check import check_dataset
    from mxa.data.problems import Problem

    parser = _check_parser()
    data = data_options(parser, options, options.root)
    contract: Preprocess = parser.instantiate(options)["preprocess"]
    problems: list[Problem] = []
    table = read(data, problems=problems)
    with tqdm(unit="image", disable=None) as bar, quiet():
        problems += check_dataset(
            table, pixels=not options.no_pixels, wide_range=contract.wide_range, progress=advance(bar)
        )
    for problem in problems:
        print(problem)
    print(f"{options.root}: {len(table)} images, {len(problems)} problems")
    print(table.counts().to_string())
    return 1 if problems else 0


COMMANDS = {
    "data phantom": Command("draw a data set of phantom radiographs in CheXpert's layout", _phantom_parser, _phantom),
    "data pack": Command("decode and resize once, for all runs", _pack_parser, _pack),
    "data check": Command("look for broken images and labels", _check_parser, _check),
}
