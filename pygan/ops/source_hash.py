"""Digest of the native sources, with which a build is compared. Standard library only; also run by CMake."""

import hashlib
import sys
from pathlib import Path


def csrc_digest(root: Path) -> str:
    """Return the sha256 (hex) of `CMakeLists.txt` and every file under `csrc/` of the source tree `root`.

    Paths and contents count, times do not; comments count too.
    """
    digest = hashlib.sha256()
    files = [root / "CMakeLists.txt", *(root / "csrc").rglob("*")]
    for path in sorted(path.relative_to(root).as_posix() for path in files if path.is_file()):
        content = (root / path).read_bytes()
        digest.update(f"{path} {hashlib.sha256(content).hexdigest()}\n".encode())
    return digest.hexdigest()


if __name__ == "__main__":
    print(csrc_digest(Path(sys.argv[1])))
