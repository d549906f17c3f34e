"""A factory for verified self-play data: the contracts; playing, generating, archiving."""

from selfplay._version import VERSION as __version__

__all__ = ["__version__"]
