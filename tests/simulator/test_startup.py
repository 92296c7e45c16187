from __future__ import annotations

import subprocess
import sys


def test_importing_the_simulator_loads_nothing_heavy() -> None:
    code = (
        "import sys, simulator; "
        "print([m for m in ('pyarrow', 'scipy', 'torch', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
