"""Check that the relative links of all Markdown files lead somewhere: python tools/check_links.py.

Only files that git knows are read. A link's file must exist, and its #heading, too. Addresses of
the web are not asked for.
"""

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parent.parent
_CODE = re.compile(r"^(```|~~~).*?^\1|`[^`\n]*`", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
_WEB = re.compile(r"[a-z][a-z0-9+.-]*:")


def anchors(text: str) -> set[str]:
    """The anchors that web pages of a repository make of the headings of `text`."""
    text = re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.DOTALL | re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h).lower().replace(" ", "-") for h in _HEADING.findall(text)}


def broken_links(path: Path) -> list[str]:
    """The links of a Markdown file that lead nowhere."""
    broken = []
    for link in _LINK.findall(_CODE.sub("", path.read_text("utf-8"))):
        if _WEB.match(link):
            continue
        name, _, anchor = unquote(link).partition("#")
        target = (path.parent / name).resolve() if name else path
        is_there = target.is_relative_to(ROOT) and target.exists()
        if not is_there or (anchor and anchor not in anchors(target.read_text("utf-8"))):
            broken.append(link)
    return broken


def main() -> int:
    """Print each broken link with its file; return 1 if there is one."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    paths = [ROOT / name for name in listed.split("\0") if name and (ROOT / name).exists()]
    lines = [
        f"{p.relative_to(ROOT)}: {link}: leads nowhere" for p in paths for link in broken_links(p)
    ]
    print("\n".join([*lines, f"{len(paths)} files, {len(lines)} broken links"]))
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
