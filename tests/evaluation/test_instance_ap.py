"""Average precision against hand-worked numbers and against pycocotools on files."""

import contextlib
import io
import json

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from oanet_tf.data.objects import Objects
from oanet_tf.errors import InputError
from oanet_tf.evaluation.instance_ap import InstanceAP, paste_mask
from oanet_tf.evaluation.instances_json import read_instances
from oanet_tf.modeling.mask_paste import paste_masks
from tests.categories import TIE_ON_PERSON as CATEGORIES

PERSON, TIE = 7, 31
# The network sees the image of 40 × 60 pixels scaled and cropped.
INFO = np.array([[40, 60], [18, 12], [0.5, 0.25], [2, 3]], np.float32)
NAMES = ['ap', 'ap50', 'ap75', 'ap_small', 'ap_medium', 'ap_large']


def detections(*rows):
  """Rows of (class, score, box of the original image); masks fill their boxes."""
  boxes = np.array([box for _, _, box in rows], np.float32).reshape(-1, 4)
  boxes = boxes * np.tile(INFO[2], 2) - np.tile(INFO[3], 2)
  return {
    'detection_boxes': boxes,
    'detection_scores': np.array([score for _, score, _ in rows], np.float32),
    'detection_classes': np.array([label for label, _, _ in rows], np.int32),
    'detection_masks': np.ones([len(rows), 4, 4], np.float32),
  }


def objects(*rows):
  """Rows of (category id, box) or (category id, box, is crowd)."""
  boxes = np.array([row[1] for row in rows], np.float32).reshape(-1, 4)
  return Objects(
    boxes,
    np.array([row[0] for row in rows], np.int32),
    np.array([len(row) > 2 for row in rows], bool),
    [np.ones([int(y2 - y1), int(x2 - x1)], bool) for y1, x1, y2, x2 in boxes],
  )


def average_precision(*images):
  metric = InstanceAP(CATEGORIES)
  for image_id, (outputs, truth) in enumerate(images):
    metric.update(image_id, outputs, INFO, truth)
  return metric.result()


BOX, OTHER = (4, 4, 24, 34), (10, 40, 30, 60)


def test_a_perfect_detection_and_no_small_or_large_object():
  result = average_precision((detections((1, 0.9, BOX)), objects((PERSON, BOX))))
  expected = dict(zip(NAMES, [1, 1, 1, 1, -1, -1], strict=True))
  assert result == pytest.approx(
    {f'{kind}_{name}': value for kind in ('box', 'mask') for name, value in expected.items()}
  )


def test_one_of_two_found_by_hand():
  """Precision is 1 up to a recall of one half: at 51 of pycocotools' 101 recalls."""
  result = average_precision((detections((1, 0.9, BOX)), objects((PERSON, BOX), (PERSON, OTHER))))
  assert result['box_ap'] == result['mask_ap'] == pytest.approx(51 / 101)


def test_a_box_too_small_by_hand():
  """An IoU of 0.72: found at five of the ten thresholds 0.5, 0.55, …, 0.95."""
  box = (4, 4, 24, 4 + 0.72 * 30)
  result = average_precision((detections((1, 0.9, box)), objects((PERSON, BOX))))
  assert result['box_ap'] == pytest.approx(0.5)
  assert result['box_ap50'] == pytest.approx(1) and result['box_ap75'] == 0


def test_masks_are_scored_by_their_pixels():
  """The mask covers the upper half of a right box: an IoU of one half."""
  outputs = detections((1, 0.9, BOX))
  outputs['detection_masks'][:, 2:] = 0.0
  result = average_precision((outputs, objects((PERSON, BOX))))
  assert result['box_ap'] == pytest.approx(1)
  assert result['mask_ap50'] == pytest.approx(1)
  assert result['mask_ap'] == pytest.approx(0.1)


def test_categories_and_crowds_and_padding():
  wrong_category = average_precision((detections((2, 0.9, BOX)), objects((PERSON, BOX))))
  assert wrong_category['box_ap'] == 0
  outputs = detections((1, 0.9, OTHER), (1, 0.8, BOX), (0, 0.0, (0, 0, 0, 0)))
  assert average_precision((outputs, objects((PERSON, BOX))))['box_ap'] == pytest.approx(0.5)
  on_crowd = average_precision((outputs, objects((PERSON, BOX), (PERSON, OTHER, True))))
  assert on_crowd['box_ap'] == on_crowd['mask_ap'] == pytest.approx(1)


