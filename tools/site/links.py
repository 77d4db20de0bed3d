"""Rewrite links that lead out of docs/: a hook of MkDocs.

On GitHub a page may link to any file of the repository, but the site contains docs/ only. A link to a file that has a
page on the site leads to that page. Any other link becomes text.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.pages import Page

LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]+)\]\((?P<target>\.\./[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "weights/README.md": "weights.md",
}


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, **_: object) -> str:
    """Return the text of a page with its links rewritten. MkDocs calls this for each page."""
    root = Path(config.config_file_path).parent
    return LINK.sub(lambda link: inside(link, page.file.src_uri, root), markdown)


def inside(link: re.Match[str], page: str, root: Path) -> str:
    """Return the link in the form for the site. Raises PluginError if its file does not exist."""
    target = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), link["target"]))
    if target.startswith("docs/"):
        return link[0]
    if not (root / target).exists():
        raise PluginError(f"{page}: a link leads to {target}, which does not exist")
    if target in PAGES:
        here = posixpath.relpath(PAGES[target], posixpath.dirname(page) or ".")
        return f"[{link['text']}]({here}{link['anchor'] or ''})"
    return f"{link['text']} (`{target}`)"
