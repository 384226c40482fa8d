#!/usr/bin/env python3
"""Texts of four kinds for bench/quality.py, each in a part to calibrate on and one to measure on.

    texts.py --out DIR --wikitext VALIDATION TEST --shakespeare FILE --conversations DIR --faq FILE
        [--code DIR]

--conversations is the data folder of the package chatterbot-corpus (questions and answers in YAML) and
--faq the Debian FAQ as text; both together are the instruction-style text. --code is a folder of
Python files (default: this interpreter's standard library). No file, question or part of a text is
on both sides. Prints the --text arguments.
"""

import argparse
import hashlib
import pathlib
import sysconfig

import yaml

# Enough for 32 sequences of 2,048 tokens.
MOST_BYTES = 400_000


def side(name):
    return hashlib.sha256(name.encode()).digest()[0] % 2


def code(folder):
    sides = ([], [])
    for file in sorted(folder.rglob("*.py")):
        if not {"test", "tests", "site-packages"} & set(file.parts):
            sides[side(file.name)].append(file.read_text(errors="ignore"))
    return ["\n\n".join(texts) for texts in sides]


def conversations(folder):
    sides = ([], [])
    for file in sorted((folder / "english").glob("*.yml")):
        for talk in yaml.safe_load(file.read_text())["conversations"]:
            turns = [f"{'Assistant' if i % 2 else 'User'}: {line}" for i, line in enumerate(talk)]
            sides[side(turns[0])].append("\n".join(turns))
    return ["\n\n".join(talks) for talks in sides]


def in_two(text):
    return text[:len(text) // 2], text[len(text) // 2:]


def cut(text):
    return text.encode()[:MOST_BYTES].decode(errors="ignore")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--wikitext", type=pathlib.Path, nargs=2, required=True)
    parser.add_argument("--shakespeare", type=pathlib.Path, required=True)
    parser.add_argument("--conversations", type=pathlib.Path, required=True)
    parser.add_argument("--faq", type=pathlib.Path, required=True)
    parser.add_argument("--code", type=pathlib.Path, default=pathlib.Path(sysconfig.get_path("stdlib")))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    instructions = zip(conversations(args.conversations), in_two(args.faq.read_text()))
    parts = {"shakespeare": in_two(args.shakespeare.read_text()), "code": code(args.code),
             "instructions": ["\n\n".join(texts) for texts in instructions]}
    for name, texts in parts.items():
        for use, text in zip(("calibration", "evaluation"), texts):
            (args.out / f"{name}.{use}.txt").write_text(cut(text))
    for use, file in zip(("calibration", "evaluation"), args.wikitext):
        # read_text makes one character of a line end: with two, the original is 2 % better.
        (args.out / f"wikitext2.{use}.txt").write_text(file.read_text())
    for name in ("wikitext2", *parts):
        print(f"--text {name}={args.out / name}.calibration.txt:{args.out / name}.evaluation.txt")


if __name__ == "__main__":
    main()
