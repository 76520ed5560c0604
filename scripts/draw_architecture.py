#!/usr/bin/env python3
"""Draws .github/architecture.svg: the network, its losses and the fusion.

Monospaced names in the picture are the code's own. One that the code no longer has is an error.
"""

import argparse
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from oanet_tf import errors, files

ROOT = pathlib.Path(__file__).resolve().parents[1]
OUTPUT = ROOT / '.github' / 'architecture.svg'
NETWORK = 'oanet_tf/modeling/oanet.py'
LOSSES = 'oanet_tf/training/losses.py'
FUSIONS = 'oanet_tf/config/values.py'

SIZE = (1096, 404)
# Fill and outline. Filled boxes and mid-grey lines are legible on light and on dark pages.
DATA = ('#f6f8fa', '#8b949e')
SHARED = ('#ddeaff', '#3b82f6')
INSTANCE = ('#fff0d6', '#d9822b')
STUFF = ('#daf5e2', '#2da44e')
RANKING = ('#fde0ea', '#d6336c')
LOSS = ('#eeebf8', '#7c6bc4')


class Box(NamedTuple):
  """A box with lines of text in it.

  Attributes:
    x, y, width, height: x and y are those of the upper left corner.
    name: in the code, if there is a source.
    details: further lines.
    colors: fill and outline.
    source: the file that has the name.
  """

  x: int
  y: int
  width: int
  height: int
  name: str
  details: Sequence[str]
  colors: tuple[str, str]
  source: str = ''

  def at(self, across: float, down: float) -> tuple[float, float]:
    """A point of the box; (0, 0) is its upper left corner, (1, 1) the lower right one."""
    return self.x + across * self.width, self.y + down * self.height


IMAGE = Box(12, 206, 80, 50, 'image', ['H × W × 3'], DATA)
BACKBONE = Box(120, 206, 92, 50, 'backbone', ['ResNet'], SHARED, NETWORK)
DECODER = Box(242, 206, 96, 50, 'decoder', ['FPN, P2–P6'], SHARED, NETWORK)
RPN = Box(388, 58, 116, 50, 'rpn_head', ['proposals'], INSTANCE, NETWORK)
ALIGN = Box(388, 150, 116, 50, 'roi_aligner', ['7 × 7, 14 × 14'], INSTANCE, NETWORK)
DETECTION = Box(544, 112, 132, 50, 'detection_head', ['classes and boxes'], INSTANCE, NETWORK)
MASK = Box(544, 188, 132, 50, 'mask_head', ['28 × 28 masks'], INSTANCE, NETWORK)
STUFF_HEAD = Box(
  388, 290, 288, 50, 'stuff_head', ['P2–P5 to logits of T things + S stuff'], STUFF, NETWORK
)
DETECTIONS = Box(710, 150, 92, 50, 'detections', ['up to 100'], DATA)
OCCLUSION = Box(694, 232, 124, 50, 'occlusion_head', ['pairs; optional'], RANKING, NETWORK)
RANK = Box(836, 58, 144, 50, 'spatial_ranking', ['a map per thing class'], RANKING, NETWORK)
METHODS = ['srm', 'pairwise', 'heuristic', 'class_prior', 'upsnet']
FUSE = Box(
  836,
  150,
  144,
  190,
  'fusion',
  ['orders the instances,', 'puts them over stuff', '', *METHODS],
  RANKING,
)
PANOPTIC = Box(1008, 220, 76, 50, 'panoptic', ['map'], DATA)
BOXES = [
  IMAGE, BACKBONE, DECODER, RPN, ALIGN, DETECTION, MASK, STUFF_HEAD, DETECTIONS, OCCLUSION, RANK,
  FUSE, PANOPTIC,
]  # fmt: skip
# At the heads that they judge.
LOSS_BOXES = [
  Box(x, y, width, 18, name, [], LOSS, LOSSES)
  for x, y, width, name in (
    (392, 14, 108, 'loss_rpn_class'), (392, 36, 108, 'loss_rpn_box'), (544, 90, 70, 'loss_class'),
    (618, 90, 58, 'loss_box'), (578, 242, 64, 'loss_mask'), (496, 344, 72, 'loss_stuff'),
    (876, 36, 64, 'loss_srm'), (705, 286, 102, 'loss_occlusion'),
  )
]  # fmt: skip
# From and to, by way of these x or y.
FORK, ROI_FORK, RANK_FORK = 363, 524, 819
ARROWS = [
  [IMAGE.at(1, 0.5), BACKBONE.at(0, 0.5)],
  [BACKBONE.at(1, 0.5), DECODER.at(0, 0.5)],
  [DECODER.at(1, 0.5), (FORK, 231), (FORK, 83), RPN.at(0, 0.5)],
  [(FORK, 175), ALIGN.at(0, 0.5)],
  [(FORK, 231), (FORK, 315), STUFF_HEAD.at(0, 0.5)],
  [(FORK, 275), OCCLUSION.at(0, 43 / 50)],
  [RPN.at(0.5, 1), ALIGN.at(0.5, 0)],
  [ALIGN.at(1, 0.5), (ROI_FORK, 175), (ROI_FORK, 137), DETECTION.at(0, 0.5)],
  [(ROI_FORK, 175), (ROI_FORK, 213), MASK.at(0, 0.5)],
  [DETECTION.at(1, 0.5), (693, 137), (693, 175), DETECTIONS.at(0, 0.5)],
  [MASK.at(1, 0.5), (693, 213), (693, 175), DETECTIONS.at(0, 0.5)],
  [DETECTIONS.at(0.5, 1), OCCLUSION.at(0.5, 0)],
  [OCCLUSION.at(1, 0.5), FUSE.at(0, 107 / 190)],
  [DETECTIONS.at(1, 0.5), FUSE.at(0, 25 / 190)],
  [(RANK_FORK, 175), (RANK_FORK, 83), RANK.at(0, 0.5)],
  [RANK.at(0.5, 1), FUSE.at(0.5, 0)],
  [STUFF_HEAD.at(1, 0.5), FUSE.at(0, 165 / 190)],
  [FUSE.at(1, 0.5), PANOPTIC.at(0, 0.5)],
]
LEGEND = [
  (SHARED, 'shared'), (INSTANCE, 'instance branch'), (STUFF, 'stuff branch'),
  (RANKING, 'ranking and fusion'), (LOSS, 'losses, in training only'),
]  # fmt: skip
MONOSPACE = 'ui-monospace, SFMono-Regular, Menlo, Consolas, DejaVu Sans Mono, monospace'


