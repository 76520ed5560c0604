"""Segments made of maps of ids, as files have them, and the reverse."""

import numpy as np
from PIL import Image

from oanet_tf.data.panoptic_map import Segments


def segments_of_ids(id_map, categories):
  """Segments in the order of `categories`: {id: category id} or {id: (category id, is crowd)}."""
  id_map = np.array(id_map, np.int32, ndmin=2)
  pairs = [value if isinstance(value, tuple) else (value, False) for value in categories.values()]
  index_of_id = np.zeros(max(id_map.max(initial=0), *categories, 0) + 1, np.int32)
  index_of_id[list(categories)] = np.arange(1, len(categories) + 1)
  return Segments(
    index_of_id[id_map],
    np.array(list(categories), np.int32),
    np.array([category_id for category_id, _ in pairs], np.int32),
    np.array([is_crowd for _, is_crowd in pairs], bool),
  )


def id_map(segments):
  """[H, W] int32 segment ids; 0 is void."""
  return np.concatenate([[0], segments.ids])[segments.index].astype(np.int32)


def read_ids(png):
  """[H, W] int32 segment ids of a PNG, a path or a file, by COCO's code: R + 256 G + 256² B."""
  return np.asarray(Image.open(png), np.int32) @ np.int32([1, 256, 256**2])
