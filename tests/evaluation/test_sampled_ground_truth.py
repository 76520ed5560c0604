import numpy as np

from oanet_tf.data.categories import Category, PanopticCategories
from oanet_tf.evaluation.scoring import sample_ground_truth

# Label 1 is category 7, label 3 is 92 (see the fixture): person and sky.
PERSON, SKY = 1, 3


def test_samples_the_middles_of_cells(categories):
  index = np.zeros((2, 4, 6), np.int32)
  index[0, :2, :3], index[0, 2:, 3:] = 1, 2
  index[1, :2, :4] = 1
  batch = {
    # The first was doubled, into 8 × 12 of an input of 8 × 16; the second is taken as it is.
    'image_info': np.array(
      [[[4, 6], [8, 12], [2, 2], [0, 0]], [[2, 4], [2, 4], [1, 1], [0, 0]]], np.float32
    ),
    'segment_index': index,
    'segment_ids': np.array([[5, 6], [9, 0]], np.int32),
    'segment_category_ids': np.array([[7, 92], [92, 0]], np.int32),
  }
  truth = sample_ground_truth(batch, (2, 4), 4, categories)
  np.testing.assert_array_equal(truth.segments[0], [[1, 0, 0, 0], [0, 2, 2, 0]])
  np.testing.assert_array_equal(truth.labels[0], [[PERSON, 0, 0, 0], [0, SKY, SKY, 0]])
  np.testing.assert_array_equal(truth.segments[1], np.zeros((2, 4)))
  assert truth.segments.dtype == truth.labels.dtype == np.int32


def test_equals_the_labels_of_training(categories):
  """The same picture, sampled there in the graph."""
  from oanet_tf.config import experiments
  from oanet_tf.data import preprocess
  from tests import small_model

  task = experiments.load_experiment('oanet_synthetic').task
  task.train_data.override({'output_size': [96, 96], 'label_stride': 2, 'random_flip': False})
  record = small_model.TIE_ON_PERSON
  steps = preprocess.training_steps(task.train_data, task.model, categories, portrait=False)
  example = preprocess.apply(steps, record)
  keys = ('segment_index', 'segment_ids', 'segment_category_ids')
  batch = {key: record[key].numpy()[None] for key in keys}
  batch['image_info'] = example['image_info'].numpy()[None]
  truth = sample_ground_truth(batch, (48, 48), 2, categories)
  assert len(np.unique(truth.labels)) == 3
  np.testing.assert_array_equal(truth.labels[0], example['category_labels'])


def test_an_image_that_is_void(categories):
  batch = {
    'image_info': np.array([[[4, 4], [4, 4], [1, 1], [0, 0]]], np.float32),
    'segment_index': np.zeros((1, 4, 4), np.int32),
    'segment_ids': np.zeros((1, 0), np.int32),
    'segment_category_ids': np.zeros((1, 0), np.int32),
  }
  truth = sample_ground_truth(batch, (2, 2), 2, categories)
  assert not truth.segments.numpy().any() and not truth.labels.numpy().any()


def test_the_padding_of_the_lists_is_not_the_category_0():
  categories = PanopticCategories(
    [Category(0, 'cat', True, (1, 1, 1)), Category(3, 'sky', False, (2, 2, 2))]
  )
  batch = {
    'image_info': np.array([[[2, 2], [2, 2], [1, 1], [0, 0]]], np.float32),
    'segment_index': np.array([[[0, 1], [2, 2]]], np.int32),
    'segment_ids': np.array([[8, 9, 0]], np.int32),
    'segment_category_ids': np.array([[0, 3, 0]], np.int32),
  }
  truth = sample_ground_truth(batch, (2, 2), 1, categories)
  np.testing.assert_array_equal(truth.labels[0], [[0, 1], [2, 2]])
