-- Version 2: notes, the outbox of webhooks, and who asks for a forgotten job hears that it was there.
ALTER TABLE job ADD COLUMN note TEXT NOT NULL DEFAULT '';

-- Ends that somebody wants to hear of. endings: bit n for state n. state, ended and due are of a job that has ended.
CREATE TABLE hook (
    job TEXT NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL,
    url TEXT NOT NULL,
    endings INTEGER NOT NULL,
    state INTEGER,
    ended INTEGER,
    due INTEGER,
    attempts INTEGER NOT NULL DEFAULT 0,
    taken INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX hook_due ON hook (due, job) WHERE due IS NOT NULL;
CREATE TRIGGER job_is_told AFTER UPDATE OF state ON job WHEN OLD.state < 2 AND NEW.state >= 2 BEGIN
    DELETE FROM hook WHERE job = NEW.id AND ((endings >> NEW.state) & 1) = 0;
    UPDATE hook SET state = NEW.state, ended = NEW.ended, due = NEW.ended WHERE job = NEW.id;
END;

CREATE TABLE departed (seq INTEGER PRIMARY KEY, id TEXT NOT NULL, tenant TEXT NOT NULL, name TEXT) STRICT;
CREATE INDEX departed_id ON departed (tenant, id);
CREATE INDEX departed_name ON departed (tenant, name) WHERE name IS NOT NULL;
