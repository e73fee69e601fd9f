"""Worlds of several sizes; see `fakes.py`."""

from pathlib import Path

import pytest

from tests.kernel.fakes import App, World, make_world, tiny_model


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder and an encoder that exist for the kernel alone."""
    store = tmp_path_factory.mktemp("store")
    tiny_model(store, "tiny")
    tiny_model(store, "tiny-encoder", "encoder", window=16)
    return store


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A kernel without models under a law that allows everything."""
    return make_world(tmp_path)


@pytest.fixture
def lawful(tmp_path: Path, tiny_store: Path) -> World:
    """A kernel with tiny models under the shipped policies."""
    return make_world(tmp_path, policy=None, store=tiny_store)


@pytest.fixture
def thinking(tmp_path: Path, tiny_store: Path) -> World:
    """A kernel with tiny models whose devices are up, with nothing loaded yet, under a law that allows everything."""
    world = make_world(tmp_path, store=tiny_store)
    world.up()
    return world


@pytest.fixture
def app(world: World) -> App:
    """A connection of an app."""
    return world.connect("app:shop")


@pytest.fixture
def agent(app: App) -> App:
    """Its agent."""
    return app.spawn()
