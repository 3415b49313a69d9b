#!/usr/bin/env python3
"""Renders the templates of templates.py with jinja2 as transformers sets it up, and writes vectors.json.

    python make_vectors.py --out vectors.json

Needs `jinja2` and `transformers` (no torch). `strftime_now` gives its format back, so that the vectors do not age.
"""

import argparse
import copy
import json
import sys
import warnings
from pathlib import Path

import jinja2
import transformers
from transformers.utils.chat_template_utils import _cached_compile_jinja_template

from templates import CHATS, EXPRESSIONS, REFUSED, STATEMENTS, VARIABLES

KINDS = {
    "TemplateSyntaxError": "Syntax", "TemplateAssertionError": "Syntax", "SyntaxError": "Syntax", "UndefinedError": "Undefined",
    "SecurityError": "Security", "TypeError": "Type", "ValueError": "Value", "KeyError": "Lookup", "IndexError": "Lookup",
    "AttributeError": "Attribute", "ZeroDivisionError": "Division", "OverflowError": "Overflow", "AssertionError": "Assertion",
    "TemplateRuntimeError": "Runtime", "FilterArgumentError": "Runtime", "RuntimeError": "Runtime", "TemplateError": "Raised",
    "RecursionError": "Limit",
}


def render(template, variables):
    compiled = _cached_compile_jinja_template(template)
    compiled.globals["strftime_now"] = lambda format: f"now({format})"
    return compiled.render(**copy.deepcopy(variables))


def vectors():
    rows = []
    for line in EXPRESSIONS.strip().split("\n"):
        for template in ("{{ " + line + " }}", "{% set x = " + line + " %}{{ x|string|length }}"):
            try:
                rows.append({"template": template, "text": render(template, VARIABLES)})
            except NameError:  # jinja2 writes constants into Python code, and infinity is none there
                continue
    for template in STATEMENTS:
        try:
            rows.append({"template": template, "text": render(template, VARIABLES)})
        except Exception as error:
            rows.append({"template": template, "error": KINDS[type(error).__name__]})
    for template in REFUSED:
        try:
            sys.exit(f"{template} is not refused: {render(template, VARIABLES)}")
        except Exception as error:
            rows.append({"template": template, "error": KINDS[type(error).__name__]})
    for template in CHATS.values():
        for messages in ("messages", "calls"):
            for prompt in (True, False):
                for tools in (None, VARIABLES["tools"]):
                    own = {"messages": VARIABLES[messages], "add_generation_prompt": prompt, "tools": tools}
                    row = {"template": template, "variables": own}
                    try:
                        row["text"] = render(template, {**VARIABLES, **own})
                    except Exception as error:
                        row["error"] = KINDS[type(error).__name__]
                    rows.append(row)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = vectors()
    versions = json.dumps({"jinja2": jinja2.__version__, "transformers": transformers.__version__, "python": sys.version.split()[0]})
    body = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in rows)
    variables = json.dumps(VARIABLES, ensure_ascii=False)
    arguments.out.write_text(f'{{"versions": {versions},\n "variables": {variables},\n "vectors": [\n{body}\n]}}\n', encoding="utf-8")
    print(len(rows), "vectors")


if __name__ == "__main__":
    main()
