"""Storages for the tests of artifacts: see tests/storage/conftest.py."""

from tests.storage.conftest import node_cache, s3_server, storage_root, storage_uri

__all__ = ["node_cache", "s3_server", "storage_root", "storage_uri"]
