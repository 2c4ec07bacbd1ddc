-- The schema exists already, and so does its table of migrations, which is made before the first of them runs.

COMMENT ON TABLE tablecast.migrations IS
    'Which versions of this schema were applied, and when. Written by `tablecast migrate` alone.';

CREATE TABLE tablecast.backfills (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    connector      text NOT NULL,
    schema_name    text NOT NULL,
    table_name     text NOT NULL,
    "where"        text,
    state          text NOT NULL DEFAULT 'requested'
                   CHECK (state IN ('requested', 'running', 'done', 'failed', 'cancelled')),
    cancel         boolean NOT NULL DEFAULT false,
    requested_at   timestamptz NOT NULL DEFAULT now(),
    requested_by   text NOT NULL DEFAULT session_user,
    started_at     timestamptz,
    updated_at     timestamptz,
    finished_at    timestamptz,
    rows_written   bigint NOT NULL DEFAULT 0,
    bytes_read     bigint NOT NULL DEFAULT 0,
    bytes_total    bigint,
    rows_estimated bigint,
    error          text,
    remedy         text
);

-- The daemon looks for open ones every few seconds; those that have ended pile up and are never read again.
CREATE INDEX backfills_open ON tablecast.backfills (connector, id) WHERE state IN ('requested', 'running');

COMMENT ON TABLE tablecast.backfills IS
    'Tables that tablecast was asked to read again, one row each. `tablecast backfill` asks, and the daemon of the '
    'connector does it. What it goes by is in Kafka; this is for people to look at, and rows that have ended may be '
    'deleted.';
COMMENT ON INDEX tablecast.backfills_open IS
    'What the daemon looks for: what a connector has still to do.';
COMMENT ON COLUMN tablecast.backfills.id IS
    'Names the request; a connector takes them up in this order.';
COMMENT ON COLUMN tablecast.backfills.connector IS
    'The connector, as the daemon''s configuration names it.';
COMMENT ON COLUMN tablecast.backfills.schema_name IS
    'The schema of the table, as the catalog has it: not quoted.';
COMMENT ON COLUMN tablecast.backfills.table_name IS
    'The table, as the catalog has it: not quoted.';
COMMENT ON COLUMN tablecast.backfills."where" IS
    'An SQL condition: only rows that it holds for are read. Null: all rows.';
COMMENT ON COLUMN tablecast.backfills.state IS
    'requested: no daemon has taken it up. running: its rows are being written. done, failed, cancelled: it has ended.';
COMMENT ON COLUMN tablecast.backfills.cancel IS
    'Somebody wants it to end. The daemon sets the state to cancelled when it has.';
COMMENT ON COLUMN tablecast.backfills.requested_at IS
    'When it was asked for.';
COMMENT ON COLUMN tablecast.backfills.requested_by IS
    'The login that asked for it.';
COMMENT ON COLUMN tablecast.backfills.started_at IS
    'When a daemon took it up first.';
COMMENT ON COLUMN tablecast.backfills.updated_at IS
    'When a daemon wrote to this row last.';
COMMENT ON COLUMN tablecast.backfills.finished_at IS
    'When it ended, in whatever way.';
COMMENT ON COLUMN tablecast.backfills.rows_written IS
    'How many of the table''s rows are in the topic. Rows that changed meanwhile come by the stream and do not count.';
COMMENT ON COLUMN tablecast.backfills.bytes_read IS
    'How much of the table has been read, of bytes_total.';
COMMENT ON COLUMN tablecast.backfills.bytes_total IS
    'The size of the table when it was begun. Null: not known yet.';
COMMENT ON COLUMN tablecast.backfills.rows_estimated IS
    'How many rows the statistics say there are. Null: not known.';
COMMENT ON COLUMN tablecast.backfills.error IS
    'Why it failed.';
COMMENT ON COLUMN tablecast.backfills.remedy IS
    'What to do about it.';
