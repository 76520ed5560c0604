"""The orientation in an EXIF block.

`data.encoded_picture` reads it in a graph, by the same rule. The rule is our own because readers of
EXIF, and versions of Pillow, differ in what they make of a block that is cut off or says a thing
twice.
"""

# What a JPEG has before the block. Some programs write it into the block too.
PREFIX = b'Exif\0\0'
# A JPEG's segment holds no more, and the orientation is near the beginning.
MAX_BYTES = 2**16
LITTLE_ENDIAN, BIG_ENDIAN = b'II*\0', b'MM\0*'
ORIENTATION = 0x0112
# Tag, type, count, and the value or its place.
ENTRY_BYTES = 12
# Types of whole numbers and their bytes: SHORT, LONG, SBYTE, SSHORT, SLONG, IFD, LONG8. A sign is
# not looked at, as no orientation is below 0.
WHOLE_NUMBERS = {3: 2, 4: 4, 6: 1, 8: 2, 9: 4, 13: 4, 16: 8}


def orientation(block: bytes) -> int:
  """How stored pixels are to be turned to be upright.

  It is the first entry of its tag, in the first directory, that has one whole number and is not cut
  off (TIFF 6.0, section 2: the byte order, the place of the directory, the number of its entries,
  and these, each with tag, type, count and value).

  Args:
    block: anything.

  Returns:
    From 1 (they are upright) to 8; 1 if the block does not say.
  """
  block = block.removeprefix(PREFIX).removeprefix(PREFIX)[:MAX_BYTES]
  little = block.startswith(LITTLE_ENDIAN)
  if not little and not block.startswith(BIG_ENDIAN):
    return 1

  def number(place: int, length: int) -> int:
    return int.from_bytes(block[place : place + length], 'little' if little else 'big')

  directory = number(4, 4)
  whole_entries = range(directory + 2, len(block) - ENTRY_BYTES + 1, ENTRY_BYTES)
  for entry in whole_entries[: number(directory, 2)]:
    length = WHOLE_NUMBERS.get(number(entry + 2, 2))
    if length is None or number(entry, 2) != ORIENTATION or number(entry + 4, 4) != 1:
      continue
    place = entry + 8 if length <= 4 else number(entry + 8, 4)
    if place + length <= len(block):
      found = number(place, length)
      return found if 1 <= found <= 8 else 1
  return 1
