import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from oanet_tf.modeling.fusion.fuser import Panoptic
from oanet_tf.serving.segment_table import segment_table
from tests.lite import run_in_litert

# Two things, labels 1 and 2, and three stuff categories.
IDS = np.array([0, 70, 10, 200, 30, 65535], np.int32)
NUM_THINGS, NUM_DETECTIONS, NUM_ROWS = 2, 3, 6


STUFF_SCORES = np.float32([0.25, 0.5, 0.75])


def table_of(category_mask, instance_mask, scores, classes):
  maps = Panoptic(*map(tf.convert_to_tensor, (category_mask, instance_mask)))
  stuff_scores = tf.tile(STUFF_SCORES[None], [maps.category_mask.shape[0], 1])
  columns = map(tf.convert_to_tensor, (scores, classes, stuff_scores))
  return segment_table(maps, *columns, IDS, NUM_THINGS)


def ints(values):
  return np.array(values, np.int32)


def test_by_hand():
  """Detection 1 is not shown, 2 is in two parts; stuff 3 and 5 are there; image 1 is void."""
  category_mask = ints([[[2, 0, 3, 5], [1, 1, 3, 5], [2, 0, 0, 5]], np.zeros((3, 4))])
  instance_mask = ints([[[2, 0, 0, 0], [3, 3, 0, 0], [2, 0, 0, 0]], np.zeros((3, 4))])
  scores = np.float32([[0.9, 0.8, 0.7], [0.9, 0.0, 0.0]])
  table = table_of(category_mask, instance_mask, scores, ints([[1, 2, 1], [2, 0, 0]]))
  assert table['num_segments'].numpy().tolist() == [4, 0]
  expected = {
    'segment_category_id': [10, 70, 200, 65535, 0, 0],
    'segment_label_id': [2, 1, 3, 5, 0, 0],
    'segment_instance_id': [2, 3, 0, 0, 0, 0],
    'segment_is_thing': [True, True, False, False, False, False],
    'segment_score': np.float32([0.8, 0.7, 0.25, 0.75, 0, 0]).tolist(),
    'segment_area': [2, 2, 2, 3, 0, 0],
    'segment_box': [[0, 0, 3, 1], [1, 0, 2, 2], [0, 2, 2, 3], [0, 3, 3, 4], [0] * 4, [0] * 4],
  }
  for name, rows in expected.items():
    assert table[name][0].numpy().tolist() == rows, name
    assert not table[name][1].numpy().any(), name


def test_a_network_without_stuff():
  maps = Panoptic(tf.constant([[[1, 0]]]), tf.constant([[[1, 0]]]))
  table = segment_table(
    maps, tf.constant([[0.5]]), tf.constant([[1]]), tf.zeros([1, 0]), IDS[:3], NUM_THINGS
  )
  assert table['segment_box'].numpy().tolist() == [[[0, 0, 1, 1]]]


@st.composite
def batches(draw):
  """Masks as a fusion makes them, of up to 3 images of up to 9 × 9 pixels."""
  shape = [draw(st.integers(1, side)) for side in (3, 9, 9)]
  rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
  classes = rng.integers(1, NUM_THINGS + 1, (shape[0], NUM_DETECTIONS))
  instance_mask = rng.integers(0, NUM_DETECTIONS + 1, shape) * (rng.random(shape) < 0.5)
  stuff = rng.integers(NUM_THINGS + 1, len(IDS), shape) * (rng.random(shape) < 0.5)
  of_instance = np.pad(classes, [[0, 0], [1, 0]])[np.arange(shape[0])[:, None, None], instance_mask]
  scores = np.sort(rng.random((shape[0], NUM_DETECTIONS)))[:, ::-1].astype(np.float32)
  category_mask = np.where(instance_mask > 0, of_instance, stuff)
  return ints(category_mask), ints(instance_mask), scores.copy(), ints(classes)


def counted(category_mask, instance_mask, scores):
  """The segments of one image, by numpy alone."""
  rows = []
  codes = np.where(instance_mask > 0, instance_mask, 100 * category_mask)
  for code in np.unique(codes[codes > 0]):
    y, x = np.nonzero(codes == code)
    instance = code if code < 100 else 0
    rows.append(
      (
        IDS[category_mask[y[0], x[0]]], category_mask[y[0], x[0]], instance, bool(instance),
        scores[instance - 1] if instance else STUFF_SCORES[code // 100 - 1 - NUM_THINGS], len(y),
        [y.min(), x.min(), y.max() + 1, x.max() + 1],
      )
    )  # fmt: skip
  return rows


COLUMNS = ('category_id', 'label_id', 'instance_id', 'is_thing', 'score', 'area', 'box')
NAMES = [f'segment_{name}' for name in COLUMNS]


@settings(max_examples=30, deadline=None)
@given(batches())
def test_is_what_numpy_counts(batch):
  category_masks, instance_masks, scores, _ = batch
  table = {name: value.numpy() for name, value in table_of(*batch).items()}
  for i, masks in enumerate(zip(category_masks, instance_masks, scores, strict=True)):
    rows = counted(*masks)
    assert table['num_segments'][i] == len(rows)
    for column, name in enumerate(NAMES):
      found, padding = table[name][i][: len(rows)], table[name][i][len(rows) :]
      assert found.tolist() == [row[column] for row in rows]
      assert len(rows) + len(padding) == NUM_ROWS and not padding.any()


def test_runs_in_litert():
  rng = np.random.default_rng(0)
  inputs = {
    'category_mask': ints(rng.integers(0, 6, (1, 20, 30))),
    'instance_mask': ints(rng.integers(0, 4, (1, 20, 30))),
    'scores': np.float32([[0.9, 0.5, 0.2]]),
    'classes': ints([[1, 2, 1]]),
  }
  expected, found = table_of(**inputs), run_in_litert(table_of, inputs)
  for name, value in expected.items():
    np.testing.assert_array_equal(found[name], value, name)
