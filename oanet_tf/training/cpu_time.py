"""Warns of a training that no CPU finishes."""

import logging
import os

from official.core import config_definitions

from oanet_tf.cluster import INSTALL_FOR_GPUS, Cluster

log = logging.getLogger(__name__)

# A training step of `oanet_r50fpn_coco` takes two cores 12 s for an image of 800 × 1344
# (scripts/BENCHMARKS.md). Small networks take less, ResNet-101 takes more.
CORE_SECONDS_PER_PIXEL = 2 * 12 / (800 * 1344)
SECONDS_PER_DAY = 24 * 3600
# What is called long.
LIMIT_DAYS = 1.0


def days_on_cpu(config: config_definitions.ExperimentConfig, num_cores: int) -> float:
  """About how many days a whole training with ResNet-50 takes on a CPU.

  The ranking module alone, which sees no pixels of images, takes none.
  """
  data = config.task.train_data
  if config.task.mode == 'srm_only':
    return 0.0
  height, width = data.output_size
  num_pixels = config.trainer.train_steps * data.global_batch_size * height * width
  return num_pixels * CORE_SECONDS_PER_PIXEL / num_cores / SECONDS_PER_DAY


def warn_without_gpu(config: config_definitions.ExperimentConfig, cluster: Cluster) -> None:
  """Says how long a training would take if there is no GPU and the answer is days."""
  num_cores = (os.cpu_count() or 1) * cluster.num_workers
  days = days_on_cpu(config, num_cores)
  if cluster.has_gpu or days < LIMIT_DAYS:
    return
  data = config.task.train_data
  log.warning(
    'no GPU: %s images of %d × %d pixels take a ResNet-50 about %s days on %d CPU cores; with an '
    'NVIDIA GPU, install the CUDA libraries: %s',
    f'{config.trainer.train_steps * data.global_batch_size:,}',
    *data.output_size,
    f'{days:,.0f}',
    num_cores,
    INSTALL_FOR_GPUS,
  )
