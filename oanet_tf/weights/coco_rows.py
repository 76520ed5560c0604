"""Which rows of the peers' class layers are categories of COCO.

The peers count COCO's classes by its category ids, of which some have no category; here categories
are numbered without gaps, things first.
"""

import functools

import numpy as np

from oanet_tf.data.categories import COCO_FILE, PanopticCategories


@functools.cache
def coco_categories() -> PanopticCategories:
  """COCO's 133 categories."""
  return PanopticCategories.from_json(COCO_FILE)


def detection_rows() -> np.ndarray:
  """[1 + T] int, of the classes 0 (background) to the largest id of a thing."""
  things = [category.id for category in coco_categories() if category.is_thing]
  return np.array([0, *things])


def segmentation_rows() -> np.ndarray:
  """[2 + S] int, of the Model Garden's classes: void, any thing, and a stuff id for each other."""
  stuff = np.array([category.id for category in coco_categories() if not category.is_thing])
  offset = detection_rows()[-1]
  return np.array([0, 1, *(stuff - offset)])


def num_detection_classes() -> int:
  """Classes of a detector whose classes are COCO's ids, background included."""
  return int(detection_rows()[-1]) + 1


def box_rows(rows: np.ndarray) -> np.ndarray:
  """[N] rows of classes -> [4 N] rows of the coordinates of their boxes."""
  return (4 * rows[:, None] + np.arange(4)).reshape(-1)


def of_model_garden(part: str, name: str, shape: tuple[int, ...]) -> np.ndarray | None:
  """The rows to keep of a variable's last axis in a checkpoint of the Model Garden.

  Args:
    part: of the network.
    name: of the variable.
    shape: in the file.

  Returns:
    int indices; None for all, also where the classes are not COCO's ids.
  """
  layer, classes = name.partition('/')[0], detection_rows()
  rows = {
    ('detection_head', '_classifier'): (num_detection_classes(), classes),
    ('detection_head', '_box_regressor'): (4 * num_detection_classes(), box_rows(classes)),
    ('mask_head', '_mask_regressor'): (num_detection_classes(), classes),
    ('stuff_head', '_classifier'): (int(segmentation_rows()[-1]) + 1, segmentation_rows()),
  }.get((part, layer))
  return rows[1] if rows and shape and shape[-1] == rows[0] else None
