"""For all tests."""

from __future__ import annotations

from hypothesis import settings

pytest_plugins = ["sandbox_magic.testing.plugin"]

# A busy machine is no bug: pytest-timeout bounds the tests as a whole.
settings.register_profile("project", deadline=None)
settings.load_profile("project")
