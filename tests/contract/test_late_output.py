"""`sandbox_magic.testing.test_late_output`, at the places of this repository."""

from sandbox_magic.testing.test_late_output import *  # noqa: F403 # pytest finds tests by the names in a module