def test_nothing():
  nothing = (detections(), objects())
  for result in (average_precision(), average_precision(nothing)):
    assert set(result.values()) == {-1.0}
  assert average_precision((detections((1, 0.9, BOX)), objects()))['box_ap'] == -1
  missed = average_precision((detections(), objects((PERSON, BOX))))
  assert missed['box_ap'] == missed['mask_ap'] == 0


def test_nothing_is_printed_and_json_takes_it(capsys):
  result = average_precision((detections((1, 0.9, BOX)), objects((PERSON, BOX))))
  assert capsys.readouterr().out == ''
  assert json.loads(json.dumps(result)) == result


def test_an_image_counts_once():
  metric = InstanceAP(CATEGORIES)
  metric.update(139, detections(), INFO)
  with pytest.raises(InputError, match='image 139 '):
    metric.update(139, detections(), INFO)


SIDES = st.floats(-5, 25, width=32)


@settings(max_examples=200, deadline=None)
@given(box=st.tuples(SIDES, SIDES, SIDES, SIDES), seed=st.integers(0, 99))
def test_paste_mask_equals_the_networks(box, seed):
  """Also where boxes stick out, lie outside or have no area."""
  mask = np.random.default_rng(seed).random([5, 5], np.float32)
  box = np.array(box, np.float32)
  pixels, top, left = paste_mask(mask, box, 18, 20)
  canvas = np.zeros([18, 20])
  canvas[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
  expected = paste_masks(mask[None], tf.constant(box)[None], 18, 20)[0]
  np.testing.assert_allclose(canvas, expected, atol=1e-4)


@pytest.fixture
def files(tmp_path):
  """An instances JSON, and what detects its objects inexactly; image 5 is in the JSON alone."""
  rng = np.random.default_rng(1)
  content = {
    'images': [{'id': i, 'height': 40, 'width': 60} for i in (5, 8, 139)],
    'categories': [{'id': PERSON, 'name': 'person'}, {'id': TIE, 'name': 'tie'}],
    'annotations': [],
  }
  found = {8: [], 139: []}
  for image_id in (5, 8, 139):
    for category_id, label in ((PERSON, 1), (PERSON, 1), (TIE, 2)):
      y1, x1, h, w = rng.integers([0, 0, 8, 8], [20, 30, 20, 30]).tolist()
      is_crowd = category_id == PERSON and len(content['annotations']) == 3
      polygon = [x1, y1, x1 + w, y1, x1 + w, y1 + h, x1, y1 + h]
      rle = coco_mask.merge(coco_mask.frPyObjects([polygon], 40, 60))
      content['annotations'].append(
        {
          'id': len(content['annotations']),
          'image_id': image_id,
          'category_id': category_id,
          'bbox': [x1, y1, w, h],
          'area': h * w,
          'iscrowd': int(is_crowd),
          'segmentation': {**rle, 'counts': rle['counts'].decode()} if is_crowd else [polygon],
        }
      )
      if image_id != 5:
        shift = rng.normal(0, 1, 4)
        box = np.array([y1, x1, y1 + h, x1 + w]) + shift
        found[image_id].append((label, rng.random(), box.tolist()))
  path = tmp_path / 'instances.json'
  path.write_text(json.dumps(content))
  return path, {image_id: detections(*rows) for image_id, rows in found.items()}


def score(path, found):
  metric = InstanceAP(CATEGORIES, instances=read_instances(path, CATEGORIES))
  for image_id, outputs in found.items():
    metric.update(image_id, outputs, INFO)
  return metric.result()


def test_equals_pycocotools_on_files(files):
  path, found = files
  result = score(path, found)
  with contextlib.redirect_stdout(io.StringIO()):
    truth = COCO(str(path))
    # Pycocotools takes a match with annotation 0 for none.
    for annotation in truth.dataset['annotations']:
      annotation['id'] += 1
    truth.createIndex()
    for name, iou_type in (('box', 'bbox'), ('mask', 'segm')):
      rows = []
      for image_id, outputs in found.items():
        boxes = (outputs['detection_boxes'] + [2, 3, 2, 3]) * np.float32([2, 4, 2, 4])
        pasted = paste_masks(outputs['detection_masks'], boxes, 40, 60)
        for i, (y1, x1, y2, x2) in enumerate(boxes.tolist()):
          mask = np.asfortranarray(pasted[i].numpy() >= 0.5).astype(np.uint8, order='F')
          shape = (
            {'bbox': [x1, y1, x2 - x1, y2 - y1]}
            if name == 'box'
            else {'segmentation': coco_mask.encode(mask)}
          )
          label = int(outputs['detection_classes'][i])
          rows.append(
            {
              'image_id': image_id,
              'category_id': {1: PERSON, 2: TIE}[label],
              'score': float(outputs['detection_scores'][i]),
              **shape,
            }
          )
      evaluation = COCOeval(truth, truth.loadRes(rows), iou_type)
      evaluation.params.imgIds = list(found)
      evaluation.evaluate()
      evaluation.accumulate()
      evaluation.summarize()
      assert [result[f'{name}_{key}'] for key in NAMES] == pytest.approx(evaluation.stats[:6])
      assert 0 < result[f'{name}_ap'] < 1


def test_a_file_without_an_image(files):
  path, found = files
  with pytest.raises(InputError, match=r'instances\.json: .*image 77'):
    score(path, {**found, 77: detections()})


def changed(path, change):
  content = json.loads(path.read_text())
  change(content)
  path.write_text(json.dumps(content))


def test_an_area_that_is_missing_is_that_of_the_mask(files):
  path, found = files
  expected = score(path, found)

  def change(content):
    for annotation in content['annotations']:
      del annotation['area']

  changed(path, change)
  assert score(path, found) == expected
  changed(path, lambda content: [a.update(area=None, bbox=None) for a in content['annotations']])
  assert score(path, found) == expected


@pytest.mark.parametrize('segmentation', [None, []])
def test_things_without_any_mask(files, segmentation):
  path, _ = files
  changed(
    path, lambda content: [a.update(segmentation=segmentation) for a in content['annotations']]
  )
  assert 'has a mask' in refused(path)


def test_an_image_of_another_size(files):
  path, found = files
  changed(path, lambda content: content['images'][1].update(height=50))
  changed(path, lambda content: content.update(annotations=[]))
  with pytest.raises(InputError, match=r'instances\.json: image 8 .*50 x 60 .*40 x 60'):
    score(path, found)


def test_fewer_images_than_are_scored(files):
  path, found = files
  instances = read_instances(path, CATEGORIES)
  instances.check_count(len(found))
  with pytest.raises(InputError, match=rf'instances\.json: has {len(instances.sizes)} images'):
    instances.check_count(len(instances.sizes) + 1)


def refused(path):
  with pytest.raises(InputError) as caught:
    read_instances(path, CATEGORIES)
  assert '\n' not in str(caught.value) and str(caught.value).startswith(f'{path}: ')
  return str(caught.value)


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    ('', 'JSON'),
    ('[]', 'object'),
    ('{"images": []}', 'categories'),
    ('{"categories": [3]}', '`id`'),
  ],
)
def test_no_instances_json(tmp_path, content, message):
  path = tmp_path / 'instances.json'
  path.write_text(content)
  assert message in refused(path)
  path.unlink()
  assert 'no such file' in refused(path)


