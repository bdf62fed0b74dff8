"""`sandbox_magic.testing.test_spare`, at the places of this repository."""

from sandbox_magic.testing.test_spare import *  # noqa: F403 # pytest finds tests by the names in a module
