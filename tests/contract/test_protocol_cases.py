"""`sandbox_magic.testing.test_protocol_cases`, at the places of this repository."""

from sandbox_magic.testing.test_protocol_cases import *  # noqa: F403 # pytest finds tests by the names in a module
