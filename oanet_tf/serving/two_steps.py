"""Network and fusion as two functions, so that one run of the network can be fused again and again.

All shapes are static. The second function takes what the first one gives, the score threshold, and
by what instances are ordered.
"""

# H, W canvas, N detections.

from collections.abc import Sequence

import tensorflow as tf

from oanet_tf.model_folder import Trained
from oanet_tf.modeling.fusion import order
from oanet_tf.modeling.fusion.fuser import FusionBatch
from oanet_tf.modeling.fusion.methods import ordered_by
from oanet_tf.serving.fixed_canvas import FixedCanvas
from oanet_tf.serving.formats import PAGE_FUSIONS
from oanet_tf.serving.panoptic_module import segments_of, without_bool
from oanet_tf.serving.tflite_runner import BY_RANKING, SCORE_THRESHOLD

SETTINGS = (SCORE_THRESHOLD, BY_RANKING)
# Of the network's outputs, those that a fusion needs.
_DETECTIONS = ('detection_boxes', 'detection_scores', 'detection_classes', 'detection_masks')
_OUTPUTS = (*_DETECTIONS, 'stuff_logits')


class TwoSteps(tf.Module):
  """The two steps of a trained network, for one image at a time.

  Attributes:
    network: `image`, [1, H, W, 3] uint8 RGB as `letterbox.letterbox` makes it -> the detections,
      the stuff logits and `image_info`, as `OANet` and `data.geometry` have them.
    merge: these, `score_threshold` [1] float32 and `by_ranking` [1] float32, 1 for the fusion 'srm'
      and 0 for 'heuristic' -> the masks and segments of `PanopticModule`, and `ranking_scores`
      [1, N] float32.

  Args:
    trained: the network.
    image_size: [H, W].
  """

  def __init__(self, trained: Trained, image_size: Sequence[int]):
    super().__init__()
    model, fuser = trained.model, trained.fuser(PAGE_FUSIONS)
    self.variables_of_model = model.variables
    canvas = FixedCanvas(trained.config.task, image_size)
    ids = trained.categories.id_of_label_table()

    def network(image: tf.Tensor) -> dict[str, tf.Tensor]:
      images, image_info = canvas.network_input(image)
      outputs = model(images, image_info)
      return {**{name: outputs[name] for name in _OUTPUTS}, 'image_info': image_info}

    def merge(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
      threshold, by_ranking = (inputs.pop(name) for name in SETTINGS)
      batch = fuser.batch(
        inputs,
        inputs.pop('image_info'),
        tf.constant(canvas.size),
        whole_size=canvas.whole_size,
        score_threshold=threshold,
      )

      def scores(batch: FusionBatch) -> tf.Tensor:
        by_detection, by_rank = order.detection_scores(batch), order.ranking_scores(batch)
        return tf.where(by_ranking > 0.0, by_rank, by_detection)

      segments = segments_of(batch, ordered_by(scores)(batch), tf.constant(ids))
      return {**without_bool(segments), 'ranking_scores': batch.ranking.scores}

    image = tf.TensorSpec([1, *image_size, 3], tf.uint8, name='image')
    self.network = tf.function(network, [image], autograph=False).get_concrete_function()
    outputs = self.network.structured_outputs
    specs = {name: tf.TensorSpec(one.shape, one.dtype, name) for name, one in outputs.items()}
    specs |= {name: tf.TensorSpec([1], tf.float32, name) for name in SETTINGS}
    self.merge = tf.function(merge, autograph=False).get_concrete_function(**specs)
