"""What a report shows of an evaluation beyond its scores: `details/` in the evaluation's folder.

  truth.json, truth/*.png    the ground truth in COCO's panoptic format, crowds included
  pictures/*.jpg             the images, at most 640 pixels high and wide
  ranking_maps/*.png         the ranking module's most probable category, and its probability
  detections.json            each image's detections that took part in the merge

The files of an image have the stem of its predictions' PNG.
"""

# H, W height and width of an image.

import contextlib
import json
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from oanet_tf import files
from oanet_tf.data import image_ids
from oanet_tf.data.categories import PanopticCategories
from oanet_tf.data.json_file import read_json_object
from oanet_tf.data.panoptic_json import Annotation, read_annotations
from oanet_tf.data.panoptic_map import VOID_ID, Segments
from oanet_tf.data.pictures import read_picture
from oanet_tf.errors import InputError
from oanet_tf.evaluation import ranking_map as ranking_map_lib
from oanet_tf.evaluation.coco_results import PanopticResultsWriter
from oanet_tf.evaluation.ranking_map import RankingMap
from oanet_tf.files import FilePath

if TYPE_CHECKING:
  # Loads TensorFlow, which a report does not need.
  from oanet_tf.evaluation.scoring import EvaluatedImage

FOLDER = 'details'
# Enough for a screen; a JPEG of this size takes some 60 kB.
LARGEST_SIDE = 640
_JPEG_QUALITY = 85


class Detection(NamedTuple):
  """A detected instance.

  Attributes:
    category_id: the dataset's.
    detection_score: in [0, 1].
    ranking_score: of Eq. 3, in [0, 1].
    segment_ids: fusion -> id of its segment; fusions that hide it are left out.
  """

  category_id: int
  detection_score: float
  ranking_score: float
  segment_ids: Mapping[str, int]


@contextlib.contextmanager
def details_writer(
  output_dir: FilePath, categories: PanopticCategories, score_threshold: float
) -> 'Iterator[Callable[[EvaluatedImage], None]]':
  """Yields a function that writes the details of an image.

  All files stay in a hidden folder until the end. After an exception in the `with` block there are
  no new files, and older ones are as they were.

    with details_writer(output_dir, categories, score_threshold=0.5) as write:
      evaluate(…, observers=[write], with_ranking_maps=True)

  Args:
    output_dir: the evaluation's.
    categories: of the dataset.
    score_threshold: detections with a lower score, which no fusion uses, are left out.

  Raises:
    InputError: if two images have the same name, or the folder cannot be written.
  """
  folder, images = pathlib.Path(output_dir) / FOLDER, []
  with files.making_folder(folder) as staging:
    with PanopticResultsWriter(staging, 'truth', categories, keep_crowds=True) as ground_truth:
      for name in ('pictures', 'ranking_maps'):
        files.make_folder(staging / name)

      def write(image: 'EvaluatedImage') -> None:
        stem = image_ids.file_stem(image.image_id)
        ground_truth.write(image.image_id, image.file_name, image.ground_truth, f'{stem}.png')
        _write_pictures(image, staging, stem)
        detections = [one._asdict() for one in _detections(image, categories, score_threshold)]
        images.append({'image_id': image.image_id, 'detections': detections})

      yield write
    files.write_text(staging / 'detections.json', json.dumps({'images': images}))
    with files.writing(folder):
      if folder.exists():
        shutil.rmtree(folder)


def _write_pictures(image: 'EvaluatedImage', folder: pathlib.Path, stem: str) -> None:
  """Writes the image and its ranking map."""
  # Loads TensorFlow, which a report does without.
  from oanet_tf.data import geometry

  picture, *ranking_map = (
    geometry.without_padding(values, image.image_info, image.image.shape[:2])
    for values in (image.image, *image.ranking_map)
  )
  picture = Image.fromarray(picture)
  picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.BICUBIC)
  coded = Image.fromarray(ranking_map_lib.encode(RankingMap(*ranking_map)))
  with files.writing(folder):
    picture.save(folder / 'pictures' / f'{stem}.jpg', quality=_JPEG_QUALITY)
    coded.save(folder / 'ranking_maps' / f'{stem}.png')


def _detections(
  image: 'EvaluatedImage', categories: PanopticCategories, score_threshold: float
) -> list[Detection]:
  classes, detection_scores, ranking_scores = (
    image.detections[key] for key in ('detection_classes', 'detection_scores', 'ranking_scores')
  )
  category_ids = categories.id_of_label_table()[classes]
  segment_ids = {
    fusion: _segment_of_instance(mask, image.predictions[fusion])
    for fusion, mask in image.instance_masks.items()
  }
  return [
    Detection(
      int(category_ids[n]),
      round(float(detection_scores[n]), 4),
      round(float(ranking_scores[n]), 4),
      {fusion: ids_of[n + 1] for fusion, ids_of in segment_ids.items() if n + 1 in ids_of},
    )
    for n in np.flatnonzero((classes > 0) & (detection_scores >= score_threshold))
  ]


def _segment_of_instance(instance_mask: np.ndarray, prediction: Segments) -> dict[int, int]:
  """{value of the mask: id of the segment that has these pixels}, without 0."""
  values, places = np.unique(instance_mask, return_index=True)
  ids = np.concatenate([[VOID_ID], prediction.ids])[prediction.index.ravel()[places]]
  return {v: i for v, i in zip(values.tolist(), ids.tolist(), strict=True) if v}


class Details(NamedTuple):
  """What `details_writer` wrote; only the JSON files have been read.

  Attributes:
    folder: where it is.
    ground_truth: of each image, in the order of the evaluation.
    detections: of each image, by its id, in the network's order.
  """

  folder: pathlib.Path
  ground_truth: list[Annotation]
  detections: dict[int | str, list[Detection]]

  def picture_path(self, annotation: Annotation) -> pathlib.Path:
    """The JPEG of an image."""
    return self.folder / 'pictures' / f'{pathlib.PurePath(annotation.png_path).stem}.jpg'

  def ranking_map(self, annotation: Annotation, num_things: int) -> RankingMap:
    """The ranking map of an image.

    Raises:
      InputError: if the file is missing, damaged, or of other categories.
    """
    path = self.folder / 'ranking_maps' / pathlib.PurePath(annotation.png_path).name
    return ranking_map_lib.decode(read_picture(path), num_things, str(path))


def read_details(evaluation_dir: FilePath) -> Details | None:
  """The details of an evaluation; None if it has none.

  Raises:
    InputError: if a file is missing or malformed.
  """
  folder = pathlib.Path(evaluation_dir) / FOLDER
  if not folder.is_dir():
    return None
  ground_truth = read_annotations(folder / 'truth.json', folder / 'truth')
  path = folder / 'detections.json'
  content = read_json_object(path)
  try:
    detections = {
      entry['image_id']: [_parse_detection(one) for one in entry['detections']]
      for entry in content['images']
    }
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise InputError(f'{path}: is not of an evaluation ({error!r})') from None
  for one in ground_truth:
    if one.image_id not in detections:
      raise InputError(f'{path}: has no image {one.image_id}, which truth.json has')
  return Details(folder, ground_truth, detections)


def _parse_detection(entry: dict) -> Detection:
  return Detection(
    int(entry['category_id']),
    float(entry['detection_score']),
    float(entry['ranking_score']),
    {str(fusion): int(segment_id) for fusion, segment_id in entry['segment_ids'].items()},
  )
