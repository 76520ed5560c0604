import numpy as np
import pytest
import tensorflow as tf

from oanet_tf.config import definitions, experiments
from oanet_tf.data import preprocess


def settings(**changes):
  task = experiments.load_experiment('oanet_synthetic').task
  data = definitions.Data(
    **{'output_size': [64, 64], 'mask_size': 16, 'label_stride': 1, 'max_num_instances': 4,
       'random_flip': False, 'rpn_batch_size_per_im': 32, **changes}
  )  # fmt: skip
  return data, task.model


def decoded(height=64, width=64, objects=(), segments=(), seed=0):
  """A record as `tf_example.decode` gives it, of (category id, mask, is crowd) triples."""
  boxes, pngs = [], []
  for _, mask, _ in objects:
    rows, columns = np.nonzero(mask)
    box = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
    boxes.append(box)
    crop = mask[box[0] : box[2], box[1] : box[3]].astype(np.uint8)
    pngs.append(tf.io.encode_png(crop[..., None]).numpy())
  index = np.zeros((height, width), np.int32)
  for number, (_, mask, _) in enumerate(segments, start=1):
    index[mask] = number
  rows, columns = np.mgrid[:height, :width]
  image = np.stack([rows, columns, rows + columns], axis=-1).astype(np.uint8)
  return {
    'source_id': tf.constant('1'),
    'height': tf.constant(height),
    'width': tf.constant(width),
    'image': tf.constant(image),
    'segment_index': tf.constant(index),
    'segment_ids': tf.range(1, len(segments) + 1),
    'segment_category_ids': tf.constant([s[0] for s in segments], tf.int32),
    'segment_is_crowd': tf.constant([s[2] for s in segments], tf.bool),
    'object_boxes': tf.reshape(tf.constant(boxes, tf.float32), [-1, 4]),
    'object_category_ids': tf.constant([o[0] for o in objects], tf.int32),
    'object_is_crowd': tf.constant([o[2] for o in objects], tf.bool),
    'object_masks': tf.constant(pngs, tf.string),
    'seed': tf.constant([0, seed], tf.int64),
  }


def rectangle(y1, x1, y2, x2, height=64, width=64):
  mask = np.zeros((height, width), bool)
  mask[y1:y2, x1:x2] = True
  return mask


def training(record, categories, **changes):
  steps = preprocess.training_steps(*settings(**changes), categories, portrait=False)
  return tf.nest.map_structure(lambda tensor: tensor.numpy(), preprocess.apply(steps, record))


def test_nothing_changes_an_image_of_the_inputs_size(categories):
  mask = rectangle(8, 16, 40, 32)
  segments = [(31, mask, False), (200, ~mask, False)]
  record = decoded(objects=[(31, mask, False)], segments=segments)
  example = training(record, categories)
  np.testing.assert_array_equal(example['image'], record['image'])
  np.testing.assert_array_equal(example['image_info'], [[64, 64], [64, 64], [1, 1], [0, 0]])
  np.testing.assert_array_equal(example['gt_boxes'][0], [8, 16, 40, 32])
  np.testing.assert_array_equal(example['gt_classes'], [2, -1, -1, -1])
  assert example['gt_masks'][0].all() and (example['gt_masks'][1:] == -1).all()
  np.testing.assert_array_equal(example['category_labels'], np.where(mask, 2, 4))


def test_no_object_and_nothing_but_void(categories):
  example = training(decoded(), categories)
  assert (example['gt_boxes'] == -1).all() and (example['gt_classes'] == -1).all()
  assert not example['category_labels'].any()
  assert (example['anchor_samples'] == 1).sum() == 0
  assert (example['anchor_samples'] == 0).sum() == 32


@pytest.mark.parametrize(('height', 'width'), [(32, 64), (128, 64), (1, 1), (640, 427), (3, 200)])
def test_fits_within_the_input_and_pads(height, width, categories):
  mask = np.ones((height, width), bool)
  record = decoded(height, width, [(7, mask, False)], [(7, mask, False)])
  example = training(record, categories, label_stride=2)
  scale = min(64 / height, 64 / width)
  valid = np.maximum(np.round([height * scale, width * scale]), 1)
  np.testing.assert_array_equal(example['image_info'][1], valid)
  np.testing.assert_allclose(example['gt_boxes'][0], [0, 0, *valid])
  assert not example['image'][int(valid[0]) :].any()
  assert not example['image'][:, int(valid[1]) :].any()
  labels = example['category_labels']
  assert labels.shape == (32, 32)
  assert (
    labels.sum() == (np.arange(1, 64, 2) < valid[0]).sum() * (np.arange(1, 64, 2) < valid[1]).sum()
  )


def test_flip_mirrors_everything_alike(categories):
  mask = rectangle(10, 5, 30, 25)
  mask[10:20, 5:15] = False  # Not symmetric.
  mask[10, 5] = True
  record = decoded(objects=[(7, mask, False)], segments=[(7, mask, False)])
  data, model = settings(random_flip=True, mask_size=20)
  steps = preprocess.training_steps(data, model, categories, portrait=False)
  seen = set()
  for seed in range(8):
    record['seed'] = tf.constant([0, seed], tf.int64)
    example = preprocess.apply(steps, record)
    flipped = bool(example['gt_boxes'][0, 1] == 64 - 25)
    seen.add(flipped)
    expected = mask[:, ::-1] if flipped else mask
    image = record['image'].numpy()[:, ::-1] if flipped else record['image'].numpy()
    np.testing.assert_array_equal(example['image'], image)
    np.testing.assert_array_equal(example['category_labels'].numpy() == 1, expected)
    y1, x1, y2, x2 = example['gt_boxes'][0].numpy().astype(int)
    np.testing.assert_array_equal(example['gt_masks'][0], expected[y1:y2, x1:x2])
  assert seen == {True, False}


