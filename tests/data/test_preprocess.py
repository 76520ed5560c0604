import numpy as np
import pytest
import tensorflow as tf

from oanet_tf.config import definitions, experiments
from oanet_tf.data import preprocess, steps


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
    'file_name': tf.constant('1.jpg'),
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


DETECTRON2_SIDES = [640, 672, 704, 736, 768, 800]


@pytest.mark.parametrize('portrait', [False, True])
def test_short_sides_are_drawn_evenly(portrait):
  data, _ = settings(output_size=[800, 1333], short_sides=DETECTRON2_SIDES, random_flip=True)
  size = {'height': 640, 'width': 480} if portrait else {'height': 480, 'width': 640}
  fit = [1333, 800] if portrait else [800, 1333]
  step = steps.choose_geometry(fit, data)
  seeds = tf.stack([tf.zeros([1200], tf.int64), tf.range(1200, dtype=tf.int64)], axis=1)

  @tf.function(autograph=False)
  def draw():
    chosen = tf.map_fn(
      lambda seed: step({**size, 'seed': seed}), seeds,
      fn_output_signature={
        'height': tf.int32, 'width': tf.int32, 'seed': tf.int64, 'flip': tf.bool,
        'image_info': tf.float32,
      },
    )  # fmt: skip
    return chosen['image_info'], chosen['flip']

  info, flips = (drawn.numpy() for drawn in draw())
  short, long = info[:, 1, 1 if portrait else 0], info[:, 1, 0 if portrait else 1]
  values, counts = np.unique(short, return_counts=True)
  assert values.tolist() == DETECTRON2_SIDES
  # 200 each, with a deviation of sqrt(1200 · 1/6 · 5/6) = 13.
  assert (abs(counts - 200) < 4 * 13).all()
  np.testing.assert_array_equal(long, np.round(short * 640 / 480))
  assert not info[:, 3].any()
  # A side says nothing of the mirroring.
  assert all(abs(flips[short == side].mean() - 0.5) < 0.15 for side in values)


def test_a_short_side_of_coco_moves_everything(categories):
  """480 × 640 to 640 × 853 at the top left of 800 × 1344."""
  mask = rectangle(48, 64, 240, 320, 480, 640)
  record = decoded(480, 640, [(7, mask, False)], [(7, mask, False), (200, ~mask, False)])
  record['image'] = tf.fill([480, 640, 3], tf.constant(255, tf.uint8))
  changes = {'output_size': [800, 1333], 'short_sides': [640], 'label_stride': 4}
  example = training(record, categories, **changes)
  white = example['image'] == 255
  assert white.shape == (800, 1344, 3)
  assert white[:640, :853].all() and not example['image'][640:].any()
  assert not example['image'][:, 853:].any()
  # 64 · 853 / 640 = 85.3.
  np.testing.assert_allclose(example['gt_boxes'][0], [64, 85.3, 320, 426.5], rtol=1e-6)
  labels = example['category_labels']
  # Cells 16–79 of the rows and, with centres from 85.3 to 426.5, 21–106 of the columns.
  expected = np.zeros((200, 336), int)
  # The last visible column of cells has its centre at 850.
  expected[:160, :213] = 4
  expected[16:80, 21:107] = 1
  np.testing.assert_array_equal(labels, expected)


@pytest.mark.slow
def test_a_crop_leaves_of_an_object_what_is_visible_of_it(categories):
  """Two corners of a picture are one object: most crops show one of them, or nothing."""
  mask = rectangle(0, 0, 12, 12) | rectangle(52, 52, 64, 64)
  record = decoded(objects=[(7, mask, False)])
  record['image'] = tf.constant(np.repeat(255 * mask[..., None], 3, -1), tf.uint8)
  counts = {0: 0, 1: 0}
  for seed in range(24):
    record['seed'] = tf.constant([0, seed], tf.int64)
    example = training(record, categories, random_flip=True, min_scale=2.0, max_scale=2.0)
    rows, columns = np.nonzero(example['image'][..., 0] > 127)
    counts[int(rows.size > 0)] += 1
    if not rows.size:
      assert (example['gt_classes'] == -1).all() and (example['gt_boxes'] == -1).all()
      continue
    seen = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
    np.testing.assert_allclose(example['gt_boxes'][0], seen, atol=1)
    assert example['gt_masks'][0].mean() > 0.9
  assert counts[0] >= 4 and counts[1] >= 4


