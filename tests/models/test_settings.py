from __future__ import annotations

from dataclasses import fields

from raysae.models.settings import ModelSettings


def test_every_setting_is_documented() -> None:
    names = [field.name for field in fields(ModelSettings)]
    assert len(names) <= 15
    assert all(f"        {name}: " in (ModelSettings.__doc__ or "") for name in names)
