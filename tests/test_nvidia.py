"""A GPU that TensorFlow cannot use is told, and a machine without one stays quiet."""

import os
import subprocess
import sys

import pytest

from oanet_tf import nvidia

FIND_DEVICES = """
import oanet_tf, tensorflow as tf
tf.config.list_physical_devices()
"""


@pytest.fixture
def plain_machine(monkeypatch, tmp_path):
  """A machine without any trace of NVIDIA; returns a folder for device files."""
  monkeypatch.setattr(nvidia, '_DEVICE_FILES', (str(tmp_path / 'nvidia[0-9]*'),))
  monkeypatch.setenv('PATH', str(tmp_path))
  monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
  return tmp_path


def make_nvidia_smi(folder):
  (folder / 'nvidia-smi').write_text('#!/bin/sh\n')
  (folder / 'nvidia-smi').chmod(0o755)


def test_no_driver(plain_machine):
  (plain_machine / 'nvidiactl').touch()
  assert not nvidia.has_driver()


def test_a_device_or_the_drivers_command_gives_it_away(plain_machine):
  device = plain_machine / 'nvidia3'
  device.touch()
  assert nvidia.has_driver()
  device.unlink()
  make_nvidia_smi(plain_machine)
  assert nvidia.has_driver()


@pytest.mark.parametrize(('visible', 'expected'), [('', False), ('-1', False), ('0,1', True)])
def test_gpus_that_are_hidden_are_not_meant(visible, expected, plain_machine, monkeypatch):
  make_nvidia_smi(plain_machine)
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible)
  assert nvidia.has_driver() == expected


def tensorflows_messages(path):
  """What TensorFlow writes when it looks for devices."""
  unset = ('TF_CPP_MIN_LOG_LEVEL', 'CUDA_VISIBLE_DEVICES')
  environment = {name: value for name, value in os.environ.items() if name not in unset}
  done = subprocess.run(
    [sys.executable, '-c', FIND_DEVICES],
    env={**environment, 'PATH': path},
    capture_output=True,
    text=True,
    check=True,
  )
  return done.stderr


@pytest.mark.slow
@pytest.mark.skipif(nvidia.has_driver(), reason='this machine has an NVIDIA GPU')
def test_tensorflow_complains_with_a_driver_and_is_silent_without_one(tmp_path):
  assert tensorflows_messages(os.environ['PATH']) == ''
  make_nvidia_smi(tmp_path)
  # The driver's command is there, but neither the driver nor CUDA.
  messages = tensorflows_messages(f'{tmp_path}:{os.environ["PATH"]}').splitlines()
  assert messages and all(' E ' in line or ' W ' in line for line in messages)
