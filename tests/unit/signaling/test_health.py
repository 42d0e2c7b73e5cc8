"""What a load balancer and a Prometheus see."""

from __future__ import annotations

from front_door import OFFER, SDP, Node, StartNode

from signaling.app import ADMISSION, MODELS


async def test_alive_while_the_model_loads(start_node: StartNode) -> None:
    node = await start_node(loaded=False)
    assert (await node.client.get("/healthz")).status == 200


async def test_not_ready_until_the_model_is_loaded(start_node: StartNode) -> None:
    node = await start_node(loaded=False)
    response = await node.client.get("/readyz")
    assert response.status == 503
    assert await response.json() == {
        "status": "not ready",
        "reasons": ["the model is loading"],
        "codes": ["loading"],
    }
    assert "Retry-After" in response.headers
    node.app[MODELS].engine = node.engine
    assert (await node.client.get("/readyz")).status == 200
    assert (await node.client.post("/whip", data=OFFER, headers=SDP)).status == 201


async def test_not_ready_while_the_engine_is_down(node: Node) -> None:
    await node.client.post("/whip", data=OFFER, headers=SDP)
    node.engine.ready = False
    response = await node.client.get("/readyz")
    assert response.status == 503
    assert (await response.json())["reasons"] == ["the decoder is down"]
    refused = await node.client.post("/whip", data=OFFER, headers=SDP)
    assert refused.status == 503
    assert int(refused.headers["Retry-After"]) > 0
    assert node.refused("ENGINE_DOWN") == 1
    assert node.sessions() == 1  # those that run go on
    assert (await node.client.get("/healthz")).status == 200
    node.engine.ready = True
    assert (await node.client.post("/whip", data=OFFER, headers=SDP)).status == 201


async def test_not_ready_but_alive_once_it_stops(node: Node) -> None:
    node.app[ADMISSION].stop()
    response = await node.client.get("/readyz")
    assert response.status == 503
    assert (await response.json())["reasons"] == ["the server is shutting down"]
    assert (await node.client.get("/healthz")).status == 200


async def test_a_full_node_is_still_ready(start_node: StartNode) -> None:
    node = await start_node(max_sessions=1)
    await node.client.post("/whip", data=OFFER, headers=SDP)
    assert (await node.client.get("/readyz")).status == 200


async def test_metrics_are_in_the_text_format(node: Node) -> None:
    await node.client.post("/whip", data=OFFER, headers=SDP)
    response = await node.client.get("/metrics")
    assert response.status == 200
    assert response.headers["Content-Type"].startswith("text/plain; version=")
    assert 'voiceforge_sessions{door="whip"} 1.0' in await response.text()


async def test_metrics_are_openmetrics_for_who_asks(node: Node) -> None:
    response = await node.client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert response.headers["Content-Type"].startswith("application/openmetrics-text")
    assert (await response.text()).endswith("# EOF\n")
