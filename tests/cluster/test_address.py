"""A cluster's address at which nobody answers is one sentence at once, not minutes of Ray's own attempts."""

from __future__ import annotations

import socket

import pytest

from cluster.launch.ray_start import check_reachable
from configs import InputError


def test_a_port_where_nobody_listens_is_refused_with_what_to_do():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        check_reachable(address)
        check_reachable(f"ray://{address}")
    for wrong in (address, f"ray://{address}", "127.0.0.1:99999"):
        with pytest.raises(InputError, match=r"no Ray cluster answers .*ray start --head"):
            check_reachable(wrong)


def test_addresses_that_ray_finds_by_itself_are_left_to_it():
    check_reachable("auto")