def test_an_image_at_a_tenth_of_the_size(categories):
  """480 × 640 to 77 × 102 of 1024²: 640 / 102 = 6.27 pixels become one."""
  thin, flat = rectangle(96, 0, 104, 320, 480, 640), rectangle(200, 0, 206, 320, 480, 640)
  things = [(7, thin, False), (31, flat, False)]
  record = decoded(480, 640, things, [*things, (200, ~(thin | flat), False)])
  rows, columns = np.mgrid[:480, :640]
  record['image'] = tf.constant(np.repeat(255 * ((rows + columns) % 2)[..., None], 3, -1), tf.uint8)
  changes = {'output_size': [1024, 1024], 'min_scale': 0.1, 'max_scale': 0.1, 'label_stride': 1}
  example = training(record, categories, **changes)
  np.testing.assert_array_equal(example['image_info'][1], [77, 102])
  # 8 rows are 1.28 pixels, and 6 are 0.96.
  assert example['gt_classes'].tolist() == [1, -1, -1, -1]
  np.testing.assert_allclose(example['gt_boxes'][0], [15.4, 0, 16.683333, 51], rtol=1e-5)
  # Every pixel covers as many white as black ones; four neighbours may be all white.
  assert abs(example['image'][:77, :102].astype(int) - 127.5).max() < 12
  assert not example['image'][77:].any() and not example['image'][:, 102:].any()
  labels = example['category_labels']
  assert (labels[:77, :102] > 0).all() and labels[77:].sum() == labels[:, 102:].sum() == 0


def test_what_grows_is_not_smoothed(categories):
  record = decoded(32, 32)
  smooth = training(record, categories, min_scale=0.9, max_scale=1.0)
  np.testing.assert_array_equal(smooth['image'].shape, [64, 64, 3])
  size = smooth['image_info'][1].astype(int)
  plain = np.round(tf.image.resize(record['image'], size))
  np.testing.assert_array_equal(smooth['image'][: size[0], : size[1]], plain)


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
  steps = preprocess.evaluation_steps(data, definitions.OANet(), portrait=False)
  evaluated = preprocess.apply(steps, record)
  alone = preprocess.network_input(
    record['image'], definitions.OANetTask(validation_data=data), portrait=False
  )
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


# For the occlusion head


def training_of_pairs(record, categories, **changes):
  data, model = settings(**changes)
  model = model.replace(occlusion_head=definitions.OcclusionHead(enabled=True))
  steps = preprocess.training_steps(data, model, categories, portrait=False)
  return tf.nest.map_structure(lambda tensor: tensor.numpy(), preprocess.apply(steps, record))


def test_each_object_has_the_segment_of_its_category_that_it_covers_most_of(categories):
  tie, person, other = rectangle(20, 16, 28, 20), rectangle(8, 4, 44, 36), rectangle(8, 36, 44, 60)
  stuff = (92, rectangle(50, 0, 64, 64), False)
  segments = [stuff, (7, person & ~tie, False), (31, tie, False), (7, other, False)]
  wide = rectangle(8, 10, 44, 44)  # More of the first person than of the second.
  objects = [(31, tie, False), (7, wide, False), (7, other, False), (31, other, False)]
  example = training_of_pairs(decoded(objects=objects, segments=segments), categories)
  assert example['gt_segments'].tolist() == [3, 2, 4, 0]
  for number, (_, mask, _) in enumerate(segments, start=1):
    assert (example['segment_map'] == number).sum() == mask.sum()


def test_segments_follow_the_objects_that_are_left(categories):
  # A crowd comes first, and an object is beyond the image after the crop.
  masks = [rectangle(0, 0, 8, 64), rectangle(10, 0, 30, 20), rectangle(40, 40, 60, 60)]
  objects = [(7, mask, number == 0) for number, mask in enumerate(masks)]
  record = decoded(objects=objects, segments=objects)
  example = training_of_pairs(record, categories)
  assert example['gt_segments'].tolist() == [2, 3, -1, -1]
  found = set()
  for seed in range(8):
    record['seed'] = tf.constant([0, seed], tf.int64)
    example = training_of_pairs(record, categories, min_scale=2.0, max_scale=2.0)
    count = int((example['gt_classes'] > 0).sum())
    assert (example['gt_segments'] > 0).sum() == count
    for box, number in zip(example['gt_boxes'][:count], example['gt_segments'], strict=False):
      y, x = ((box[:2] + box[2:]) / 2).astype(int)
      assert example['segment_map'][y, x] == number
    found.add(tuple(example['gt_segments'][:count]))
  assert len(found) > 1


def test_a_mirrored_image_has_a_mirrored_map(categories):
  left = rectangle(0, 0, 64, 10)
  record = decoded(objects=[(7, left, False)], segments=[(7, left, False)])
  maps = set()
  for seed in range(8):
    record['seed'] = tf.constant([0, seed], tf.int64)
    example = training_of_pairs(record, categories, random_flip=True)
    maps.add(tuple(example['segment_map'][0, [0, -1]].tolist()))
  assert maps == {(1, 0), (0, 1)}


def test_without_the_head_nothing_is_matched(categories):
  example = training(decoded(), categories)
  assert not {'gt_segments', 'segment_map'} & example.keys()
