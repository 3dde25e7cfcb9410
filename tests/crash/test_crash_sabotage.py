"""The trials can fail: whatever is left out of what the spool rests on is noticed."""

import tempfile
from pathlib import Path

import pytest

from postroom.testing.crash.sabotage import SABOTAGES, Sabotage
from postroom.testing.spool import MEMORY


@pytest.mark.parametrize("sabotage", SABOTAGES, ids=lambda each: each.name)
async def test_it_is_noticed(sabotage: Sabotage) -> None:
    with tempfile.TemporaryDirectory(prefix="sabotage-", dir=MEMORY) as place:
        assert await sabotage.is_noticed(Path(place)), "nobody noticed"
