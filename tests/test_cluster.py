import logging
from types import SimpleNamespace

import pytest
import tensorflow as tf
from official.core import config_definitions

from oanet_tf import cluster as cluster_lib
from oanet_tf import nvidia
from oanet_tf.cluster import Cluster
from tests import devices

GPU_NAMES = ('NVIDIA A100-SXM4-40GB', 'NVIDIA A100-SXM4-40GB', 'NVIDIA T4')


def strategy_over(kind, num_local, num_workers=1):
  """As much of a strategy as a description needs."""
  worker_devices = tuple(f'/task:0/device:{kind}:{index}' for index in range(num_local))
  return SimpleNamespace(
    extended=SimpleNamespace(worker_devices=worker_devices),
    num_replicas_in_sync=num_local * num_workers,
  )


@pytest.fixture
def three_gpus(monkeypatch):
  monkeypatch.setattr(tf.config, 'list_physical_devices', lambda kind: list(GPU_NAMES))
  monkeypatch.setattr(
    tf.config.experimental, 'get_device_details', lambda name: {'device_name': name}
  )


def test_one_replica_on_the_cpu(monkeypatch):
  monkeypatch.setattr(cluster_lib.os, 'cpu_count', lambda: 2)
  cluster = Cluster(devices.mirrored(devices.ONE))
  assert not cluster.has_gpu
  assert cluster.describe() == 'the CPU (2 cores), 1 replica'


@pytest.mark.usefixtures('three_gpus')
@pytest.mark.parametrize(
  ('num_local', 'num_workers', 'expected'),
  [
    (1, 1, '1 GPU (NVIDIA A100-SXM4-40GB), 1 replica'),
    (2, 1, '2 GPUs (NVIDIA A100-SXM4-40GB), 2 replicas'),
    (3, 2, '3 GPUs (NVIDIA A100-SXM4-40GB, NVIDIA T4) of each of 2 workers, 6 replicas'),
  ],
)
def test_gpus_are_named_once(num_local, num_workers, expected):
  cluster = Cluster(strategy_over('GPU', num_local, num_workers), num_workers)
  assert cluster.has_gpu
  assert cluster.describe() == expected


@pytest.mark.usefixtures('three_gpus')
def test_a_gpu_without_a_name(monkeypatch):
  monkeypatch.setattr(tf.config.experimental, 'get_device_details', lambda name: {})
  assert 'unknown name' in Cluster(strategy_over('GPU', 1)).describe()


@pytest.mark.parametrize('has_driver', [False, True])
def test_a_gpu_that_tensorflow_does_not_see(has_driver, monkeypatch, caplog):
  monkeypatch.setattr(nvidia, 'has_driver', lambda: has_driver)
  runtime = config_definitions.RuntimeConfig(distribution_strategy='one_device')
  with caplog.at_level(logging.WARNING, 'oanet_tf'):
    cluster_lib.make_cluster(runtime)
  assert ('tensorflow[and-cuda]==2.20' in caplog.text) == has_driver
