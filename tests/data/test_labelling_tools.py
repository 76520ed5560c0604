"""Tiny data sets in the layouts that labelling tools and converters of other people write.

All show one scene of 4 × 6 pixels: a person who wears a tie, under a sky.
"""

import json
import pathlib

import numpy as np

from oanet_tf.data.categories import PanopticCategories
from oanet_tf.data.panoptic_map import ids_to_rgb
from tests.commands import convert as command
from tests.data.coco_files import encoded_picture, grid
from tests.data.conversions import flags
from tests.data.test_convert import decoded_records

SCENE = 'ssssss .pppp. .ptpp. .pppp.'
PERSON = [1.0, 1.0, 5.0, 1.0, 5.0, 4.0, 1.0, 4.0]
TIE = [2.0, 2.0, 3.0, 2.0, 3.0, 3.0, 2.0, 3.0]
SKY = [0.0, 0.0, 6.0, 0.0, 6.0, 1.0, 0.0, 1.0]
SIZE = {'width': 6, 'height': 4}
PICTURE = np.zeros([4, 6, 3], np.uint8)


def write(path: pathlib.Path, content: bytes | dict) -> pathlib.Path:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
  return path


def panoptic_png(**ids: int) -> bytes:
  """Of the scene, with the id of each letter's segment."""
  return encoded_picture(ids_to_rgb(grid(SCENE, **ids)), 'PNG')


def box(polygon: list[float]) -> list[float]:
  """COCO's, around a rectangle."""
  return [*polygon[:2], polygon[2] - polygon[0], polygon[5] - polygon[1]]


def converted(folder: pathlib.Path) -> dict:
  """For each image by its id: the scene with each category's first letter, and its objects."""
  names = {c.id: c.name for c in PanopticCategories.from_json(folder / 'categories.json')}
  images = {}
  for record in decoded_records(folder, 'x'):
    letters = np.array(['.', *(names[i][0] for i in record['segment_category_ids'].tolist())])
    images[record['source_id'].decode()] = (
      ' '.join(map(''.join, letters[record['segment_index']].tolist())),
      [names[i] for i in record['object_category_ids'].tolist()],
    )
  return images


def run(tmp_path: pathlib.Path, **arguments) -> dict:
  """Converts by the command."""
  command.main(flags(arguments, tmp_path / 'records', 'x', num_workers=1))
  return converted(tmp_path / 'records')


# Exports of tools, as an instances JSON.


def datumaro_instances(polygons: dict[str, tuple[int, list[float]]], file_name: str) -> dict:
  """As Datumaro writes them, with which CVAT exports; the last annotation is a box.

  Polygons are given by the name of their category, with its id.
  """
  common = {'image_id': 1, 'attributes': {'occluded': False}}
  annotations = [
    {
      'id': 1 + index,
      'category_id': category_id,
      'segmentation': [polygon],
      'area': 1.0,
      'bbox': box(polygon),
      'iscrowd': 0,
      **common,
    }
    for index, (category_id, polygon) in enumerate(polygons.values())
  ]
  last = annotations[-1]
  annotations.append({**last, 'id': len(annotations) + 1, 'segmentation': []})
  return {
    'licenses': [{'name': '', 'id': 0, 'url': ''}],
    'info': {'contributor': '', 'date_created': '', 'description': '', 'url': '', 'version': ''},
    'categories': [
      {'id': category_id, 'name': name, 'supercategory': ''}
      for name, (category_id, _) in polygons.items()
    ],
    'images': [
      {'id': 1, **SIZE, 'file_name': file_name, 'license': 0, 'flickr_url': '', 'coco_url': '',
       'date_captured': 0}
    ],
    'annotations': annotations,
  }  # fmt: skip


def cvat(folder: pathlib.Path) -> dict:
  """COCO 1.0 with images; a task has the one subset `default`."""
  polygons = {'person': (1, PERSON), 'tie': (2, TIE), 'sky': (3, SKY)}
  write(folder / 'images' / 'default' / 'frame_000000.PNG', encoded_picture(PICTURE, 'PNG'))
  path = write(
    folder / 'annotations' / 'instances_default.json',
    datumaro_instances(polygons, 'frame_000000.PNG'),
  )
  return {'image_dir': folder / 'images' / 'default', 'instances_json': path}


def test_cvat(tmp_path):
  paths = cvat(tmp_path / 'task')
  assert run(tmp_path, **paths, stuff='sky') == {'1': (SCENE, ['person', 'tie'])}


def test_masks_that_cvat_calls_crowds(tmp_path):
  """Masks drawn with the brush are RLEs with `iscrowd: 1`; they lie below the others."""
  paths = cvat(tmp_path / 'task')
  content = json.loads(paths['instances_json'].read_text())
  tie = content['annotations'][1]
  tie |= {'iscrowd': 1, 'segmentation': {'counts': [10, 1, 13], 'size': [4, 6]}}
  write(paths['instances_json'], content)
  scene = SCENE.replace('t', 'p')
  assert run(tmp_path, **paths, stuff='sky') == {'1': (scene, ['person', 'tie'])}


