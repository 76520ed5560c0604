"""What a network says about an image, and how it is shown, saved and passed on."""

# H, W image, S segments.

import io
import json
import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from oanet_tf import errors, files, visualize
from oanet_tf.data.categories import PanopticCategories
from oanet_tf.data.panoptic_map import Segments, segments_info, write_panoptic_png
from oanet_tf.files import FilePath
from oanet_tf.printing import shown

if TYPE_CHECKING:
  import supervision


class Result:
  """The panoptic segmentation of one image; `repr` in a notebook shows its `plot()`.

  Attributes:
    name: of the image: a file's without its suffix, otherwise `image_0`, `image_1`, ….
    image: [H, W, 3] uint8 RGB.
    segmentation: [H, W] int32; 0 for void, otherwise the `id` of one of `segments_info`.
    segments_info: for each segment, a dict of plain Python values:
      id: in `segmentation`, from 1.
      category_id: the dataset's.
      label_id: the category's place among `categories`, things first, from 1.
      label: the category's name.
      isthing: 1 for an object, 0 for stuff.
      score: from 0 to 1; of an object its detection's, of stuff the mean probability of its pixels.
      area: in pixels.
      bbox: [x, y, width, height] in pixels.
      iscrowd: 0.
    categories: that the network knows.
  """

  def __init__(
    self,
    name: str,
    image: npt.NDArray[np.uint8],
    segments: Segments,
    categories: PanopticCategories,
  ) -> None:
    self.name = name
    self.image = image
    self.segments = segments
    self.categories = categories
    self.segmentation: npt.NDArray[np.int32] = segments.index
    self.segments_info: list[dict[str, Any]] = segments_info(segments, categories, name)

  def plot(
    self,
    *,
    opacity: float = visualize.OPACITY,
    label_size: int | None = None,
    by_category: bool = False,
  ) -> Image.Image:
    """The image with colours, outlines and names of the segments; small images are enlarged.

    Args:
      opacity: of the colours, from 0 (none) to 1 (only colours).
      label_size: height of the names in pixels; 0 for no names, None for one that suits the image.
      by_category: whether all things of a category have one colour, as a video needs; otherwise the
        colours of an image's things differ.

    Raises:
      InputError: if a value is out of its range.
    """
    if not 0 <= opacity <= 1:
      raise errors.InputError(f'opacity is from 0 to 1, not {opacity!r}')
    if label_size is not None and label_size < 0:
      raise errors.InputError(f'label_size is a number of pixels from 0, not {label_size!r}')
    drawn = visualize.draw_panoptic(
      self.image,
      self.segments,
      self.categories,
      opacity=opacity,
      label_size=label_size,
      by_category=by_category,
    )
    return Image.fromarray(drawn)

  def save(self, folder: FilePath) -> None:
    """Writes `NAME_segments.png`, `NAME_segments.json` and `NAME_overlay.png` into a folder.

    They are the segment ids in COCO's RGB code (id = R + 256 G + 256² B), `segments_info` with the
    image's size, and `plot()`.

    Args:
      folder: is made if needed; files of the same names are replaced.

    Raises:
      InputError: if a file cannot be written; it names the file.
    """
    folder = pathlib.Path(folder)
    overlay = folder / f'{self.name}_overlay.png'
    files.make_folder(folder)
    with files.replacing(overlay) as temporary:
      self.plot().save(temporary, 'PNG')
    write_panoptic_png(folder / f'{self.name}_segments.png', self.segments)
    height, width = self.segmentation.shape
    content = {
      'file_name': f'{self.name}_segments.png',
      'height': height,
      'width': width,
      'segments_info': self.segments_info,
    }
    files.write_text(folder / f'{self.name}_segments.json', json.dumps(content, indent=1) + '\n')

  def to_supervision(self) -> 'supervision.Detections':
    """All segments, things and stuff, with `xyxy`, `mask`, `confidence` and `class_id`.

    `class_id` is `category_id`; `data` has `class_name`, `segment_id` and `is_thing`.

    Raises:
      InputError: if the package `supervision` is not installed.
    """
    with errors.naming_missing_packages('to_supervision'):
      import supervision

    info = self.segments_info
    boxes = np.array([segment['bbox'] for segment in info], np.float32).reshape(-1, 4)
    ids = np.array([segment['id'] for segment in info], np.int32)
    return supervision.Detections(
      xyxy=np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1),
      mask=self.segmentation == ids[:, None, None],
      confidence=np.array([segment['score'] for segment in info], np.float32),
      class_id=np.array([segment['category_id'] for segment in info], int),
      data={
        'class_name': np.array([segment['label'] for segment in info], str),
        'segment_id': ids,
        'is_thing': np.array([segment['isthing'] for segment in info], bool),
      },
    )

  def _repr_png_(self) -> bytes:
    file = io.BytesIO()
    self.plot().save(file, 'PNG')
    return file.getvalue()

  def __repr__(self) -> str:
    height, width = self.segmentation.shape
    labels = ', '.join(f'{shown(one["label"])} {one["score"]:.2f}' for one in self.segments_info)
    return f'<Result {self.name!r}, {height} × {width}: {labels or "void"}>'
