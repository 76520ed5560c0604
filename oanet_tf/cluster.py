"""The strategy for all devices and workers."""

import contextlib
import dataclasses
import json
import logging
import os
import signal
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from official.common import distribute_utils
from official.core import config_definitions

from oanet_tf import nvidia
from oanet_tf.config import definitions
from oanet_tf.errors import InputError

log = logging.getLogger(__name__)

INSTALL_FOR_GPUS = f"pip install 'tensorflow[and-cuda]=={tf.__version__}'"
# What TensorFlow raises when another worker is lost.
LOST_WORKER_ERRORS = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError)


def configure(runtime: definitions.Runtime) -> None:
  """Sets XLA, eager execution and determinism of the process.

  A deterministic process needs seeds from now on, and stays deterministic.
  """
  if runtime.deterministic:
    tf.config.experimental.enable_op_determinism()
    # It makes one `AddN` of several additions; see `training.step`.
    tf.config.optimizer.set_experimental_options({'arithmetic_optimization': False})
  # XLA compiles the clusters of operations that it can.
  tf.config.optimizer.set_jit(runtime.enable_xla)
  tf.config.run_functions_eagerly(runtime.run_eagerly)


@dataclasses.dataclass(frozen=True)
class Cluster:
  """The replicas that train together, and the position of this process among the workers.

  Attributes:
    strategy: over all devices of all workers.
    num_workers: number of processes, usually one per machine.
    index: of this process. The first is the chief, the only one that writes.
  """

  strategy: tf.distribute.Strategy
  num_workers: int = 1
  index: int = 0

  @property
  def is_chief(self) -> bool:
    return self.index == 0

  @property
  def num_local_replicas(self) -> int:
    return self.strategy.num_replicas_in_sync // self.num_workers

  @property
  def has_gpu(self) -> bool:
    return any('GPU' in device for device in self.strategy.extended.worker_devices)

  def describe(self) -> str:
    """Devices and replicas, as 'the CPU (2 cores), 1 replica'."""
    devices = f'the CPU ({_count(os.cpu_count() or 1, "core")})'
    if self.has_gpu:
      gpus = tf.config.list_physical_devices('GPU')[: self.num_local_replicas]
      details = map(tf.config.experimental.get_device_details, gpus)
      names = sorted({of_gpu.get('device_name', 'of unknown name') for of_gpu in details})
      devices = f'{_count(self.num_local_replicas, "GPU")} ({", ".join(names)})'
    if self.num_workers > 1:
      devices += f' of each of {self.num_workers} workers'
    replicas = _count(self.strategy.num_replicas_in_sync, 'replica')
    return f'{devices}, {replicas}'

  def sum_over_workers(self, values: np.ndarray) -> np.ndarray:
    """The sum of an array over all processes, which must all call this at the same point."""
    if self.num_workers == 1:
      return values
    values = np.asarray(values)

    def of_replica(context: tf.distribute.experimental.ValueContext) -> tf.Tensor:
      first = context.replica_id_in_sync_group % self.num_local_replicas == 0
      return tf.constant(values if first else np.zeros_like(values))

    parts = self.strategy.experimental_distribute_values_from_function(of_replica)
    return self.strategy.reduce(tf.distribute.ReduceOp.SUM, parts, axis=None).numpy()

  def any_worker(self, flag: bool) -> bool:
    """Whether a flag is set in any process; all must call this at the same point."""
    return bool(self.sum_over_workers(np.array([flag], np.float32))[0])

  @contextlib.contextmanager
  def lost_workers_named(self) -> Iterator[None]:
    """Turns TensorFlow's errors about lost workers into an `InputError`."""
    try:
      yield
    except LOST_WORKER_ERRORS as error:
      if self.num_workers == 1:
        raise
      # Without the place in the graph.
      fact = error.message.split('Collective ops is aborted by: ')[-1].splitlines()[0]
      raise InputError(
        f'worker {self.index}: another worker is gone ({fact}); restart all of them to continue '
        'from the newest checkpoint'
      ) from None


def make_cluster(runtime: config_definitions.RuntimeConfig) -> Cluster:
  """Replicas on the devices of this machine, or of all workers that TF_CONFIG names.

  Raises:
    InputError: if TF_CONFIG is malformed, or there are fewer GPUs than the config asks for.
  """
  if nvidia.has_driver() and not tf.config.list_physical_devices('GPU'):
    log.warning(
      "this machine has NVIDIA's driver, but TensorFlow sees no GPU; if nvidia-smi lists one, "
      'install the CUDA libraries: %s',
      INSTALL_FOR_GPUS,
    )
  num_workers, index = _read_tf_config()
  if num_workers > 1:
    log.info('worker %d waits for all %d workers of TF_CONFIG', index, num_workers)
    kind, num_gpus = 'multi_worker_mirrored', 0
  else:
    kind, available = runtime.distribution_strategy, len(tf.config.list_logical_devices('GPU'))
    if runtime.num_gpus > available:
      raise InputError(f'runtime.num_gpus is {runtime.num_gpus}, but TensorFlow sees {available}')
    num_gpus = runtime.num_gpus or (min(available, 1) if kind == 'one_device' else available)
  with _signals_kept() if num_workers > 1 else contextlib.nullcontext():
    strategy = distribute_utils.get_distribution_strategy(
      kind, num_gpus, all_reduce_alg=runtime.all_reduce_alg, num_packs=runtime.num_packs
    )
  return Cluster(strategy, num_workers, index)


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
  """Within, SIGINT ends the process without Python, and afterwards SIGTERM is handled again.

  TensorFlow holds Python's lock while it waits for the other workers, so no handler would run. And
  it replaces that of SIGTERM by its own, which only tells those workers.
  """
  of_term = signal.getsignal(signal.SIGTERM)
  of_int = signal.signal(signal.SIGINT, signal.SIG_DFL)
  try:
    yield
  finally:
    signal.signal(signal.SIGINT, of_int)
    signal.signal(signal.SIGTERM, of_term)


def _count(number: int, noun: str) -> str:
  return f'{number} {noun}' if number == 1 else f'{number} {noun}s'


def _read_tf_config() -> tuple[int, int]:
  """The number of workers that TF_CONFIG names, and this one's index; (1, 0) without it."""
  text = os.environ.get('TF_CONFIG', '').strip() or '{}'
  try:
    config = json.loads(text)
    cluster = config.get('cluster', {})
    names = [(job, i) for job in ('chief', 'worker') for i in range(len(cluster.get(job, [])))]
    task = (config.get('task', {}).get('type'), int(config.get('task', {}).get('index', 0)))
  except (ValueError, AttributeError, TypeError, OverflowError, RecursionError):
    raise InputError(f'TF_CONFIG: {text[:80]!r} is not the JSON that TensorFlow takes') from None
  if len(names) > 1 and task not in names:
    raise InputError(f'TF_CONFIG: task {task[0]} {task[1]} is not a worker of its cluster')
  return (len(names), names.index(task)) if len(names) > 1 else (1, 0)
