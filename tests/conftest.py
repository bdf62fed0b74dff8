"""For all tests."""

from hypothesis import settings

# A busy machine is no bug: pytest-timeout bounds the tests as a whole.
settings.register_profile("project", deadline=None)
settings.load_profile("project")
