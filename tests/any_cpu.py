"""Run the tests of numbers as on an older processor: python tests/any_cpu.py [words for pytest].

Vector instructions and BLAS kernels are held back, with one thread. What was really in
force is asserted before the first test, in the process that runs them:
`tests/conftest.py` asks `in_force` where `STRATA_ANY_CPU` is set.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys

ASKED = {
    "ATEN_CPU_CAPABILITY": "default",  # torch's own kernels
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # its convolutions
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",  # its matrix products
    "OPENBLAS_CORETYPE": "Haswell",  # those of numpy and scipy
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "STRATA_ANY_CPU": "1",
}
IS_X86 = platform.machine().lower() in ("x86_64", "amd64")
_WORK = """
import torch
layer = torch.nn.Conv3d(32, 32, 3)
image = torch.ones(1, 32, 32, 32, 32).contiguous(memory_format=torch.channels_last_3d)
torch.ones(64, 64) @ torch.ones(64, 64)
with torch.inference_mode():
    layer(image)
"""


def dispatched() -> list[str]:
    """Give the processor features that numpy looks for when it starts, and finds here."""
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

    return [name for name in __cpu_dispatch__ if __cpu_features__.get(name)]


def in_force() -> list[str]:
    """Give a line on each library about what it takes in this process.

    Raises
    ------
    RuntimeError
        If one of them takes more than was asked for.
    """
    import scipy.linalg  # noqa: F401 (loads scipy's own OpenBLAS)
    import torch
    from threadpoolctl import threadpool_info

    pools = threadpool_info()
    kernels = sorted(
        {
            str(pool["architecture"])
            for pool in pools
            if pool.get("internal_api") == "openblas"
        }
    )
    spoken = {**os.environ, "ONEDNN_VERBOSE": "1", "MKL_VERBOSE": "1"}
    said = subprocess.run(
        [sys.executable, "-c", _WORK],
        capture_output=True,
        text=True,
        env=spoken,
        check=True,
        timeout=120,
    ).stdout
    isa = re.search(r"cpu,isa:(.*)", said)
    product = re.search(r"^MKL_VERBOSE .*\(Intel\(R\) ([^)]*)\)", said, re.MULTILINE)
    convolutions, products = (
        found[1] if found else "not told" for found in (isa, product)
    )
    torchs = torch.backends.cpu.get_cpu_capability()
    found = {
        "torch": (torchs, torchs == "DEFAULT"),
        "oneDNN": (
            convolutions,
            convolutions == "Intel AVX2" or not torch.backends.mkldnn.is_available(),
        ),
        "MKL": (products, products == "AVX2" or not torch.backends.mkl.is_available()),
        "numpy": (", ".join(dispatched()) or "baseline", not dispatched()),
        "OpenBLAS": (", ".join(kernels), set(kernels) == {"Haswell"}),
        "threads": (
            str(max(pool["num_threads"] for pool in pools)),
            all(pool["num_threads"] == 1 for pool in pools),
        ),
    }
    if wrong := [
        f"{name}: {what}" for name, (what, is_held) in found.items() if not is_held
    ]:
        raise RuntimeError(
            "These were to be held back and are not: " + "; ".join(wrong)
        )
    return [f"{name}: {what}" for name, (what, _) in found.items()]


def main(words: list[str]) -> int:
    """Run the tests; gives pytest's exit status."""
    if not IS_X86:
        sys.stdout.write(
            f"Nothing to hold back on {platform.machine()}: this run is about x86.\n"
        )
        return 0
    held = {**os.environ, **ASKED, "NPY_DISABLE_CPU_FEATURES": " ".join(dispatched())}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "numeric", *words], env=held, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
