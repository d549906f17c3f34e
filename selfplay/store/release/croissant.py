"""croissant.json: the release in the vocabulary of MLCommons Croissant 1.1, for indexes and loaders of data sets.

Every data file is named with its sha256: a pattern of names would find the files of other versions, too.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pyarrow as pa

from selfplay.episode.schema import EPISODES, PARTITION_BY
from selfplay.store.release.certificate import Facts
from selfplay.store.release.markdown import plain
from selfplay.store.release.schema_md import comment

#: The context that Croissant 1.1 prescribes; parsers compare it.
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_TYPES = {
    pa.string(): "sc:Text",
    pa.bool_(): "sc:Boolean",
    pa.int8(): "cr:Int8",
    pa.int32(): "cr:Int32",
    pa.int64(): "cr:Int64",
    pa.float32(): "cr:Float32",
    pa.float64(): "cr:Float64",
}
_FILES = "data-files"
#: Loaders read a set of files out of a folder only if the folder is declared as a repository.
_FOLDER = "corpus"


def croissant(facts: Facts) -> dict[str, Any]:
    """The JSON-LD. Paths are relative to the folder of the release; dates are those of the released version."""
    date = facts.committed_at.isoformat()
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": facts.name,
        "description": plain(description(facts)),
        "version": f"{facts.table_version}.0.0",
        "license": [f"https://spdx.org/licenses/{quote(licence, safe='+')}.html" for licence in facts.licences],
        "creator": {"@type": "sc:Organization", "name": "selfplay-factory"},
        "dateCreated": date,
        "datePublished": date,
        "dateModified": date,
        "isLiveDataset": False,
        "citeAs": f"{facts.name}: {facts.episodes} episodes, content digest sha256:{facts.content_digest}",
        "distribution": _distribution(facts),
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "episodes",
                "name": "episodes",
                "description": "One row an episode; all nested columns are described in SCHEMA.md.",
                "key": {"@id": "episodes/episode_id"},
                "field": [_field(column) for column in EPISODES],
            }
        ],
    }


def description(facts: Facts) -> str:
    """One paragraph."""
    environments = ", ".join(str(row["value"]) for row in facts.counts["env_id"])
    return (
        f"{facts.episodes:,} archived episodes ({facts.steps:,} steps) of {environments}, failures included, each with "
        f"its searches, its policies and its provenance. Version {facts.table_version} of a Delta Lake table."
    )


def _distribution(facts: Facts) -> list[dict[str, Any]]:
    files = [
        {
            "@type": "cr:FileObject",
            "@id": file["path"],
            "name": file["path"],
            "contentUrl": f"../../episodes/{file['path']}",
            "contentSize": f"{file['size']} B",
            "encodingFormat": "application/x-parquet",
            "sha256": file["sha256"],
        }
        for file in facts.files
    ]
    folder = {
        "@type": "cr:FileObject",
        "@id": _FOLDER,
        "name": _FOLDER,
        "description": "The folder of the corpus, or a clone of it; the digest is `files_digest` of certificate.json.",
        "contentUrl": "../../",
        "encodingFormat": "git+https",
        "sha256": facts.files_digest,
    }
    together = {
        "@type": "cr:FileSet",
        "@id": _FILES,
        "name": _FILES,
        "description": "All data files of this version of the episodes table, each by its name.",
        "containedIn": {"@id": _FOLDER},
        "encodingFormat": "application/x-parquet",
        "includes": [f"episodes/{file['path']}" for file in facts.files],
    }
    return [folder, *files, together]


def _field(column: pa.Field) -> dict[str, Any]:
    """A column; of a struct, or a list of structs, the fields that are plain values or lists of them."""
    source: dict[str, Any] = {"fileSet": {"@id": _FILES}, "extract": {"column": column.name}}
    if column.name in PARTITION_BY:
        source["extract"] = {"fileProperty": "fullpath"}
        source["transform"] = {"regex": f".*{column.name}=([^/]+)/.*"}
    name = f"episodes/{column.name}"
    inner = column.type.value_type if pa.types.is_list(column.type) else column.type
    if not pa.types.is_struct(inner):
        return _leaf(name, column, source)
    parts = [
        _leaf(f"{name}/{part.name}", part, {**source, "transform": {"jsonPath": f"$.{part.name}"}})
        for part in inner
        if _type(part.type) is not None
    ]
    repeated = {"isArray": True, "arrayShape": "-1"} if pa.types.is_list(column.type) else {}
    head = {"@type": "cr:Field", "@id": name, "name": column.name, "description": comment(column)}
    return {**head, **repeated, "subField": parts}


def _leaf(name: str, field: pa.Field, source: dict[str, Any]) -> dict[str, Any]:
    described = {"@type": "cr:Field", "@id": name, "name": field.name, "description": comment(field)}
    if pa.types.is_list(field.type):
        described |= {"isArray": True, "arrayShape": "-1"}
    return {**described, "dataType": _type(field.type), "source": source}


def _type(kind: pa.DataType) -> str | None:
    """Croissant's name of a type, or of the elements of a list; None for what holds more than values."""
    if pa.types.is_timestamp(kind):
        return "sc:DateTime"
    return _TYPES.get(kind.value_type if pa.types.is_list(kind) else kind)
