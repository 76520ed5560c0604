"""Writes the files of this folder, by PyTorch 2.14: `python make_torch_files.py`.

`test_tensors.py` has the values. Each file is below 3 kB, so two archives share the types.
"""

import pathlib

import torch

FOLDER = pathlib.Path(__file__).parent


def tensors():
  shared = torch.arange(6, dtype=torch.float32)
  return {
    'float32': torch.tensor([[1.5, -2.0], [0.25, 3.0]]),
    'transposed': torch.arange(6, dtype=torch.float32).reshape(2, 3).T,
    'first': shared[:4],
    'every_second': shared[1::2],
    'parameter': torch.nn.Parameter(torch.tensor([7.0])),
    'count': torch.tensor(12345678901),
  }


def other_types():
  return {
    'float16': torch.tensor([0.5, -65504.0], dtype=torch.float16),
    'bfloat16': torch.tensor([1.0, -3.140625, 2.0**100], dtype=torch.bfloat16),
    'float64': torch.tensor([0.1], dtype=torch.float64),
    'empty': torch.zeros(0, 3),
    'bool': torch.tensor([True, False]),
    'uint8': torch.tensor(200, dtype=torch.uint8),
  }


def state_of_trainer():
  """As Detectron2's trainer saves it, after one step."""
  model = torch.nn.Linear(2, 1, bias=False)
  torch.nn.init.constant_(model.weight, 0.5)
  optimizer = torch.optim.SGD(model.parameters(), lr=0.25, momentum=0.9)
  scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 3])
  model(torch.tensor([[1.0, 2.0]])).sum().backward()
  optimizer.step()
  scheduler.step()
  return {
    'model': model.state_dict(),
    'optimizer': optimizer.state_dict(),
    'scheduler': {**scheduler.state_dict(), 'type': torch.float32, 'device': torch.device('cpu')},
    'iteration': 7,
  }


def save(content, name, **options):
  torch.save(content, FOLDER / name, **options)
  size = (FOLDER / name).stat().st_size
  print(name, size)
  assert size < 3000


save(tensors(), 'tensors.pth')
save(other_types(), 'other_types.pth')
save({**tensors(), **other_types()}, 'legacy.pth', _use_new_zipfile_serialization=False)
save(state_of_trainer(), 'trainer.pth')
save(state_of_trainer(), 'trainer_legacy.pth', _use_new_zipfile_serialization=False)
save(tensors(), 'legacy_protocol_5.pth', _use_new_zipfile_serialization=False, pickle_protocol=5)
