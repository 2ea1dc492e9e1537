"""The page in a browser: nothing in the console, every picture there, no sideways scrolling on a phone."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import chromium
import pytest
from made_up_study import RUNS, study_config, write_study

from pipeline.report import main

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium.PROGRAM is None, reason="no Chromium: apt-get install chromium"),
]
PHONE, SCREEN = 390, 1280
LONG = "a_run_whose_name_cannot_be_broken_anywhere"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("study")
    files = write_study(root)
    for paths in files.values():
        paths += [_copied(path, LONG) for path in paths if "/base/" in str(path) and "anchors" not in path.parts]
    files["neighbors"] = [root / f"results/evaluate/{LONG}/seed0/neighbors.png"]
    shutil.copy(files["contact_sheet"][0], files["neighbors"][0])
    config = study_config(name=f"A study with {LONG * 2} in its name", runs=RUNS | {LONG: RUNS["base"]})
    main({"stage": "report", "config": config}, inputs=files, out=root)
    return root / "index.html"


def _copied(path: Path, run: str) -> Path:
    """Give another run what `base` has."""
    target = Path(str(path).replace("/base/", f"/{run}/"))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(path.read_bytes().replace(b'"run": "base"', f'"run": "{run}"'.encode()))
    return target


@pytest.fixture(scope="module")
def tab() -> Iterator[chromium.Browser]:
    with chromium.browser() as tab:
        yield tab


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, SCREEN])
def test_the_page_is_sound(tab: chromium.Browser, page: Path, width: int, dark: bool) -> None:
    tab.open(page, width=width, dark=dark)
    tab.value("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert tab.complaints() == []
    assert tab.value("document.images.length") > 10
    assert tab.value("[...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.alt)") == []
    too_wide = f"[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > {width + 1})"
    outside = f"{too_wide}.filter(e => !e.closest('.scroll, nav div, pre')).map(e => e.outerHTML.slice(0, 80))"
    assert tab.value("document.documentElement.scrollWidth") == width, tab.value(outside)
    assert (
        tab.value("[...document.querySelectorAll('.plot svg')].filter(s => s.getBoundingClientRect().height < 20)")
        == []
    )
    ground = tab.value("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(18, 20, 24)" if dark else "rgb(244, 245, 247)")


def test_complaints_and_broken_pictures_are_seen(tab: chromium.Browser, tmp_path: Path) -> None:
    """The checks above can fail."""
    bad = tmp_path / "bad.html"
    wide = '<div style="width: 900px">wide</div>'
    bad.write_text(f'<img src="missing.png" alt="lost">{wide}<script>console.error("oh"); nothing.at.all</script>')
    tab.open(bad, width=PHONE)
    found = " ".join(tab.complaints())
    assert "oh" in found and "Uncaught" in found and "ERR_FILE_NOT_FOUND" in found
    assert tab.value("[...document.images].filter(i => !i.naturalWidth).map(i => i.alt)") == ["lost"]
    assert tab.value("document.documentElement.scrollWidth") > PHONE


def test_ink_follows_the_scheme(tab: chromium.Browser, page: Path) -> None:
    inks = set()
    for dark in (False, True):
        tab.open(page, width=SCREEN, dark=dark)
        inks.add(tab.value("getComputedStyle(document.querySelector('.plot text')).fill"))
    assert len(inks) == 2
