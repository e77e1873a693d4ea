"""Artifacts: ids, shards, done marks, metadata, and the score table, on any storage.

docs/storage.md lays down what is written here. Nothing in this package knows what an artifact
holds.
"""

from raysae.artifacts.appending import APPENDING_BYTES
from raysae.artifacts.artifact import (
    METADATA_FILE,
    OUTCOME_FILE,
    SPEC_FILE,
    WORK,
    Artifact,
    ArtifactSpec,
    Missing,
)
from raysae.artifacts.attempts import ATTEMPTS, Attempts
from raysae.artifacts.fetching import fetched_whole
from raysae.artifacts.files import (
    CHECKSUM,
    FileRecord,
    Publication,
    all_there,
    publish_bytes,
    publish_file,
    records_from_json,
    records_to_json,
)
from raysae.artifacts.ids import content_id, file_sha256
from raysae.artifacts.manifest_file import MANIFEST_SCHEMA, LiveGroup, Manifest
from raysae.artifacts.manifests import Manifests
from raysae.artifacts.marks import MARK_SUFFIX, Mark, ShardState
from raysae.artifacts.row_groups import SCORE_SCHEMA, RowGroup
from raysae.artifacts.score_files import MissingGroups
from raysae.artifacts.score_table import ScoreTable
from raysae.artifacts.shards import ShardPlan, ShardSpec, rows_per_shard
from raysae.artifacts.uses import using
from raysae.artifacts.versions import package_versions

__all__ = [
    "APPENDING_BYTES",
    "ATTEMPTS",
    "CHECKSUM",
    "MANIFEST_SCHEMA",
    "MARK_SUFFIX",
    "METADATA_FILE",
    "OUTCOME_FILE",
    "SCORE_SCHEMA",
    "SPEC_FILE",
    "WORK",
    "Artifact",
    "ArtifactSpec",
    "Attempts",
    "FileRecord",
    "LiveGroup",
    "Manifest",
    "Manifests",
    "Mark",
    "Missing",
    "MissingGroups",
    "Publication",
    "RowGroup",
    "ScoreTable",
    "ShardPlan",
    "ShardSpec",
    "ShardState",
    "all_there",
    "content_id",
    "fetched_whole",
    "file_sha256",
    "package_versions",
    "publish_bytes",
    "publish_file",
    "records_from_json",
    "records_to_json",
    "rows_per_shard",
    "using",
]
