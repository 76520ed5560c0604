"""The Keras metric against the NumPy scorer."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as np_st

from oanet_tf.data import input_pipeline
from oanet_tf.data.categories import Category, PanopticCategories
from oanet_tf.data.panoptic_map import PanopticSegmentation, to_segmentation
from oanet_tf.evaluation.panoptic_quality import PanopticQuality, summarize
from oanet_tf.evaluation.panoptic_quality_metric import PanopticQualityMetric
from oanet_tf.modeling.fusion import Panoptic
from tests import end_to_end, small_model
from tests.devices import TWO, mirrored

GRASS, PERSON, DOG, SKY = 3, 7, 20, 90
CATEGORIES = PanopticCategories(
  [
    Category(GRASS, 'grass', False, (0, 200, 0)),
    Category(PERSON, 'person', True, (200, 0, 0)),
    Category(DOG, 'dog', True, (0, 0, 200)),
    Category(SKY, 'sky', False, (0, 200, 200)),
  ]
)
# Labels: person 1, dog 2, grass 3, sky 4.
MAX_INSTANCES = 4


def truth_of(index, category_ids, is_crowd=None):
  """Batched truth as the evaluation pipeline gives it; `index` is [B, H, W]."""
  category_ids = np.array(category_ids, np.int32).reshape(len(index), -1)
  ids = np.where(category_ids > 0, np.arange(1, category_ids.shape[1] + 1), 0)
  crowds = np.zeros_like(category_ids, bool) if is_crowd is None else np.array(is_crowd, bool)
  return {
    'segment_index': tf.constant(index, tf.int32),
    'segment_ids': tf.constant(ids, tf.int32),
    'segment_category_ids': tf.constant(category_ids),
    'segment_is_crowd': tf.constant(crowds.reshape(category_ids.shape)),
    'source_id': tf.constant(['unread'] * len(index)),
  }


def panoptic(labels, instances):
  return Panoptic(tf.constant(labels, tf.int32), tf.constant(instances, tf.int32))


def numpy_statistics(truth, prediction, weights=None):
  quality = PanopticQuality(CATEGORIES)
  arrays = {key: value.numpy() for key, value in truth.items()}
  for i, index in enumerate(arrays['segment_index']):
    if weights is not None and not weights[i]:
      continue
    real = arrays['segment_ids'][i] > 0
    segments = (
      arrays[key][i][real] for key in ('segment_ids', 'segment_category_ids', 'segment_is_crowd')
    )
    masks = (mask[i].numpy() for mask in prediction)
    quality.update(PanopticSegmentation(index, *segments), to_segmentation(*masks, CATEGORIES))
  return quality.statistics


def test_by_hand():
  metric = PanopticQualityMetric(CATEGORIES, MAX_INSTANCES)
  truth = truth_of([[[1] * 6 + [2] * 4]], [[PERSON, GRASS]])
  metric.update_state(truth, panoptic([[[1] * 5 + [3] * 5]], [[[4] * 5 + [0] * 5]]))
  result = {key: value.numpy() for key, value in metric.result().items()}
  assert result == pytest.approx(
    {
      **{'pq_things': 5 / 6, 'sq_things': 5 / 6, 'rq_things': 1},
      **{'pq_stuff': 4 / 5, 'sq_stuff': 4 / 5, 'rq_stuff': 1},
      **{'pq_all': 49 / 60, 'sq_all': 49 / 60, 'rq_all': 1},
    }
  )
  metric.reset_state()
  assert not metric.statistics.numpy().any()
  assert not any(value.numpy() for value in metric.result().values())


def test_an_iou_of_one_half_is_no_match_and_void_is_not_scored():
  metric = PanopticQualityMetric(CATEGORIES, MAX_INSTANCES)
  truth = truth_of([[[1, 2, 0]], [[0, 0, 1]]], [[PERSON, DOG], [SKY, 0]])
  prediction = panoptic([[[1, 1, 0]], [[4, 4, 4]]], [[[2, 2, 0]], [[0, 0, 0]]])
  metric.update_state(truth, prediction)
  expected = [[0] * 4, [0, 0, 1, 1], [0, 0, 0, 1], [0] * 4, [1, 1, 0, 0]]
  np.testing.assert_array_equal(metric.statistics, expected)


@st.composite
def batches(draw):
  """Truth with crowds, void, padding and unseen segments; predictions that mostly follow it."""
  batch, height, width = draw(st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 6)))
  shape, count = (batch, height, width), draw(st.integers(0, 4))
  ids = st.sampled_from([0] * (count == 0) + [GRASS, PERSON, DOG, SKY])
  category_ids = draw(np_st.arrays(np.int32, (batch, count), elements=ids))
  crowds = draw(np_st.arrays(bool, (batch, count)))
  cells = st.integers(0, count)
  index = draw(np_st.arrays(np.int32, shape, elements=cells, fill=cells))
  # The last segments of some images are padding.
  lengths = draw(np_st.arrays(np.int32, (batch,), elements=st.integers(0, count)))
  category_ids[np.arange(count) >= lengths[:, None]] = 0
  index[index > lengths[:, None, None]] = 0
  table = np.pad(CATEGORIES.label_of_id_table()[category_ids], [[0, 0], [1, 0]])
  labels = np.take_along_axis(table, index.reshape(batch, -1), axis=1).reshape(shape)
  changed = draw(np_st.arrays(bool, shape))
  labels = np.where(
    changed, draw(np_st.arrays(np.int32, shape, elements=st.integers(0, 4))), labels
  )
  # Instances 1 and 3 are persons, 2 and 4 dogs; void and stuff have none.
  instances = labels + 2 * draw(np_st.arrays(np.int32, shape, elements=st.integers(0, 1)))
  instances = np.where((labels == 1) | (labels == 2), instances, 0)
  weights = draw(np_st.arrays(np.int32, (batch,), elements=st.integers(0, 1)))
  return truth_of(index, category_ids, crowds), panoptic(labels, instances), weights


@settings(max_examples=80, deadline=None)
@given(batch=batches())
def test_equals_numpy_on_random_batches(batch):
  truth, prediction, weights = batch
  metric = PanopticQualityMetric(CATEGORIES, MAX_INSTANCES)
  metric.update_state(truth, prediction)
  expected = numpy_statistics(truth, prediction)
  np.testing.assert_allclose(metric.statistics, expected, atol=1e-9)
  summary = summarize(expected, CATEGORIES)
  for key, value in metric.result().items():
    quality, group = key.split('_')
    assert value.numpy() == pytest.approx(summary[group.capitalize()][quality], abs=1e-9)
  metric.reset_state()
  metric.update_state(truth, prediction, sample_weight=weights)
  expected = numpy_statistics(truth, prediction, weights)
  np.testing.assert_allclose(metric.statistics, expected, atol=1e-9)


def test_one_trace_takes_all_sizes():
  metric = PanopticQualityMetric(CATEGORIES, MAX_INSTANCES)
  traces = []

  @tf.function(
    autograph=False,
    input_signature=[
      {
        'segment_index': tf.TensorSpec([None, None, None], tf.int32),
        'segment_ids': tf.TensorSpec([None, None], tf.int32),
        'segment_category_ids': tf.TensorSpec([None, None], tf.int32),
        'segment_is_crowd': tf.TensorSpec([None, None], tf.bool),
      },
      Panoptic(*[tf.TensorSpec([None, None, None], tf.int32)] * 2),
    ],
  )
  def step(truth, prediction):
    traces.append(1)
    metric.update_state(truth, prediction)

  expected = 0
  for width in (1, 5):
    truth = truth_of([[[1] * width]], [[PERSON, SKY]])
    del truth['source_id']
    prediction = panoptic([[[1] * width]], [[[1] * width]])
    step(truth, prediction)
    expected += numpy_statistics(truth, prediction)
  np.testing.assert_array_equal(metric.statistics, expected)
  assert len(traces) == 1


@pytest.mark.parametrize(
  ('truth', 'prediction', 'message'),
  [
    (truth_of([[[1, 0]]], [[SKY]]), panoptic([[[4]]], [[[0]]]), 'differ in size'),
    (truth_of([[[1]]], [[91]]), panoptic([[[4]]], [[[0]]]), 'not in the categories'),
    (truth_of([[[1]]], [[4]]), panoptic([[[4]]], [[[0]]]), 'not in the categories'),
    (truth_of([[[1]]], [[SKY]]), panoptic([[[1]]], [[[5]]]), 'max_instances'),
  ],
)
def test_malformed_batches_are_refused(truth, prediction, message):
  metric = PanopticQualityMetric(CATEGORIES, MAX_INSTANCES)
  with pytest.raises(tf.errors.InvalidArgumentError, match=message):
    metric.update_state(truth, prediction)
  assert not metric.statistics.numpy().any()


def test_truth_as_prediction_through_the_evaluation_pipeline(tmp_path):
  end_to_end.make_shards(tmp_path, num_train=1)
  categories = PanopticCategories.from_json(tmp_path / 'shards' / 'categories.json')
  # Two batches of two images, of which the last is repeated.
  task = small_model.small_experiment().task
  task.validation_data.input_path = f'{tmp_path}/shards/val-*'
  metric = PanopticQualityMetric(categories, max_instances=50)
  num_segments = 0
  for batch in input_pipeline.evaluation_input(task, categories):
    table = categories.label_of_id_table()[batch['segment_category_ids'].numpy()]
    index = batch['segment_index'].numpy()
    labels = np.pad(table, [[0, 0], [1, 0]])[np.arange(2)[:, None, None], index]
    instances = np.where((labels > 0) & (labels <= categories.num_things), index, 0)
    counted = ~batch['is_repeated'].numpy()
    metric.update_state(batch, panoptic(labels, instances), sample_weight=counted)
    num_segments += ((table > 0) & ~batch['segment_is_crowd'].numpy())[counted].sum()
  assert metric.result()['pq_all'].numpy() == metric.result()['pq_things'].numpy() == 1.0
  assert metric.statistics.numpy().sum(axis=0).tolist() == [num_segments, num_segments, 0, 0]


def test_replicas_add_up():
  """Two devices, each with its own images, give what one gives with all."""
  rng = np.random.default_rng(0)
  index = rng.integers(0, 4, (4, 3, 8))
  category_ids = rng.choice([GRASS, PERSON, DOG, SKY], (4, 3))
  labels = rng.integers(0, 5, (4, 3, 8))
  truth = truth_of(index, category_ids, rng.random((4, 3)) < 0.3)
  del truth['source_id']
  prediction = panoptic(labels, np.where(np.isin(labels, [1, 2]), labels, 0))
  weights = tf.constant([1.0, 1.0, 0.0, 1.0])

  strategy = mirrored(TWO)
  with strategy.scope():
    metric = PanopticQualityMetric(CATEGORIES, MAX_INSTANCES)
  data = tf.data.Dataset.from_tensor_slices((truth, prediction, weights)).batch(4)

  def replica_step(*batch):
    metric.update_state(*batch)

  step = tf.function(lambda *batch: strategy.run(replica_step, args=batch), autograph=False)
  for batch in strategy.experimental_distribute_dataset(data):
    step(*batch)
  replicas = strategy.experimental_local_results(metric.statistics)
  assert len(replicas) == 2 and all(replica.numpy().any() for replica in replicas)
  expected = numpy_statistics(truth, prediction, weights.numpy())
  np.testing.assert_allclose(metric.statistics.numpy(), expected, atol=1e-9)
  rq = metric.result()['rq_all'].numpy()
  assert rq == pytest.approx(summarize(expected, CATEGORIES)['All']['rq'], abs=1e-9)
  metric.reset_state()
  assert not metric.statistics.numpy().any()
