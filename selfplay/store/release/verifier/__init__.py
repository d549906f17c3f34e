"""verify_corpus.py, the one file that a release carries to check itself with: its parts, and how they become one.

The parts share no code with the rest of this package, on purpose: what they find was computed a second time, row by row
and plainly. They import only the standard library, numpy, pyarrow, deltalake, open_spiel, each other, and
where it is there cryptography; those of verify_weights.py (`selfplay.store.release.weights_file`) also torch.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from pathlib import Path

#: In the order in which they stand in the one file; each may import those before it. `program` has its docstring.
PARTS = (
    "rows",
    "searches",
    "played",
    "games",
    "dialogues",
    "episodes",
    "table",
    "neighbours",
    "chain",
    "signed",
    "proofs",
    "program",
)
_OURS = __name__ + "."


def one_file(parts: Sequence[str] = PARTS) -> str:
    """The source of one file, verify_corpus.py unless told: the parts one after the other, their imports first."""
    plain, named = set[str](), dict[str, set[str]]()
    bodies, docstring = [], ""
    for part in parts:
        source = Path(__file__).with_name(f"{part}.py").read_text()
        tree = ast.parse(source)
        docstring = ast.get_docstring(tree, clean=False) or ""
        first = 1
        for node in tree.body[1:]:
            if isinstance(node, ast.Import):
                plain |= {ast.unparse(node)}
            elif isinstance(node, ast.ImportFrom):
                module = node.module or ""
                if module != "__future__" and not module.startswith(_OURS):
                    named.setdefault(module, set()).update(one.name for one in node.names)
            else:
                break
            first = node.end_lineno or first
        title = f"# {part} ".ljust(120, "-")
        bodies.append(f"{title}\n\n\n" + "\n".join(source.splitlines()[first:]).strip("\n") + "\n")
    lines = sorted(plain)
    lines += [f"from {module} import {', '.join(sorted(names))}" for module, names in sorted(named.items())]
    imports = sorted(lines, key=lambda line: line.split()[1].partition(".")[0] not in sys.stdlib_module_names)
    head = f'"""{docstring}"""\n\nfrom __future__ import annotations\n\n' + "\n".join(imports)
    return "\n\n\n".join([head, *bodies])
