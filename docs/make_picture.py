#!/usr/bin/env python3
"""Runs phi3-run and draws what a terminal shows: python3 docs/make_picture.py target/release/phi3-run > docs/phi3-run.svg"""

import html
import subprocess
import sys
import textwrap

COLUMNS, SIZE, LEADING = 104, 13, 19
COMMANDS = [
    (["--seed", "3", "Tell me a story about a brave fox"], None),
    (["chat", "--greedy", "--quiet"], ["My name is Ada.", "What is my name?", "What is 47 + 38?"]),
]


def lines(binary, args, questions):
    shown = " ".join(f'"{a}"' if " " in a else a for a in args)
    yield "prompt", f"$ phi3-run {shown}"
    run = subprocess.run([binary, *args], input="\n".join(questions or []), capture_output=True, text=True, check=True)
    answers = run.stdout.splitlines()
    notes = run.stderr.splitlines()
    for note in notes[:1]:
        yield "note", note
    for i, answer in enumerate(answers):
        if questions:
            yield "prompt", f"> {questions[i]}"
        for part in textwrap.wrap(answer, COLUMNS):
            yield "text", part
    for note in notes[1:]:
        yield "note", note
    yield "text", ""


def main():
    binary = sys.argv[1]
    rows = [row for args, questions in COMMANDS for row in lines(binary, args, questions)][:-1]
    width, height = 24 + COLUMNS * 7.83, 40 + len(rows) * LEADING
    print(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" font-size="{SIZE}"')
    print('     font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, \'DejaVu Sans Mono\', monospace">')
    print("<style>.prompt{fill:#7ee787}.text{fill:#e6edf3}.note{fill:#8b949e}</style>")
    print(f'<rect width="100%" height="100%" rx="8" fill="#0d1117"/>')
    for i, (kind, text) in enumerate(rows):
        print(f'<text class="{kind}" x="16" y="{32 + i * LEADING}" xml:space="preserve">{html.escape(text)}</text>')
    print("</svg>")


if __name__ == "__main__":
    main()