def main() -> None:
  argparse.ArgumentParser(description='Draws .github/architecture.svg anew.').parse_args()
  check_names()
  files.write_text(OUTPUT, picture())


def check_names() -> None:
  """Compares the names in the picture with the code.

  Raises:
    InputError: if the code does not have one of them.
  """
  named = [(box.name, box.source) for box in BOXES + LOSS_BOXES if box.source]
  named += [(method, FUSIONS) for method in METHODS]
  for name, source in named:
    if name not in (ROOT / source).read_text(encoding='utf-8'):
      raise errors.InputError(f'{source} has no {name}, which {pathlib.Path(__file__).name} draws')


def picture() -> str:
  """The SVG."""
  width, height = SIZE
  parts = [
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
    f'height="{height}" font-family="system-ui, Segoe UI, Helvetica, Arial, DejaVu Sans, '
    'sans-serif" text-anchor="middle">',
    '<title>OANet: image, backbone, FPN, instance and stuff branch, ranking, fusion</title>',
    '<marker id="head" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="8" markerHeight="8" '
    'markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0L8 4L0 8z" fill="#8b949e"/></marker>',
    *map(arrow, ARROWS),
    *map(box_of, BOXES),
    *map(loss_of, LOSS_BOXES),
    *legend(),
    '</svg>',
  ]
  return '\n'.join(parts) + '\n'


def arrow(points: Sequence[tuple[float, float]]) -> str:
  path = ' '.join(f'{x:g},{y:g}' for x, y in points)
  return (
    f'<polyline points="{path}" fill="none" stroke="#8b949e" stroke-width="1.6" '
    'stroke-linejoin="round" marker-end="url(#head)"/>'
  )


def rectangle(box: Box, radius: int) -> str:
  fill, outline = box.colors
  return (
    f'<rect x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}" rx="{radius}" '
    f'fill="{fill}" stroke="{outline}" stroke-width="1.4"/>'
  )


def text(x: float, y: float, content: str, style: str) -> str:
  return f'<text x="{x:g}" y="{y:g}" fill="#1f2328" {style}>{content}</text>'


def box_of(box: Box) -> str:
  middle = box.x + box.width / 2
  style = f'font-family="{MONOSPACE}" font-size="13"' if box.source else 'font-size="13.5"'
  lines = [text(middle, box.y + 21, box.name, style)]
  for number, detail in enumerate(box.details):
    style = 'font-size="11"'
    if detail in METHODS:
      style = f'font-family="{MONOSPACE}" {style}'
    lines.append(text(middle, box.y + 39 + 18 * number, detail, style))
  return rectangle(box, radius=7) + ''.join(lines)


def loss_of(box: Box) -> str:
  style = f'font-family="{MONOSPACE}" font-size="10.5"'
  return rectangle(box, radius=9) + text(box.x + box.width / 2, box.y + 12.5, box.name, style)


def legend() -> list[str]:
  x, parts = 12, []
  for colors, label in LEGEND:
    parts.append(rectangle(Box(x, 380, 14, 14, '', [], colors), radius=3))
    parts.append(
      f'<text x="{x + 21}" y="391" text-anchor="start" font-size="12" fill="#8b949e">{label}</text>'
    )
    x += 46 + 6.6 * len(label)
  return parts


if __name__ == '__main__':
  errors.run(main)
