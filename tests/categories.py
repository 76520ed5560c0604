"""Categories that tests share. Their ids have gaps and are not in the order of the labels."""

from oanet_tf.data.categories import Category, PanopticCategories

GRASS, PERSON, DOG, SKY = 3, 7, 20, 90
# Labels: void 0, person 1, dog 2, grass 3, sky 4.
CATEGORIES = PanopticCategories(
  [
    Category(GRASS, 'grass', False, (0, 200, 0)),
    Category(PERSON, 'person', True, (200, 0, 0)),
    Category(DOG, 'dog', True, (0, 0, 200)),
    Category(SKY, 'sky', False, (0, 200, 200)),
  ]
)

# Labels: void 0, person 1, tie 2, sky 3, grass 4. This is the fixture `categories`.
TIE_ON_PERSON = PanopticCategories(
  [
    Category(200, 'grass', False, (0, 200, 0)),
    Category(7, 'person', True, (200, 0, 0)),
    Category(92, 'sky', False, (0, 0, 200)),
    Category(31, 'tie', True, (200, 200, 0)),
  ]
)
