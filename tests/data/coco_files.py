"""Tiny COCO panoptic datasets, made on the spot."""

import io
import json
import pathlib

import numpy as np
from PIL import Image

from oanet_tf.data.panoptic_map import ids_to_rgb

PERSON, TIE, SKY, GRASS = 1, 32, 119, 193


def encoded_picture(rgb: np.ndarray, format: str = 'JPEG', mode: str = 'RGB', **options) -> bytes:
  """[H, W, 3] uint8 -> a picture's file."""
  buffer = io.BytesIO()
  Image.fromarray(rgb).convert(mode).save(buffer, format, **options)
  return buffer.getvalue()


def grid(text: str, **ids: int) -> np.ndarray:
  """Lines of letters -> [H, W] int32: the id of each letter, 0 where there is a dot."""
  return np.array([[ids.get(letter, 0) for letter in line] for line in text.split()], np.int32)


class CocoFiles:
  """A dataset of two images; tests change the attributes, then call `write`.

  Image 42 (5 × 8): a person (id 70000) who wears a tie (5) in a hole that also shows a void pixel,
  under a sky (300). Image 7 (4 × 6): grass (16777215) and a crowd of persons (9).
  """

  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    rng = np.random.default_rng(0)
    self.maps = {
      '42.png': grid(
        """
        ssssssss
        .ppppp..
        .ptt.p..
        .ppppp..
        ........""",
        s=300,
        p=70000,
        t=5,
      ),
      'sub/7.png': grid('gggggg gcccgg gcgcgg gcccgg', g=2**24 - 1, c=9),
    }
    self.pictures = {
      '42.jpg': encoded_picture(rng.integers(0, 256, [5, 8, 3], np.uint8)),
      'sub/7.jpg': encoded_picture(rng.integers(0, 256, [4, 6, 3], np.uint8)),
    }
    self.panoptic = {
      'images': [
        {'id': 7, 'file_name': 'sub/7.jpg', 'height': 4, 'width': 6},
        {'id': 42, 'file_name': '42.jpg', 'height': 5, 'width': 8},
      ],
      'annotations': [
        {
          'image_id': 42,
          'file_name': '42.png',
          'segments_info': [
            {'id': 70000, 'category_id': PERSON, 'iscrowd': 0, 'area': -1, 'bbox': [9, 9, 9, 9]},
            {'id': 300, 'category_id': SKY, 'iscrowd': 0},
            {'id': 5, 'category_id': TIE, 'iscrowd': 0},
          ],
        },
        {
          'image_id': 7,
          'file_name': 'sub/7.png',
          'segments_info': [
            {'id': 2**24 - 1, 'category_id': GRASS, 'iscrowd': 0},
            {'id': 9, 'category_id': PERSON, 'iscrowd': 1},
          ],
        },
      ],
      'categories': [
        {'id': SKY, 'name': 'sky', 'isthing': 0, 'color': [1, 2, 3]},
        {'id': PERSON, 'name': 'person', 'isthing': 1, 'color': [4, 5, 6]},
        {'id': TIE, 'name': 'tie', 'isthing': 1, 'color': [7, 8, 9]},
        {'id': GRASS, 'name': 'grass', 'isthing': 0, 'color': [9, 9, 9]},
      ],
    }
    self.instances = None

  @property
  def segments(self) -> list[dict]:
    """`segments_info` of image 42."""
    return self.panoptic['annotations'][0]['segments_info']

  def add_instances(self, *segmentations: list | dict, category_id: int = PERSON) -> None:
    """An instances JSON that lists image 42 only, with annotations 100, 101, …"""
    self.instances = {
      'images': [self.panoptic['images'][1]],
      'annotations': [
        {'id': 100 + i, 'image_id': 42, 'category_id': category_id, 'segmentation': segmentation}
        for i, segmentation in enumerate(segmentations)
      ],
    }

  def write(self) -> dict[str, pathlib.Path]:
    """Writes the files; gives the arguments of `coco_json.load`."""
    paths = {
      'panoptic_json': self.folder / 'panoptic.json',
      'panoptic_dir': self.folder / 'panoptic',
      'image_dir': self.folder / 'images',
    }
    _write(paths['panoptic_json'], json.dumps(self.panoptic).encode())
    for name, ids in self.maps.items():
      _write(paths['panoptic_dir'] / name, encoded_picture(ids_to_rgb(ids), 'PNG'))
    for name, encoded in self.pictures.items():
      _write(paths['image_dir'] / name, encoded)
    if self.instances:
      paths['instances_json'] = self.folder / 'instances.json'
      _write(paths['instances_json'], json.dumps(self.instances).encode())
    return paths


def _write(path: pathlib.Path, content: bytes) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(content)
