"""The store on disk, and that reading it needs no torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from kernos.kernel.devices.modelstore import Manifest, ModelStore, ModelStoreError, UnknownModelError


def manifest(name: str) -> Manifest:
    return Manifest(
        name=name,
        kind="decoder",
        architecture="LlamaForCausalLM",
        source="a test",
        window=64,
        dim=8,
        vocab=16,
        eos=[1],
        bytes=3,
        sha256="00",
        created="2026-11-23T00:00:00+00:00",
    )


def install(store: ModelStore, name: str) -> Path:
    with store.staging() as staging:
        folder = Path(staging, "model")
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        return store.install(folder, manifest(name))


def test_what_was_installed_is_found(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    assert store.names() == []
    path = install(store, "one")
    install(store, "two.5-b")
    assert store.names() == ["one", "two.5-b"]
    assert store.path("one") == path
    assert store.manifest("one") == manifest("one")
    assert [entry.name for entry in store.root.iterdir() if entry.name.startswith(".")] == []


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    install(store, "one")
    with pytest.raises(UnknownModelError, match=r"no model 'two'; installed: one\."):
        store.manifest("two")


@pytest.mark.parametrize("name", ["", "..", ".pull-x", "../one", "a/b", "One", "a b", "a" * 65, "one\n"])
def test_a_name_cannot_leave_the_root(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelStoreError, match="cannot name a model"):
        ModelStore(tmp_path).path(name)


def test_a_taken_name_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    path = install(store, "one")
    (path / "mark").touch()
    with pytest.raises(ModelStoreError, match="already installed"):
        install(store, "one")
    assert (path / "mark").exists()


def test_removed_models_are_gone(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    install(store, "one")
    store.remove("one")
    assert list(tmp_path.iterdir()) == []


def test_unfinished_folders_are_no_models(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    with store.staging() as staging:
        (Path(staging) / "kernos.json").write_text("{}")
        (tmp_path / "half").mkdir()
        assert store.names() == []


def test_a_damaged_manifest_says_what_to_do(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    (install(store, "one") / "kernos.json").write_text('{"name": 3}')
    with pytest.raises(ModelStoreError, match="pull it again"):
        store.manifest("one")


def test_the_kernel_reads_the_store_and_the_messages_without_torch() -> None:
    code = """if True:
        import sys
        import kernos.kernel.devices.messages, kernos.kernel.devices.modelstore
        print(sorted({"torch", "transformers", "numpy", "zmq"} & set(sys.modules)))
    """
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
