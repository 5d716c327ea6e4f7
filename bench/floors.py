"""Build floors.pyx beside nothing of the checkout, and import it."""

import hashlib
import importlib.util
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from types import ModuleType

__all__ = ["load"]

SETUP = """
import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
floors = Extension(
    "floors",
    ["floors.pyx"],
    include_dirs=[numpy.get_include()],
    define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_25_API_VERSION")],
    extra_compile_args=["-O3"],
)
setup(ext_modules=cythonize([floors]))
"""


def load() -> ModuleType:
    """The compiled module; built once for each interpreter and text of the source."""
    source = Path(__file__).with_suffix(".pyx").read_text()
    key = hashlib.sha256((source + sys.version).encode()).hexdigest()[:12]
    folder = Path(tempfile.gettempdir(), f"ctxpool-floors-{os.getuid()}-{key}")
    built = folder / ("floors" + sysconfig.get_config_var("EXT_SUFFIX"))
    if not built.is_file():
        folder.mkdir(mode=0o700, exist_ok=True)
        (folder / "floors.pyx").write_text(source)
        (folder / "setup.py").write_text(SETUP)
        command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"the floors could not be built:\n{done.stderr}")
    spec = importlib.util.spec_from_file_location("floors", built)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
