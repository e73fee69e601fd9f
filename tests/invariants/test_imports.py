"""Who may import whom: the rules that keep the kernel small and the interface free of it. Read from the source, not by importing it."""

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("syscalls", "kernel", "agents", "apps")


@dataclass(frozen=True)
class Import:
    """`name` is absolute; `relative` is how it was written."""

    file: str
    line: int
    name: str
    relative: bool

    @property
    def within(self) -> str:
        """The folder it stands in."""
        return self.file.partition("/")[0]


def files(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def package_of(path: Path) -> list[str]:
    return ["kernos", *path.relative_to(ROOT).parent.parts]


def imports_of(path: Path) -> Iterator[Import]:
    file = path.relative_to(ROOT).as_posix()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (Import(file, node.lineno, alias.name, relative=False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = package_of(path)
            base = package[: len(package) + 1 - node.level] if node.level else []
            for alias in node.names:
                yield Import(file, node.lineno, ".".join([*base, *filter(None, [node.module]), alias.name]), bool(node.level))


@cache
def all_imports() -> list[Import]:
    return [entry for path in files(*FOLDERS) for entry in imports_of(path)]


def breaches(wrong: Callable[[Import], bool]) -> list[str]:
    return [f"{entry.file}:{entry.line} imports {entry.name}" for entry in all_imports() if wrong(entry)]


def under(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def ours_besides(*allowed: str) -> Callable[[Import], bool]:
    # The root itself holds nothing but the version.
    fine = ("kernos.__version__", *(f"kernos.{name}" for name in allowed))
    return lambda entry: entry.name.startswith("kernos.") and not under(entry.name, *fine)


def confined(packages: tuple[str, ...], homes: tuple[str, ...]) -> list[str]:
    return breaches(lambda entry: under(entry.name, *packages) and not entry.file.startswith(homes))


def test_the_reader_sees_imports() -> None:
    assert Import("syscalls/table.py", 20, "kernos.syscalls.call.Call", relative=True) in [
        Import(entry.file, 20, entry.name, entry.relative) for entry in all_imports()
    ]
    assert len(all_imports()) > 100


def test_syscalls_imports_none_of_ours() -> None:
    assert breaches(lambda entry: entry.within == "syscalls" and ours_besides("syscalls")(entry)) == []


def test_kernel_imports_only_syscalls() -> None:
    assert breaches(lambda entry: entry.within == "kernel" and ours_besides("kernel", "syscalls", "policies")(entry)) == []


def test_agents_import_only_syscalls() -> None:
    assert breaches(lambda entry: entry.within == "agents" and ours_besides("agents", "syscalls")(entry)) == []


def test_an_app_imports_agents_syscalls_and_itself() -> None:
    def wrong(entry: Import) -> bool:
        own = "/".join(entry.file.split("/")[:2]).removesuffix(".py").replace("/", ".")
        # The folder as a whole holds no code; the launcher asks it which apps there are.
        return entry.within == "apps" and entry.name != "kernos.apps" and ours_besides("agents", "syscalls", own)(entry)

    assert breaches(wrong) == []


def test_nobody_outside_imports_the_kernel() -> None:
    assert breaches(lambda entry: entry.within != "kernel" and under(entry.name, "kernos.kernel", "kernel")) == []


def test_torch_lives_in_devices() -> None:
    assert confined(("torch", "transformers", "sentence_transformers", "peft", "accelerate"), ("kernel/devices/",)) == []


def test_faiss_lives_in_memory() -> None:
    assert confined(("faiss",), ("kernel/memory/",)) == []


def test_zmq_lives_at_the_edges() -> None:
    homes = ("syscalls/", "kernel/loop.py", "kernel/devices/server.py")
    # z85 is the text form of a key; it opens no socket.
    assert [breach for breach in confined(("zmq",), homes) if " zmq.utils.z85" not in breach] == []


def test_the_core_has_no_clock_and_no_io() -> None:
    outside = ("time", "datetime", "random", "secrets", "zmq", "os", "io", "socket", "threading", "asyncio", "subprocess", "pathlib")
    assert breaches(lambda entry: entry.file.startswith("kernel/core/") and under(entry.name, *outside)) == []


def test_the_core_opens_nothing() -> None:
    calls = [
        f"{path.relative_to(ROOT)}:{node.lineno} calls {node.func.id}"
        for path in files("kernel/core")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("open", "print", "input", "__import__")
    ]
    assert calls == []


def test_relative_inside_a_folder_absolute_across() -> None:
    assert breaches(lambda entry: entry.name.startswith(f"kernos.{entry.within}.") != entry.relative) == []
    assert breaches(lambda entry: under(entry.name, *FOLDERS)) == []


def names_bound(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                yield from ((alias.asname or alias.name).partition(".")[0] for alias in names)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Name(id=name, ctx=ast.Store()):
                yield name


def exported(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [str(name) for name in ast.literal_eval(node.value)]
    return []


def test_every_exported_name_exists() -> None:
    missing = [
        f"{path.relative_to(ROOT)} exports {name}"
        for path in files(*FOLDERS)
        for tree in [ast.parse(path.read_text(encoding="utf-8"))]
        for name in set(exported(tree)) - set(names_bound(tree))
        if not (path.parent / f"{name}.py").exists()
    ]
    assert missing == []


def test_importing_syscalls_stays_light() -> None:
    command = [sys.executable, "-X", "importtime", "-c", "import kernos.syscalls"]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    names = {line.rpartition("|")[2].strip() for line in loaded.splitlines()}
    assert "kernos.syscalls" in names
    assert names.isdisjoint({"torch", "transformers", "numpy", "faiss", "tokenizers", "sentence_transformers", "rich", "click"})


def uses_of(*names: str) -> Iterator[tuple[str, str]]:
    """Every expression in the kernel that ends in one of these names, by file."""
    for path in files("kernel"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in names:
                yield path.relative_to(ROOT).as_posix(), ast.unparse(node)


def test_only_authority_asks_the_policy() -> None:
    """The tools in `security/` work on policies that are not in force; `law.py` brings the record of what was asked up to date."""
    outside = {
        (file, text)
        for file, text in uses_of("decide", "allows")
        if not file.startswith("kernel/security/") and text.rpartition(".")[0].rpartition(".")[2] in ("policy", "index")
    }
    assert outside == {("kernel/authority.py", "self.system.law.policy.decide"), ("kernel/authority.py", "law.policy.decide")} | {
        ("kernel/law.py", "self.policy.decide")
    }


def test_only_flows_judges_labels() -> None:
    outside = {file for file, text in uses_of("decide") if text.endswith(("flows.decide", "rules.decide"))}
    assert {file for file in outside if not file.startswith("kernel/security/")} == {"kernel/flows.py"}


def test_no_handler_is_reached_but_through_the_gate() -> None:
    assert {entry.file for entry in all_imports() if entry.name == "kernos.kernel.handlers.HANDLERS"} == {"kernel/gate.py"}
