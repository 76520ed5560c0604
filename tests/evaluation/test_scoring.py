import json

import numpy as np
import pytest
import tensorflow as tf

from oanet_tf.cluster import Cluster
from oanet_tf.config import experiments
from oanet_tf.data import convert, input_pipeline
from oanet_tf.data.categories import PanopticCategories
from oanet_tf.data.panoptic_map import segments_of_masks
from oanet_tf.evaluation import scoring
from oanet_tf.evaluation.panoptic_quality import PanopticQuality
from oanet_tf.modeling.build import build_fuser, build_network
from oanet_tf.training.state import create_state
from tests import end_to_end, small_model
from tests.devices import ONE, TWO, mirrored


def truth_as_prediction(ground_truth, categories):
  """Through the same masks of labels and instances as the network's results."""
  labels = np.zeros_like(ground_truth.index)
  instances = np.zeros_like(ground_truth.index)
  for number, category_id in enumerate(ground_truth.category_ids, start=1):
    mask = ground_truth.index == number
    labels[mask] = categories.label(category_id)
    instances[mask] = number * categories.is_thing(categories.label(category_id))
  return segments_of_masks(labels, instances, categories)


def score_truth(shards, categories):
  """Scores of the ground truth against itself, through records and the evaluation pipeline."""
  task = experiments.load_experiment('oanet_synthetic').task
  task.validation_data.input_path = shards
  quality, count = PanopticQuality(categories), 0
  for batch in input_pipeline.evaluation_input(task, categories):
    for image in scoring.unbatch(batch):
      if image['is_repeated']:
        continue
      ground_truth = scoring.ground_truth_of(image)
      quality.update(ground_truth, truth_as_prediction(ground_truth, categories))
      count += 1
  return quality.result(), count


@pytest.mark.parametrize(('split', 'count'), [('train2017', 100), ('val2017', 37)])
def test_truth_as_prediction_is_perfect_on_coco(coco_sample, tmp_path, split, count):
  annotations = coco_sample / 'annotations'
  instances = annotations / f'instances_{split}.json'
  convert.convert(
    coco_sample / split,
    annotations / f'panoptic_{split}.json',
    annotations / f'panoptic_{split}',
    tmp_path,
    split,
    instances_json=instances if instances.exists() else None,
    num_workers=1,
  )
  categories = PanopticCategories.from_json(tmp_path / 'categories.json')
  result, images = score_truth(f'{tmp_path}/{split}-*', categories)
  assert images == count
  for group in ('All', 'Things', 'Stuff'):
    assert result[group]['pq'] == result[group]['sq'] == result[group]['rq'] == 1.0
    assert result[group]['n'] > 0


def test_truth_as_prediction_is_perfect_on_occluded_scenes(tmp_path):
  end_to_end.make_shards(tmp_path)
  categories = PanopticCategories.from_json(tmp_path / 'shards' / 'categories.json')
  result, images = score_truth(f'{tmp_path}/shards/*.tfrecord', categories)
  assert images == 9 and result['All']['pq'] == 1.0


def test_the_ranking_map_leaves_the_device_only_when_asked_for(categories):
  """At COCO's size the probabilities are 21.5 MB an image: 200 × 336 cells of 80 categories."""
  task = small_model.small_experiment().task
  model = build_network(task, categories)
  fuser = build_fuser(task, model)
  inputs = {
    'image': tf.zeros([2, 64, 64, 3], tf.uint8),
    'image_info': tf.constant([[[64, 64], [64, 64], [1, 1], [0, 0]]] * 2, tf.float32),
  }
  cells = [2, 64 // fuser.ranking_module.stride, 64 // fuser.ranking_module.stride]
  shapes = {}
  for with_maps in (False, True):
    step = scoring.evaluation_step(model, fuser, ('srm',), mirrored(ONE), with_maps)
    outputs = step.get_concrete_function(inputs).structured_outputs
    shapes[with_maps] = tf.nest.map_structure(lambda output: output.shape.as_list(), outputs)
  assert shapes[True].pop('ranking_map') == scoring.RankingMap(cells, cells)
  assert shapes[True] == shapes[False]
  found = tf.nest.flatten(outputs)
  assert not any(output.shape.rank == 4 and output.shape[-1] == 2 for output in found)


@pytest.mark.slow
def test_two_replicas_score_as_one_with_a_last_batch_that_is_not_full(trained, tmp_path):
  folder, results = trained  # Three images in batches of two.
  config = experiments.load_experiment(
    'oanet_synthetic', (), end_to_end.training_overrides(folder, steps=4)
  )
  categories = PanopticCategories.from_json(folder / 'model' / 'categories.json')
  for devices in (ONE, TWO):
    cluster = Cluster(mirrored(devices))
    state = create_state(config, categories, folder / 'model', cluster)
    seen = []
    found = scoring.evaluate(
      state.model,
      build_fuser(config.task, state.model),
      config.task,
      categories,
      ('srm', 'heuristic', 'oracle'),
      cluster,
      tmp_path / str(len(devices)),
      observers=[lambda image, seen=seen: seen.append(image.image_id)],
    )
    assert len(seen) == len(set(seen)) == 3
    written = json.loads((tmp_path / str(len(devices)) / 'results.json').read_text())
    assert written == json.loads(json.dumps(found))
    assert {method: found[method] for method in results} == results
  one, two = (json.loads((tmp_path / n / 'oracle.json').read_text()) for n in '12')
  assert one == two and all(image['segments_info'] for image in one['annotations'])
  for path in (tmp_path / '1' / 'oracle').glob('*.png'):
    assert path.read_bytes() == (tmp_path / '2' / 'oracle' / path.name).read_bytes()
