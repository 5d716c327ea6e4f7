"""Copy the docstrings of the pure twins, the specification, to the .pyx files.

    python tools/docstrings.py            write them
    python tools/docstrings.py --check    exit 1 where one differs

Only a class or method that has a docstring in both files is touched. A signature that
leads one in a .pyx file (for ``inspect.signature``, where Cython has none) stays.
"""

import ast
import re
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "ctxpool"
CLASS = re.compile(r"^(?:cdef )?class (\w+)")
METHOD = re.compile(r"^    (?:async )?def (\w+)\(")
INDENTED = re.compile(r"^\s*\"\"\"")


def led(old: list[str], doc: list[str]) -> list[str]:
    """*doc*, led by the signature that leads *old*, if one does."""
    text = doc[0].strip().removeprefix('"""')
    if old[0].endswith(r"\n--\n"):
        indent = " " * (len(old[0]) - len(old[0].lstrip()))
        return [old[0], indent + text, *doc[1:]]
    if "--" in old:
        return [*old[: old.index("--") + 2], text, *doc[1:]]
    return doc


def specified(source: str) -> dict[str, list[str]]:
    """The docstrings of a Python module as source lines, by qualified name."""
    lines, found = source.splitlines(), {}

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                name = prefix + child.name
                if ast.get_docstring(child) is not None:
                    text = child.body[0]
                    found[name] = lines[text.lineno - 1 : text.end_lineno]
                if isinstance(child, ast.ClassDef):
                    visit(child, f"{name}.")

    visit(ast.parse(source), "")
    return found


def rewritten(source: str, docs: dict[str, list[str]]) -> str:
    """The .pyx *source* with *docs* in the places of its own docstrings."""
    lines, out, scope, i = source.splitlines(), [], "", 0
    while i < len(lines):
        line = lines[i]
        name = None
        if match := CLASS.match(line):
            scope = name = match[1]
        elif match := METHOD.match(line):
            name = f"{scope}.{match[1]}"
        elif line and not line[0].isspace() and not line.startswith(("@", "#", ")")):
            scope = ""
        out.append(line)
        i += 1
        if name is None:
            continue
        while not lines[i - 1].rstrip().endswith(":"):  # the rest of the signature
            out.append(lines[i])
            i += 1
        if i < len(lines) and INDENTED.match(lines[i]):
            end = i
            while lines[end].count('"""') != 2 and (
                end == i or not lines[end].rstrip().endswith('"""')
            ):
                end += 1
            old = lines[i : end + 1]
            out += led(old, docs[name]) if name in docs else old
            i = end + 1
    return "\n".join(out) + "\n"


def main() -> int:
    check, stale = "--check" in sys.argv[1:], []
    docs: dict[str, list[str]] = {}
    for twin in sorted((PACKAGE / "_pure").glob("*.py")):
        docs |= specified(twin.read_text())
    for pyx in sorted((PACKAGE / "_native").glob("*.pyx")):
        old = pyx.read_text()
        new = rewritten(old, docs)
        if new != old:
            stale.append(pyx.name)
            if not check:
                pyx.write_text(new)
    for name in stale:
        print(
            f"{name}: docstrings {'differ from' if check else 'copied from'} its twin"
        )
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