def label_studio(folder: pathlib.Path) -> dict:
  """File names are relative to the JSON's folder, all ids are from 0, a rectangle has no mask."""
  name = 'images/1a2b3c4d-photo.jpg'
  write(folder / name, encoded_picture(PICTURE))
  common = {'image_id': 0, 'ignore': 0, 'iscrowd': 0}
  polygons = [(1, SKY), (0, PERSON), (2, TIE)]
  content = {
    'images': [{**SIZE, 'id': 0, 'file_name': name}],
    'categories': [{'id': 0, 'name': 'person'}, {'id': 1, 'name': 'sky'}, {'id': 2, 'name': 'tie'}],
    'annotations': [
      *(
        {'id': index, 'category_id': category_id, 'segmentation': [polygon], 'bbox': box(polygon),
         'area': 1.0, **common}
        for index, (category_id, polygon) in enumerate(polygons)
      ),
      {'id': 3, 'category_id': 2, 'segmentation': [], 'bbox': [0.0, 0.0, 2.5, 2.5], 'area': 6.25,
       **common},
    ],
    'info': {'year': 2024, 'version': '1.0', 'description': '', 'contributor': 'Label Studio',
             'url': '', 'date_created': '2024-01-01 00:00:00.000000'},
  }  # fmt: skip
  return {'image_dir': folder, 'instances_json': write(folder / 'result.json', content)}


def test_label_studio(tmp_path):
  paths = label_studio(tmp_path / 'export')
  assert run(tmp_path, **paths, stuff='sky') == {'0': (SCENE, ['person', 'tie'])}


def roboflow(folder: pathlib.Path) -> dict:
  """COCO Segmentation: the images beside the JSON; category 0 only groups the others.

  The second image is one without annotations.
  """
  names = [f'{name}_jpg.rf.0123456789abcdef0123456789abcdef.jpg' for name in ('photo', 'empty')]
  for name in names:
    write(folder / 'train' / name, encoded_picture(PICTURE))
  labels = ['my-project', 'person', 'sky', 'tie']
  content = {
    'info': {'year': '2024', 'version': '1', 'description': 'Exported from roboflow.com',
             'contributor': '', 'url': '', 'date_created': '2024-01-01T00:00:00+00:00'},
    'licenses': [{'id': 1, 'url': '', 'name': 'CC BY 4.0'}],
    'categories': [
      {'id': index, 'name': name, 'supercategory': 'my-project' if index else 'none'}
      for index, name in enumerate(labels)
    ],
    'images': [
      {'id': index, 'license': 1, 'file_name': name, **SIZE,
       'date_captured': '2024-01-01T00:00:00+00:00'}
      for index, name in enumerate(names)
    ],
    'annotations': [
      {'id': index, 'image_id': 0, 'category_id': category_id, 'bbox': box(polygon), 'area': 1,
       'segmentation': [polygon], 'iscrowd': 0}
      for index, (category_id, polygon) in enumerate([(1, PERSON), (2, SKY), (3, TIE)])
    ],
  }  # fmt: skip
  path = write(folder / 'train' / '_annotations.coco.json', content)
  return {'image_dir': folder / 'train', 'instances_json': path}


def test_roboflow(tmp_path):
  paths = roboflow(tmp_path / 'my-project-1')
  images = run(tmp_path, **paths, stuff='sky')
  assert images == {
    '0': (SCENE, ['person', 'tie']),
    '1': ('...... ...... ...... ......', []),
  }
  categories = PanopticCategories.from_json(tmp_path / 'records' / 'categories.json')
  assert [category.name for category in categories] == ['person', 'tie', 'sky']


# Panoptic PNGs of other converters.


def datumaro(folder: pathlib.Path) -> dict:
  """COCO with all tasks; no category is a thing, as Datumaro does not know which are."""
  polygons = {'person': (1, PERSON), 'tie': (2, TIE), 'sky': (3, SKY)}
  annotations = folder / 'annotations'
  instances = datumaro_instances(polygons, 'photo.jpg')
  write(folder / 'images' / 'train' / 'photo.jpg', encoded_picture(PICTURE))
  write(annotations / 'panoptic_train' / 'photo.png', panoptic_png(p=1, t=2, s=3))
  panoptic = {
    **instances,
    'categories': [{**category, 'isthing': 0} for category in instances['categories']],
    'annotations': [
      {
        'image_id': 1,
        'file_name': 'photo.png',
        'segments_info': [
          {'id': index, 'category_id': index, 'area': 1.0, 'bbox': box(polygon), 'iscrowd': 0}
          for index, polygon in polygons.values()
        ],
      }
    ],
  }
  return {
    'image_dir': folder / 'images' / 'train',
    'panoptic_json': write(annotations / 'panoptic_train.json', panoptic),
    'panoptic_dir': annotations / 'panoptic_train',
    'instances_json': write(annotations / 'instances_train.json', instances),
  }


