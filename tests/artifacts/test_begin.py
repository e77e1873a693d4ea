"""That a run which goes on with what another one left says so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from raysae.artifacts import SPEC_FILE, Artifact, ArtifactSpec
from raysae.errors import DataError
from raysae.storage import open_storage


def test_who_begins_again_touches_the_specification(tmp_path: Path) -> None:
    artifact = Artifact(open_storage(str(tmp_path)), ArtifactSpec("things", 1, {}))
    artifact.begin(3)
    path = tmp_path / artifact.name / SPEC_FILE
    content = path.read_bytes()
    os.utime(path, (1, 1))
    artifact.begin(3)
    assert path.stat().st_mtime > 1
    assert path.read_bytes() == content


def test_another_specification_stays_as_it_is(tmp_path: Path) -> None:
    artifact = Artifact(open_storage(str(tmp_path)), ArtifactSpec("things", 1, {}))
    artifact.directory.put_json(SPEC_FILE, {"spec": "another"})
    with pytest.raises(DataError, match="other settings"):
        artifact.begin()
    assert artifact.directory.read_json(SPEC_FILE) == {"spec": "another"}
