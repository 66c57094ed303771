from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import ray

from pipeline.distributed import cluster


class FakeRay:
    """Ray connected to node `here`; notes what is asked of it."""

    def __init__(self, patch: pytest.MonkeyPatch, nodes: list[dict[str, Any]]) -> None:
        self.calls: list[str] = []
        context = SimpleNamespace(get_node_id=lambda: "here")
        patch.setattr(ray, "is_initialized", lambda: True)
        patch.setattr(ray, "get_runtime_context", lambda: context)
        patch.setattr(ray, "nodes", lambda: nodes)
        patch.setattr(ray, "shutdown", lambda: self.calls.append("shutdown"))
        patch.setattr(ray, "init", lambda **_: self.calls.append("init"))


@pytest.mark.parametrize(
    ("nodes", "lost"),
    [
        ([{"NodeID": "here", "Alive": True}, {"NodeID": "there", "Alive": False}], False),
        ([{"NodeID": "here", "Alive": False}, {"NodeID": "there", "Alive": True}], True),
        ([{"NodeID": "there", "Alive": True}], True),
    ],
)
def test_a_driver_leaves_a_node_that_died(nodes, lost, monkeypatch):
    fake = FakeRay(monkeypatch, nodes)
    cluster.connect()
    assert fake.calls == (["shutdown", "init"] if lost else [])
