"""What the tests of this folder share with the cases: their worlds, and their ways to ask and to judge."""

import pathlib
import sys

import pytest

# The helpers of the cases are plain modules, in a folder that is no package.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "cases"))
for name in ("test_database", "test_swap", "test_transport", "test_settings"):
    pytest.register_assert_rewrite(name)
