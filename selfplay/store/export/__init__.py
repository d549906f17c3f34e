"""The corpus in the formats of other people's tools: `selfplay corpus export FORMAT CORPUS DEST`.

One format is one module; each is proved by loading it with the tool that its readers use. What an export holds depends
on the episodes alone, not on how their files lie: the same version, filter and packages give the same bytes.
"""

from selfplay.store.export.formats import FORMATS, find
from selfplay.store.export.job import Format
from selfplay.store.export.run import Exported, export

__all__ = ["FORMATS", "Exported", "Format", "export", "find"]
