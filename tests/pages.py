"""What the pages tell a user to type, taken out of them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = {
    path.name: path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}


def blocks(page: str, language: str) -> list[str]:
    """Return the code blocks of a language, in the page's order."""
    fence = re.compile(rf"^( *)```{language}\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
    indented = fence.findall(PAGES[page])
    return [re.sub(rf"^{indent}", "", text, flags=re.MULTILINE) for indent, text in indented]


def job_commands(page: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the job and the options of each command that starts one, in the page's order."""
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            jobs = [n for n, word in enumerate(words) if re.fullmatch(r"jobs/\w+\.py", word)]
            for n in jobs:
                yield words[n], words[n + 1 :]


def tables(page: str) -> Iterator[list[list[str]]]:
    """Yield the cells of each table, its head first; escaped bars are not looked for."""
    for text in re.findall(r"(?:^\|.*\|\n)+", PAGES[page], re.MULTILINE):
        rows = [line.strip("|\n").split("|") for line in text.splitlines()]
        yield [
            [cell.strip() for cell in row] for row in rows if not set("".join(row)) <= set("-: ")
        ]
