"""Images that a replica draws though the ingress replica that asked for them is dead: another one goes on with them."""

from collections.abc import Callable

import pytest

from serve_app.config import ModelSettings
from serve_app.deployments.keyed_peers import KeyedPeers
from serve_app.deployments.peers import Peers
from serve_app.errors import Overloaded
from tests.deployments.conftest import AsyncTest, Make
from tests.deployments.fake_replicas import IMAGE, prompts, settle, until


def test_what_runs_is_found_and_read_there_and_the_rest_of_its_request_goes_first(
    run: Callable[[AsyncTest], None],
) -> None:
    async def test(make: Make) -> None:
        replicas = make("a", "b")
        peers = KeyedPeers("ingress-1", Peers(), {"m": replicas.queue})
        await until(lambda: len(replicas.queue.fleet.actors) == 2)
        lost = replicas.submit("1", key="k")
        await until(lambda: sum(len(one.streams) for one in replicas.all.values()) == 1)
        (home,) = [name for name, one in replicas.all.items() if one.streams]
        running = await peers.find_running("m", ["k/0", "k/1", "other/0"])
        assert running == {"k/0": home}

        replicas.queue.settings = ModelSettings(max_waiting=1)
        with pytest.raises(Overloaded):
            replicas.submit("1", "2", key="k")
        readers = replicas.submit("1", "2", key="k", running=running)
        await until(lambda: sum(len(one.streams) for one in replicas.all.values()) == 3)
        assert prompts(replicas.all[home].streams)[:2] == ["1", "1"], "accepted before, so never refused"
        for one in replicas.all.values():
            for stream in one.streams:
                stream.put(IMAGE)
        assert [await reader.task for reader in readers] == [IMAGE, IMAGE]
        await lost[0].task

    run(test)


def test_who_hangs_up_tells_the_replica_where_the_image_has_a_key(run: Callable[[AsyncTest], None]) -> None:
    async def test(make: Make) -> None:
        replicas = make("a")
        readers = [*replicas.submit("1", key="k"), *replicas.submit("2")]
        await until(lambda: len(replicas.all["a"].streams) == 2)
        for reader in readers:
            reader.task.cancel()
        await until(lambda: replicas.all["a"].calls)
        await settle()
        assert replicas.all["a"].calls == [("drop_image", "k/0")]

    run(test)


def test_a_replica_that_is_gone_by_then_is_not_waited_for(run: Callable[[AsyncTest], None]) -> None:
    async def test(make: Make) -> None:
        replicas = make("a")
        await until(lambda: replicas.queue.fleet.actors)
        readers = replicas.submit("1", key="k", running={"k/0": "gone"})
        await until(lambda: replicas.all["a"].streams)
        replicas.all["a"].streams[0].put(IMAGE)
        assert await readers[0].task == IMAGE

    run(test)
