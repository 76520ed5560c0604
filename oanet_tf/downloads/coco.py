"""COCO 2017: images, and instance and panoptic annotations."""

import pathlib

from oanet_tf import files
from oanet_tf.downloads.fetch import fetch, server
from oanet_tf.downloads.unpacking import unzip

# The bucket images.cocodataset.org. Under its own name there is no HTTPS.
_SERVER = 'https://s3.amazonaws.com/images.cocodataset.org'
_IMAGES = {  # As in TensorFlow Datasets' url_checksums.
  'zips/train2017.zip': '69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929',
  'zips/val2017.zip': '4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05',
}
_ANNOTATIONS = {
  'annotations/annotations_trainval2017.zip': (
    '113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268'
  ),
  'annotations/panoptic_annotations_trainval2017.zip': (
    'c05f76d2129b6b561eb70efe16e7006df62f73fb92889132d373b9d90e31a370'
  ),
}


def download(folder: pathlib.Path, annotations_only: bool = False) -> None:
  """Fetches and unpacks what is not there yet.

  An archive is removed when it is unpacked; an empty file NAME.zip.done stands for it.

  Args:
    folder: gets `train2017`, `val2017` and `annotations`.
    annotations_only: whether to do without images.

  Raises:
    InputError: see `fetch` and `unzip`.
  """
  url = server('COCO_URL', _SERVER)
  with files.folder_unless_empty(folder):
    for name, sha256 in (_ANNOTATIONS if annotations_only else _IMAGES | _ANNOTATIONS).items():
      archive = folder / pathlib.PurePosixPath(name).name
      done = folder / f'{archive.name}.done'
      if done.exists():
        continue
      fetch(f'{url}/{name}', archive, f'sha256:{sha256}' if url == _SERVER else '')
      unzip(archive, folder)
      # The panoptic PNGs are in archives within the archive.
      for inner in sorted(folder.glob('annotations/panoptic_*2017.zip')):
        unzip(inner, inner.parent)
        inner.unlink(missing_ok=True)
      with files.writing(done):
        done.touch()
        archive.unlink(missing_ok=True)
