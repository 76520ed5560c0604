"""All that the commands load, for the process that the commands are forked from.

Nothing here runs TensorFlow: its threads would not survive a fork.
"""

# ruff: noqa: F401
import oanet_tf

# isort: split
import oanet_tf.__main__
from oanet_tf import convert, evaluate, export, pq, predict, train
from oanet_tf.config import experiments
from oanet_tf.data import inspect
from oanet_tf.evaluation import branches, details, panoptic_quality
from oanet_tf.prediction import lite_predictor
from oanet_tf.serving import parity, saved_model, tflite
from oanet_tf.training import loop
