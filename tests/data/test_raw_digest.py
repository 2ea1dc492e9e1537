"""The raw digest follows the raw files and needs only the standard library."""

import os
import subprocess
import sys
from pathlib import Path

from pygan.data import raw_digest as module
from pygan.data.raw_digest import raw_digest


def test_packaged_sources_follow_their_assets(tmp_path, monkeypatch):
    before = {kind: raw_digest({"kind": kind}) for kind in ("earthcover", "twemoji")}
    assert before["earthcover"] != before["twemoji"]
    listing = Path(module._ASSETS).read_text()
    earth = next(line for line in listing.splitlines() if '"sha256"' in line)  # bmng.jpg is the first entry
    (tmp_path / "assets.json").write_text(listing.replace(earth, '"sha256": "0",'))
    monkeypatch.setattr(module, "_ASSETS", tmp_path / "assets.json")
    assert raw_digest({"kind": "earthcover"}) != before["earthcover"]
    assert raw_digest({"kind": "twemoji"}) == before["twemoji"]


def test_a_users_files(tmp_path):
    def digest() -> str:
        return raw_digest({"kind": "folder", "path": str(tmp_path / "p"), "labels": str(tmp_path / "labels.csv")})

    seen = {digest()}
    (tmp_path / "p" / "a").mkdir(parents=True)
    (tmp_path / "p" / "a" / "1.png").write_bytes(b"1")
    seen.add(digest())
    assert digest() in seen
    (tmp_path / "p" / "a" / "1.png").write_bytes(b"22")
    seen.add(digest())
    os.rename(tmp_path / "p" / "a" / "1.png", tmp_path / "p" / "2.png")
    seen.add(digest())
    (tmp_path / "labels.csv").write_text("file,label\n")
    seen.add(digest())
    assert len(seen) == 5


def test_loads_without_any_package(tmp_path):
    code = (
        "import runpy, sys\n"
        f"digest = runpy.run_path({module.__file__!r})['raw_digest']\n"
        "print(digest({'kind': 'earthcover'}), bool({'numpy', 'torch', 'pydantic'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == [raw_digest({"kind": "earthcover"}), "False"]
