"""COCO's panoptic result files: a PNG of segment ids per image and one JSON for all of them.

The format is cocodataset.org/#format-results, which is also that of the annotations.

H, W height and width of an image, S segments.
"""

import contextlib
import json
import operator
import os
import pathlib
import re
import zipfile
from collections.abc import Iterator

import numpy as np

from oanet_tf.data.categories import PanopticCategories
from oanet_tf.data.json_file import check_unique
from oanet_tf.data.panoptic_json import Annotation, read_annotations
from oanet_tf.data.panoptic_map import (
  NUM_IDS,
  Segments,
  check_sizes,
  ids_at,
  index_of_ids,
  read_id_png,
  read_index,
  runs,
  segments_info,
  summed,
  write_panoptic_png,
)
from oanet_tf.data.pictures import read_bytes
from oanet_tf.errors import InputError
from oanet_tf.files import FilePath, make_folder, replacing, temporary_folder, writing

_TESTDEV_NAME = re.compile(r'panoptic_[^_]+_.+_results')
# The zip format's first day: equal results make equal zips.
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)


class PanopticResultsWriter(contextlib.AbstractContextManager):
  """Writes `<output_dir>/<name>/*.png`, one for each image, and, at the end, `<name>.json`.

  with PanopticResultsWriter(output_dir, 'val2017', categories) as writer:
    writer.write(139, '000000000139.jpg', segments)
  """

  def __init__(
    self,
    output_dir: FilePath,
    name: str,
    categories: PanopticCategories,
    keep_crowds: bool = False,
    keep_unfinished: bool = False,
  ):
    """Makes the folders.

    Args:
      output_dir: is created if it is missing. Only one process may write `name` there.
      name: of JSON and folder.
      categories: of the dataset.
      keep_crowds: for annotations. Results have no crowds: their `iscrowd` is 0.
      keep_unfinished: whether an exception in the `with` block leaves the images that were written
        so far, with a JSON that lists them. Otherwise it leaves everything as it was: PNGs stay in
        a hidden folder until the end.

    Raises:
      InputError: if a folder cannot be made.
    """
    self._keep_crowds = keep_crowds
    self._keep_unfinished = keep_unfinished
    self._folder = pathlib.Path(output_dir) / name
    self._json_path = pathlib.Path(output_dir) / f'{name}.json'
    self._categories = categories
    self._images = {}
    self._annotations = {}
    make_folder(self._json_path.parent)
    self._cleanup = contextlib.ExitStack()
    self._staging = self._cleanup.enter_context(temporary_folder(self._folder))
    if keep_unfinished:
      make_folder(self._folder)

  def write(
    self, image_id: int | str, file_name: str, segments: Segments, png_name: str | None = None
  ) -> None:
    """Adds one image.

    Args:
      image_id: the dataset's, as the JSON is to have it.
      file_name: the image's.
      segments: H, W ≥ 1.
      png_name: of the PNG; None takes the image's stem.

    Raises:
      InputError: if the image id or the PNG was written before, or a segment has no pixel.
    """
    if not isinstance(image_id, str):
      image_id = operator.index(image_id)
    png_name = png_name or f'{pathlib.PurePath(file_name).stem}.png'
    if image_id in self._images:
      raise InputError(f'{file_name}: image id {image_id} was given before, for another image')
    if png_name in self._annotations:
      raise InputError(f'{file_name}: another image of this run is written to {png_name} too')
    is_crowd = segments.is_crowd & self._keep_crowds
    info = segments_info(segments._replace(is_crowd=is_crowd), self._categories, file_name)
    folder = self._folder if self._keep_unfinished else self._staging
    write_panoptic_png(folder / png_name, segments)
    height, width = segments.index.shape
    self._images[image_id] = {
      'id': image_id,
      'file_name': file_name,
      'height': height,
      'width': width,
    }
    self._annotations[png_name] = {
      'image_id': image_id,
      'file_name': png_name,
      'segments_info': info,
    }

  def close(self) -> None:
    """Puts the PNGs in their folder, then the JSON beside it. To be called once."""
    content = {
      'images': list(self._images.values()),
      'annotations': list(self._annotations.values()),
      'categories': self._categories.to_coco(),
    }
    staging = self._staging
    with self._cleanup, writing(self._json_path):
      # Before anything is put in its place, as the disk may have no room for it.
      (staging / self._json_path.name).write_text(json.dumps(content))
      self._folder.mkdir(exist_ok=True)
      if not self._keep_unfinished:
        for png_name in self._annotations:
          os.replace(staging / png_name, self._folder / png_name)
      os.replace(staging / self._json_path.name, self._json_path)

  def __exit__(self, exception_type: type | None, *_: object) -> None:
    if exception_type is None or (self._keep_unfinished and self._images):
      self.close()
    else:
      self._cleanup.close()


