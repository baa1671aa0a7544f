"""The task: make one thumbnail."""

from pathlib import Path
from uuid import uuid4

from PIL import Image, ImageOps


def make_thumbnail(source: str, target: str, size: int) -> None:
    """Write a WebP of an image that is at most ``size`` pixels wide and high.

    The target appears at once and whole, or not at all. So it does no harm if a task runs twice, or if a
    worker is killed half-way: all that may stay is a ``.part`` file, which nobody looks at.

    Raises:
        OSError: The source is no image (``PIL.UnidentifiedImageError``), or is cut off.
    """
    unfinished = Path(target).with_name(f".{uuid4()}.part")
    try:
        with Image.open(source) as image:
            turned = ImageOps.exif_transpose(image)  # as the camera was held
        turned.thumbnail((size, size))
        turned.convert("RGBA" if turned.has_transparency_data else "RGB").save(unfinished, "WEBP")
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
