"""Run by every Python process with this directory on PYTHONPATH: see `tests.cluster.crashing`.

Nothing of raysae is imported before its own importer does it: most processes of a Ray head never
need it.
"""

from __future__ import annotations

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

PATCHES = {
    "raysae.corpora.sources": "register",
    "raysae.models.llava_next_model": "make_prepare_deadly",
    "raysae.stages._trials": "make_impatient",
}


class _Patching(Loader):
    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        from tests.cluster.crashing import deaths

        getattr(deaths, PATCHES[module.__name__])(module)


class _Finder(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name not in PATCHES:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None:
            spec.loader = _Patching(spec.loader)
        return spec


sys.meta_path.insert(0, _Finder())