def read_results(json_path: FilePath, folder: FilePath) -> Iterator[tuple[int | str, Segments]]:
  """Reads results, or annotations, one image after the other in the order of the JSON.

  Args:
    json_path: has `annotations`, as `PanopticResultsWriter` or COCO writes them.
    folder: where their PNGs are.

  Yields:
    Image id and segments.

  Raises:
    InputError: as `read_annotations` and `read_segments`.
  """
  for annotation in read_annotations(json_path, folder):
    yield annotation.image_id, read_segments(annotation)


def read_segments(annotation: Annotation) -> Segments:
  """Reads an annotation's PNG; segments may be listed without having a pixel in it.

  Raises:
    InputError: if the file is missing, damaged, no RGB PNG, or has an id that is not listed.
  """
  index = read_index(_read_rgb(annotation), annotation.segment_ids, annotation.name)
  return annotation.segments(index)


def read_pairs(
  ground_truth: Annotation, prediction: Annotation
) -> tuple[Segments, Segments, np.ndarray]:
  """Reads the two PNGs of an image as the K pairs of ids that pixels have in them.

  Args:
    ground_truth: its PNG may have ids that are not listed; see `Segments.with_unlisted`.
    prediction: of the same image.

  Returns:
    Ground truth and prediction, whose `index` is [K], and [K] float64, the pixels of each pair.

  Raises:
    InputError: as `read_segments`, or if the PNGs' sizes differ.
  """
  true_rgb, rgb = _read_rgb(ground_truth), _read_rgb(prediction)
  check_sizes(true_rgb.shape[:2], rgb.shape[:2], ground_truth.name, prediction.name)
  starts, lengths = runs(true_rgb, rgb, channels=3)
  codes = ids_at(true_rgb, starts).astype(np.int64) * NUM_IDS + ids_at(rgb, starts)
  pairs, pixels = summed(codes, lengths)
  true_ids, ids = np.divmod(pairs, NUM_IDS)
  true_index = index_of_ids(true_ids, ground_truth.segment_ids, ground_truth.name, True)
  index = index_of_ids(ids, prediction.segment_ids, prediction.name)
  return ground_truth.segments(true_index).with_unlisted(), prediction.segments(index), pixels


def _read_rgb(annotation: Annotation) -> np.ndarray:
  name = annotation.name
  # To verify checksums takes time, and what is wrong with ids is found anyway.
  return read_id_png(read_bytes(annotation.png_path, name), name, verify=False)


def write_testdev_zip(json_path: FilePath, folder: FilePath, zip_path: FilePath) -> None:
  """Packs results for COCO's evaluation server (cocodataset.org/#upload, steps 3 and 4).

  `panoptic_test-dev2017_NAME_results.zip` holds `panoptic_test-dev2017_NAME_results.json` and a
  folder `panoptic_test-dev2017_NAME_results` with the PNGs, and nothing else. Their names follow
  that of the zip, whatever those of the results are. Equal results give equal bytes.

  Args:
    json_path: of the results.
    folder: where their PNGs are; others in it are left out.
    zip_path: `panoptic_<test set>_<algorithm>_results.zip`; replaced if it exists.

  Raises:
    InputError: as `read_annotations`; if the zip's name is another; or a PNG is missing.
  """
  zip_path = pathlib.Path(zip_path)
  check_testdev_name(zip_path)
  name = zip_path.stem
  png_paths = [one.png_path for one in read_annotations(json_path, folder)]
  check_unique(png_paths, f'{json_path}:')
  make_folder(zip_path.parent)
  with replacing(zip_path) as temporary, zipfile.ZipFile(temporary, 'w') as archive:
    # PNGs are compressed already.
    _add(archive, f'{name}.json', json_path, zipfile.ZIP_DEFLATED)
    for path in png_paths:
      _add(archive, os.path.join(name, os.path.relpath(path, folder)), path, zipfile.ZIP_STORED)


def check_testdev_name(zip_path: FilePath) -> None:
  """Raises InputError if COCO's evaluation server would not take a zip of this name."""
  path = pathlib.Path(zip_path)
  if path.suffix != '.zip' or not _TESTDEV_NAME.fullmatch(path.stem):
    raise InputError(
      f"{path}: COCO's server takes names such as panoptic_test-dev2017_oanet_results.zip"
    )


def _add(archive: zipfile.ZipFile, name: str, path: FilePath, compression: int) -> None:
  info = zipfile.ZipInfo(name, _ZIP_DATE)
  info.compress_type = compression
  info.external_attr = 0o644 << 16
  try:
    content = pathlib.Path(path).read_bytes()
  except OSError as error:
    raise InputError(f'{path}: cannot be read ({error.strerror})') from None
  archive.writestr(info, content)
