"""A small network with Detectron2's names of tensors and random values."""

import numpy as np

BASIC = (2, 2, 2, 2)
NUM_THINGS, NUM_STUFF = 80, 53


def shapes(filters=32, fc=24, num_things=NUM_THINGS, num_stuff=NUM_STUFF, with_stuff=True):
  """The tensors' shapes by name, of a Panoptic FPN on a ResNet-18."""
  found = {}

  def conv(name, outputs, inputs, side, bias=True, norm=None):
    found[f'{name}.weight'] = outputs, inputs, side, side
    if bias:
      found[f'{name}.bias'] = (outputs,)
    parts = {
      'batch': ('weight', 'bias', 'running_mean', 'running_var'),
      'group': ('weight', 'bias'),
    }
    for part in parts.get(norm, ()):
      found[f'{name}.norm.{part}'] = (outputs,)

  body = 'backbone.bottom_up'
  conv(f'{body}.stem.conv1', 64, 3, 7, bias=False, norm='batch')
  inputs = 64
  for level, number in enumerate(BASIC, start=2):
    outputs = 64 * 2 ** (level - 2)
    for block in range(number):
      name = f'{body}.res{level}.{block}'
      conv(f'{name}.conv1', outputs, inputs, 3, bias=False, norm='batch')
      conv(f'{name}.conv2', outputs, outputs, 3, bias=False, norm='batch')
      if inputs != outputs:
        conv(f'{name}.shortcut', outputs, inputs, 1, bias=False, norm='batch')
      inputs = outputs
    conv(f'backbone.fpn_lateral{level}', filters, outputs, 1)
    conv(f'backbone.fpn_output{level}', filters, filters, 3)
  rpn = 'proposal_generator.rpn_head'
  conv(f'{rpn}.conv', filters, filters, 3)
  conv(f'{rpn}.objectness_logits', 3, filters, 1)
  conv(f'{rpn}.anchor_deltas', 12, filters, 1)
  for name, outputs, inputs in (
    ('box_head.fc1', fc, 49 * filters),
    ('box_head.fc2', fc, fc),
    ('box_predictor.cls_score', num_things + 1, fc),
    ('box_predictor.bbox_pred', 4 * num_things, fc),
  ):
    found[f'roi_heads.{name}.weight'] = outputs, inputs
    found[f'roi_heads.{name}.bias'] = (outputs,)
  mask = 'roi_heads.mask_head'
  for place in range(1, 5):
    conv(f'{mask}.mask_fcn{place}', filters, filters, 3)
  conv(f'{mask}.deconv', filters, filters, 2)
  conv(f'{mask}.predictor', num_things, filters, 1)
  if with_stuff:
    for level in range(2, 6):
      for stage in range(max(1, level - 2)):
        conv(f'sem_seg_head.p{level}.{2 * stage}', filters, filters, 3, bias=False, norm='group')
    conv('sem_seg_head.predictor', 1 + num_stuff, filters, 1)
  return found


def tensors(seed=0, **options):
  """Random values; variances are positive."""
  rng = np.random.default_rng(seed)
  return {
    name: (
      rng.uniform(0.5, 1.5, shape) if name.endswith('running_var') else rng.normal(0, 0.05, shape)
    ).astype(np.float32)
    for name, shape in shapes(**options).items()
  }