@pytest.mark.parametrize(
  ('place', 'key', 'value', 'message'),
  [
    ('categories', 'name', 'human', "category 31 is 'human', but 'tie' in categories"),
    ('categories', 'id', 32, "category 32 is 'tie', but 'tie' is 31 in categories"),
    ('images', 'id', 5, '5'),
    ('images', 'height', None, 'image 139: has no `height`'),
    ('annotations', 'image_id', 6, 'annotation 8: is of image 6'),
    ('annotations', 'category_id', 201, 'annotation 8: category 201'),
    ('annotations', 'category_id', None, 'annotation 8: has no `category_id`'),
    ('annotations', 'bbox', [1, 2, 3], 'annotation 8: `bbox`'),
    ('annotations', 'area', 'large', 'annotation 8: `area`'),
    ('annotations', 'iscrowd', 3, 'annotation 8: `iscrowd`'),
    ('annotations', 'segmentation', [[1, 2, 3]], 'annotation 8: malformed polygon'),
    ('annotations', 'segmentation', {'size': [4, 6], 'counts': [24]}, 'annotation 8: RLE'),
  ],
)
def test_what_is_wrong_is_named(files, place, key, value, message):
  path, _ = files

  def change(content):
    if value is None:
      del content[place][-1][key]
    else:
      content[place][-1][key] = value

  changed(path, change)
  assert message in refused(path)


def test_annotations_of_stuff_and_boxes_alone_are_left_out(files):
  path, found = files
  expected = score(path, found)

  def change(content):
    content['categories'].append({'id': 200, 'name': 'grass'})
    first = content['annotations'][0]
    content['annotations'].append({**first, 'id': 900, 'category_id': 200})
    box = {key: value for key, value in first.items() if key != 'segmentation'}
    content['annotations'].append({**box, 'id': 901})
    for segmentation in (None, [], [[]], [[1, 1, 4, 4]], [[500, 500, 600, 500, 600, 600]]):
      content['annotations'].append({**box, 'id': 902, 'segmentation': segmentation})

  changed(path, change)
  assert score(path, found) == expected
