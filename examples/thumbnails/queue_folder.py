"""Queue a thumbnail for every image of a folder.

python queue_folder.py FOLDER THUMBNAILS
"""

import argparse
import os
from pathlib import Path

from alligator import Gator
from thumbnails import make_thumbnail

IMAGES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}

gator = Gator(os.environ["ALLIGATOR_CONN"])


def queue_folder(folder: Path, thumbnails: Path, size: int) -> int:
    """Queue a task for each image. Returns how many."""
    images = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGES)
    thumbnails.mkdir(parents=True, exist_ok=True)
    with gator.options(retries=1) as opts:
        for image in images:
            # Whole paths: a worker may have been started in another folder.
            target = thumbnails.resolve() / f"{image.name}.webp"
            opts.task(make_thumbnail, str(image.resolve()), str(target), size=size)
    return len(images)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Queue a thumbnail for every image of a folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("thumbnails", type=Path, help="the folder to put them in")
    parser.add_argument("--size", type=int, default=200, help="pixels, at most (default: 200)")
    args = parser.parse_args()
    print(f"{queue_folder(args.folder, args.thumbnails, args.size)} thumbnails are queued.")
