"""`sandbox_magic.testing.test_limits`, at the places of this repository."""

from sandbox_magic.testing.test_limits import *  # noqa: F403 # pytest finds tests by the names in a module
