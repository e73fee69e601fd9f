"""The folder of an app: for what it keeps on the disk from one run to the next, such as artefacts, reports and caches.

What belongs to a user is not for here: the kernel keeps that in contexts and files, encrypted, apart by owner, and under the policy.
"""

import os
from pathlib import Path

from kernos.syscalls import places


def own_folder(app: str) -> Path:
    """The folder of this app, made if it is not there. `kernos run` names it, and lets the app write to no other of its kind."""
    folder = Path(os.environ.get("KERNOS_APP_FOLDER") or places().apps / app)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
