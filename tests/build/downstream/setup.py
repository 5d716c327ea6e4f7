import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup

import ctxpool

setup(
    name="downstream",
    ext_modules=cythonize(
        [
            Extension(
                "downstream",
                ["downstream.pyx"],
                include_dirs=[ctxpool.get_include(), numpy.get_include()],
                extra_compile_args=["-O2"],
            )
        ]
    ),
)
