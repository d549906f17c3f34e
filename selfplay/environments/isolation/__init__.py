"""An author's code in processes of its own, with limits: an answer that hangs or kills one harms no other.

A fork server beside this process (`isolation.server`) loads the task once. What reads text that a model wrote,
`verify` and `respond`, runs for each transcript in a copy of the server, which is confined, answers one question, and
is gone; so whatever an answer did to it is gone too. What reads no such text, `sample`, `prompt`, `gold`, `solve` and
`play`, runs in one copy that lives on, the worker, with the same limits. All have a time limit. What author's code
prints goes nowhere.

The channel is the proof of an answer. For each question the owner (`isolation.host`) makes a socket pair, and
the copy holds its end of that pair and nothing else: no other copy, and not the server, can write to it, and a socket,
unlike a pipe, cannot be opened again through /proc. An answer counts only if the copy wrote exactly one well-formed
JSON value of bounded size, closed its end, and ended with exit status 0; everything else is no verdict. The processes
exchange JSON, nothing that could carry code, and what a copy says is parsed strictly and checked like any verdict.

What remains possible: text that takes over `verify` or `respond` runs as that function, and can lie about its own
transcript. It can read what its copy holds: the task's source, the question, and so the problem's data, with a right
answer where the author keeps one there. It cannot tell anyone but in that one answer, and it ends with the copy. So
verifiers parse, and never evaluate.
"""

from __future__ import annotations

from selfplay.environments.isolation.host import GRACE_S, Host

__all__ = ["GRACE_S", "Host"]
