"""Panoptic maps of one's own pictures: `python -m oanet_tf.predict --help`."""

import argparse
import pathlib
import sys

from oanet_tf import config_check, config_values, errors


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog='python -m oanet_tf.predict',
    description='Segments pictures and draws the result. Writes overlays/NAME.png, '
    "predictions/NAME.png (segment ids as RGB) and predictions.json (COCO's panoptic format).",
  )
  parser.add_argument('--model', required=True, metavar='MODEL_DIR', help='folder of a training')
  parser.add_argument(
    '--images', required=True, nargs='+', metavar='FILE_OR_DIR', help='pictures, or folders of them'
  )
  parser.add_argument('--output_dir', required=True, help='folder for the results')
  parser.add_argument(
    '--fusion',
    metavar='NAME',
    help=f'one of {", ".join(config_values.FUSIONS)} (default: as the model was configured)',
  )
  parser.add_argument(
    '--params_override',
    default='',
    metavar='KEY=VALUE,…',
    help="changes over the folder's params.yaml, as a.b=1,c.d=[2,3], or as YAML text",
  )
  return parser.parse_args(arguments)


def main() -> None:
  arguments = parse_arguments()
  from oanet_tf.data.pictures import find_pictures, read_picture

  method = checked_fusion(arguments.model, arguments.fusion, arguments.params_override)
  pictures = find_pictures(arguments.images)
  for path in pictures:
    read_picture(path)
  # TensorFlow takes seconds to load; the arguments and the pictures are good by now.
  output_dir = pathlib.Path(arguments.output_dir)
  predict(arguments.model, pictures, output_dir, method, arguments.params_override)


def checked_fusion(model_dir: str | pathlib.Path, fusion: str | None, params_override: str) -> str:
  """The name of the fusion, with all that it needs at hand; without one, the configured."""
  from oanet_tf.class_prior import load_table
  from oanet_tf.data.categories import PanopticCategories
  from oanet_tf.data.convert import CATEGORIES_FILE

  values = config_check.model_values(model_dir, params_override)
  if values['task.mode'] != 'panoptic':
    raise errors.InputError(
      f'{model_dir}: has the spatial ranking module alone (task.mode is '
      f'{values["task.mode"]!r}); start a whole network from it with task.init_checkpoint'
    )
  method = fusion or values['task.model.fusion.method']
  config_values.check_fusion(method, values)
  categories = PanopticCategories.from_json(pathlib.Path(model_dir) / CATEGORIES_FILE)
  load_table(values['task.model.fusion.class_prior'], categories, [method])
  return method


def predict(
  model_dir: str,
  pictures: list[pathlib.Path],
  output_dir: pathlib.Path,
  method: str,
  params_override: str = '',
) -> None:
  """Segments the pictures one by one and writes what the command line promises.

  Args:
    model_dir: folder of a training, with a checkpoint.
    pictures: files of any size and colour mode.
    output_dir: is made if need be.
    method: of fusion, one of `config_values.FUSIONS` but for 'oracle'.
    params_override: changes over the folder's configuration.

  Raises:
    InputError: if the model folder or a picture cannot be read.
  """
  import tqdm
  from PIL import Image

  from oanet_tf import inference, visualize
  from oanet_tf.class_prior import load_table
  from oanet_tf.data.pictures import read_picture
  from oanet_tf.evaluation.coco_results import PanopticResultsWriter

  model, config, categories = inference.load_model(model_dir, params_override)
  class_prior = load_table(config.task.model.fusion.class_prior, categories, [method])
  predictor = inference.image_predictor(model, config.task, method, class_prior)
  overlays = output_dir / 'overlays'
  overlays.mkdir(parents=True, exist_ok=True)
  with PanopticResultsWriter(output_dir, 'predictions', categories) as writer:
    for path in tqdm.tqdm(pictures, desc='predicting', unit='image', file=sys.stderr):
      image = read_picture(path)
      _, maps = predictor(image)
      masks = (mask[0].numpy() for mask in maps)
      segmentation = inference.to_segmentation(*masks, categories)
      writer.write(path.stem, f'{path.stem}.png', segmentation)
      overlay = visualize.draw_panoptic(image, segmentation, categories)
      Image.fromarray(overlay).save(overlays / f'{path.stem}.png')
  print(f'{len(pictures)} pictures: {overlays}, {output_dir / "predictions.json"}')


if __name__ == '__main__':
  errors.run(main)
