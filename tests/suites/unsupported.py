"""A pytest plugin for suites that know more commands than the server has.

A test that fails because the server says that it has no lists, for example, counts as skipped, with
that text as the reason. The tests that the file SUITE_SKIPS names are not run at all.
"""

import os
import re

import pytest

SAID_BY_SERVER = re.compile(r"this server has no [a-z ]+[a-z]")


def listed():
    """Returns the reasons of the file, by the names of tests."""
    reasons, reason = {}, ""
    for line in open(os.environ["SUITE_SKIPS"], encoding="utf-8"):
        line = line.strip()
        if line.startswith("#"):
            reason = line.lstrip("# ").rstrip(".")
        elif line:
            reasons[line] = reason
    return reasons


def pytest_collection_modifyitems(items):
    reasons = listed()
    for item in items:
        reason = reasons.get(item.originalname or item.name)
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed and call.excinfo is not None:
        said = SAID_BY_SERVER.search(str(call.excinfo.value))
        if said:
            report.outcome = "skipped"
            report.longrepr = (str(item.path), item.location[1], said.group())
    return report
