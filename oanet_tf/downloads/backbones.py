"""ResNets trained on ImageNet."""

import pathlib

from oanet_tf import files
from oanet_tf.downloads import checkpoints
from oanet_tf.downloads.fetch import fetch, server
from oanet_tf.downloads.unpacking import untar

# As tf_keras.applications.resnet.WEIGHTS_HASHES.
_KERAS_MD5 = {
  50: '4d473c1dd8becc155b73f8504c6f6626',
  101: '88cf7a10940856eca736dc7b7e228a21',
  152: 'ee4c566cf9a93f14d82f913c2dc6dd0c',
}
DEPTHS = tuple(_KERAS_MD5)


def download(depth: int, folder: pathlib.Path, keras: bool = False) -> str:
  """Fetches a ResNet, unless it is there.

  Args:
    depth: one of `DEPTHS`.
    folder: where it goes.
    keras: whether it is the one of `tf_keras.applications` and not the Model Garden's.

  Returns:
    The settings that start a training from it, for `--params_override`.

  Raises:
    InputError: see `fetch` and `untar`; or if the archive has no checkpoint.
  """
  url = server('BACKBONE_URL', 'https://storage.googleapis.com')
  if keras:
    path = folder / f'resnet{depth}_weights_tf_dim_ordering_tf_kernels_notop.h5'
    source = f'{url}/tensorflow/keras-applications/resnet/{path.name}'
    with files.folder_unless_empty(folder):
      fetch(source, path, f'md5:{_KERAS_MD5[depth]}')
    return (
      f'task.init_checkpoint={path},task.model.backbone.type=keras_resnet,'
      f'task.model.backbone.keras_resnet.model_id={depth}'
    )
  unpacked = folder / f'resnet-{depth}-i224'
  if not unpacked.is_dir():
    archive = folder / f'{unpacked.name}.tar.gz'
    with files.folder_unless_empty(folder):
      fetch(f'{url}/tf_model_garden/vision/resnet/{archive.name}', archive)
    with files.making_folder(unpacked) as temporary:
      untar(archive, temporary)
    archive.unlink(missing_ok=True)
  checkpoint = checkpoints.newest(unpacked)
  return f'task.init_checkpoint={checkpoint},task.model.backbone.resnet.model_id={depth}'