def test_datumaro(tmp_path):
  paths = datumaro(tmp_path / 'export')
  assert run(tmp_path, **paths, things='person,tie') == {'1': (SCENE, ['person', 'tie'])}


def test_instances_of_datumaro_alone(tmp_path):
  paths = datumaro(tmp_path / 'export')
  del paths['panoptic_json'], paths['panoptic_dir']
  assert run(tmp_path, **paths, stuff='sky') == {'1': (SCENE, ['person', 'tie'])}


def cityscapes(folder: pathlib.Path) -> dict:
  """As cityscapesscripts' createPanopticImgs writes it; a tie is a bag here.

  The images are in folders of cities, and their names in the JSON are not those of the files. A
  thing's id is 1000 times its category and more; a group of things has its category's id.
  """
  stem = 'aachen_000000_000019'
  image = folder / 'leftImg8bit' / 'val' / 'aachen' / f'{stem}_leftImg8bit.png'
  write(image, encoded_picture(PICTURE, 'PNG'))
  name = 'cityscapes_panoptic_val'
  ids = {'p': 24000, 't': 26, 's': 23}
  write(folder / 'gtFine' / name / f'{stem}_gtFine_panoptic.png', panoptic_png(**ids))
  content = {
    'images': [{'id': stem, **SIZE, 'file_name': f'{stem}_gtFine_leftImg8bit.png'}],
    'annotations': [
      {
        'image_id': stem,
        'file_name': f'{stem}_gtFine_panoptic.png',
        'segments_info': [
          {'id': 23, 'category_id': 23, 'area': 6, 'bbox': [0, 0, 6, 1], 'iscrowd': 0},
          {'id': 26, 'category_id': 26, 'area': 1, 'bbox': [2, 2, 1, 1], 'iscrowd': 1},
          {'id': 24000, 'category_id': 24, 'area': 11, 'bbox': [1, 1, 4, 3], 'iscrowd': 0},
        ],
      }
    ],
    'categories': [
      {'id': 23, 'name': 'sky', 'color': [70, 130, 180], 'supercategory': 'sky', 'isthing': 0},
      {'id': 24, 'name': 'person', 'color': [220, 20, 60], 'supercategory': 'human', 'isthing': 1},
      {'id': 26, 'name': 'tie', 'color': [0, 0, 142], 'supercategory': 'vehicle', 'isthing': 1},
    ],
  }
  return {
    'image_dir': folder / 'leftImg8bit' / 'val',
    'panoptic_json': write(folder / 'gtFine' / f'{name}.json', content),
    'panoptic_dir': folder / 'gtFine' / name,
  }


def test_cityscapes(tmp_path):
  paths = cityscapes(tmp_path / 'cityscapes')
  images = run(tmp_path, **paths)
  scene, objects = images['aachen_000000_000019']
  assert scene == SCENE and sorted(objects) == ['person', 'tie']


def ade20k(folder: pathlib.Path) -> dict:
  """As Mask2Former's prepare_ade20k_pan_seg writes it: category ids are from 0."""
  stem = 'ADE_val_00000001'
  write(folder / 'images' / 'validation' / f'{stem}.jpg', encoded_picture(PICTURE))
  name = 'ade20k_panoptic_val'
  ids = {'s': 0x787878, 'p': 0x3D0596, 't': 0x8B3803}
  write(folder / name / f'{stem}.png', panoptic_png(**ids))
  content = {
    'images': [{'id': stem, 'file_name': f'{stem}.jpg', **SIZE}],
    'annotations': [
      {
        'image_id': stem,
        'file_name': f'{stem}.png',
        'segments_info': [
          {'id': segment_id, 'category_id': index, 'area': 1, 'bbox': [0, 0, 1, 1],
           'iscrowd': 0}
          for index, segment_id in enumerate(ids.values())
        ],
      }
    ],
    'categories': [
      {'name': name, 'id': index, 'isthing': int(index > 0), 'color': [120, index, 120]}
      for index, name in enumerate(['sky', 'person', 'tie'])
    ],
  }  # fmt: skip
  return {
    'image_dir': folder / 'images' / 'validation',
    'panoptic_json': write(folder / f'{name}.json', content),
    'panoptic_dir': folder / name,
  }


def test_ade20k(tmp_path):
  paths = ade20k(tmp_path / 'ADEChallengeData2016')
  assert run(tmp_path, **paths) == {'ADE_val_00000001': (SCENE, ['person', 'tie'])}
