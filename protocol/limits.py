"""Numbers that both sides of a boundary go by: gateway and workers, configuration and workers."""

from __future__ import annotations

# ---- messages ------------------------------------------------------------------------------------

#: So many messages for one peer leave at once, not only at the end of a turn or batch: it begins, or answers, while the
#: rest is read or encoded.
TOGETHER = 8
#: Largest message between gateway and fork server; their socket keeps message boundaries (SOCK_SEQPACKET).
MAX_FORK_MESSAGE = 1 << 18
#: Requests that a worker may hold at once, whatever it says.
MAX_CREDITS = 4096
#: Bytes of an answer, unless the gateway says otherwise.
MAX_ANSWER = 1 << 30
#: Characters of the message of an error.
MAX_ERROR = 10_000
#: An argument that does nothing: the command line's length is the room for a process's title.
TITLE_ROOM = "-" * 200

#: Bytes of a stream that a worker sends before its client has taken them; then it waits.
MAX_BEHIND = 16 << 20

#: Modules that a fork server is asked to import because workers did, characters of a name, and of all: one message.
MAX_MODULES, MAX_MODULE_NAME, MAX_MODULE_NAMES = 3000, 200, 150_000

# ---- batches -------------------------------------------------------------------------------------

#: Rows of a batch at most, unless the entry says otherwise.
BATCH_ROWS = 64
#: A batch takes no more once its requests are so many bytes, decoded inputs included: those that come first would wait
#: until the last is decoded, and all of them take up memory together (32 x 4 MB of JSON: 10/s, one by one 12/s).
BATCH_BYTES = 32 << 20

# ---- bodies --------------------------------------------------------------------------------------

#: Bytes that a compressed body may become, unless the gateway says otherwise.
MAX_INFLATED = 256 << 20
#: What a compressed body becomes in any case, and beyond that, in multiples of its own size: zeros reach a thousand.
INFLATED_ANYHOW, INFLATE_RATIO = 16 << 20, 100
#: Of an inflated body; one with more commas than that allows is larger in memory than anything that is sent as it is.
BYTES_PER_ELEMENT = 8
#: Columns of a table; its cells (rows times columns) in any case, and beyond that in multiples of the values sent.
MAX_COLUMNS, FULL_CELLS, SPARSE = 100_000, 4_000_000, 16
#: Pixels of one image, unless the entry says otherwise: a photograph has 12 to 50 million.
MAX_PIXELS = 64_000_000
#: Dots per inch and pages of a PDF, unless the entry says otherwise.
PDF_DPI, PDF_PAGES = 200, 100
