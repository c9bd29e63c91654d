"""The schema of podwire.db, and the check that a file is a sound database of that schema.

Tables: `allocation` has the owner of each address; `freed` is the queue of addresses that were
allocated once, in the order (`seq`) in which they may be handed out again; `pool` has, for a range
of a network, the first address that was never handed out (`next`, NULL when there is none);
`attachment` and `network` have the main plugin's records. Allocations and freed addresses name
the pool whose cursor passed them (0: none yet), so that a pool finds its longest-freed address
by index.
"""

from __future__ import annotations

import sqlite3

APPLICATION_ID = 0x70_77_69_72
"""`pwir`, in the header of the file (file(1) shows it)."""

VERSION = 1
"""The newest schema that this code knows, in the header as user_version."""

# Statements stand apart by a blank line. `executescript` would commit the caller's transaction.
TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE attachment (
    network TEXT NOT NULL,
    container_id TEXT NOT NULL,
    ifname TEXT NOT NULL,
    record TEXT NOT NULL,
    boot_id TEXT NOT NULL,
    PRIMARY KEY (network, container_id, ifname)
) STRICT, WITHOUT ROWID;

CREATE TABLE network (
    network TEXT PRIMARY KEY,
    record TEXT NOT NULL,
    boot_id TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE allocation (
    network TEXT NOT NULL,
    address BLOB NOT NULL CHECK (length(address) IN (5, 17)),
    container_id TEXT NOT NULL,
    ifname TEXT NOT NULL,
    pool INTEGER NOT NULL,
    created_at REAL NOT NULL,
    boot_id TEXT NOT NULL,
    PRIMARY KEY (network, address)
) STRICT, WITHOUT ROWID;

CREATE INDEX allocation_owner ON allocation (network, container_id, ifname);

CREATE TABLE freed (
    seq INTEGER PRIMARY KEY,
    network TEXT NOT NULL,
    address BLOB NOT NULL CHECK (length(address) IN (5, 17)),
    pool INTEGER NOT NULL,
    freed_at REAL NOT NULL,
    boot_id TEXT NOT NULL,
    UNIQUE (network, address)
) STRICT;

CREATE INDEX freed_queue ON freed (pool, seq);

CREATE TABLE pool (
    id INTEGER PRIMARY KEY,
    network TEXT NOT NULL,
    first BLOB NOT NULL,
    last BLOB NOT NULL,
    next BLOB,
    freed INTEGER NOT NULL DEFAULT 0,
    UNIQUE (network, first, last)
) STRICT;

CREATE TRIGGER freed_in AFTER INSERT ON freed BEGIN
    UPDATE pool SET freed = freed + 1 WHERE id = NEW.pool;
END;

CREATE TRIGGER freed_out AFTER DELETE ON freed BEGIN
    UPDATE pool SET freed = freed - 1 WHERE id = OLD.pool;
END;

CREATE TRIGGER freed_moved AFTER UPDATE OF pool ON freed BEGIN
    UPDATE pool SET freed = freed - 1 WHERE id = OLD.pool;
    UPDATE pool SET freed = freed + 1 WHERE id = NEW.pool;
END;
"""


def create(connection: sqlite3.Connection, boot_id: str) -> None:
    """Create the tables in an empty database, inside the caller's transaction."""
    for statement in TABLES.split("\n\n"):
        connection.execute(statement)
    connection.execute("INSERT INTO meta VALUES ('boot_id', ?)", (boot_id,))
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")


def read_header(connection: sqlite3.Connection) -> tuple[int, int]:
    """The application ID and the schema version of the file."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return application, version
