"""The documentation as a site: it builds without a warning, and its API pages agree with Python."""

import ast
import html
import os
import re
import subprocess
import sys

import pytest

from tests.test_docs import ROOT, load

WITHOUT_PAGE = {"cli"}  # maam --help describes it


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the site. MkDocs fails on a page outside the navigation, an entry without a page, or a dead link."""
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def text_of(page):
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", page.read_text())).split())


@pytest.mark.parametrize(
    ("page", "signature"),
    [
        ("deploy", r"export\( src: Any, dst: PathLike,"),  # a function, and a module of the same name
        ("spec", r"maam\( in_channels: Size,"),
        ("spec", r"RNN\(\*, input_size: Size, hidden_size: Size\)"),  # a model of pydantic
        ("spec", r"Parameter\(name: str, shape: Shape, role: Role, init: Init\)"),  # a named tuple
        ("torch", r"SE\( channels: int, rd_ratio: float = 0.0625,.*? device: .*? dtype: "),  # that of its composite
    ],
)
def test_signatures(site, page, signature):
    assert re.search(signature, text_of(site / "api" / f"{page}.html"))
    assert "device" not in re.search(r"SE\( channels: .*?\)", text_of(site / "api" / "mindspore.html"))[0]


def test_the_home_page_and_notebooks(site):
    text = text_of(site / "index.html")
    for part in ("both compute the same function", "pip install '.[torch]'", "make demo", "Limits"):
        assert part in text
    assert "assets/overview.svg" in (site / "index.html").read_text()
    page = site / "notebooks" / "pytorch.html"
    assert "MAAM(16, 32, pool=(1, 2))" in text_of(page)
    assert "data:image/png;base64" in page.read_text()


def test_every_public_package_has_a_page():
    packages = {path.parent.name for path in (ROOT / "maam").glob("*/__init__.py")} - WITHOUT_PAGE
    pages = {path.stem for path in (ROOT / "docs" / "api").glob("*.md")}
    assert packages <= pages
    overview = (ROOT / "docs" / "api" / "index.md").read_text()
    assert all(f"({page}.md)" in overview for page in pages - {"index"})


def public_names(package):
    """Return the names in the `__all__` of a package, without importing it."""
    body = ast.parse((ROOT / "maam" / package / "__init__.py").read_text()).body
    assigned = {ast.unparse(node.targets[0]): node.value for node in body if isinstance(node, ast.Assign)}
    return ast.literal_eval(assigned["__all__"])


PACKAGES = ["backend", "deploy", "mindspore", "parity", "porting", "spec", "torch", "training"]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_on_the_page(site, package):
    page = (site / "api" / f"{package}.html").read_text()
    assert [name for name in public_names(package) if f'id="maam.{package}.{name}"' not in page] == []


@pytest.mark.parametrize(
    ("page", "given", "expected"),
    [
        ("parity.md", "[a](../README.md)", "[a](index.md)"),
        ("results/growth.md", "[a](../../CHANGELOG.md#x)", "[a](../changelog.md#x)"),
        ("results/growth.md", "[a](../parity.md)", "[a](../parity.md)"),
        ("training.md", "[some](../maam/training/recipes)", "some (`maam/training/recipes`)"),
    ],
)
def test_links_out_of_the_documentation(page, given, expected, monkeypatch):
    pytest.importorskip("mkdocs")
    links = load(ROOT / "tools" / "site" / "links.py", monkeypatch)
    assert links.LINK.sub(lambda link: links.inside(link, page, ROOT), given) == expected
    from mkdocs.exceptions import PluginError

    with pytest.raises(PluginError, match=r"parity\.md: a link leads to maam/nothing\.py, which does not exist"):
        links.inside(links.LINK.search("[a](../maam/nothing.py)"), "parity.md", ROOT)
