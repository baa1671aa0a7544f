"""examples/thumbnails: real images, a worker, and files that are none."""

from pathlib import Path

import pytest
from PIL import Image

from alligator import Gator
from tests.examples.commands import EXAMPLES, output

FOLDER = EXAMPLES / "thumbnails"
ORIENTATION = 0x0112
"""The Exif tag; 6 is "turn it a quarter to the right to see it as it was"."""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of images, and of what pretends to be one."""
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (800, 600), "green").save(folder / "swamp.jpg")
    Image.new("RGBA", (300, 900), (0, 128, 0, 100)).save(folder / "tail.png")
    Image.new("P", (50, 20)).save(folder / "tiny.gif")
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.new("RGB", (800, 400), "olive").save(folder / "turned.JPG", exif=exif)
    whole = (folder / "swamp.jpg").read_bytes()
    (folder / "cut off.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "no image.png").write_text("See you later.")
    (folder / "notes.txt").write_text("Not queued at all.")
    return folder


@pytest.mark.usefixtures("photos")
def test_images_get_thumbnails_and_broken_ones_become_dead_letters(tmp_path: Path) -> None:
    thumbnails, dsn = tmp_path / "thumbnails", f"sqlite://{tmp_path / 'queue.db'}"

    # From another folder and with relative paths, which the workers could not find.
    said = output(
        f"python '{FOLDER / 'queue_folder.py'}' photos thumbnails --size 100",
        folder=tmp_path,
        ALLIGATOR_CONN=dsn,
    )
    output("latergator --workers 2 --burst", folder=FOLDER, ALLIGATOR_CONN=dsn)

    assert said == "6 thumbnails are queued.\n"
    assert sizes(thumbnails) == {
        "swamp.jpg.webp": (100, 75),
        "tail.png.webp": (33, 100),
        "tiny.gif.webp": (50, 20),
        "turned.JPG.webp": (50, 100),
    }
    with Image.open(thumbnails / "tail.png.webp") as tail:
        assert tail.mode == "RGBA"
    dead = Gator(dsn).backend.dead("all")
    assert sorted("UnidentifiedImageError" in letter.note for letter in dead) == [False, True]
    assert sum("cut off.jpg" in letter.body.decode() for letter in dead) == 1


@pytest.mark.usefixtures("photos")
def test_making_thumbnails_again_replaces_them(tmp_path: Path) -> None:
    dsn = f"sqlite://{tmp_path / 'queue.db'}"
    for size in (100, 40):
        output(
            f"python queue_folder.py '{tmp_path}/photos' '{tmp_path}/thumbnails' --size {size}",
            folder=FOLDER,
            ALLIGATOR_CONN=dsn,
        )
    output("latergator --burst", dsn, folder=FOLDER)

    assert sizes(tmp_path / "thumbnails")["swamp.jpg.webp"] == (40, 30)


def sizes(folder: Path) -> dict[str, tuple[int, int]]:
    """Return the size of each image in a folder, which must hold nothing else."""
    found: dict[str, tuple[int, int]] = {}
    for path in folder.iterdir():
        with Image.open(path) as image:
            found[path.name] = image.size
    return found
