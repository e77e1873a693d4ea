from __future__ import annotations

import platform

import pytest

from raysae.artifacts import package_versions, versions


def test_versions_of_what_the_numbers_depend_on() -> None:
    found = package_versions()
    assert set(found) == {"python", *versions.PACKAGES}
    assert found["python"] == platform.python_version()
    assert found["torch"] != "not installed"
    assert found == package_versions()


def test_a_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "PACKAGES", ("no-such-package",))
    assert package_versions()["no-such-package"] == "not installed"
