from tests.serving.conftest import served  # noqa: F401  A fixture.
