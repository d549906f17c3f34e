"""Releases: one version of the corpus, verified, described, kept, and checkable without this package."""

from selfplay.store.release.job import FILES, Released, refuse_taken, release, released

__all__ = ["FILES", "Released", "refuse_taken", "release", "released"]
