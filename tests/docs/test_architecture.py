"""docs/architecture.md and its picture say what the sources are."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import matplotlib as mpl
import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "architecture.md"


@pytest.fixture(scope="module")
def architecture() -> ModuleType:
    spec = importlib.util.spec_from_file_location("architecture", ROOT / "docs" / "architecture.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_has_the_arrows_of_the_sources(architecture: ModuleType) -> None:
    rooms = set(architecture.rooms_in_order()) - architecture.EVERYWHERE
    arrows = {(source, target) for source, target in architecture.imports() if {source, target} <= rooms}
    drawn = architecture.PICTURE.read_text(encoding="utf-8")
    assert set(re.findall(r'id="room-(\w+)"', drawn)) == rooms, "run `make architecture`"
    assert set(re.findall(r'id="(\w+)-imports-(\w+)"', drawn)) == architecture.direct(arrows), "run `make architecture`"


def test_the_picture_is_current_to_the_byte(architecture: ModuleType, tmp_path: Path) -> None:
    pinned = re.search(r"^matplotlib==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert pinned is not None
    if mpl.__version__ != pinned[1]:
        pytest.skip(f"drawn with matplotlib {pinned[1]}, here is {mpl.__version__}")
    architecture.draw(tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_bytes() == architecture.PICTURE.read_bytes(), "run `make architecture`"


def test_every_import_points_down(architecture: ModuleType) -> None:
    order = architecture.rooms_in_order()
    up = [f"{a} imports {b}" for a, b in architecture.imports() if {a, b} <= set(order) and order.index(a) > order.index(b)]
    assert not up


def test_every_package_is_a_room_with_words(architecture: ModuleType) -> None:
    package = ROOT / "mhrctl"
    modules = {path.stem for path in package.glob("*.py")} - {"__init__", "__main__"}
    packages = {path.parent.name for path in package.glob("*/__init__.py")}
    assert set(architecture.rooms_in_order()) == modules | packages
    assert modules | packages <= set(architecture.WORDS)


def test_the_page_lists_the_rooms_in_their_order(architecture: ModuleType) -> None:
    table = PAGE.read_text(encoding="utf-8").partition("| room | holds |\n")[2].partition("\n\n")[0]
    listed = [name for line in table.splitlines() for name in re.findall(r"`(\w+)(?:/|\.py)`", line.split("|")[1])]
    assert [name for name in listed if name in architecture.rooms_in_order()] == architecture.rooms_in_order()
    assert set(listed) <= set(architecture.WORDS)


def test_arrows_that_others_replace_are_left_out(architecture: ModuleType) -> None:
    arrows = {("a", "b"), ("b", "c"), ("a", "c"), ("c", "d"), ("a", "d"), ("a", "e")}
    assert architecture.direct(arrows) == {("a", "b"), ("b", "c"), ("c", "d"), ("a", "e")}


def test_a_room_is_above_all_that_it_imports(architecture: ModuleType) -> None:
    arrows = {("top", "middle"), ("middle", "bottom"), ("top", "bottom"), ("other", "bottom")}
    assert architecture.rows(["top", "middle", "other", "bottom"], arrows) == [["top"], ["middle", "other"], ["bottom"]]


def test_a_way_back_up_is_named(architecture: ModuleType) -> None:
    with pytest.raises(ValueError, match="bottom imports top, which is not below it"):
        architecture.rows(["top", "bottom"], {("top", "bottom"), ("bottom", "top")})


def test_imports_are_seen_wherever_they_are(architecture: ModuleType, tmp_path: Path) -> None:
    package = tmp_path / "house"
    for path, text in {
        "hall/door.py": "import house.cellar.wine\n\ndef f():\n    from house.attic import box\n",
        "hall/mat.py": "from house import roof\nfrom house.hall import door\nimport os\n",
        "roof.py": "",
    }.items():
        (package / path).parent.mkdir(parents=True, exist_ok=True)
        (package / path).write_text(text)
    assert architecture.imports(package) == {("hall", "cellar"), ("hall", "attic"), ("hall", "roof")}
