"""From model folders and users' images to the paper's figures."""

import pathlib
from collections.abc import Sequence

from oanet_tf import files
from oanet_tf.data.pictures import find_pictures
from oanet_tf.model_folder import ModelFolder
from oanet_tf.training import series

_COMPARED = ('heuristic', 'srm')


def draw_gradients(model_dirs: Sequence[pathlib.Path], output: pathlib.Path) -> None:
  """Draws Figure 5 from `gradient_norm/…` in the metrics of trainings, as PNG.

  Raises:
    InputError: if a training has no such metrics.
  """
  of_training = {
    str(folder): series.read_series(folder / series.METRICS_FILE, ('gradient_norm/',))
    for folder in model_dirs
  }
  from oanet_tf.paper import drawings

  with files.replacing(output) as temporary:
    drawings.gradients(of_training, temporary)


def draw_predictions(
  figure: str, model_dirs: Sequence[pathlib.Path], images: Sequence[str], output: pathlib.Path
) -> None:
  """Draws a figure that needs networks, as PNG.

  Args:
    figure: 'ranking_map' or 'scores', of the first image; 'fusions', of all images; 'sharing', of
      all images and networks.
    model_dirs: folders of trainings; all but 'sharing' use the first.
    images: files and folders.
    output: PNG to write.

  Raises:
    InputError: if a folder has no trained network with a ranking module, or an image cannot be
      read.
  """
  for folder in model_dirs:
    ModelFolder(folder).fusion('srm')
  names = network_names(model_dirs)
  pictures = find_pictures(images)
  # TensorFlow takes seconds to load, so arguments are checked before.
  from oanet_tf.paper import drawings
  from oanet_tf.paper.examples import predictions

  with files.replacing(output) as temporary:
    if figure == 'sharing':
      found = [list(predictions(folder, pictures, ['srm'])) for folder in model_dirs]
      drawings.sharing(dict(zip(names, found, strict=True)), temporary)
    elif figure == 'fusions':
      found = list(predictions(model_dirs[0], pictures, _COMPARED))
      drawings.fusions(found, _COMPARED, temporary)
    else:
      draw = {'ranking_map': drawings.ranking_map, 'scores': drawings.scores}[figure]
      draw(next(predictions(model_dirs[0], pictures, _COMPARED)), temporary)


def network_names(model_dirs: Sequence[pathlib.Path]) -> list[str]:
  """What the branches of each network share, with the folder where that is not unique."""
  names = [f'sharing: {ModelFolder(folder).values["task.model.sharing"]}' for folder in model_dirs]
  if len(set(names)) == len(names):
    return names
  return [f'{name} ({folder})' for name, folder in zip(names, model_dirs, strict=True)]
