"""Releases: one version of the corpus, verified, described, kept, and checkable without this package."""

from selfplay.store.release.job import FILES, Released, refuse_taken, release, released
from selfplay.store.release.redacted import refuse_full, release_redacted

__all__ = ["FILES", "Released", "refuse_full", "refuse_taken", "release", "release_redacted", "released"]
