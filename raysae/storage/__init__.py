"""Storage: a directory or a prefix in a bucket, where files appear whole or not at all.

`open_storage(uri)` gives the root as a `Directory`, through which everything is read and written;
docs/storage.md is the contract.
"""

from raysae.storage.backend import Backend, Entry, Upload
from raysae.storage.directory import Directory
from raysae.storage.documents import as_number, parse_json, read_json, to_json
from raysae.storage.opening import FORMAT_VERSION, MARKER, check_format, open_storage, storage_at
from raysae.storage.scratch import finished_or_gone, link_or_copy
from raysae.storage.temporaries import TEMPORARY_PREFIX, is_temporary, writer_is_dead
from raysae.storage.uris import check_name

__all__ = [
    "FORMAT_VERSION",
    "MARKER",
    "TEMPORARY_PREFIX",
    "Backend",
    "Directory",
    "Entry",
    "Upload",
    "as_number",
    "check_format",
    "check_name",
    "finished_or_gone",
    "is_temporary",
    "link_or_copy",
    "open_storage",
    "parse_json",
    "read_json",
    "storage_at",
    "to_json",
    "writer_is_dead",
]
