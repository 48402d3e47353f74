"""Names of priors: ours, and those of packages that are installed, which are looked for once."""

from __future__ import annotations

from importlib import metadata

from pretrain import names
from pretrain.names import prior_names


def test_installed_packages_are_read_once_and_again_where_the_path_has_changed(tmp_path, monkeypatch):
    looked, real = [], metadata.entry_points

    def entry_points(**options):
        looked.append(options)
        return real(**options)

    names._others.cache_clear()
    monkeypatch.setattr(metadata, "entry_points", entry_points)
    ours = prior_names()
    assert prior_names() == ours
    assert set(ours) >= {"audio-expression", "expression-visual", "sync-expert"}
    assert looked == [{"group": names.GROUP}]

    info = tmp_path / "site" / "waves-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: waves\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{names.GROUP}]\nwaves = waves:Waves\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert prior_names() == (*ours, "waves")
