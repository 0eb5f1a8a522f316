"""What `import crack_md` promises: few names, no side effects, a light install."""

import subprocess
import sys
from pathlib import Path

import pytest

import crack_md
from crack_md.errors import CrackError

# Packages of the extras: without them everything except training has to import.
OPTIONAL = [
    "ase_db_backends",
    "fairchem",
    "jax",
    "lightning_fabric",
    "lmdb",
    "nequix",
    "nvalchemiops",
    "phonopy",
    "ray",
    "seekpath",
]


ENGINES = ("crack_md.calculators.metatomic", "crack_md.calculators.torchsim")
"""Modules of engines that they import as a whole: their classes stand for them."""


def run_python(code: str) -> str:
    """Return what a fresh interpreter prints; it fails with the code's traceback."""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_public_names():
    from crack_md.calculators import CrackCalculator
    from crack_md.models.checkpoint import load_model

    assert crack_md.CrackCalculator is CrackCalculator
    assert crack_md.load_model is load_model
    assert crack_md.CrackError is CrackError
    for name in crack_md.__all__:
        assert getattr(crack_md, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Crack'"):
        _ = crack_md.Crack


def test_package_is_typed():
    assert (Path(crack_md.__file__).parent / "py.typed").is_file()


def test_importing_the_package_leaves_torch_alone():
    assert (
        run_python("import sys, crack_md; print('torch' in sys.modules)") == "False\n"
    )


def test_workflows_load_no_torch():
    """ASE and NumPy are enough to screen, relax, move and sample with any potential."""
    loaded = run_python("""
import importlib, pkgutil, sys
import crack_md.workflows
for module in pkgutil.walk_packages(crack_md.workflows.__path__, "crack_md.workflows."):
    importlib.import_module(module.name)
print("torch" in sys.modules)
""")
    assert loaded == "False\n"


def test_core_install_is_enough_to_import_all_but_training():
    run_python(f"""
import importlib, pkgutil, sys
for name in {OPTIONAL}:
    sys.modules[name] = None  # importing it raises ImportError
import crack_md
for module in pkgutil.walk_packages(crack_md.__path__, "crack_md."):
    if not module.name.startswith(("crack_md.training", "crack_md.study", *{ENGINES})):
        importlib.import_module(module.name)
""")


def test_importing_every_module_changes_no_global_state():
    changed = run_python(
        f"ENGINES = {ENGINES}"
        + """
import importlib, pkgutil, torch, numpy
def state():
    return {
        "dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "gradients": torch.is_grad_enabled(),
        "matmul": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "torch random": torch.get_rng_state().tolist(),
        "numpy random": numpy.random.get_state()[1].tolist(),
        "numpy errors": numpy.geterr(),
    }
before = state()
import crack_md
for module in pkgutil.walk_packages(crack_md.__path__, "crack_md."):
    if module.name not in ENGINES:
        importlib.import_module(module.name)
after = state()
print([name for name in before if before[name] != after[name]])
"""
    )
    assert changed == "[]\n"
