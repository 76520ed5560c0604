import numpy as np
import pytest

from oanet_tf.evaluation import branches
from oanet_tf.evaluation.scoring import EvaluatedImage
from tests.segments import segments_of_ids


def perfect(categories):
  """A person (label 1) over grass (label 3) and sky (4), found exactly."""
  ids = np.ones([8, 8], np.int32)
  ids[4:] = 3
  ids[2:6, 2:6] = 2
  truth = segments_of_ids(ids, {1: 92, 2: 7, 3: 200})
  detections = {
    'detection_boxes': np.array([[2, 2, 6, 6], [0, 0, 0, 0]], np.float32),
    'detection_scores': np.array([0.9, 0.0], np.float32),
    'detection_classes': np.array([1, 0]),
    'detection_masks': np.ones([2, 28, 28], np.float32),
    'ranking_scores': np.array([0.5, 0.0], np.float32),
  }
  info = np.array([[8, 8], [8, 8], [1, 1], [0, 0]], np.float32)
  labels = np.array([0, categories.label(92), 1, categories.label(200)], np.int32)
  stuff = labels[np.where(np.arange(8)[:, None] < 4, 1, 3) * np.ones([1, 8], int)]
  return EvaluatedImage(
    1, '', truth, {}, np.zeros([8, 8, 3], np.uint8), info, None, detections, stuff, {}
  )


def test_perfect_branches_score_one(categories):
  scores = branches.BranchScores(categories, mask_threshold=0.5)
  scores.add(perfect(categories))
  result = scores.result()
  assert result['box_ap'] == result['mask_ap'] == pytest.approx(1.0)
  assert result['stuff_mean_iou'] == 1.0
  text = branches.format_branches(result)
  assert 'box AP 100.0 (AP50 100.0' in text and 'mean IoU 100.0' in text
