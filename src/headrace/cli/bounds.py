"""How far the numbers of options go: no farther than the control API and the databases take them. No imports."""

#: What the control API and the databases count versions with.
LAST_VERSION = 2**31 - 1
#: So many entries, events or rows are shown at once.
MOST_ENTRIES = 10_000
LAST_PORT = 65_535
