"""Says at the end of a test run on what the full disk was shown."""

import pytest

PROPERTY = "full disk"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    ways = {
        str(value)
        for report in terminalreporter.stats.get("passed", [])
        for name, value in getattr(report, "user_properties", [])
        if name == PROPERTY
    }
    if ways:
        terminalreporter.write_line(
            f"a full disk was shown on: {'; '.join(sorted(ways))}"
        )
