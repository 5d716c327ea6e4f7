"""Where the C headers are."""

from pathlib import Path

__all__ = ["get_include"]


def get_include() -> str:
    """The folder to give to a C compiler as ``-I`` for ``<ctxpool/block_pool.h>``.

    The headers are plain C11 and need nothing else of ctxpool. Cython code that
    writes ``from ctxpool._native.block_pool cimport BlockPool`` needs the folder
    too, and :func:`numpy.get_include`.

    Raises
    ------
    FileNotFoundError
        The installation has lost its headers.

    Examples
    --------
    >>> import os.path
    >>> os.path.isfile(os.path.join(get_include(), "ctxpool", "block_pool.h"))
    True
    """
    package = Path(__file__).resolve().parent
    # Installed; or an editable install, which leaves them in the checkout.
    for folder in (package / "include", package.parents[1] / "csrc" / "include"):
        if (folder / "ctxpool" / "block_pool.h").is_file():
            return str(folder)
    raise FileNotFoundError(
        f"no C headers beside {package}: reinstall ctxpool to get them back"
    )
