"""`fastmlp playground`: a page in the browser on which a small network trains while its settings change.

Reading order: data.py (the data sets, and what the network reads of a point), table.py (two columns of a file in place
of them), settings.py (what the page sets: a table of fields, each with what it may be), session.py (a network in
training, and what there is to see of it), code.py (the same fit as a program), frames.py (what the page gets: binary
frames), conversation.py (a page's messages and their answers), server.py (HTTP and WebSocket, by Starlette and
uvicorn).

No file but server.py knows of the web.  The page itself is in static/: HTML, CSS and ES modules without a build step.

:func:`make_data` and :func:`read_table` are what the page's programs call.
"""

from fastmlp.playground.data import make_data
from fastmlp.playground.table import read_table

__all__ = ["make_data", "read_table"]