@pytest.mark.parametrize('seed', range(6))
def test_scale_and_crop_move_image_boxes_masks_and_labels_alike(seed, categories):
  """A white disc on black: wherever it lands, all four must show it at the same place."""
  rows, columns = np.mgrid[:96, :128] + 0.5
  disc = (rows - 50) ** 2 + (columns - 70) ** 2 < 30**2
  record = decoded(96, 128, [(7, disc, False)], [(7, disc, False)], seed=seed)
  record['image'] = tf.constant(np.repeat(255 * disc[..., None], 3, -1), tf.uint8)
  example = training(
    record, categories, random_flip=True, min_scale=0.8, max_scale=2.0, mask_size=64
  )
  white = example['image'][..., 0] > 127
  labels = example['category_labels'] == 1
  assert (white != labels).mean() < 0.03
  y1, x1, y2, x2 = np.round(example['gt_boxes'][0]).astype(int)
  found_rows, found_columns = np.nonzero(labels)
  found = [found_rows.min(), found_columns.min(), found_rows.max() + 1, found_columns.max() + 1]
  np.testing.assert_allclose(found, [y1, x1, y2, x2], atol=2)
  inside = labels[y1:y2, x1:x2]
  pasted = tf.image.resize(example['gt_masks'][0][..., None], inside.shape)[..., 0] > 0.5
  assert (pasted.numpy() != inside).mean() < 0.05


def test_objects_that_the_crop_leaves_are_dropped(categories):
  mask = rectangle(0, 0, 2, 2)
  record = decoded(objects=[(7, mask, False)], segments=[])
  counts = set()
  for seed in range(12):
    record['seed'] = tf.constant([0, seed], tf.int64)
    example = training(record, categories, min_scale=4.0, max_scale=4.0)
    counts.add(int((example['gt_classes'] > 0).sum()))
  assert 0 in counts


def test_crowds_are_ignored_not_background(categories):
  crowd = rectangle(0, 0, 64, 32)
  record = decoded(objects=[(7, crowd, True)], segments=[(7, crowd, True)])
  example = training(record, categories, rpn_batch_size_per_im=4096)
  assert (example['gt_classes'] == -1).all()
  np.testing.assert_array_equal(example['crowd_boxes'][0], [0, 0, 64, 32])
  sampled = example['anchor_samples'][: 16 * 16 * 3].reshape(16, 16, 3) == 0
  assert not sampled[1:-1, 1:6].any() and sampled[1:-1, 10:15].all()


def test_more_instances_than_room(categories):
  objects = [(7, rectangle(8 * i, 0, 8 * i + 8, 8), False) for i in range(6)]
  example = training(decoded(objects=objects), categories)
  assert example['gt_boxes'].shape == (4, 4) and (example['gt_classes'] == 1).all()


def test_same_seed_same_example_other_seed_other(categories):
  record = decoded(objects=[(7, rectangle(8, 8, 40, 40), False)])
  changes = {'random_flip': True, 'min_scale': 0.5, 'max_scale': 2.0}
  first = training(record, categories, **changes)
  again = training(record, categories, **changes)
  tf.nest.map_structure(np.testing.assert_array_equal, first, again)
  other = training({**record, 'seed': tf.constant([0, 9], tf.int64)}, categories, **changes)
  assert (first['image'] != other['image']).any()


def test_anchor_targets_agree_with_the_boxes(categories):
  box = rectangle(16, 16, 48, 48)
  example = training(decoded(objects=[(7, box, False)]), categories)
  positives, negatives = ((example['anchor_samples'] == value).sum() for value in (1, 0))
  assert 1 <= positives <= 16 and positives + negatives == 32


def test_network_input_is_what_evaluation_sees():
  record = decoded(40, 60)
  data, _ = settings()
  evaluated = preprocess.apply(preprocess.evaluation_steps(data, portrait=False), record)
  alone = preprocess.network_input(record['image'], data.output_size, portrait=False)
  np.testing.assert_array_equal(evaluated['image'], alone['image'])
  np.testing.assert_array_equal(evaluated['image_info'], alone['image_info'])


def test_objects_from_segments_do_not_overlap(categories):
  tie, person = rectangle(20, 16, 28, 20), rectangle(8, 4, 44, 36)
  things = [(7, person & ~tie, False), (31, tie, False), (7, rectangle(0, 50, 4, 60), True)]
  stuff = (92, rectangle(50, 0, 64, 64), False)
  record = decoded(
    objects=[(7, person, False), (31, tie, False)], segments=[things[0], stuff, *things[1:]]
  )
  changes = {'mask_size': 32, 'random_flip': True}
  example = training(record, categories, objects_from='segments', **changes)
  wanted = training({**record, **object_part(decoded(objects=things))}, categories, **changes)
  for key, value in wanted.items():
    np.testing.assert_array_equal(example[key], value, err_msg=key)
  assert (training(record, categories, **changes)['gt_masks'] != example['gt_masks']).any()


def object_part(record):
  return {key: value for key, value in record.items() if key.startswith('object_')}


@pytest.mark.parametrize(
  'segments', [[], [(92, rectangle(0, 0, 64, 64), False)], [(7, rectangle(0, 0, 0, 0), False)]]
)
def test_no_object_in_the_segments(segments, categories):
  """Nothing, stuff alone, and a thing of which no pixel is left."""
  record = decoded(objects=[(7, rectangle(8, 4, 44, 36), False)], segments=segments)
  example = training(record, categories, objects_from='segments')
  assert (example['gt_classes'] == -1).all() and (example['crowd_boxes'] == -1).all()
