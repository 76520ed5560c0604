"""The contenders of benchmark_model.py, and what they have in common.

The module of a contender imports at its top what the contender needs, and has a function
`contender(name, mode, size, batch, ...)`, which prepares its inputs. Of the result,
benchmark_model_worker.py calls the methods named in `STAGES`, then `run`, and `gflop` at the end.
"""

CONVOLUTION = 'convolution'
DETECTRON2 = ('detectron2', 'detectron2_unfrozen')
MODULES = {
  CONVOLUTION: 'benchmark_model_tensorflow',
  **dict.fromkeys(
    ('ours', 'ours_bfloat16', 'ours_pairwise', 'ours_unfused', 'ours_unfrozen'),
    'benchmark_model_ours',
  ),
  **dict.fromkeys(
    ('mask_rcnn', 'mask_rcnn_equal', 'panoptic_fpn', 'panoptic_fpn_lean'), 'benchmark_model_garden'
  ),
  **dict.fromkeys(DETECTRON2, 'benchmark_model_detectron2'),
}
CONTENDERS = tuple(name for name in MODULES if name != CONVOLUTION)
BFLOAT16, PAIRWISE, INFERENCE_ALONE = 'ours_bfloat16', 'ours_pairwise', 'ours_unfused'
TRAINING_ALONE = ('ours_unfrozen', 'detectron2_unfrozen')
# Small, for a small machine. The defaults of all are 1,000 proposals, 512 RoIs, 100 detections.
COUNTS = {'proposals': 256, 'rois': 64, 'masks': 16, 'detections': 20}
NUM_THINGS, NUM_STUFF, NUM_OBJECTS = 80, 53, 12


def objects(size: list[int], things: int = NUM_THINGS):  # noqa: ANN201
  """[N, 4] boxes of random rectangles in whole pixels, and their [N] categories in 1…`things`."""
  import numpy as np

  rng = np.random.default_rng(0)
  sides = np.array(size) * np.exp(rng.uniform(np.log(0.05), np.log(0.6), (NUM_OBJECTS, 2)))
  starts = rng.uniform(size=(NUM_OBJECTS, 2)) * (size - sides)
  boxes = np.concatenate([starts, starts + sides], axis=1).round()
  return boxes.astype(np.float32), 1 + rng.choice(things, NUM_OBJECTS)


def picture(size: list[int]):  # noqa: ANN201
  import numpy as np

  return np.random.default_rng(1).integers(0, 256, (*size, 3)).astype(np.uint8)
